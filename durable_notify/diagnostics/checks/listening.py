"""Listening: whether wake-ups arrive, and what prevents it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from ..._sync.database.connection import TimeoutConnection, settings
from ...adapters import OwnCursor
from ...dsn import safe_message
from ..context import CheckContext
from ..findings import Finding, finding

if TYPE_CHECKING:
    from typing import LiteralString

#: Seconds between the two queries for stuck sessions: a session that reads has read meanwhile.
PAUSE = 0.2
#: Identifies the server and its database.
WHERE: LiteralString = "SELECT pg_catalog.pg_postmaster_start_time(), pg_catalog.current_database()"


def pooler(context: CheckContext) -> Iterator[Finding]:
    """A pooler gives each client a process id of its own making."""
    (pid,) = context.row("SELECT pg_backend_pid()")
    if pid != context.connection.info.backend_pid:
        yield finding("pooler", "the DSN leads to a pooler")


def hearing(context: CheckContext) -> Iterator[Finding]:
    """A wake-up from another connection arrives where consumers would listen."""
    try:
        listener = TimeoutConnection.connect(
            context.listen_dsn,
            cursor_factory=OwnCursor,
            **settings(context.listen_dsn, "doctor", 5),
        )
    except psycopg.OperationalError as error:
        what = " ".join(safe_message(error).split())
        yield finding("listener-no-connection", f"no connection to listen on: {what}")
        return
    with listener:
        listener.answer = context.thresholds.statement
        there = listener.execute(WHERE).fetchone()
        if there != context.row(WHERE):
            what = "the DSN for listening leads to another database, or to another server"
            yield finding("listener-elsewhere", what)
            return
        probe = f"durable_notify?{uuid.uuid4().hex}"
        listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(probe)))
        context.connection.execute("SELECT pg_catalog.pg_notify(%s, '')", [probe])
        listener.answer = None
        # Trap: if left early, notifies() keeps the connection, and closing it hangs.
        if not list(listener.notifies(timeout=context.thresholds.hearing, stop_after=1)):
            yield finding("listener-deaf", "a wake-up did not arrive on a listening connection")


def queue(context: CheckContext) -> Iterator[Finding]:
    """The queue of notifications is not full; otherwise, which session keeps it from shrinking."""
    (share,) = context.row("SELECT pg_notification_queue_usage()")
    if share <= context.thresholds.queue:
        return
    oldest = context.rows(
        """
        SELECT a.pid, a.application_name FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
         ORDER BY a.xact_start LIMIT 1
        """
    )
    pid = oldest[0][0] if oldest else None
    what = f"the queue of notifications is {share:.1%} full"
    yield finding("queue-crowded", what, usage=share, pid=pid)


def stuck(context: CheckContext) -> Iterator[Finding]:
    """Idle sessions that do not read what is sent to them."""
    if not (first := _stuck(context)):
        return
    time.sleep(PAUSE)
    for pid, (application, seconds) in _stuck(context).items():
        if pid in first:
            yield finding(
                "listener-stuck",
                f"process {pid} ({application or 'unnamed'}) listens and does not read; idle since "
                f"{seconds:.0f} s",
                pid=pid, application=application, seconds=round(seconds),
            )  # fmt: skip


def _stuck(context: CheckContext) -> dict[int, tuple[str, float]]:
    rows = context.rows(
        """
        SELECT a.pid, a.application_name,
               EXTRACT(epoch FROM clock_timestamp() - a.state_change)::float8
          FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.wait_event = 'ClientWrite'
           AND a.state = 'idle'
        """
    )
    return {pid: (application, seconds) for pid, application, seconds in rows}
