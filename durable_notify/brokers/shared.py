"""A few connections for the consumers of many groups."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from .._async.database.callers import fetch
from .._async.database.connection import AsyncConnectionRegistry, AsyncReconnectingConnection
from .._async.database.queries import AsyncQueries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import LiteralString

    from .._async.database.connection import AsyncTimeoutConnection
    from ..options import ConsumerOptions

__all__ = ["SharedConnections", "SharedQueries"]


class Shared:
    """Lends connections, each for one statement. Those who wait get one in turn.

    It is used like a connection of a consumer's own, whose close() it ignores.
    """

    def __init__(self, connections: list[AsyncReconnectingConnection]) -> None:
        self._all = connections
        self._free: asyncio.LifoQueue[AsyncReconnectingConnection] = asyncio.LifoQueue()
        for connection in reversed(connections):
            self._free.put_nowait(connection)

    async def fetch(self, query: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a statement."""
        async with self.use() as connection:
            return await fetch(connection, query, params)

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[AsyncTimeoutConnection]:
        """Lend a connection."""
        lent = await self._free.get()
        try:
            async with lent.use() as connection:
                yield connection
        finally:
            self._free.put_nowait(lent)

    def direct(self) -> None:
        """Prepare statements from here on, because there is no pooler."""
        for connection in self._all:
            connection.direct()

    async def check(self) -> bool:
        """Leave the check to the owner of the connections."""
        return True

    async def drop(self) -> None:
        """Leave the connections open: others use them."""

    async def close(self) -> None:
        """Leave the connections open: others use them."""


class SharedConnections:
    """The connections of a process that serves many groups.

    Those that keep leases alive and settle are never those that claim: a claim may wait for the
    lock of its group.

    Args:
        dsn: the database.
        purpose: what they are for, in their ``application_name``.
        claiming: how many claim at once; half as many settle, and one keeps leases alive.
        heartbeat: how often to check that they are alive.
        lease: how long leases last.
    """

    def __init__(
        self, dsn: str, purpose: str, claiming: int, heartbeat: float, lease: float
    ) -> None:
        registry = AsyncConnectionRegistry()

        def made(count: int, answer: float) -> list[AsyncReconnectingConnection]:
            return [
                AsyncReconnectingConnection(dsn, purpose, registry, heartbeat, answer)
                for _ in range(count)
            ]

        parts = (
            made(claiming, 2 * heartbeat),
            made((claiming + 1) // 2, 2 * heartbeat),
            made(1, min(2 * heartbeat, lease / 3)),
        )
        self._all = [connection for part in parts for connection in part]
        self.claiming, self.settling, self.keeping = map(Shared, parts)

    async def check(self) -> None:
        """Check that idle connections are alive, and close those that are not."""
        for connection in self._all:
            await connection.check()

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            await connection.close()


class SharedQueries(AsyncQueries):
    """Calls SQL functions through connections that other groups use too.

    The group exists, with its subscriptions and options.
    """

    def __init__(
        self, dsn: str, options: ConsumerOptions, shared: SharedConnections, *, exclusive: bool
    ) -> None:
        super().__init__(dsn, options)
        self.exclusive = exclusive
        self._claiming = shared.claiming  # type: ignore[assignment]  # used in the same way
        self._settling = shared.settling  # type: ignore[assignment]
        self._keeping = shared.keeping  # type: ignore[assignment]
        self._connections = ()  # type: ignore[assignment]  # their owner checks and closes them

    async def open(self) -> dict[str, tuple[Any, Any]]:
        """Join the group, which needs nothing."""
        return {}
