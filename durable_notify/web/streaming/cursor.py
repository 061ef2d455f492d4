"""A client's way through its topics: from its token to the ring, and along it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..._async.database.connection import TRANSIENT
from ..._core.pacing import backoff
from ...dsn import safe_message
from ...errors import InvalidArgument
from .events import Batch, Event, Frame
from .hub import BATCH, BATCH_BYTES
from .passages import Passage, Recording
from .place import MAX_AHEAD, MAX_BYTES, Mark, Place, mark_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from datetime import datetime

    from ..._async.reader import AsyncReader
    from ...models import ReadMessage
    from .access import StreamAccess
    from .hub import Hub

__all__ = ["Cursor"]

log = logging.getLogger("durable_notify")

#: How long a client may read from the database while others wait for it, in seconds.
TURN = 10.0


class Cursor:
    """What one client receives next, and the token after it.

    Args:
        hub: that of its topics.
        catching_up: how many clients may read from the database at once.
        start: its place, ``"now"``, ``"beginning"``, ``"latest"``, or a time.
        access: what of the messages it receives; may be replaced meanwhile.
    """

    def __init__(
        self,
        hub: Hub,
        catching_up: asyncio.Semaphore,
        start: Place | datetime | str,
        access: StreamAccess,
    ) -> None:
        self._hub = hub
        self._catching_up = catching_up
        self._start = "now" if isinstance(start, Place) else start
        self.access = access
        #: Where it is after the last batch; None until there is something to continue from.
        self.place = start if isinstance(start, Place) else None
        self._sent = self.place  # the same, once the batch was sent
        self._number: int | None = None

    @property
    def end(self) -> asyncio.Future[None]:
        """Done once there is nothing more to receive: its hub has ended."""
        return self._hub.end

    @property
    def is_live(self) -> bool:
        """Whether it has caught up."""
        return self._number is not None

    @property
    def lag(self) -> int:
        """How many frames of the ring it has not taken."""
        return 0 if self._number is None else self._hub.ring.end - self._number

    @property
    def is_behind(self) -> bool:
        """Whether it is so slow that the ring no longer has what it needs next."""
        return self._number is not None and self._number < self._hub.ring.first

    async def batches(self) -> AsyncGenerator[Batch]:
        """Yield events without an end. Asking for the next batch says that the last one was sent.

        Raises:
            Behind: the client is too slow.
            Ended: the hub has ended.
        """
        failures = 0
        while self._number is None:
            try:
                await self._hub.begun()
                async with aclosing(self._arriving()) as batches:
                    async for batch in batches:
                        failures = 0
                        yield batch
                        self._sent = self.place
            except TRANSIENT as error:
                self.place = self._sent
                failures += 1
                log.info("a client cannot catch up now: %s", safe_message(error))
                await asyncio.sleep(backoff(failures, 0.2, 10.0))
            except InvalidArgument as error:
                # Also if the database was replaced meanwhile. The client has lost its place.
                self._join(self._hub.ring.end, Place(self._hub.ring.token))
                yield Batch([self._reset(str(error))])
        while True:
            if batch := self._next():
                yield batch
            self._sent = self.place
            if not self.lag:
                await self._hub.beyond(self._hub.ring.end)

    # Until it has caught up

    async def _arriving(self) -> AsyncGenerator[Batch]:
        ring = self._hub.ring
        if self.place is not None and (number := ring.find(self.place)) is not None:
            self._join(number, self.place)
            yield Batch([self._placed()])
        elif self.place is None and self._start == "now":
            self._join(ring.end, Place(ring.token))
            yield Batch([self._placed()])
        else:
            origin = None if self.place is None else self.place.base
            async with self._catching_up:
                passage = self._hub.passages.find(origin, self._hub.ring.first)
                if passage is None:
                    async with aclosing(self._catch_up(origin)) as batches:
                        async for batch in batches:
                            yield batch
            if passage is not None:
                for batch in self._repeat(passage):
                    yield batch
            if self.is_live:
                yield Batch([self._placed()])

    async def _catch_up(self, origin: str | None) -> AsyncGenerator[Batch]:
        """Read what the database has after the client's place, and join the ring.

        The ring begins where its own reader was: at a token, when this noted it. The client has
        everything up to that token, because it read once more afterwards. It may also have messages
        that the ring will bring: those are the ones that a reader from that token finds.
        """
        start = self._start if origin is None else origin
        until = time.monotonic() + TURN
        read = Recording(self._hub.passages.limit)
        async with self._hub.reader(start) as reader:
            if (gap := _gap(reader)) is not None:
                yield Batch([gap])
            async for batch in self._read(reader, read, snapshot=start == "latest"):
                yield batch
                if time.monotonic() > until and self.place is not None:
                    return  # others wait; it continues from its place when it is its turn again
            while True:
                number, base = self._hub.ring.end, self._hub.ring.token
                async with self._hub.reader(base) as beyond:
                    ahead = {mark_of(message) async for message in beyond}
                    read.marks = set()
                    async for batch in self._read(reader, read):
                        yield batch
                    ahead |= read.marks & {mark_of(message) async for message in beyond}
                place = Place(base, frozenset(ahead))
                if len(ahead) <= MAX_AHEAD and len(place.token) <= MAX_BYTES:
                    break
                if number == self._hub.ring.end:
                    await self._hub.beyond(number)  # the ring is far behind: let it catch up first
        if origin is not None and read.is_whole:
            self._hub.passages.add(origin, Passage(gap, read.frames, number, place))
        self._join(number, place)

    def _repeat(self, passage: Passage) -> Iterator[Batch]:
        """Yield what another client has read from the same place."""
        if passage.gap is not None:
            yield Batch([passage.gap])
        for first in range(0, len(passage.frames), BATCH):
            taken = map(self._take, passage.frames[first : first + BATCH])
            yield Batch(event for event in taken if event is not None)
        self._join(passage.number, passage.place)

    async def _read(
        self, reader: AsyncReader[Any], read: Recording, *, snapshot: bool = False
    ) -> AsyncGenerator[Batch]:
        """Yield what a reader finds until there is no more, and record it."""
        first = reader.token
        if self.place is None and not snapshot:
            self.place = Place(first)
            yield Batch([self._placed()])
        batch = Batch()
        size = 0
        async for message in reader:
            frame = Frame(message, message.token)
            if snapshot and frame.token == first:
                # Trap: the token of the first messages of "latest" stands for all of them. A client
                # that has it, and not the last of them, would never receive the rest.
                event = self._event(frame, None)
            else:
                read.add(frame)
                event = self._take(frame)
            if event is None:
                continue
            batch.append(event)
            size += len(event.data)
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = Batch(), 0
        if batch:
            yield batch
        if self.place is None:
            self.place = Place(reader.token)
            yield Batch([self._placed()])

    # From then on

    def _join(self, number: int, place: Place) -> None:
        self._number = number
        self.place = place

    def _next(self) -> Batch:
        assert self._number is not None  # noqa: S101 - it has joined
        assert self.place is not None  # noqa: S101 - it has joined
        ring = self._hub.ring
        if self.access.filter is None and not self.place.ahead:
            batch, self._number = ring.batch(self._number, self.access.masks)
            if batch:
                self.place = Place(batch[-1].token or "")
            return batch
        taken = []
        for frame in ring.after(self._number):
            self._number += 1
            taken.append(self._take(frame))
        return Batch(event for event in taken if event is not None)

    def _take(self, frame: Frame) -> Event | None:
        """Move past a frame, and return what the client receives of it."""
        had = frozenset[Mark]() if self.place is None else self.place.ahead
        if not had:
            self.place = Place(frame.token)
            return self._event(frame, frame.token)
        mark = mark_of(frame.message)
        self.place = Place(frame.token, had - {mark})
        return None if mark in had else self._event(frame, self.place.token)

    def _event(self, frame: Frame, token: str | None) -> Event | None:
        if not self._passes(frame.message):
            return None
        shared = frame.event(self.access.masks)
        return shared if token == frame.token else Event("message", shared.data, token)

    def _passes(self, message: ReadMessage[Any]) -> bool:
        return self.access.filter is None or self.access.filter(message)

    # What is not a message

    def beat(self) -> Event:
        """Return what tells the client that the stream lives, and where it is now."""
        # Trap: a batch may be on its way. With the token after it, it would count as received.
        return Event("beat", "{}", None if self._sent is None else self._sent.token)

    def _placed(self) -> Event:
        assert self.place is not None  # noqa: S101 - it has one
        return Event("place", "null", self.place.token)

    def _reset(self, reason: str) -> Event:
        assert self.place is not None  # noqa: S101 - it has one
        data = {"reason": reason, "topics": list(self._hub.topics)}
        return Event("reset", json.dumps(data), self.place.token)


def _gap(reader: AsyncReader[Any]) -> Event | None:
    if not reader.gaps:
        return None
    data = {"topics": {topic: {"after": last} for topic, last in reader.gaps.items()}}
    return Event("gap", json.dumps(data))
