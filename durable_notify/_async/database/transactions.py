"""Connections for the handlers' own transactions."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

import psycopg

from ..._core.pacing import backoff
from ..concurrency import Event
from .connection import ReadOnlyServer, can_write, connect, was_closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .connection import AsyncConnectionRegistry, AsyncTimeoutConnection

__all__ = ["AsyncTransactionPool"]


class AsyncTransactionPool:
    """Lends a connection to each handler in a transaction, and never holds more than those need.

    Trap: psycopg_pool replaces each broken connection, and opens others for handlers that wait
    meanwhile. After a few restarts of a pooler in session mode, a consumer of two handlers held
    nine of the twenty sessions that all clients share there.

    Args:
        dsn: the database.
        purpose: what the connections are for, in their ``application_name``.
        registry: knows the connections, to cut them if the server hangs.
        heartbeat: how long one may be idle before a check that it is alive, in seconds.
    """

    #: How long to try to connect, in seconds.
    PATIENCE = 10.0
    #: How long an unused connection stays open, in seconds.
    IDLE = 60.0

    def __init__(
        self, dsn: str, purpose: str, registry: AsyncConnectionRegistry, heartbeat: float
    ) -> None:
        self._dsn = dsn
        self._purpose = purpose
        self._registry = registry
        self._heartbeat = heartbeat
        self._idle: deque[AsyncTimeoutConnection] = deque()  # the one used last is last
        self._closing = Event()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncTimeoutConnection]:
        """Lend a connection.

        Raises:
            psycopg.OperationalError: no connection could be opened.
        """
        connection = await self._take()
        try:
            yield connection
        finally:
            status = connection.info.transaction_status
            # A connection to a server that has become read-only is closed too.
            if (
                status == psycopg.pq.TransactionStatus.IDLE
                and can_write(connection)
                and not self._closing.is_set()
            ):
                self._idle.append(connection)
            else:
                await connection.close()

    async def check(self) -> None:
        """Close connections that have been unused for long."""
        for _ in range(len(self._idle)):
            try:
                connection = self._idle.popleft()
            except IndexError:
                return
            if time.monotonic() - connection.used_at < self.IDLE and not was_closed(connection):
                self._idle.append(connection)
            else:
                await connection.close()

    async def close(self) -> None:
        """Close the connections that are not lent; the others close when they are returned."""
        self._closing.set()
        while self._idle:
            await self._idle.pop().close()

    async def _take(self) -> AsyncTimeoutConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return await self._new()
            try:
                if not was_closed(connection):
                    await connection.prove(self._heartbeat)
                    return connection
            except psycopg.OperationalError:
                pass  # the connection died while it was idle
            await connection.close()

    async def _new(self) -> AsyncTimeoutConnection:
        until = time.monotonic() + self.PATIENCE
        attempt = 0
        while True:
            try:
                connection = await connect(self._dsn, self._purpose, self._heartbeat, lent=True)
                break
            except ReadOnlyServer:
                raise
            except psycopg.OperationalError:
                attempt += 1
                delay = backoff(attempt, 0.1, 2.0)
                if time.monotonic() + delay > until or await self._closing.wait(delay):
                    raise
        await self._registry.add(connection)
        return connection
