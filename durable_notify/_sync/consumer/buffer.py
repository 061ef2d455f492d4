# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""The messages that a consumer has claimed, on their way to handlers."""

from __future__ import annotations

import itertools
import logging
import operator
import threading
import time
from typing import TYPE_CHECKING, Any

from ..._core.leases import Reject
from ..._core.ordering import KeyGate
from ..._core.sanitize import describe, text_of
from ...errors import PayloadError
from ..concurrency import Event, Queue
from .message import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..._core.leases import Lease
    from ..._core.ordering import Delivery, OrderingKey
    from ...payloads import Decoder
    from .leases import LeaseManager

__all__ = ["PrefetchBuffer"]

log = logging.getLogger("durable_notify")

#: If more of a batch's messages than this share have the key of an earlier one, about twice as
#: many of the next batch's have the key of one in this.
REPEATED = 0.05
_TOKEN = operator.itemgetter(0)


class PrefetchBuffer:
    """Buffers claimed messages and delivers them in key order, while their lease is held.

    Args:
        stopping: set once nothing more may be handled.
        room: set when another batch may be claimed.
        decoder: decodes payloads and headers.
    """

    lease_manager: LeaseManager  # sets this itself, because it is created with this buffer

    def __init__(self, stopping: Event, room: Event, decoder: Decoder) -> None:
        self._stopping = stopping
        self._room = room
        self._decoder = decoder
        self._gate: KeyGate[Message] = KeyGate()
        self._queue: Queue[Message | None] = Queue()
        self.checkpoint = self._queue.checkpoint  # between two messages
        self._queued_now = 0
        self._cut_short: list[list[Message]] = []  # batches whose callers were cancelled
        self._mutex = threading.Lock()  # sync handlers run in several threads
        self.low_water = 0  # with so few messages left, there is room
        self.largest = 0  # the size of the largest payload of the last batch
        self.keys_repeat = False  # whether the last batch has several messages of many keys
        self.failure: BaseException | None = None  # the error that ended the consumer

    @property
    def size(self) -> int:
        """How many messages wait, including those that wait for their keys."""
        return self._queued_now + self._gate.kept

    @property
    def queued(self) -> int:
        """How many messages wait only for a handler.

        Trap: this counts a message that a thread has taken and not begun to handle. Otherwise the
        consumer would claim another message for the same handler.
        """
        return self._queued_now

    def begun(self, messages: int) -> None:
        """Count messages as no longer queued: their handler has begun, or they are dropped."""
        with self._mutex:
            self._queued_now -= messages
        if self._queued_now + self._gate.kept <= self.low_water:
            self._room.set()

    def _put(self, messages: int) -> None:
        with self._mutex:
            self._queued_now += messages

    @property
    def keys(self) -> int:
        """How many keys have messages that wait for an earlier one; each key needs one handler."""
        return self._gate.keys

    def fill(self, rows: list[tuple[Any, ...]]) -> None:
        """Add claimed messages."""
        messages = list(self.unpack(rows))
        in_order = [((row[2], row[9]), (row[0], row[1])) for row in rows if row[9] is not None]
        # Trap: threads that take two messages of a key from the queue in order may reach the gate
        # in reverse order.
        self._gate.expect(in_order)
        keys = {ordering_key for ordering_key, _ in in_order}
        self.keys_repeat = len(in_order) - len(keys) > len(in_order) * REPEATED
        self._put(len(messages))
        self._queue.put(*messages)

    def unpack(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Message]:
        """Hold the leases of claimed messages, and return the messages."""
        for token, part in itertools.groupby(rows, key=_TOKEN):
            batch = list(part)
            ordering_keys = {row[1]: None if row[9] is None else (row[2], row[9]) for row in batch}
            sizes = {row[1]: len(row[4] if row[5] is None else row[5]) for row in batch}
            self.largest = max(sizes.values())
            lease = self.lease_manager.hold(token, ordering_keys, sizes)
            if self.lease_manager.emits:
                lease.topic = batch[0][2]
                lease.attempts = {row[1]: row[8] for row in batch}
            decode, headers = self._decoder.of(batch[0][2]), self._decoder.headers
            for row in batch:
                yield Message(row, lease, self.lease_manager, decode, headers)

    def end(self) -> None:
        """Deliver nothing more."""
        self._queue.put(None)

    def next(self, owner: object = None, until: float | None = None) -> Message | None:
        """Return the next message, or None once the buffer has ended or the time is over."""
        while True:
            try:
                following = None if owner is None else self._of_its_key(owner)
                message = following or self._queue.get_nowait()
            except self._queue.EMPTY:
                try:
                    message = self._queued(until)
                except self._queue.EMPTY:
                    return None
            if message is None:
                self._queue.put(None)  # ends the other workers that wait
                if self.failure is not None:
                    raise self.failure
                return None
            if not self.lease_manager.is_sure(message._lease):
                try:
                    self.verify_lease(message)
                except BaseException:
                    self._queue.put(message)  # the caller was cancelled
                    raise
            if self._passes(message, message if owner is None else owner):
                return message

    def batch(self, size: int, max_wait: float) -> list[Message]:
        """Return 1 to ``size`` messages, none at the end; ``max_wait`` begins with the first."""
        batch = self._cut_short.pop() if self._cut_short else []
        if len(batch) > size:
            self._cut_short.append(batch[size:])
            return batch[:size]
        until = time.monotonic() + max_wait if batch else None
        try:
            while True:
                self._add_ready(batch, size)
                if batch and until is None:
                    until = time.monotonic() + max_wait
                if len(batch) >= size:
                    break
                message = self.next(batch, until)
                if message is None:
                    break
                batch.append(message)
        except BaseException:
            # Trap: the caller was cancelled, and these are claimed. The next batch has them first.
            if batch:
                self._cut_short.append(batch)
            raise
        return batch

    def _add_ready(self, batch: list[Message], size: int) -> None:
        """Add messages to a batch, as ``next`` returns them, until one would have to wait."""
        sure: Lease | None = None
        while len(batch) < size:
            try:
                message = self._of_its_key(batch) or self._queue.get_nowait()
            except self._queue.EMPTY:
                return
            if message is None or not (
                message._lease is sure or self.lease_manager.is_sure(message._lease)
            ):
                self._queue.put(message)
                return
            sure = message._lease
            if self._passes(message, batch):
                batch.append(message)

    def _queued(self, until: float | None) -> Message | None:
        """Wait for a message. The queue is empty, so there is room."""
        self._room.set()
        if self._gate.kept:
            self.lease_manager.hurry()  # they wait until earlier outcomes are durable
        return self._queue.get(None if until is None else until - time.monotonic())

    def _of_its_key(self, batch: object) -> Message | None:
        """Return the next message of the key of a batch's last one; the batch may have it too."""
        if not (isinstance(batch, list) and batch):
            return None
        ordering_key = batch[-1]._ordering_key
        if not self.next_waits(ordering_key):
            return None
        following = self._gate.following(ordering_key, batch)
        if following is not None:
            self._put(1)
        return following

    def blocks(self, ordering_key: OrderingKey | None) -> bool:
        """Whether an outcome that is not durable yet keeps a handler from its next message.

        Trap: to flush sooner, while handlers have other messages, is slower. To settle a lease in
        many parts costs far more than in few.
        """
        return not self._queue.size() and self.next_waits(ordering_key)

    def next_waits(self, ordering_key: OrderingKey | None) -> bool:
        """Whether the next message of a key is in the buffer."""
        return ordering_key is not None and self._gate.waits(ordering_key)

    def verify_lease(self, message: Message) -> None:
        """Wait until it is known whether a message's lease is held or lost.

        A lease may have expired unnoticed, and another consumer may have the message by now.
        """
        lease = message._lease
        while not (self.lease_manager.is_sure(lease) or lease.lost or self._stopping.is_set()):
            self.lease_manager.confirm(lease)
            if not (lease.lost or self.lease_manager.is_sure(lease)):
                self._stopping.wait(0.5)

    def _passes(self, message: Message, owner: object) -> bool:
        """Whether a message goes to its owner; if not, it is no longer queued."""
        if not self._admitted(message, owner):
            self.begun(1)
        elif message._flaw is not None:
            self.begun(1)
            self.refuse(message, message._flaw)
        else:
            return True
        return False

    def _admitted(self, message: Message, owner: object) -> bool:
        """Whether a message may be handled now: it is leased, and the next of its key."""
        lease = message._lease
        ordering_key = lease.ordering_keys[message.id]
        if self._stopping.is_set() or lease.lost or message.id not in lease.open:
            # It was released, lost to another consumer, or sent back with an earlier one.
            self.finish(ordering_key, message._delivery)
            return False
        return ordering_key is None or self._gate.enter(
            ordering_key, message._delivery, message, owner
        )

    def refuse(self, message: Message, flaw: Exception) -> None:
        """Reject a message that cannot be decoded."""
        reason = text_of(flaw)[:500]
        if not isinstance(flaw, PayloadError):
            reason = f"Python cannot decode it: {reason}"
        log.warning("message %s of %s is rejected: %s", message.id, message.topic, reason)
        outcome = Reject(reason, describe(flaw))
        self.lease_manager.settle_soon(message._lease, message.id, outcome)

    def finish(self, ordering_key: OrderingKey | None, delivery: Delivery) -> None:
        """Free the key of a message whose outcome is durable: its next message may be delivered."""
        following = self._gate.leave(ordering_key, delivery)
        if following is not None:
            self._put(1)
            self._queue.put(following)
