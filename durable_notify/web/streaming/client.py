"""One client that is connected: what is sent to it, and when the connection ends."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from .events import Batch
from .hub import Behind, Ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .access import StreamAccess
    from .cursor import Cursor

__all__ = ["BEAT", "STALLED", "Client"]

#: How long to be silent at most, in seconds: proxies cut what is silent for longer.
BEAT = 15.0
#: How long a client may take to receive a batch, in seconds.
STALLED = 30.0


class Client:
    """Sends a cursor's events until the client leaves, is too slow, or may no longer read.

    Args:
        cursor: the client's.
        send: sends a batch.
        authorize: returns what the client may read now. It raises HTTPException if nothing.
        recheck: how often to call that, in seconds.
    """

    def __init__(
        self,
        cursor: Cursor,
        send: Callable[[Batch], Awaitable[None]],
        authorize: Callable[[], Awaitable[StreamAccess]],
        recheck: float,
    ) -> None:
        self._cursor = cursor
        self._send = send
        self._authorize = authorize
        self._recheck = recheck
        self._one_at_a_time = asyncio.Lock()
        self._sending_since: float | None = None

    async def serve(self, gone: Awaitable[Any]) -> bool:
        """Return True once the client has gone; False if it has to go.

        It has to if it may read no more, or the hub has ended, because the server stops.

        Raises:
            Behind: it is too slow.
        """
        tasks = [
            asyncio.ensure_future(each)
            for each in (gone, self._send_all(), self._beat(), self._check_again())
        ]
        end = self._cursor.end
        try:
            done, _ = await asyncio.wait([*tasks, end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for future in done - {end}:
                future.result()
        except (Ended, HTTPException):
            return False
        return end not in done

    async def _send_all(self) -> None:
        async with aclosing(self._cursor.batches()) as batches:
            async for batch in batches:
                await self._send_one(batch)

    async def _send_one(self, batch: Batch) -> None:
        async with self._one_at_a_time:
            self._sending_since = time.monotonic()
            await self._send(batch)
            self._sending_since = None

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            since = self._sending_since
            if since is None:
                await self._send_one(Batch([self._cursor.beat()]))
            elif self._cursor.is_behind or time.monotonic() - since > STALLED:
                raise Behind

    async def _check_again(self) -> None:
        while True:
            await asyncio.sleep(self._recheck)
            self._cursor.access = await self._authorize()
