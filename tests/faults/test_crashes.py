"""Publishers, consumers and the server killed at random: nothing committed is lost.

Every handler writes what it got in the transaction in which it acknowledges, so that the database
itself says at the end what was handled, and that nothing was twice.
DURABLE_NOTIFY_SEED repeats a run's decisions, DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from durable_notify import schema
from durable_notify.embedded import Server
from tests.faults.auditor import audit_handled
from tests.faults.chance import SEED, seconds
from tests.programs import publisher
from tests.programs.consumer import Process
from tests.support.observe import LISTENER, backends, outstanding
from tests.support.wait import eventually

SECONDS = seconds(10)
HALVES = ["sync", "async"]


class Processes:
    """Processes that are killed and started again, and what they said."""

    def __init__(self, dsn: str, rng: random.Random) -> None:
        self.dsn = dsn
        self.random = rng
        self.started = 0
        self.members: dict[str, Process] = {}
        self.said: list[dict[str, Any]] = []

    def start(self, role: str) -> None:
        self.started += 1
        half = HALVES[self.started % 2]
        module = {"p": "tests.programs.publisher", "c": "tests.programs.consumer"}[role[0]]
        arguments = {
            "p": [f"{SEED}/{self.started}", str(self.started * 1_000_000)],
            "c": ["records", "--lease", "1", "--concurrency", "3", "--group", role.split()[1]],
        }[role[0]]
        command = [sys.executable, "-m", module, half, self.dsn, *arguments]
        self.members[role] = Process(command)

    def revive(self, role: str) -> None:
        """Start it again where it was killed, or had found no server when it started."""
        if role in self.members and self.members[role].has_ended():
            self.kill(role)
        if role not in self.members:
            self.start(role)

    def kill(self, role: str) -> None:
        process = self.members.pop(role)
        process.close()
        self.said += process.handled_in_all

    def stop(self, role: str) -> None:
        process = self.members[role]
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
        self.kill(role)


@contextmanager
def killed_at_the_end(dsn: str, rng: random.Random) -> Iterator[Processes]:
    processes = Processes(dsn, rng)
    try:
        yield processes
    finally:
        for role in list(processes.members):
            processes.kill(role)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
def test_every_process_crashes(private_server: Server) -> None:
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    rng = random.Random(SEED)
    dsn = private_server.dsn()
    schema.migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(publisher.DDL.encode())
        conn.execute("CREATE TABLE handled (grp text, message_id bigint, attempt int)")
    publishers = ["p 1", "p 2"]
    consumers = ["c g 1", "c g 2", "c h 1"]
    restarts = sorted(rng.uniform(0.2, 0.8) * SECONDS for _ in range(2))
    with ExitStack() as stack:
        processes = stack.enter_context(killed_at_the_end(dsn, rng))
        for role in publishers + consumers:
            processes.start(role)
        began = time.monotonic()
        while (now := time.monotonic() - began) < SECONDS:
            time.sleep(rng.uniform(0.2, 0.9))
            if restarts and now > restarts[0]:
                restarts.pop(0)
                private_server.kill()
                time.sleep(rng.uniform(0.0, 0.3))
                private_server.start()
            role = rng.choice(publishers + consumers)
            if processes.members[role].has_spoken():  # it runs by now, and is not still starting
                processes.kill(role)
            processes.revive(role)
        for role in publishers:
            processes.kill(role)
        for role in consumers:
            processes.revive(role)
        with psycopg.connect(dsn, autocommit=True) as conn:
            eventually(lambda: outstanding(conn) == 0, 60)
            # The one started last may still be starting.
            eventually(lambda: len(backends(conn, LISTENER)) == len(consumers))
            for role in consumers:
                processes.stop(role)
            judge(conn, processes)
        audit_handled(dsn, {group: business_ids(dsn) for group in ("g", "h")})


def business_ids(dsn: str) -> set[int]:
    with psycopg.connect(dsn) as conn:
        return {message_id for (message_id,) in conn.execute("SELECT message_id FROM business")}


def judge(conn: psycopg.Connection[Any], processes: Processes) -> None:
    said: dict[str, set[int]] = {"committed": set(), "rolled back": set(), "unknown": set()}
    for line in processes.said:
        if "what" in line:
            said[line["what"]] |= set(line["numbers"])
    rows = conn.execute("SELECT number, message_id FROM business").fetchall()
    business = dict(rows)
    # What the database says has committed; it also resolves the unknown outcomes.
    assert said["committed"] <= business.keys()
    assert not said["rolled back"] & business.keys()
    outbox = dict(conn.execute("SELECT (payload #>> '{}')::bigint, id FROM durable_notify.outbox"))
    assert outbox == business
    handled = conn.execute("SELECT grp, message_id, attempt FROM handled").fetchall()
    for group in ("g", "h"):
        of_group = [message_id for grp, message_id, _ in handled if grp == group]
        lost = set(business.values()) - set(of_group)
        assert not lost, f"{len(lost)} of {len(business)} lost by {group}"
        assert set(of_group) <= set(business.values()), "handled and never committed"
        assert len(of_group) == len(set(of_group)), "twice in effect"
    again = sum(attempt > 1 for _, _, attempt in handled)
    print(
        f"{len(business)} committed, {len(said['rolled back'])} rolled back, "
        f"{len(said['unknown'])} unknown; {processes.started} processes, {again} delivered again"
    )
    assert said["committed"]
    assert said["rolled back"]
