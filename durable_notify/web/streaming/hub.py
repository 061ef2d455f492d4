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
from .events import Batch, Frame
from .passages import Passages

if TYPE_CHECKING:
    from datetime import datetime

    from .place import Place

__all__ = ["Behind", "Ended", "Hub", "Ring"]

log = logging.getLogger("durable_notify")

#: How many clients to wake at once. Trap: if all are, the event loop does nothing else until it has
#: written to a thousand, and what reads the next messages waits for that at each of its steps.
GROUP = 50
#: How many messages, and about how many bytes, to hand over at once.
BATCH, BATCH_BYTES = 100, 64_000
#: How many batches to keep for other clients that are as far.
SHARED = 16


class Behind(Exception):
    """A client is so slow that the ring no longer has what it needs next."""


class Ended(Exception):
    """The hub has ended; a new one is made for the next client."""


class Ring:
    """The last frames of a reader, up to a number of bytes.

    Args:
        limit: how many bytes to keep.
        start: the reader's token before the first frame.
    """

    def __init__(self, limit: int, start: str) -> None:
        self._limit = limit
        self._frames: dict[int, Frame] = {}
        self._tokens = {start: 0}
        self._shared: dict[tuple[int, tuple[str, ...]], tuple[Batch, int, int]] = {}
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
        while self._bytes > self._limit and self.first < self.end - 1:
            self._bytes -= self._frames.pop(self.first).size
            self.first += 1
        while self._tokens[oldest := next(iter(self._tokens))] < self.first:
            del self._tokens[oldest]

    def find(self, place: Place) -> int | None:
        """Return the number of the frame to continue with; None: it is not in the ring."""
        return self._tokens.get(place.base)

    def after(self, number: int) -> list[Frame]:
        """Return frames from a number on, as many as to hand over at once.

        Raises:
            Behind: the ring no longer has that one.
        """
        if number < self.first:
            raise Behind
        found: list[Frame] = []
        size = 0
        for each in range(number, min(self.end, number + BATCH)):
            found.append(self._frames[each])
            size += len(found[-1].event(()).data)
            if size >= BATCH_BYTES:
                break
        return found

    def batch(self, number: int, masks: tuple[str, ...]) -> tuple[Batch, int]:
        """Return what a client without a filter gets from a number on, and the number after it.

        Raises:
            Behind: the ring no longer has that one.
        """
        key = number, masks
        found = self._shared.get(key)
        if found is None or found[1] == found[2] < self.end:  # there is more by now
            frames = self.after(number)
            batch = Batch(frame.event(masks) for frame in frames)
            found = batch, number + len(frames), self.end
            self._shared.pop(key, None)
            self._shared[key] = found
            if len(self._shared) > SHARED:
                del self._shared[next(iter(self._shared))]
        return found[0], found[1]


class Hub:
    """Reads topics for all clients that ask for them: one listening connection, one read a message.

    Args:
        dsn: the database.
        topics: names and patterns.
        limit: how many bytes its ring keeps.
    """

    def __init__(self, dsn: str, topics: tuple[str, ...], limit: int) -> None:
        self.dsn = dsn
        self.topics = topics
        self.clients = 0
        self.ring = Ring(limit, "")
        self.passages = Passages(limit // 8)
        self._limit = limit
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._news = asyncio.Event()
        self._all_woken = asyncio.Event()
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

    async def beyond(self, number: int) -> None:
        """Wait until the ring has a frame of this number.

        Raises:
            Ended: it will have none.
        """
        self._check()
        if number >= self.ring.end:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = number
            try:
                await waiter
            finally:
                del self._waiting[waiter]

    def _check(self) -> None:
        if self.error is not None or self._task.done():
            raise Ended from self.error

    async def _run(self) -> None:
        waking = asyncio.create_task(self._wake_clients())
        try:
            await self._read()
        except asyncio.CancelledError as error:
            self.error = error
            raise
        except Exception as error:
            self.error = error
            log.exception("the stream of %s has ended", ", ".join(self.topics))
        finally:
            waking.cancel()
            self._begun.set()
            for waiter in self._waiting:
                _wake(waiter)

    async def _wake_clients(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            waiting = list(self._waiting.items())
            for first in range(0, len(waiting), GROUP):
                for waiter, number in waiting[first : first + GROUP]:
                    if number < self.ring.end:
                        _wake(waiter)
                await asyncio.sleep(0)  # they take what there is
            if not self._news.is_set():
                self._all_woken.set()

    async def _read(self) -> None:
        async with AsyncExitStack() as stack:
            reader = await self._opened(stack)
            self.ring = Ring(self._limit, reader.token)
            self.passages = Passages(self._limit // 8)
            self._begun.set()
            size = 0
            async for message in reader:
                frame = Frame(message, message.token)
                await self._append(frame)
                size += frame.size
                if size > self._limit // 4:
                    # A batch may be larger than the ring, and clients that are fast must keep up.
                    size = 0
                    await self._all_woken.wait()

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
        self._all_woken.clear()
        self._news.set()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # else its client has gone
        waiter.set_result(None)
