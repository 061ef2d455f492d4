"""Order within a consumer: one message of a key at a time; no I/O."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Delivery", "KeyGate", "KeyQueue", "OrderingKey"]

M = TypeVar("M")
#: What is kept in order: a topic, and the key that the database orders it by.
OrderingKey = tuple[str, str]
#: A message under a lease: it may be redelivered under another.
Delivery = tuple[int, int]


class KeyQueue(Protocol):
    """Delivers the messages of a key one after the other; what the lease manager needs of it."""

    def finish(self, ordering_key: OrderingKey | None, delivery: Delivery) -> None:
        """Free the key of a message whose outcome is durable: its next message may be handled."""

    def blocks(self, ordering_key: OrderingKey | None) -> bool:
        """Whether an outcome that is not durable yet keeps a handler from its next message."""

    def next_waits(self, ordering_key: OrderingKey | None) -> bool:
        """Whether the next message of a key is in the buffer."""


class KeyGate(Generic[M]):
    """Lets the messages of a key through one at a time, each once the one before is done.

    A lease may have several messages of a key. The database keeps their order across consumers, and
    the gate among the handlers of one. The gate keeps them in the order of arrival, because
    handlers that take messages from a queue in order may reach the gate in another.

    A message is done once its outcome is durable. Trap: if the gate let the next one through as
    soon as an outcome is known here, a kill could redeliver the first behind it.
    """

    def __init__(self) -> None:
        self._inside: dict[OrderingKey, _Holder] = {}
        # Deliveries that have not passed, in order, with the message if it was kept.
        self._lines: dict[OrderingKey, dict[Delivery, M | None]] = {}
        self._kept: dict[OrderingKey, int] = {}  # how many messages of each key are kept
        self.kept = 0  # how many in total
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def expect(self, messages: Iterable[tuple[OrderingKey | None, Delivery]]) -> None:
        """Queue messages that will be passed to ``enter``."""
        lines = self._lines
        with self._mutex:
            for key, delivery in messages:
                if key is not None:
                    line = lines.get(key)
                    if line is None:
                        lines[key] = {delivery: None}
                    else:
                        line.setdefault(delivery, None)

    def enter(self, key: OrderingKey | None, delivery: Delivery, message: M, owner: object) -> bool:
        """Let a message through, or keep it until it is the first of its key and the key is free.

        Messages of one owner, a batch, do not wait for each other.
        """
        if key is None:
            return True
        with self._mutex:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = {}
            line.setdefault(delivery, None)
            holder = self._inside.get(key)
            if next(iter(line)) != delivery or not (holder is None or holder.owner is owner):
                if line[delivery] is None:
                    self._count(key, 1)
                line[delivery] = message
                return False
            if line.pop(delivery) is not None:
                self._count(key, -1)
            if not line:
                del self._lines[key]
            if holder is None:
                self._inside[key] = _Holder(owner, delivery)
            else:
                holder.deliveries.add(delivery)
            return True

    def leave(self, key: OrderingKey | None, delivery: Delivery) -> M | None:
        """Record that a message is done, or will not pass after all.

        Returns the next kept message of its key if it may pass now; call ``enter`` with it again.
        """
        if key is None:
            return None
        with self._mutex:
            line = self._lines.get(key)
            if line is not None:
                if line.pop(delivery, None) is not None:
                    self._count(key, -1)
                if not line:
                    del self._lines[key]
            holder = self._inside.get(key)
            if holder is not None:
                holder.deliveries.discard(delivery)
                if holder.deliveries:
                    return None
                del self._inside[key]
            if not line:
                return None
            first = next(iter(line))
            message, line[first] = line[first], None  # return it only once
            if message is not None:
                self._count(key, -1)
            return message

    def following(self, key: OrderingKey | None, owner: object) -> M | None:
        """Return the next kept message of a key, which its owner may pass to ``enter``."""
        if key is None:
            return None
        with self._mutex:
            holder, line = self._inside.get(key), self._lines.get(key)
            if holder is None or holder.owner is not owner or line is None:
                return None
            first = next(iter(line))
            message, line[first] = line[first], None
            if message is not None:
                self._count(key, -1)
            return message

    def _count(self, key: OrderingKey, more: int) -> None:
        self.kept += more
        kept = self._kept.get(key, 0) + more
        if kept:
            self._kept[key] = kept
        else:
            del self._kept[key]

    @property
    def keys(self) -> int:
        """How many keys have kept messages; each key needs one handler at a time."""
        return len(self._kept)

    def waits(self, key: OrderingKey) -> bool:
        """Whether a message of a key has still to pass."""
        return key in self._lines


class _Holder:
    """The owner of a key, with messages that have passed."""

    __slots__ = ("deliveries", "owner")

    def __init__(self, owner: object, delivery: Delivery) -> None:
        self.owner = owner
        self.deliveries = {delivery}
