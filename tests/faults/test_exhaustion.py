"""What a server runs out of, with a publisher and consumers of both halves.

The disk (of the tables, and of the write-ahead log), the queue of notifications, the table of
locks, connections; and a backend that the memory killer ends. Asserted each time: publishers get the
driver's own error and nothing is half written; nothing committed is lost, nothing twice in effect;
consumers never give up, and continue by themselves once it is over; and a line in the log says what is
wrong, which is not said over and over.
DURABLE_NOTIFY_SECONDS is how long each trouble lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from durable_notify import schema
from durable_notify._async.consumer import fetcher as async_fetcher
from durable_notify._core.log_throttle import LogThrottle
from durable_notify._sync.consumer import fetcher as sync_fetcher
from durable_notify.embedded import Server
from tests.faults.auditor import audit_handled
from tests.faults.chance import seconds
from tests.faults.workload import DDL, Workload, make_worker
from tests.support.api import Api
from tests.support.observe import LISTENER, WORKERS, backends, value
from tests.support.postgres import SETTINGS, needed_binaries, own_server
from tests.support.wait import eventually

SECONDS = seconds(1.5)
SMALL = SETTINGS | {
    "max_connections": "25",
    "max_locks_per_transaction": "10",
    "max_prepared_transactions": "0",
    "superuser_reserved_connections": "5",
    "autovacuum": "off",
}
pytestmark = [pytest.mark.server, pytest.mark.timeout(SECONDS * 4 + 120)]
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def small_server() -> Iterator[Server]:
    """A server with little of everything."""
    bindir = needed_binaries()
    settings = dict(SMALL)
    if major(bindir) >= 17:
        settings["max_notify_queue_pages"] = "64"
    with own_server(bindir, settings) as server:
        yield server


def major(bindir: Path) -> int:
    said = subprocess.run([bindir / "postgres", "-V"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)", said.stdout)
    assert found is not None
    return int(found[1])


@contextmanager
def database(server: Server, tablespace: str = "pg_default") -> Iterator[tuple[Connection, str]]:
    """A fresh database: a superuser's connection, and what a worker connects with."""
    name = f"dn_{time.monotonic_ns()}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TABLESPACE {tablespace}".encode())
    schema.migrate(server.dsn(name))
    with psycopg.connect(server.dsn(name), autocommit=True) as conn:
        conn.execute(DDL.encode())
        make_worker(server.dsn(name))
        yield conn, make_conninfo(server.dsn(name), user="worker")
    with psycopg.connect(server.dsn(name), autocommit=True) as conn:  # the other may be dead
        handled = [i for (i,) in conn.execute("SELECT message_id FROM handled")]
    audit_handled(server.dsn(name), {"g": handled})
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def all_kinds(workload: Workload) -> set[type[Exception]]:
    return {type(error) for error in workload.errors}


def overcome(conn: Connection, workload: Workload, complaint: str | None) -> None:
    """After the trouble: all continue, all is there, and the log has said what was wrong."""
    workload.progress(20)
    workload.drain(conn)
    workload.judge(conn)
    warnings = workload.said.warnings()
    assert complaint is None or has_said(workload, complaint), warnings
    # Each says each trouble once; a restart has several kinds.
    assert len(warnings) <= 20 * (1 + SECONDS / LogThrottle.EVERY), warnings


def has_said(workload: Workload, complaint: str) -> bool:
    return any(re.search(complaint, text) for text in workload.said.warnings())


def linger() -> None:
    """Let the trouble last."""
    time.sleep(SECONDS)


# The disk


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own, which any user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="dn-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "dn", str(folder)]
    try:
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a small disk")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        shutil.rmtree(folder)


@contextmanager
def filled(disk: Path, spare: int) -> Iterator[None]:
    """Fill it but for so many kilobytes, until the block is left."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - spare * 1024)))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.slow
def test_the_disk_of_the_tables_is_full(small_server: Server) -> None:
    with small_disk(64) as disk, psycopg.connect(small_server.dsn(), autocommit=True) as admin:
        place = disk / "tables"
        place.mkdir()
        shutil.chown(place, small_server.data.owner(), small_server.data.group())
        admin.execute(f"CREATE TABLESPACE small LOCATION '{place}'".encode())
        with database(small_server, "small") as (conn, dsn):
            with Workload(dsn, pause=0.02) as workload:
                with filled(disk, 64):
                    eventually(lambda: errors.DiskFull in all_kinds(workload))
                    linger()
                overcome(conn, workload, None)
                assert all_kinds(workload) == {errors.DiskFull}
        admin.execute(b"DROP TABLESPACE small")


@pytest.mark.slow
def test_the_disk_of_the_log_is_full() -> None:
    """PostgreSQL itself goes down, and comes back once there is room."""
    bindir = needed_binaries()
    settings = SMALL | {"fsync": "on", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with small_disk(160) as disk, Server(disk / "server", bindir, settings) as server:
        with database(server) as (conn, dsn):
            with Workload(dsn, pause=0.02) as workload:
                with filled(disk, 2000), pytest.raises(psycopg.OperationalError):
                    while True:
                        conn.execute(
                            "SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))"
                        )
                server.restart("immediate")
                with psycopg.connect(make_conninfo(dsn, user="postgres"), autocommit=True) as again:
                    overcome(again, workload, "refused|closed|recovery|starting|No such file")


# The queue of notifications


def test_the_queue_of_notifications_is_full(small_server: Server) -> None:
    """By a session that listens and stays in a transaction, and one that notifies.

    Consumers disarm their doorbells, so publishers continue: they could not commit if they rang. And
    they have PostgreSQL empty it, which does not happen by itself once it is full.
    """
    if major(small_server.bindir) < 17:
        pytest.skip("before PostgreSQL 17, the queue always has 8 GB")
    notify = "SELECT pg_notify('other', repeat(n::text, 1000)) FROM generate_series(1, 50) n"
    with (
        database(small_server) as (conn, dsn),
        Workload(dsn, pause=0.02, heartbeat_interval=0.5) as workload,
    ):
        with psycopg.connect(make_conninfo(dsn, user="postgres")) as sits:
            sits.execute("LISTEN something")
            sits.commit()
            sits.execute("SELECT")
            with pytest.raises(errors.ProgramLimitExceeded):
                while True:
                    conn.execute(notify.encode())
            eventually(lambda: str(workload.said.warnings()).count("queue of notifications") == 2)
            failed = len(workload.errors)
            workload.progress(20)
            assert len(workload.errors) == failed, "publishers cannot publish while it is full"
            sits.rollback()
        overcome(conn, workload, "queue of notifications is half full")
        assert all_kinds(workload) <= {errors.ProgramLimitExceeded}
        conn.execute(notify.encode())


# The table of locks


@pytest.mark.slow
def test_the_table_of_locks_is_full(small_server: Server) -> None:
    """Every publisher takes a lock of it, for the look at the doorbell."""
    with database(small_server) as (conn, dsn), Workload(dsn, pause=0.02) as workload:
        with psycopg.connect(make_conninfo(dsn, user="postgres"), autocommit=True) as hog:
            taken = 0
            while (failed := len(workload.errors)) == 0 or not workload.said.warnings():
                with contextlib.suppress(errors.OutOfMemory):
                    hog.execute("SELECT pg_advisory_lock(7, %s)", [taken := taken + 1])
            linger()
        overcome(conn, workload, "out of shared memory")
        assert failed
        # To connect takes a lock as well: then the error has no code.
        assert all_kinds(workload) <= {errors.OutOfMemory, psycopg.OperationalError}


# Connections


FOR_WORKERS = """
    SELECT current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0)
         - count(*) FILTER (WHERE usename <> 'worker')
      FROM pg_stat_activity WHERE backend_type = 'client backend'"""


@contextmanager
def all_connections_taken(conn: Connection, dsn: str) -> Iterator[None]:
    hogs: list[Connection] = []

    def all_are_ours() -> bool:
        """Trap: a session that is being refused takes one, too, and has no name yet.

        So to be refused, when no other session is seen, does not mean that none will be free.
        """
        with contextlib.suppress(psycopg.OperationalError):
            hogs.append(psycopg.connect(make_conninfo(dsn, application_name="hog")))
            return False
        conn.execute("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename = 'worker' AND application_name <> 'hog'""")
        return bool(value(conn, FOR_WORKERS) == len(hogs))

    try:
        eventually(all_are_ours)
        yield
    finally:
        for hog in hogs:
            hog.close()


def test_no_connection_is_left(small_server: Server) -> None:
    with database(small_server) as (conn, dsn), Workload(dsn, pause=0.02) as workload:
        with all_connections_taken(conn, dsn):
            for api in (Api("sync"), Api("async")):
                with pytest.raises(psycopg.OperationalError, match="connection slots|too many"):
                    asyncio.run(api.consumer(dsn).start())
            eventually(lambda: has_said(workload, "connection slots|too many clients"))
        overcome(conn, workload, "connection slots|too many clients")
        assert all(isinstance(error, psycopg.OperationalError) for error in workload.errors)


# Memory


def kill_backends(server: Server, workload: Workload, dsn: str) -> None:
    """As the kernel's memory killer does: PostgreSQL then restarts all of them."""
    admin = make_conninfo(dsn, user="postgres")
    for application in (WORKERS, LISTENER, ""):
        with psycopg.connect(admin, autocommit=True) as conn:
            eventually(lambda: bool(backends(conn, application)))  # noqa: B023
            os.kill(backends(conn, application)[0], signal.SIGKILL)
        eventually(server.ready)
        workload.progress(10)
    with psycopg.connect(admin, autocommit=True) as conn:
        overcome(conn, workload, "closed the connection|recovery|crash")


@pytest.mark.slow
def test_backends_are_killed(small_server: Server) -> None:
    with database(small_server) as (_, dsn), Workload(dsn, pause=0.02) as workload:
        kill_backends(small_server, workload, dsn)


# Faults planted in what holds all this


END_WAITERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock'"""


def end_claims(conn: Connection, dsn: str, workload: Workload) -> None:
    """End connections while they claim, until a consumer has ended by it.

    Trap: it must not keep them from settling: a consumer with no room claims nothing.
    """

    def one_has_ended() -> bool:
        conn.execute(END_WAITERS.encode())
        return bool(workload.ended)

    with psycopg.connect(make_conninfo(dsn, user="postgres")) as holder:
        holder.execute("LOCK TABLE durable_notify.lock_groups IN ACCESS EXCLUSIVE MODE")
        eventually(one_has_ended)


@pytest.mark.parametrize("module", [async_fetcher, sync_fetcher])
def test_a_consumer_that_gives_up_is_seen(
    small_server: Server, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    monkeypatch.setattr(module, "TRANSIENT", errors.DiskFull)
    with database(small_server) as (conn, dsn), Workload(dsn, pause=0.02) as workload:
        end_claims(conn, dsn, workload)
        with pytest.raises(AssertionError, match="gave up"):
            workload.progress()


def test_the_judge_sees_what_is_wrong(small_server: Server) -> None:
    with database(small_server) as (conn, dsn):
        with Workload(dsn) as workload:
            workload.drain(conn)
        workload.judge(conn)
        for tamper, complaint in {
            "DELETE FROM handled WHERE n = 5": "lost",
            "INSERT INTO handled (half, message_id) SELECT half, message_id FROM handled LIMIT 1": "twice",
            "DELETE FROM business WHERE number = 3": "committed",
            "UPDATE business SET message_id = 0 WHERE number = 3": "half written",
            "UPDATE handled SET n = DEFAULT WHERE message_id = (SELECT min(message_id) FROM business WHERE key = 'a')": "order",
        }.items():
            with pytest.raises(AssertionError, match=complaint), conn.transaction():
                conn.execute(tamper.encode())
                workload.judge(conn)
        workload.rolled_back.add(0)
        with pytest.raises(AssertionError, match="told it has failed"):
            workload.judge(conn)
