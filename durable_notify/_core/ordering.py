"""Order within a consumer: one message of a key at a time; pure bookkeeping, without I/O."""

from __future__ import annotations

import threading
from typing import Generic, Protocol, TypeVar

__all__ = ["Delivery", "KeyGate", "KeyQueue", "OrderingKey"]

M = TypeVar("M")
#: What is kept in order: a topic and the key the database said it is kept in order by.
OrderingKey = tuple[str, str]
#: A message under a lease: it may be redelivered under another.
Delivery = tuple[int, int]


class KeyQueue(Protocol):
    """What hands out the messages of a key one after the other, as a lease manager sees it."""

    def finish(self, ordering_key: OrderingKey | None, delivery: Delivery) -> None:
        """A message's outcome is durable: the next of its key may be handled."""

    def blocks(self, ordering_key: OrderingKey | None) -> bool:
        """Whether an outcome that is not durable yet keeps a handler from its next message."""

    def next_waits(self, ordering_key: OrderingKey | None) -> bool:
        """Whether the next of a key is here already."""


class KeyGate(Generic[M]):
    """Lets the messages of a key through one after the other, each once the one before is done.

    A lease brings several messages of a key; the database sees to their order across consumers, the
    gate to that among the handlers of one. They stand in line as they came: what handlers take out
    of a queue in order, they may bring here in another.

    A message is done once its outcome is durable. Trap: let go as soon as an outcome is known here,
    the next one runs, and after a kill the first is redelivered behind it.
    """

    def __init__(self) -> None:
        self._inside: dict[OrderingKey, _Holder] = {}
        # What has not gone through, in order, and the message if it was kept.
        self._lines: dict[OrderingKey, dict[Delivery, M | None]] = {}
        self._kept: dict[OrderingKey, int] = {}  # how many of each were kept
        self.kept = 0  # how many all are
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def expect(self, key: OrderingKey | None, delivery: Delivery) -> None:
        """Put a message in line that will be sent to ``enter``."""
        if key is not None:
            with self._mutex:
                self._lines.setdefault(key, {}).setdefault(delivery, None)

    def enter(self, key: OrderingKey | None, delivery: Delivery, message: M, owner: object) -> bool:
        """Let a message through, or keep it until it is the first in line and its key is free.

        Messages of one owner, a batch, do not wait for each other.
        """
        if key is None:
            return True
        with self._mutex:
            line = self._lines.setdefault(key, {})
            line.setdefault(delivery, None)
            holder = self._inside.get(key)
            if next(iter(line)) != delivery or not (holder is None or holder.owner is owner):
                self._count(key, line[delivery] is None)
                line[delivery] = message
                return False
            self._count(key, -(line.pop(delivery) is not None))
            if not line:
                del self._lines[key]
            if holder is None:
                self._inside[key] = _Holder(owner, delivery)
            else:
                holder.deliveries.add(delivery)
            return True

    def leave(self, key: OrderingKey | None, delivery: Delivery) -> M | None:
        """Note that a message is done, or will not go through after all.

        Returns the next of its key, if one was kept that can go now: to be sent to ``enter`` again.
        """
        if key is None:
            return None
        with self._mutex:
            line = self._lines.get(key, {})
            self._count(key, -(line.pop(delivery, None) is not None))
            if not line:
                self._lines.pop(key, None)
            holder = self._inside.get(key)
            if holder is not None:
                holder.deliveries.discard(delivery)
                if holder.deliveries:
                    return None
                del self._inside[key]
            if not line:
                return None
            first = next(iter(line))
            message, line[first] = line[first], None  # it goes once
            self._count(key, -(message is not None))
            return message

    def following(self, key: OrderingKey | None, owner: object) -> M | None:
        """Return the next kept message of a key, for its owner to send it to ``enter``."""
        if key is None:
            return None
        with self._mutex:
            holder, line = self._inside.get(key), self._lines.get(key)
            if holder is None or holder.owner is not owner or line is None:
                return None
            first = next(iter(line))
            message, line[first] = line[first], None
            self._count(key, -(message is not None))
            return message

    def _count(self, key: OrderingKey, more: int) -> None:
        if more:
            self.kept += more
            self._kept[key] = self._kept.get(key, 0) + more
            if not self._kept[key]:
                del self._kept[key]

    @property
    def keys(self) -> int:
        """Of how many keys some are kept: each is for one handler at a time."""
        return len(self._kept)

    def waits(self, key: OrderingKey) -> bool:
        """Whether a message of a key has yet to go through."""
        return key in self._lines


class _Holder:
    """Who has a key, with messages that went through."""

    __slots__ = ("deliveries", "owner")

    def __init__(self, owner: object, delivery: Delivery) -> None:
        self.owner = owner
        self.deliveries = {delivery}
