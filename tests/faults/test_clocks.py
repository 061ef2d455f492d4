"""Leases, and clocks that are wrong: the client's.

A consumer that is stopped past its lease and woken, whose heartbeats do not arrive, or whose clock is
an hour off or jumps. Asserted: what it settles too late is refused with LeaseLost, and its own
transaction fails with it, so that each message has its effect once; others handle its messages, in the
order of their keys; it continues by itself; and only the database's clock decides about leases.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.programs.consumer import Process, consumer_process
from tests.support.api import Api, Recorder, maybe_await, running
from tests.support.injection import ProcessClock, patched, plant
from tests.support.missing import skip_missing
from tests.support.observe import LISTENER, backends, outstanding, send, value
from tests.support.postgres import CHECKOUT
from tests.support.sessions import Session
from tests.support.wait import eventually, wait_until

HANDLED = "CREATE TABLE handled (grp text, message_id bigint, attempt int, n bigserial)"
CONSUMER = [sys.executable, "-m", "tests.programs.consumer"]
FAR_OFF = """
    SELECT count(*) FROM durable_notify.lease l LEFT JOIN durable_notify.lease_deadline h USING (token)
     WHERE abs(extract(epoch FROM COALESCE(h.deadline, l.deadline) - clock_timestamp())) > 60"""
Connection = psycopg.Connection[Any]


@pytest.fixture
def handled(conn: Connection) -> None:
    conn.execute(HANDLED)


def effects(conn: Connection) -> list[tuple[int, int]]:
    """(id, attempt) of what handlers have done, in the order in which they did."""
    return list(conn.execute("SELECT message_id, attempt FROM handled ORDER BY n"))


def recorder(api: Api, dsn: str) -> Recorder:
    """A handler that does its work and acknowledges in one transaction."""

    async def record(message: Any) -> None:
        async with api.connect(dsn) as mine:
            await maybe_await(
                mine.execute(
                    "INSERT INTO handled VALUES ('g', %s, %s)", [message.id, message.attempt]
                )
            )
            await message.ack(getattr(mine, "connection", mine))
            await maybe_await(mine.commit())

    return Recorder(record)


# Stopped past its lease


async def stopped_and_woken(api: Api, dsn: str, conn: Connection) -> list[tuple[int, int]]:
    """One consumer is stopped in the midst of a transaction, another takes over; the effects."""
    publisher = dn.Publisher()
    ids = [publisher.publish(conn, "t", n, key="a") for n in range(3)]
    with consumer_process(api, dsn, "records late", "--lease", "2") as stopped:
        assert stopped.handled(1) == [{"id": ids[0], "attempt": 1}]
        stopped.signal(signal.SIGSTOP)
        seen = recorder(api, dsn)
        async with running(api.consumer(dsn, lease=5), seen):
            await seen.got(3)
            await wait_until(lambda: outstanding(conn) == 0)
        stopped.say("continue")
        stopped.signal(signal.SIGCONT)
        assert stopped.handled(1) == [{"id": ids[0], "refused": "LeaseLost"}]
        # It continues: what comes now is its own.
        (last,) = send(conn, [4])
        assert stopped.handled(1) == [{"id": last, "attempt": 1}]
        stopped.say("continue")
        eventually(lambda: outstanding(conn) == 0)
    assert seen.ids == ids
    return effects(conn)


async def test_stopped_past_its_lease_and_woken(
    api: Api, dsn: str, conn: Connection, handled: None
) -> None:
    done = await stopped_and_woken(api, dsn, conn)
    assert [attempt for _, attempt in done] == [2, 1, 1, 1]  # it had taken what it could begin
    assert [message_id for message_id, _ in done] == sorted({i for i, _ in done})


def settle_without_the_fence(session: Session) -> None:
    missing = "IF NOT FOUND THEN"
    definition = session.value("SELECT pg_get_functiondef('durable_notify.settle'::regproc)")
    assert missing in definition
    session.run(definition.replace(missing, f"{missing} RETURN sent_back;", 1))


async def test_a_settle_without_the_fence_is_seen(
    dsn: str, conn: Connection, handled: None
) -> None:
    session = Session(dsn)
    settle_without_the_fence(session)
    session.close()
    ids = [dn.Publisher().publish(conn, "t", n) for n in range(1)]
    api = Api("sync")
    # With heartbeats it would often learn that its lease is gone before it settles.
    with (
        no_heartbeat_arrives(conn),
        consumer_process(api, dsn, "records late", "--lease", "2") as stopped,
    ):
        stopped.handled(1)
        stopped.signal(signal.SIGSTOP)
        seen = recorder(api, dsn)
        async with running(api.consumer(dsn, lease=30), seen):
            await seen.got(1)
            await wait_until(lambda: outstanding(conn) == 0)
        stopped.say("continue")
        stopped.signal(signal.SIGCONT)
        eventually(lambda: len(effects(conn)) == 2)
    assert sorted(effects(conn)) == [(ids[0], 1), (ids[0], 2)], "twice in effect, as planted"


# Heartbeats


@contextmanager
def no_heartbeat_arrives(conn: Connection) -> Iterator[None]:
    """The database does not record them, for a while."""
    query = "SELECT pg_get_functiondef('durable_notify.extend'::regproc)"
    true = value(conn, query)
    body = true[true.index("AS $function$") :]
    broken = "AS $function$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53000'; END $function$"
    conn.execute(true.replace(body, broken).encode())
    try:
        yield
    finally:
        conn.execute(true.encode())


async def test_heartbeats_that_do_not_arrive(
    api: Api, dsn: str, conn: Connection, handled: None
) -> None:
    """A handler that has not learned that its lease ran out is refused; its consumer continues."""
    ids = send(conn, [1])
    with consumer_process(api, dsn, "records late", "--lease", "2") as first:
        with no_heartbeat_arrives(conn):
            assert first.handled(1) == [{"id": ids[0], "attempt": 1}]
            seen = recorder(api, dsn)
            async with running(api.consumer(dsn, lease=30), seen):
                await seen.got(1)
                await wait_until(lambda: outstanding(conn) == 0)
        first.say("continue")
        assert first.handled(1) == [{"id": ids[0], "refused": "LeaseLost"}]
        ids += send(conn, [2])
        assert first.handled(1) == [{"id": ids[1], "attempt": 1}]
        first.say("continue")
        eventually(lambda: outstanding(conn) == 0)
    (first_id, attempt), last = effects(conn)
    assert (first_id, last) == (ids[0], (ids[1], 1))
    assert attempt > 1


async def held_for_longer_than_a_lease(api: Api, dsn: str, conn: Connection) -> list[int]:
    """A consumer works for long; what another gets meanwhile of the same group."""
    send(conn, [1])
    with consumer_process(api, dsn, "records late", "--lease", "3") as slow:
        slow.handled(1)
        seen = recorder(api, dsn)
        async with running(api.consumer(dsn, lease=3, poll_interval=0.1), seen):
            beats = "SELECT deadline FROM durable_notify.lease_deadline"
            moved: set[Any] = set()

            def for_longer_than_a_lease_or_taken() -> bool:
                moved.update(conn.execute(beats))  # three beats a lease
                return len(moved) >= 4 or bool(seen.ids)

            await wait_until(for_longer_than_a_lease_or_taken)
            taken = list(seen.ids)
        if not taken:
            slow.say("continue")
            eventually(lambda: outstanding(conn) == 0)
    return taken


@pytest.mark.slow
async def test_a_consumer_with_heartbeats_keeps_its_messages(
    api: Api, dsn: str, conn: Connection, handled: None
) -> None:
    assert await held_for_longer_than_a_lease(api, dsn, conn) == []
    assert [attempt for _, attempt in effects(conn)] == [1]


def takeover_before_the_deadline(session: Session) -> None:
    plant(
        session, "_reclaim_leases",
        ("AND NOT (only_expired AND now_time", "AND NOT (false AND now_time"),
        ("CONTINUE WHEN only_expired AND", "CONTINUE WHEN false AND"),
    )  # fmt: skip
    plant(session, "claim", ("AND durable_notify._has_expired(seen.live)", "OR seen.live <> '{}'"))


async def test_a_takeover_before_the_deadline_is_seen(
    dsn: str, conn: Connection, handled: None
) -> None:
    session = Session(dsn)
    takeover_before_the_deadline(session)
    session.close()
    assert await held_for_longer_than_a_lease(Api("sync"), dsn, conn) != []


# Clocks of clients


def wrong_by(api: Api, dsn: str, seconds: int, folder: Path, how: str) -> Process:
    arguments = [api.name, dsn, "records", "--lease", "15"]
    if how == "patched":
        return Process([*patched("tests.programs.consumer", seconds), *arguments])
    if ProcessClock.LIBRARY is None:
        skip_missing("faketime", "apt-get install faketime")
    folder.mkdir()
    clock = ProcessClock(folder)
    clock.set(seconds)
    return Process([*CONSUMER, *arguments], clock.environment)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["faketime", "patched"])
def test_clients_whose_clocks_are_an_hour_off(
    api: Api, dsn: str, conn: Connection, handled: None, tmp_path: Path, how: str
) -> None:
    """One before, one behind; no consumer takes another's message, whatever their clocks say."""
    with ExitStack() as stack:
        for seconds in (3600, -3600):
            process = wrong_by(api, dsn, seconds, tmp_path / str(seconds), how)
            stack.callback(process.close)
        ids = [dn.Publisher().publish(conn, "t", n, key=str(n % 3)) for n in range(20)]
        eventually(lambda: len(backends(conn, LISTENER)) == 2)
        for n in range(40):
            ids.append(dn.Publisher().publish(conn, "t", n, key=str(n % 3)))
            assert value(conn, FAR_OFF) == 0
        eventually(lambda: outstanding(conn) == 0)
    done = effects(conn)
    assert sorted(i for i, _ in done) == sorted(ids)
    assert {attempt for _, attempt in done} == {1}, "taken from a consumer that was alive"


def a_heartbeat_comes(conn: Connection) -> None:
    beat = "SELECT max(deadline) FROM durable_notify.lease_deadline"
    before = value(conn, beat)
    eventually(lambda: value(conn, beat) not in (None, before))


def test_a_client_whose_clock_jumps(
    api: Api, dsn: str, conn: Connection, handled: None, tmp_path: Path
) -> None:
    """An hour forth and two back while it works: its leases continue, it is neither early nor late."""
    if ProcessClock.LIBRARY is None:
        skip_missing("faketime", "apt-get install faketime")
    clock = ProcessClock(tmp_path)
    options = [api.name, dsn, "records late", "--lease", "3"]
    process = Process([*CONSUMER, *options], clock.environment)
    try:
        for number, seconds in enumerate((3600, -3600, 0)):
            (message_id,) = send(conn, [number])
            assert process.handled(1) == [{"id": message_id, "attempt": 1}]
            clock.set(seconds)
            a_heartbeat_comes(conn)
            assert value(conn, FAR_OFF) == 0
            process.say("continue")
            eventually(lambda: outstanding(conn) == 0)
    finally:
        process.close()
    assert [attempt for _, attempt in effects(conn)] == [1, 1, 1]


def test_publishers_whose_clocks_are_an_hour_off(
    dsn: str, conn: Connection, tmp_path: Path
) -> None:
    """A delay and a time to live are counted by the database's clock."""
    if ProcessClock.LIBRARY is None:
        skip_missing("faketime", "apt-get install faketime")
    for seconds in (3600, -3600):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        clock = ProcessClock(folder)
        clock.set(seconds)
        program = (
            "import sys, psycopg, durable_notify as dn\n"
            "with psycopg.connect(sys.argv[1]) as c:\n"
            "    dn.Publisher().publish(c, 't', 1, delay=0.3, ttl=60)\n"
            "import time; print(time.time())\n"
        )
        command = [sys.executable, "-c", program, dsn]
        done = subprocess.run(
            command,
            env=clock.environment,
            timeout=60,
            check=True,
            capture_output=True,
            cwd=CHECKOUT,
        )
        assert abs(float(done.stdout) - time.time() - seconds) < 60, "its clock is right"
    query = """
        SELECT count(*) FROM durable_notify.outbox
         WHERE abs(extract(epoch FROM created_at - clock_timestamp())) < 60
           AND abs(extract(epoch FROM deliver_at - created_at) - 0.3) < 0.1
           AND abs(extract(epoch FROM expires_at - deliver_at) - 60) < 0.1"""
    assert value(conn, query) == 2
