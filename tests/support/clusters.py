"""Clusters that are copied: standbys, restored backups, dumps, upgrades.

Each is a `Server` in a folder of its own. Programs that touch a data folder run as the server's
user, those that only connect as ours; both with the libraries of their own PostgreSQL, without
which a standby would silently never replicate.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from durable_notify import schema
from durable_notify.embedded import Server, _processes_on, environment
from durable_notify.testing.databases import fast_folder
from tests.support.postgres import SETTINGS, needed_binaries
from tests.support.wait import eventually

PAGE = 32768
"""Transaction ids on a page of the commit log: a counter can be set to a multiple of it at once."""
REPLICATING = {"wal_level": "logical", "max_wal_senders": "10", "wal_keep_size": "256MB"}


class Clusters:
    """The servers of a test; they and their folders are gone at its end."""

    def __init__(self, bindir: Path, stack: ExitStack) -> None:
        self.bindir = bindir
        self._stack = stack
        self.folder = self._folder()

    def _folder(self) -> Path:
        # Not tmp_path: as root the server runs as the user nobody, who may not enter pytest's folders.
        folder = Path(tempfile.mkdtemp(prefix="dn-", dir=fast_folder()))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def server(self, settings: Mapping[str, str] = SETTINGS, bindir: Path | None = None) -> Server:
        """A server that is not set up yet."""
        server = Server(self._folder(), bindir or self.bindir, settings)
        self._stack.callback(_end, server)
        return server

    def fresh(self, settings: Mapping[str, str] = {}, *, page: int = 0, epoch: int = 0) -> Server:
        """A new cluster that runs; its next transaction id can be the first of some page."""
        server = self.server(SETTINGS | settings)
        server.start()
        if page or epoch:
            advance(server, max(page, 1), epoch)
        return server

    def base_backup(self, source: Server, settings: Mapping[str, str], *options: str) -> Server:
        """A copy of a cluster that runs; not started."""
        copy = self.server(SETTINGS | settings, source.bindir)
        copy._open_base()
        options = ("--checkpoint=fast", "--no-sync", *options)
        of_server(copy, "pg_basebackup", "-d", source.dsn(), "-D", copy.data, *options)
        return copy

    def standby(self, primary: Server, settings: Mapping[str, str] = {}) -> Server:
        """A streaming standby of a cluster, caught up."""
        copy = self.base_backup(primary, REPLICATING | settings, "--write-recovery-conf")
        copy.start()
        with connect(primary) as conn:
            eventually(lambda: caught_up(conn), 60)
        return copy


def advance(server: Server, page: int, epoch: int = 0) -> None:
    """Have its next transaction id be the first of a page of the commit log, which it is not past."""
    server.stop()
    numbers = ["-x", str(page * PAGE), "-e", str(epoch)]
    of_server(server, "pg_resetwal", *numbers, server.data)
    server.start()


def migrated(server: Server) -> Server:
    """The same, with a database `template` that has the schema."""
    schema.migrate(database(server, "template"))
    return server


def database(server: Server, name: str, template: str = "template0") -> str:
    """A new database, whatever had its name before; returns its DSN."""
    with connect(server) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return server.dsn(name)


FORMATS: dict[str, list[str]] = {
    "custom": ["--format=custom"],
    "plain": ["--format=plain"],
    "inserts": ["--format=plain", "--rows-per-insert=7"],
    "schema": ["--format=plain", "--schema-only"],
    "data": ["--format=plain", "--data-only"],
    "data, triggers off": [
        "--format=plain", "--data-only", "--disable-triggers",
        "--exclude-table-data=durable_notify.schema_version",
    ],
}  # fmt: skip


def copy_by_dump(servers: Clusters, source: str, target: str, how: str) -> None:
    """pg_dump, and pg_restore or psql."""
    file = servers.folder / "dump"
    client(servers.bindir, "pg_dump", *FORMATS[how], "--file", file, source)
    if how == "custom":
        client(servers.bindir, "pg_restore", "--exit-on-error", "--dbname", target, file)
    else:
        options = ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file", file]
        client(servers.bindir, "psql", *options, target)


@contextmanager
def clusters(bindir: Path | None = None) -> Iterator[Clusters]:
    """Make clusters of the version that the tests run on, or of another."""
    bindir = bindir or needed_binaries()
    with ExitStack() as stack:
        yield Clusters(bindir, stack)


def connect(server: Server, dbname: str = "postgres") -> psycopg.Connection[Any]:
    """An autocommit connection."""
    return psycopg.connect(server.dsn(dbname), autocommit=True)


def of_server(server: Server, program: str, *arguments: str | Path) -> None:
    """Run a program as the server's user; fail with what it said."""
    command = [server._usable_bindir() / program, *arguments]
    if server._run(command).wait() != 0:
        tail = server.log.read_text(errors="replace")[-2000:]
        raise AssertionError(f"{program} failed:\n{tail}")


def client(bindir: Path, program: str, *arguments: str | Path, given: str | None = None) -> str:
    """Run a program that only connects; fail with what it said."""
    done = subprocess.run(
        [bindir / program, *arguments],
        input=given, capture_output=True, text=True, timeout=100, check=False,
        env=environment(bindir),
    )  # fmt: skip
    assert done.returncode == 0, f"{program} failed:\n{done.stderr}"
    return done.stdout


def several_hosts(*servers: Server, dbname: str = "postgres", **settings: Any) -> str:
    """A DSN that leads to whichever of these can write."""
    parts = [conninfo_to_dict(server.dsn()) for server in servers]
    wanted = {"target_session_attrs": "read-write", "connect_timeout": 5} | settings
    return make_conninfo(
        host=",".join(str(part["host"]) for part in parts),
        port=",".join(str(part["port"]) for part in parts),
        user="postgres",
        dbname=dbname,
        **wanted,
    )


def caught_up(primary: psycopg.Connection[Any]) -> bool:
    """Whether its standby has replayed all there is."""
    query = "SELECT replay_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication"
    row = primary.execute(query).fetchone()
    return bool(row and row[0])


def cut_off(primary: psycopg.Connection[Any]) -> list[int]:
    """Stop what sends to the standby, as a network that swallows all: nothing arrives any more.

    Returns process ids, to be continued or killed.
    """
    rows = primary.execute("SELECT pid FROM pg_stat_replication").fetchall()
    assert rows, "no standby replicates"
    pids = [pid for (pid,) in rows]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def promote(standby: Server) -> int:
    """Make a standby the primary; returns the end of what it had replayed, as a number."""
    with connect(standby) as conn:
        conn.execute("SELECT pg_promote(true, 60)")
        eventually(lambda: not conn.execute("SELECT pg_is_in_recovery()").fetchone()[0], 60)  # type: ignore[index]
        return lsn(conn, "pg_last_wal_replay_lsn()")


def lsn(conn: psycopg.Connection[Any], expression: str) -> int:
    """A position in the WAL, as a number."""
    row = conn.execute(f"SELECT ({expression}) - '0/0'::pg_lsn".encode()).fetchone()
    assert row is not None
    return int(row[0])


def freeze(server: Server) -> None:
    """Stop all of a server's processes: connections to it stay open, without an answer."""
    _signal(server, signal.SIGSTOP)


def thaw(server: Server) -> None:
    _signal(server, signal.SIGCONT)


def _signal(server: Server, number: signal.Signals) -> None:
    for pid in _processes_on(server.data):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _end(server: Server) -> None:
    thaw(server)
    server.stop("immediate")  # not SIGKILL, which leaves shared memory behind
