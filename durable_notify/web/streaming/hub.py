"""One reader for all clients of the same topics: its messages, in a ring."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from ..._async.database.connection import TRANSIENT
from ..._async.reader import AsyncReader
from ..._core.pacing import backoff
from ...dsn import safe_message
from .events import Frame
from .passages import Passages

if TYPE_CHECKING:
    from datetime import datetime

    from .place import Place

__all__ = ["Behind", "Ended", "Hub", "Ring"]

log = logging.getLogger("durable_notify")

#: How long clients have to take a quarter of the ring, in seconds.
PAUSE = 0.02


class Behind(Exception):
    """A client is so slow that the ring no longer has what it needs next."""


class Ended(Exception):
    """The hub has ended; a new one is made for the next client."""


class Ring:
    """The last frames of a reader, up to a number of bytes.

    Args:
        most: how many bytes to keep.
        start: the reader's token before the first frame.
    """

    def __init__(self, most: int, start: str) -> None:
        self._most = most
        self._frames: dict[int, Frame] = {}
        self._tokens = {start: 0}
        self._bytes = 0
        self.first = 0
        self.end = 0
        self.token = start

    def append(self, frame: Frame) -> None:
        """Add a frame, and drop the oldest ones beyond the limit."""
        self._frames[self.end] = frame
        self.end += 1
        self.token = frame.token
        self._tokens[frame.token] = self.end
        self._bytes += frame.size
        while self._bytes > self._most and self.first < self.end - 1:
            self._bytes -= self._frames.pop(self.first).size
            self.first += 1
        while self._tokens[oldest := next(iter(self._tokens))] < self.first:
            del self._tokens[oldest]

    def find(self, place: Place) -> int | None:
        """Return the number of the frame to continue with; None: it is not in the ring."""
        return self._tokens.get(place.base)

    def after(self, number: int, most: int) -> list[Frame]:
        """Return frames from a number on.

        Raises:
            Behind: the ring no longer has that one.
        """
        if number < self.first:
            raise Behind
        return [self._frames[each] for each in range(number, min(self.end, number + most))]


class Hub:
    """Reads topics for all clients that ask for them: one listening connection, one read a message.

    Args:
        dsn: the database.
        topics: names and patterns.
        most: how many bytes its ring keeps.
    """

    def __init__(self, dsn: str, topics: tuple[str, ...], most: int) -> None:
        self.dsn = dsn
        self.topics = topics
        self.clients = 0
        self.ring = Ring(most, "")
        self.passages = Passages(most // 8)
        self._most = most
        self._changed = asyncio.Event()
        self._begun = asyncio.Event()
        self.error: BaseException | None = None
        self._task = asyncio.create_task(self._run(), name="durable_notify stream")

    @property
    def ended(self) -> bool:
        """Whether it reads no more."""
        return self._task.done()

    @property
    def end(self) -> asyncio.Future[None]:
        """Done once it reads no more."""
        return self._task

    def stop(self) -> None:
        """Stop reading."""
        self._task.cancel()

    async def close(self) -> None:
        """Stop reading, and close its connection."""
        self.stop()
        await asyncio.gather(self._task, return_exceptions=True)

    def reader(self, start: str | datetime, *, until_empty: bool = True) -> AsyncReader[Any]:
        """Return a reader of these topics."""
        return AsyncReader(self.dsn, topics=self.topics, start=start, until_empty=until_empty)

    async def begun(self) -> None:
        """Wait until it reads.

        Raises:
            Ended: it could not begin.
        """
        await self._begun.wait()
        self._check()

    async def changed(self) -> None:
        """Wait for the next frame.

        Raises:
            Ended: there will be none.
        """
        self._check()
        await self._changed.wait()

    def _check(self) -> None:
        if self.error is not None or self._task.done():
            raise Ended from self.error

    async def _run(self) -> None:
        try:
            await self._read()
        except asyncio.CancelledError as error:
            self.error = error
            raise
        except Exception as error:
            self.error = error
            log.exception("the stream of %s has ended", ", ".join(self.topics))
        finally:
            self._begun.set()
            self._changed.set()

    async def _read(self) -> None:
        async with AsyncExitStack() as stack:
            reader = await self._opened(stack)
            self.ring = Ring(self._most, reader.token)
            self.passages = Passages(self._most // 8)
            self._begun.set()
            size = 0
            async for message in reader:
                frame = Frame(message, message.token)
                await self._append(frame)
                size += frame.size
                if size > self._most // 4:
                    # A batch may be larger than the ring, and clients that are fast must keep up.
                    size = 0
                    await asyncio.sleep(PAUSE)

    async def _opened(self, stack: AsyncExitStack) -> AsyncReader[Any]:
        failures = 0
        while True:
            try:
                reader = self.reader("now", until_empty=False)
                return await stack.enter_async_context(reader)
            except TRANSIENT as error:
                failures += 1
                delay = backoff(failures, 0.2, 10.0)
                text = "a stream cannot begin, next try in %.1f s: %s"
                log.warning(text, delay, safe_message(error))
                await asyncio.sleep(delay)

    async def _append(self, frame: Frame) -> None:
        self.ring.append(frame)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
