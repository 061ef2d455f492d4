"""The hubs of an application, and how many clients it has."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from ...dsn import plain
from ...errors import InvalidArgument
from .cursor import Cursor
from .hub import Behind, Ended, Hub
from .leaving import until_server_stops
from .place import MAX_BYTES, Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from .access import StreamAccess

__all__ = ["Hubs", "StreamStats"]

#: How long a hub without clients keeps reading, in seconds.
LINGER = 30.0
#: The most hubs: each has a connection that reads.
HUBS = 50
#: How many clients may catch up from the database at once: each has two connections.
CATCHING_UP = 8
#: How long a request waits for the first answer of the database, in seconds. Without one its
#: stream begins all the same: an EventSource never retries after a status that is not 200.
PATIENCE = 5.0
#: The smallest buffer: a message must fit into it.
SMALLEST = 100_000
#: The room that a token leaves for the messages ahead of it, in bytes.
SPARE = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class StreamStats:
    """What an application's streams do now, and have done.

    Attributes:
        clients: connected now.
        hubs: distinct sets of topics that are read now.
        live: clients that have caught up.
        lag: how many messages the slowest of those has not taken yet.
        shed: clients that were disconnected because they were too slow.
        refused: clients that were refused because there were too many.
    """

    clients: int
    hubs: int
    live: int
    lag: int
    shed: int
    refused: int


class Hubs:
    """Lends hubs to clients.

    Args:
        dsn: the database.
        buffer: how many bytes each hub keeps for clients that are slow.
        limit: the most clients.

    Raises:
        InvalidArgument: libpq cannot read the DSN, or a limit is too small.
    """

    def __init__(self, dsn: str, buffer: int, limit: int) -> None:
        if limit < 1 or buffer < SMALLEST:
            raise InvalidArgument(
                f"max_clients is at least 1, and buffer_bytes at least {SMALLEST}"
            )
        self._dsn = plain(dsn)
        self._buffer = buffer
        self._limit = limit
        self._hubs: dict[tuple[str, ...], Hub] = {}
        self._cursors: set[Cursor] = set()
        self._catching_up = asyncio.Semaphore(CATCHING_UP)
        self._leaving: asyncio.Task[None] | None = None
        self._shed = 0
        self._refused = 0

    def stats(self) -> StreamStats:
        """Return what the streams do now, and have done."""
        live = [cursor.lag for cursor in self._cursors if cursor.is_live]
        hubs = sum(not hub.ended for hub in self._hubs.values())
        return StreamStats(
            len(self._cursors), hubs, len(live), max(live, default=0), self._shed, self._refused
        )

    @contextlib.asynccontextmanager
    async def cursor(
        self, topics: tuple[str, ...], start: Place | datetime | str, access: StreamAccess
    ) -> AsyncIterator[Cursor]:
        """Lend a cursor for the time that a client is connected.

        Raises:
            HTTPException: there are too many clients or topics, or the database refuses.
        """
        if len(self._cursors) >= self._limit:
            self._refused += 1
            raise HTTPException(503, "too many clients", {"retry-after": "10"})
        hub = self._hub(tuple(sorted(set(topics))))
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._end_with_server())
        cursor = Cursor(hub, self._catching_up, start, access)
        self._cursors.add(cursor)
        hub.clients += 1
        try:
            await self._check(hub)
            yield cursor
        except Behind:
            self._shed += 1
            raise
        finally:
            self._cursors.discard(cursor)
            hub.clients -= 1
            if not hub.clients:
                asyncio.get_running_loop().call_later(LINGER, self._end_if_idle, hub)

    def _hub(self, topics: tuple[str, ...]) -> Hub:
        hub = self._hubs.get(topics)
        if hub is not None and not hub.ended:
            return hub
        for each in list(self._hubs.values()):
            if each.ended or len(self._hubs) >= HUBS:
                self._end_if_idle(each)
        if len(self._hubs) >= HUBS:
            self._refused += 1
            raise HTTPException(503, "too many sets of topics", {"retry-after": "60"})
        hub = self._hubs[topics] = Hub(self._dsn, topics, self._buffer)
        return hub

    async def _check(self, hub: Hub) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await hub.begun()
        except TimeoutError:
            return
        except Ended:
            # The reason may name what is none of the client's business: the log has it.
            raise HTTPException(503, "the stream cannot be read", {"retry-after": "10"}) from None
        if (size := len(hub.ring.token)) > MAX_BYTES - SPARE:
            raise HTTPException(
                400, f"the token of these topics has {size} bytes, and may have "
                f"{MAX_BYTES - SPARE}: ask for fewer topics in one stream",
            )  # fmt: skip

    def _end_if_idle(self, hub: Hub) -> None:
        if not hub.clients and self._hubs.get(hub.topics) is hub:
            del self._hubs[hub.topics]
            hub.stop()

    async def _end_with_server(self) -> None:
        await until_server_stops()
        await self._close_hubs()

    async def close(self) -> None:
        """Stop all hubs."""
        if self._leaving is not None:
            self._leaving.cancel()
        await self._close_hubs()

    async def _close_hubs(self) -> None:
        hubs = list(self._hubs.values())
        self._hubs.clear()
        for hub in hubs:
            await hub.close()
