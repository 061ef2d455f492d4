"""Each time-out that a role can be given, far too short, under load.

Asserted: publishers get the driver's own error and nothing is half written; nothing committed is
lost, nothing twice in effect; consumers never give up, continue by themselves once it is over, and say
what is wrong, but not over and over. What only ends idle sessions does not disturb consumers at all.
DURABLE_NOTIFY_SECONDS is how long each lasts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from durable_notify._core.log_throttle import LogThrottle
from tests.faults.chance import seconds
from tests.faults.workload import DDL, Workload, make_worker
from tests.support.api import Api, Recorder, running
from tests.support.observe import asleep, backends, listener_of, send
from tests.support.wait import eventually

SECONDS = seconds(1.5)
pytestmark = pytest.mark.timeout(SECONDS * 4 + 120)
Connection = psycopg.Connection[Any]


@pytest.fixture
def worker(conn: Connection, dsn: str) -> Iterator[str]:
    """A role of this test's own, that is no superuser: what it connects with."""
    conn.execute(DDL.encode())
    name = f"worker_{conn.info.dbname}"
    make_worker(dsn, name)
    try:
        yield make_conninfo(dsn, user=name)
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@contextmanager
def hostile(conn: Connection, setting: str, short: str) -> Iterator[None]:
    """Give the role a setting, and have it reconnect; and so at the end."""
    role, database = sql.Identifier(f"worker_{conn.info.dbname}"), sql.Identifier(conn.info.dbname)
    alter = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}")
    conn.execute(alter.format(role, database, sql.Identifier(setting), sql.Literal(short)))
    reconnect(conn)
    yield
    conn.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, database))
    reconnect(conn)


def reconnect(conn: Connection) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    conn.execute(end, [f"worker_{conn.info.dbname}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "short", "since", "complaint"),
    [
        ("statement_timeout", "1ms", 14, "statement timeout"),
        ("lock_timeout", "1ms", 14, None),
        ("idle_in_transaction_session_timeout", "1ms", 14, None),
        ("idle_session_timeout", "20ms", 14, None),
        ("transaction_timeout", "1ms", 17, "transaction timeout"),
    ],
)
def test_far_too_short(
    conn: Connection, worker: str, setting: str, short: str, since: int, complaint: str | None
) -> None:
    if conn.info.server_version < since * 10_000:
        pytest.skip(f"{setting} came with PostgreSQL {since}")
    all_continue(conn, worker, setting, short, complaint)


def all_continue(
    conn: Connection, worker: str, setting: str, short: str, complaint: str | None
) -> None:
    with Workload(worker, pause=0.02) as workload:
        with hostile(conn, setting, short):
            time.sleep(SECONDS)
            if complaint is not None:
                eventually(lambda: any(complaint in text for text in workload.said.warnings()))
        workload.progress(20)
        workload.drain(conn)
        workload.judge(conn)
        warnings = workload.said.warnings()
        assert len(warnings) <= 20 * (1 + SECONDS / LogThrottle.EVERY), f"a flood: {warnings}"
        assert all(isinstance(error, psycopg.Error) for error in workload.errors)


@pytest.mark.slow
def test_a_flood_of_complaints_is_seen(
    conn: Connection, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogThrottle, "level", lambda *_: logging.WARNING)
    with pytest.raises(AssertionError, match="a flood"):
        all_continue(conn, worker, "statement_timeout", "1ms", None)


def all_ended(conn: Connection, application: str) -> None:
    """Wait until sessions have ended, and their processes: then their connections are closed."""
    pids = backends(conn, application)
    eventually(lambda: backends(conn, application) == [])
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.parametrize("name", ["sync", "async"])
async def test_a_quiet_consumer_is_not_disturbed(
    conn: Connection, worker: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sessions may be ended for being idle; the one that listens is not, and nothing is said."""
    caplog.set_level("INFO", "durable_notify")
    send(conn, [0])
    with hostile(conn, "idle_session_timeout", "400ms"):
        consumer = Api(name).consumer(worker)
        seen = Recorder()
        async with running(consumer, seen):
            await asleep(consumer)
            # Until it has set its own time-out, the server may end it, on a slow machine.
            before = listener_of(consumer).reconnects
            caplog.clear()
            for number in range(1, 4):
                all_ended(conn, "durable_notify consumer%")
                send(conn, [number])
                await seen.got(number + 1)
                await asleep(consumer)
            assert listener_of(consumer).reconnects == before
    assert caplog.messages == []
