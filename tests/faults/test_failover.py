"""A streaming standby is promoted, the old primary is gone; no process is restarted.

Publishers and consumers are processes with a DSN of both hosts. Asserted, after a full drain:

- every one of them is still the process it was, and works on the new primary;
- every transaction whose commit the standby had replayed is there, and its messages were handled
  once by each group (asynchronous replication); every confirmed one (synchronous);
- the outbox has exactly the messages of the transactions that are there, so that an id whose first
  message was lost with the old primary, and which was handled there, stands for a new message,
  handled in its own right.

DURABLE_NOTIFY_SEED repeats a run's decisions, DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from durable_notify import schema
from durable_notify.embedded import Server
from tests.faults.chance import SEED, seconds
from tests.programs import publisher
from tests.programs.consumer import Process
from tests.support.clusters import (
    REPLICATING,
    Clusters,
    caught_up,
    clusters,
    connect,
    cut_off,
    lsn,
    promote,
    several_hosts,
)
from tests.support.observe import outstanding
from tests.support.wait import eventually

pytestmark = pytest.mark.server

SECONDS = seconds(3)
GROUPS = ("g", "h")
BEYOND = 80
"""How many messages the old primary confirms alone. A sequence's WAL is 32 numbers ahead of it:
past them ids are used again."""


@pytest.fixture
def servers() -> Iterator[Clusters]:
    with clusters() as them:
        yield them


@dataclass
class Ledger:
    """What publishers and the new primary say."""

    confirmed: dict[int, int | None] = field(default_factory=dict)
    """By number: a WAL position that its commit is not past; None: unknown."""
    rolled_back: set[int] = field(default_factory=set)
    handled_before: Counter[int] = field(default_factory=Counter)
    """Message ids whose handlers began on the old primary."""
    end: int = 0
    """The end of what the standby had replayed when it was promoted."""
    business: dict[int, int] = field(default_factory=dict)
    outbox: dict[int, int] = field(default_factory=dict)
    handled: list[tuple[str, int]] = field(default_factory=list)

    def lost(self) -> set[int]:
        """Confirmed, and not there."""
        return self.confirmed.keys() - self.business.keys()


def faults(ledger: Ledger, *, synchronous: bool) -> list[str]:
    """Judge a fail-over; empty: as promised."""
    found = []
    replicated = {
        number
        for number, place in ledger.confirmed.items()
        if synchronous or (place is not None and place <= ledger.end)
    }
    if missing := replicated - ledger.business.keys():
        found.append(f"{len(missing)} confirmed as replicated are gone: {sorted(missing)[:5]}")
    if undead := ledger.rolled_back & ledger.business.keys():
        found.append(f"{len(undead)} were rolled back and are there: {sorted(undead)[:5]}")
    if ledger.outbox != ledger.business:
        odd = ledger.outbox.items() ^ ledger.business.items()
        found.append(f"the outbox is not what has committed:  {sorted(odd)[:5]}")
    ids = set(ledger.business.values())
    for group in GROUPS:
        times = Counter(message_id for of, message_id in ledger.handled if of == group)
        if missing := ids - times.keys():
            found.append(f"{len(missing)} not handled by {group}: {sorted(missing)[:5]}")
        if odd_ids := times.keys() - ids:
            found.append(f"{len(odd_ids)} handled and not there: {sorted(odd_ids)[:5]}")
        if twice := {message_id for message_id, n in times.items() if n > 1}:
            found.append(f"{len(twice)} twice in effect by {group}: {sorted(twice)[:5]}")
    return found


class Load:
    """Publishers and consumers that are never restarted, and what they said."""

    def __init__(self, dsn: str) -> None:
        self.ledger = Ledger()
        self.publishers = [
            self._start("tests.programs.publisher", half, dsn, f"{SEED}/{half}", first)
            for half, first in (("sync", "1000000"), ("async", "2000000"))
        ]
        options = ("records", "--lease", "2", "--concurrency", "3", "--group")
        self.consumers = [
            self._start("tests.programs.consumer", half, dsn, *options, group)
            for half, group in (("sync", "g"), ("async", "g"), ("async", "h"), ("sync", "h"))
        ]

    @staticmethod
    def _start(module: str, *arguments: str) -> Process:
        return Process([sys.executable, "-m", module, *arguments])

    def listen(self, primary: psycopg.Connection[Any] | None) -> int:
        """Note what publishers have said; how many messages of theirs are confirmed by now.

        Asked after they spoke, the primary names a position that none of these commits is past.
        """
        lines = [line for process in self.publishers for line in _spoken(process)]
        place = lsn(primary, "pg_current_wal_flush_lsn()") if primary else None
        self._note(lines, place)
        return len(self.ledger.confirmed)

    def _note(self, lines: list[dict[str, Any]], place: int | None) -> None:
        for line in lines:
            if line["what"] == "committed":
                for number in line["numbers"]:
                    self.ledger.confirmed.setdefault(number, place)
            elif line["what"] == "rolled back":
                self.ledger.rolled_back |= set(line["numbers"])

    def begun(self) -> Counter[int]:
        """The ids whose handlers began since the last call."""
        return Counter(line["id"] for process in self.consumers for line in _spoken(process))

    def run(self, primary: psycopg.Connection[Any], seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.listen(primary)
            time.sleep(0.02)

    def stop_publishers(self) -> None:
        for process in self.publishers:
            assert not process.has_ended(), "a publisher did not continue by itself"
            process.kill()
            self._note(process.handled_in_all, None)

    def stop_consumers(self) -> None:
        for process in self.consumers:
            assert not process.has_ended(), "a consumer did not continue by itself"
            process.signal(signal.SIGTERM)
            assert process.ended() == 0

    def close(self) -> None:
        for process in (*self.publishers, *self.consumers):
            process.close()


def _spoken(process: Process) -> list[dict[str, Any]]:
    lines = []
    while process.has_spoken():
        lines += process.handled(1)
    return lines


def prepare(servers: Clusters, *, synchronous: bool) -> tuple[Server, Server]:
    """A primary with the schema, and its standby."""
    primary = servers.fresh(REPLICATING)
    schema.migrate(primary.dsn())
    with connect(primary) as conn:
        conn.execute(publisher.DDL.encode())
        conn.execute("CREATE TABLE handled (grp text, message_id bigint, attempt int)")
    standby = servers.standby(primary)
    if synchronous:
        primary.restart(settings={"synchronous_standby_names": "*", "synchronous_commit": "on"})
        with connect(primary) as conn:
            eventually(lambda: caught_up(conn), 60)
    return primary, standby


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 150)
@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
def test_fail_over(servers: Clusters, synchronous: bool) -> None:
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    rng = random.Random(SEED)
    primary, standby = prepare(servers, synchronous=synchronous)
    with ExitStack() as stack:
        load = Load(several_hosts(primary, standby))
        stack.callback(load.close)
        with connect(primary) as conn:
            eventually(lambda: load.listen(conn) > 50, 60)
            load.run(conn, SECONDS * rng.uniform(0.3, 0.5))
            load.begun()
            cut_off(conn)
            if synchronous:
                time.sleep(rng.uniform(0, 0.5))  # commits wait for the standby, and are unknown
            else:
                confirmed = load.listen(conn)
                eventually(lambda: load.listen(conn) > confirmed + BEYOND, 60)
            load.listen(conn)
        load.ledger.handled_before = load.begun()
        primary.kill()
        load.ledger.end = promote(standby)
        with connect(standby) as conn:
            survived = _count(conn)
            load.run(conn, SECONDS * rng.uniform(0.5, 0.7))
            eventually(lambda: _count(conn) > survived + BEYOND, 60)
            load.stop_publishers()
            eventually(lambda: outstanding(conn) == 0, 60)
            load.stop_consumers()
            look_at(conn, load.ledger)
    assert not faults(load.ledger, synchronous=synchronous)
    report(load.ledger, synchronous=synchronous)


def _count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM business").fetchone()
    assert row is not None
    return int(row[0])


def look_at(conn: psycopg.Connection[Any], ledger: Ledger) -> None:
    ledger.business = dict(conn.execute("SELECT number, message_id FROM business").fetchall())
    rows = conn.execute("SELECT (payload #>> '{}')::bigint, id FROM durable_notify.outbox")
    ledger.outbox = dict(rows.fetchall())
    ledger.handled = conn.execute("SELECT grp, message_id FROM handled").fetchall()


def report(ledger: Ledger, *, synchronous: bool) -> None:
    lost = ledger.lost()
    kept = [
        ledger.business[number]
        for number, place in ledger.confirmed.items()
        if place is not None and place <= ledger.end
    ]
    new = {message_id for message_id in ledger.business.values() if message_id > max(kept)}
    reused = ledger.handled_before.keys() & new
    print(
        f"{len(ledger.confirmed)} confirmed, {len(lost)} of them lost with the old primary, "
        f"{len(ledger.business)} there; {len(reused)} ids handled on both primaries"
    )
    if synchronous:
        assert not lost
    else:
        assert lost, "the standby was not behind: this run has shown nothing"
        assert len(reused) > BEYOND / 4, "no id was used again: this run has shown nothing"


def a_ledger() -> Ledger:
    """1 and 2 were replicated, 3 was not and is lost; 4 came later and has its id."""
    return Ledger(
        confirmed={1: 10, 2: 20, 3: 30, 4: None},
        rolled_back={9},
        end=25,
        business={1: 1, 2: 2, 4: 3},
        outbox={1: 1, 2: 2, 4: 3},
        handled=[(group, message_id) for group in GROUPS for message_id in (1, 2, 3)],
    )


def test_the_checker_lets_pass_what_was_not_replicated() -> None:
    assert faults(a_ledger(), synchronous=False) == []
    assert faults(a_ledger(), synchronous=True) == ["1 confirmed as replicated are gone: [3]"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda it: (it.business.pop(2), it.outbox.pop(2)), "confirmed as replicated are gone"),
        (lambda it: it.outbox.pop(2), "not what has committed"),
        (lambda it: it.outbox.update({4: 5}), "not what has committed"),
        (lambda it: it.handled.remove(("h", 3)), "not handled by h: [3]"),
        (lambda it: it.handled.append(("g", 2)), "twice in effect by g: [2]"),
        (lambda it: it.handled.append(("g", 7)), "handled and not there: [7]"),
        (lambda it: (it.business.update({9: 9}), it.outbox.update({9: 9})), "were rolled back"),
    ],
)  # fmt: skip
def test_the_checker_finds(change: Callable[[Ledger], object], what: str) -> None:
    ledger = a_ledger()
    change(ledger)
    assert what in " / ".join(faults(ledger, synchronous=False))
