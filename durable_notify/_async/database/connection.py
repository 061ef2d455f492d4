"""Connections of this library's own: none is waited for in vain."""

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
from psycopg import AsyncConnection, IsolationLevel, capabilities

from ...adapters import AsyncOwnCursor
from ...dsn import check_dsn, redacted_errors, safe_message, set_elsewhere
from ..concurrency import Lock
from .callers import fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from typing import LiteralString, Self

    from psycopg.abc import PQGen

__all__ = [
    "HEARTBEAT", "TRANSIENT", "AsyncReconnectingConnection", "ConnectFailed", "ReadOnlyServer",
    "can_write", "connect", "settings", "was_closed",
]  # fmt: skip

log = logging.getLogger("durable_notify")

#: How often a connection shows that it is alive by default, in seconds.
HEARTBEAT = 15.0

#: Errors after which to try again: the connection broke, the server is restarting, standing by or
#: short of something. ``InterfaceError``: the connection was found closed.
TRANSIENT = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.TransactionTimeout, psycopg.errors.IdleInTransactionSessionTimeout,
)  # fmt: skip

#: What a pooler in transaction mode says if another of its sessions has a prepared statement.
_UNPREPARED = (
    psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.ProtocolViolation,  # it has another one of that name
)  # fmt: skip

RV = TypeVar("RV")


class ConnectFailed(psycopg.OperationalError):
    """There was no connection to send a statement on: it has had no effect."""


class StatementTimeout(psycopg.OperationalError):
    """A statement was not answered in time: it may have had its effect."""


class ReadOnlyServer(psycopg.OperationalError):
    """The server takes no changes: a trouble of its own, which is told of as such."""

    def __init__(self) -> None:
        super().__init__(
            "the server can only be read: it is a standby, or was made read-only. LISTEN and "
            "claims need the primary: name it, or all hosts with target_session_attrs=read-write"
        )


class AsyncTimeoutConnection(AsyncConnection[tuple[Any, ...]]):
    """A connection that is given up if a statement is not answered within ``answer`` seconds.

    Its errors of connecting do not quote the DSN.

    Trap: TCP alone does not find every connection that is dead: a pooler, a load balancer or a NAT
    in between keeps confirming what it cannot deliver.
    """

    answer: float | None = None
    used_at = 0.0
    #: Whether statements have to be told that they are READ COMMITTED, which is not the default
    #: here. Trap: said once for the session, it would be said to others behind a pooler.
    must_begin = False

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect, as psycopg does."""
        with redacted_errors(conninfo) as dsn:
            return await super().connect(dsn, **kwargs)

    async def look_at_default(self) -> None:
        """Find out which isolation level statements have here that are told none."""
        cursor = await self.execute("SELECT pg_catalog.current_setting('transaction_isolation')")
        self.must_begin = await cursor.fetchone() != ("read committed",)
        if self.must_begin:
            await self.set_isolation_level(IsolationLevel.READ_COMMITTED)

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Wait for the server, as psycopg does; no longer than is allowed."""
        self.used_at = time.monotonic()
        if self.answer is None:
            return await super().wait(gen, *args, **kwargs)
        try:
            # A tenth of the time is for telling the server.
            bounded = _bounded(gen, time.monotonic() + self.answer * 0.9)
            return await super().wait(bounded, *args, **kwargs)
        except StatementTimeout:
            await self._give_up(self.answer * 0.1)
            raise

    async def prove(self, heartbeat: float) -> None:
        """Check that the server answers, if it has not for a heartbeat.

        Raises:
            psycopg.OperationalError: it does not.
        """
        if time.monotonic() - self.used_at >= heartbeat:
            before, self.answer = self.answer, heartbeat
            await self.execute("SELECT")
            self.answer = before

    async def _give_up(self, seconds: float) -> None:
        """Close it. A server that is only slow must not run a statement that was given up."""
        with contextlib.suppress(Exception):
            if capabilities.has_cancel_safe():  # the older way may itself wait for ever
                await self.cancel_safe(timeout=seconds)
        await self.close()


def _bounded(gen: PQGen[RV], until: float) -> Generator[Any, Any, RV]:
    """Pass on what psycopg waits for, until it is too late: it looks in ten times a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= until:
                raise StatementTimeout(
                    "the server has not answered in time; the connection is given up"
                )
            wanted = gen.send(ready)
    except StopIteration as end:
        result: RV = end.value
        return result


async def connect(
    dsn: str, purpose: str, heartbeat: float = HEARTBEAT, *, lent: bool = False
) -> AsyncTimeoutConnection:
    """Open a connection of our own: autocommit, and found dead within two heartbeats.

    Args:
        dsn: where it leads.
        purpose: what it is for, in its ``application_name``.
        heartbeat: how often it shows that it is alive.
        lent: whether others run statements of theirs on it, as their program and role are set.

    Raises:
        ReadOnlyServer: it leads to a standby.
    """
    wanted = settings(dsn, purpose, heartbeat)
    if lent:
        return await _able_to_write(await AsyncTimeoutConnection.connect(dsn, **wanted))
    connection = await AsyncTimeoutConnection.connect(dsn, cursor_factory=AsyncOwnCursor, **wanted)
    await _able_to_write(connection)
    try:
        connection.answer = 2 * heartbeat
        await connection.look_at_default()
        connection.answer = None
    except BaseException:
        await connection.close()
        raise
    return connection


async def _able_to_write(connection: AsyncTimeoutConnection) -> AsyncTimeoutConnection:
    if connection.info.parameter_status("in_hot_standby") == "on":
        await connection.close()
        raise ReadOnlyServer
    return connection


def can_write(connection: AsyncConnection[Any]) -> bool:
    """Whether a session may write by default: the server says so with its answers, and changes."""
    return connection.info.parameter_status("default_transaction_read_only") != "on"


class AsyncConnectionRegistry:
    """A consumer's connections, to be cut if their server does not answer any more.

    Nothing else ends a wait for a server that hangs: its machine still confirms what is sent to it.
    """

    def __init__(self) -> None:
        self._connections: weakref.WeakSet[AsyncConnection[Any]] = weakref.WeakSet()
        self._mutex = threading.Lock()

    async def add(self, connection: AsyncConnection[Any]) -> None:
        with self._mutex:
            self._connections.add(connection)

    def cut(self) -> None:
        """Shut all of them down: a wait on one, or its next use, raises OperationalError."""
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
    """Return the settings of our own connections, unless the DSN says otherwise.

    Nor the service that it names, nor the environment.
    """
    given = set_elsewhere(dsn)
    wanted: dict[str, Any] = {
        "connect_timeout": min(10, max(2, math.ceil(heartbeat))),
        # Idle, a peer that is gone is missed after 5/3 of a heartbeat; with data under way, 4/3.
        "keepalives_idle": max(1, round(heartbeat * 2 / 3)),
        "keepalives_interval": max(1, round(heartbeat / 3)),
        "keepalives_count": 3,
        "tcp_user_timeout": max(1, round(heartbeat * 4000 / 3)),
        "application_name": f"{name} {purpose}",
    }
    ours = {key: value for key, value in wanted.items() if key not in given}
    if "connect_timeout" in given and "connect_timeout" not in check_dsn(dsn):
        # It is psycopg that obeys this one, and it does not read services.
        ours["connect_timeout"] = given["connect_timeout"]
    # No prepared statements: what is behind a pooler in transaction mode has none of ours.
    # UTF-8 whatever the DSN or PGCLIENTENCODING say: channels and payloads may have any character.
    fixed = {"autocommit": True, "prepare_threshold": None, "client_encoding": "utf8"}
    return {**ours, **fixed}


def was_closed(connection: AsyncConnection[Any]) -> bool:
    """Whether the server has ended a connection meanwhile: nothing need be sent to find out."""
    try:
        for _ in range(2):  # what it said last, and that it closed it
            connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status != psycopg.pq.ConnStatus.OK


class AsyncReconnectingConnection:
    """A connection for one statement after the other, replaced when it broke.

    A pool takes half a millisecond to lend and to take back, which is as long as a claim.

    Args:
        dsn: where it leads.
        purpose: what it is for, in its ``application_name``.
        registry: knows its connections, to cut them if the server hangs.
        heartbeat: how often it shows that it is alive.
        answer: how long a statement may take; more, and the connection counts as dead.
    """

    def __init__(
        self,
        dsn: str,
        purpose: str,
        registry: AsyncConnectionRegistry,
        heartbeat: float,
        answer: float,
    ) -> None:
        self._dsn = dsn
        self._purpose = purpose
        self._registry = registry
        self._heartbeat = heartbeat
        self._answer = answer
        self._connection: AsyncTimeoutConnection | None = None
        self._direct = False
        self._lock = Lock()

    def direct(self) -> None:
        """Prepare statements from here on: no pooler stands in between."""
        self._direct = True
        if self._connection is not None:
            self._connection.prepare_threshold = 2

    async def fetch(self, query: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a statement."""
        async with self.use() as connection:
            return await fetch(connection, query, params)

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[AsyncTimeoutConnection]:
        """Lend the connection, and close it if it broke or was left within a statement."""
        async with self._lock:
            connection = await self._connected()
            connection.answer = self._answer
            try:
                yield connection
            except _UNPREPARED:
                self._direct = False
                await self._close()
                raise ConnectFailed("statements cannot be prepared here; trying without") from None
            except psycopg.errors.ReadOnlySqlTransaction:
                await self._close()  # the DSN may lead to another host by now
                raise
            finally:
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    await self._close()

    async def check(self) -> bool:
        """Ask an idle connection for an answer, and close it if none comes; False: it was dead.

        Else the next message would wait for as long as a statement may take.
        """
        if self._lock.locked():
            return True  # at work
        async with self._lock:
            try:
                if self._connection is not None:
                    await self._connection.prove(self._heartbeat)
            except TRANSIENT as error:
                log.info("an idle connection was lost: %s", safe_message(error))
                await self._close()
                return False
            return True

    async def drop(self) -> None:
        """Close the connection if it is idle; the next statement makes a new one."""
        if not self._lock.locked():
            await self.close()

    async def _connected(self) -> AsyncTimeoutConnection:
        if self._connection is not None and was_closed(self._connection):
            await self._close()
        if self._connection is None:
            try:
                self._connection = await connect(self._dsn, self._purpose, self._heartbeat)
            except psycopg.OperationalError as error:
                raise ConnectFailed(str(error)) from error
            await self._registry.add(self._connection)
            if self._direct:
                self.direct()
        return self._connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Close the connection."""
        async with self._lock:
            await self._close()
