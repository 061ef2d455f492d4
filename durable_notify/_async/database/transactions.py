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
    """As many connections as handlers are in a transaction at once, and no more.

    Trap: psycopg_pool replaces each that broke and opens others for who waits meanwhile. After a
    few restarts of a pooler in session mode a consumer of two handlers held nine, of the twenty
    sessions that all share there.

    Args:
        dsn: where they lead.
        purpose: what they are for, in their ``application_name``.
        registry: knows them, to cut them if the server hangs.
        heartbeat: how long one may lie idle before it is asked for an answer, in seconds.
    """

    #: How long to try to connect, in seconds.
    PATIENCE = 10.0
    #: How long one that is not used stays open, in seconds.
    IDLE = 60.0

    def __init__(
        self, dsn: str, purpose: str, registry: AsyncConnectionRegistry, heartbeat: float
    ) -> None:
        self._dsn = dsn
        self._purpose = purpose
        self._registry = registry
        self._heartbeat = heartbeat
        self._idle: deque[AsyncTimeoutConnection] = deque()  # used last is last
        self._closing = Event()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncTimeoutConnection]:
        """Lend a connection.

        Raises:
            psycopg.OperationalError: none could be made, in the driver's own words.
        """
        connection = await self._take()
        try:
            yield connection
        finally:
            status = connection.info.transaction_status
            # One that leads to a server that takes no writes any more is closed, too.
            if (
                status == psycopg.pq.TransactionStatus.IDLE
                and can_write(connection)
                and not self._closing.is_set()
            ):
                self._idle.append(connection)
            else:
                await connection.close()

    async def check(self) -> None:
        """Close connections that have not been used for long."""
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
        """Close the connections that are not lent; the others are when they come back."""
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
                pass  # it died while it was idle
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
