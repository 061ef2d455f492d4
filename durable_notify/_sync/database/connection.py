# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Connections of this library's own, with a limit on each wait."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import Connection, IsolationLevel, capabilities

from ...adapters import OwnCursor
from ...dsn import check_dsn, redacted_errors, safe_message, set_elsewhere
from ..concurrency import Lock
from .callers import fetch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import LiteralString, Self

    from psycopg.abc import PQGen

__all__ = [
    "HEARTBEAT",
    "TRANSIENT",
    "ConnectFailed",
    "ReadOnlyServer",
    "ReconnectingConnection",
    "can_write",
    "connect",
    "settings",
    "was_closed",
]  # fmt: skip

log = logging.getLogger("durable_notify")

#: How often to check that a connection is alive, by default, in seconds.
HEARTBEAT = 15.0

#: Errors after which to retry: the connection broke; the server restarts, is a standby or lacks
#: a resource. ``InterfaceError``: the connection was found closed.
TRANSIENT = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.TransactionTimeout, psycopg.errors.IdleInTransactionSessionTimeout,
)  # fmt: skip

#: Errors of a pooler in transaction mode if the prepared statement is in another of its sessions.
_UNPREPARED = (
    psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.ProtocolViolation,  # this session has another statement of that name
)  # fmt: skip

RV = TypeVar("RV")


class ConnectFailed(psycopg.OperationalError):
    """The statement was not sent, because there was no connection: it had no effect."""


class StatementTimeout(psycopg.OperationalError):
    """The server did not answer a statement in time: it may have had its effect."""


class ReadOnlyServer(psycopg.OperationalError):
    """The server accepts no changes; reported as a problem of its own."""

    def __init__(self) -> None:
        super().__init__(
            "the server is read-only: it is a standby, or was made read-only. LISTEN and claims "
            "need the primary: name it, or all hosts with target_session_attrs=read-write"
        )


class TimeoutConnection(Connection[tuple[Any, ...]]):
    """A connection that closes itself if the server does not answer within ``answer`` seconds.

    Its connection errors do not quote the DSN.

    Trap: TCP alone does not find every connection that is dead: a pooler, a load balancer or a NAT
    in between keeps confirming what it cannot deliver.
    """

    answer: float | None = None
    used_at = 0.0
    #: Whether each transaction has to set READ COMMITTED, because it is not the default here. Trap:
    #: behind a pooler, a setting of the session would apply to other clients.
    must_begin = False

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect, as psycopg does."""
        with redacted_errors(conninfo) as dsn:
            return super().connect(dsn, **kwargs)

    def look_at_default(self) -> None:
        """Find out the default isolation level."""
        cursor = self.execute("SELECT pg_catalog.current_setting('transaction_isolation')")
        self.must_begin = cursor.fetchone() != ("read committed",)
        if self.must_begin:
            self.set_isolation_level(IsolationLevel.READ_COMMITTED)

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Wait for the server, as psycopg does, within the limit."""
        self.used_at = time.monotonic()
        if self.answer is None:
            return super().wait(gen, *args, **kwargs)
        try:
            # A tenth of the time is left for the cancel request.
            bounded = _bounded(gen, time.monotonic() + self.answer * 0.9)
            return super().wait(bounded, *args, **kwargs)
        except StatementTimeout:
            self._give_up(self.answer * 0.1)
            raise

    def prove(self, heartbeat: float) -> None:
        """Check that the server answers, if it has sent nothing for a heartbeat.

        Raises:
            psycopg.OperationalError: the server does not answer.
        """
        if time.monotonic() - self.used_at >= heartbeat:
            before, self.answer = self.answer, heartbeat
            self.execute("SELECT")
            self.answer = before

    def _give_up(self, seconds: float) -> None:
        """Cancel and close: a server that is only slow must not run a statement that we gave up."""
        with contextlib.suppress(Exception):
            if capabilities.has_cancel_safe():  # the older function may itself wait for ever
                self.cancel_safe(timeout=seconds)
        self.close()


def _bounded(gen: PQGen[RV], until: float) -> Generator[Any, Any, RV]:
    """Pass on what psycopg waits for, until the time is over; psycopg checks every 0.1 s."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= until:
                raise StatementTimeout(
                    "the server has not answered in time; the connection is closed"
                )
            wanted = gen.send(ready)
    except StopIteration as end:
        result: RV = end.value
        return result


def connect(
    dsn: str, purpose: str, heartbeat: float = HEARTBEAT, *, lent: bool = False
) -> TimeoutConnection:
    """Open a connection of our own: in autocommit, and found dead within two heartbeats.

    Args:
        dsn: the database.
        purpose: what the connection is for, in its ``application_name``.
        heartbeat: how often to check that the connection is alive.
        lent: whether handlers run their own statements on it, with the program's settings.

    Raises:
        ReadOnlyServer: the server is a standby.
    """
    wanted = settings(dsn, purpose, heartbeat)
    if lent:
        return _able_to_write(TimeoutConnection.connect(dsn, **wanted))
    connection = TimeoutConnection.connect(dsn, cursor_factory=OwnCursor, **wanted)
    _able_to_write(connection)
    try:
        connection.answer = 2 * heartbeat
        connection.look_at_default()
        connection.answer = None
    except BaseException:
        connection.close()
        raise
    return connection


def _able_to_write(connection: TimeoutConnection) -> TimeoutConnection:
    if connection.info.parameter_status("in_hot_standby") == "on":
        connection.close()
        raise ReadOnlyServer
    return connection


def can_write(connection: Connection[Any]) -> bool:
    """Whether a session may write by default, as the server reports, also after changes."""
    return connection.info.parameter_status("default_transaction_read_only") != "on"


class ConnectionRegistry:
    """Knows a consumer's connections, and cuts them if their server no longer answers.

    Nothing else ends a wait for a server that hangs: its machine still confirms each packet.
    """

    def __init__(self) -> None:
        self._connections: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()
        self._mutex = threading.Lock()

    def add(self, connection: Connection[Any]) -> None:
        with self._mutex:
            self._connections.add(connection)

    def cut(self) -> None:
        """Shut all connections down: a wait on one, or its next use, raises OperationalError."""
        with self._mutex:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(psycopg.Error, OSError):  # closed already
                handle = os.dup(connection.fileno())
                with socket.socket(fileno=handle) as end:
                    end.shutdown(socket.SHUT_RDWR)


def settings(
    dsn: str, purpose: str, heartbeat: float = HEARTBEAT, *, name: str = "durable_notify"
) -> dict[str, Any]:
    """Return the settings for our own connections.

    It leaves out what the DSN, the service that it names, or the environment sets.
    """
    given = set_elsewhere(dsn)
    wanted: dict[str, Any] = {
        "connect_timeout": min(10, max(2, math.ceil(heartbeat))),
        # A dead peer is found after 5/3 of a heartbeat if idle, and 4/3 if data is in flight.
        "keepalives_idle": max(1, round(heartbeat * 2 / 3)),
        "keepalives_interval": max(1, round(heartbeat / 3)),
        "keepalives_count": 3,
        "tcp_user_timeout": max(1, round(heartbeat * 4000 / 3)),
        "application_name": f"{name} {purpose}",
    }
    ours = {key: value for key, value in wanted.items() if key not in given}
    if "connect_timeout" in given and "connect_timeout" not in check_dsn(dsn):
        # psycopg itself applies this setting, and does not read services.
        ours["connect_timeout"] = given["connect_timeout"]
    # No prepared statements: a session behind a pooler in transaction mode has none of ours.
    # UTF-8 even if the DSN or PGCLIENTENCODING differ: channels and payloads have any character.
    fixed = {"autocommit": True, "prepare_threshold": None, "client_encoding": "utf8"}
    return {**ours, **fixed}


def was_closed(connection: Connection[Any]) -> bool:
    """Return whether the server has closed a connection; it sends nothing to find out."""
    try:
        for _ in range(2):  # first its last words, then the end of the stream
            connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status != psycopg.pq.ConnStatus.OK


class ReconnectingConnection:
    """A connection for one statement at a time, replaced after it broke.

    It is not a pool: that takes half a millisecond to lend and return, as long as a claim.

    Args:
        dsn: the database.
        purpose: what the connection is for, in its ``application_name``.
        registry: knows its connections, to cut them if the server hangs.
        heartbeat: how often to check that the connection is alive.
        answer: how long a statement may take before the connection counts as dead.
    """

    def __init__(
        self,
        dsn: str,
        purpose: str,
        registry: ConnectionRegistry,
        heartbeat: float,
        answer: float,
    ) -> None:
        self._dsn = dsn
        self._purpose = purpose
        self._registry = registry
        self._heartbeat = heartbeat
        self._answer = answer
        self._connection: TimeoutConnection | None = None
        self._direct = False
        self._lock = Lock()

    def direct(self) -> None:
        """Prepare statements from here on, because there is no pooler."""
        self._direct = True
        if self._connection is not None:
            self._connection.prepare_threshold = 2

    def fetch(self, query: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a statement."""
        with self.use() as connection:
            return fetch(connection, query, params)

    @contextlib.contextmanager
    def use(self) -> Iterator[TimeoutConnection]:
        """Lend the connection, and close it if it broke or was left within a statement."""
        with self._lock:
            connection = self._connected()
            connection.answer = self._answer
            try:
                yield connection
            except _UNPREPARED:
                self._direct = False
                self._close()
                raise ConnectFailed("statements cannot be prepared here; trying without") from None
            except psycopg.errors.ReadOnlySqlTransaction:
                self._close()  # the DSN may resolve to another host by now
                raise
            finally:
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    self._close()

    def check(self) -> bool:
        """Check an idle connection, and close it if the server does not answer; False: it was dead.

        Without this, the next message would wait for as long as a statement may take.
        """
        if self._lock.locked():
            return True  # in use
        with self._lock:
            try:
                if self._connection is not None:
                    self._connection.prove(self._heartbeat)
            except TRANSIENT as error:
                log.info("an idle connection was lost: %s", safe_message(error))
                self._close()
                return False
            return True

    def drop(self) -> None:
        """Close the connection if it is idle; the next statement opens a new one."""
        if not self._lock.locked():
            self.close()

    def _connected(self) -> TimeoutConnection:
        if self._connection is not None and was_closed(self._connection):
            self._close()
        if self._connection is None:
            try:
                self._connection = connect(self._dsn, self._purpose, self._heartbeat)
            except psycopg.OperationalError as error:
                raise ConnectFailed(str(error)) from error
            self._registry.add(self._connection)
            if self._direct:
                self.direct()
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._close()
