"""Order within a consumer: one message of a key at a time; pure bookkeeping, without I/O."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["Delivery", "KeyGate", "Place"]

M = TypeVar("M")
#: What is kept in order: a topic and the key the database said it is kept in order by.
Place = tuple[str, str]
#: A message under a lease: the same one may come again under another.
Delivery = tuple[int, int]


class KeyGate(Generic[M]):
    """Lets the messages of a key through one after the other, each once the one before is done.

    A lease brings several messages of a key; the database sees to their order across consumers, the
    gate to that among the handlers of one. They stand in line as they came: what handlers take out
    of a queue in order, they may bring here in another.

    A message is done once its outcome is durable. Trap: let go as soon as an outcome is known here,
    the next one runs, and after a kill the first comes again behind it.
    """

    def __init__(self) -> None:
        self._inside: dict[Place, _Holder] = {}
        # Who has not gone through, in order, and the message where it was kept.
        self._lines: dict[Place, dict[Delivery, M | None]] = {}
        self._kept: dict[Place, int] = {}  # how many of each were kept
        self.kept = 0  # how many all are
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def expect(self, place: Place | None, delivery: Delivery) -> None:
        """Put a message in line that will be sent to ``enter``."""
        if place is not None:
            with self._mutex:
                self._lines.setdefault(place, {}).setdefault(delivery, None)

    def enter(self, place: Place | None, delivery: Delivery, message: M, owner: object) -> bool:
        """Let a message through, or keep it until it is the first in line and its key is free.

        Messages of one owner, a batch, do not wait for each other.
        """
        if place is None:
            return True
        with self._mutex:
            line = self._lines.setdefault(place, {})
            line.setdefault(delivery, None)
            holder = self._inside.get(place)
            if next(iter(line)) != delivery or not (holder is None or holder.owner is owner):
                self._count(place, line[delivery] is None)
                line[delivery] = message
                return False
            self._count(place, -(line.pop(delivery) is not None))
            if not line:
                del self._lines[place]
            if holder is None:
                self._inside[place] = _Holder(owner, delivery)
            else:
                holder.deliveries.add(delivery)
            return True

    def leave(self, place: Place | None, delivery: Delivery) -> M | None:
        """Take note that a message is done, or will not go through after all.

        Returns the next of its key, if one was kept that can go now: to be sent to ``enter`` again.
        """
        if place is None:
            return None
        with self._mutex:
            line = self._lines.get(place, {})
            self._count(place, -(line.pop(delivery, None) is not None))
            if not line:
                self._lines.pop(place, None)
            holder = self._inside.get(place)
            if holder is not None:
                holder.deliveries.discard(delivery)
                if holder.deliveries:
                    return None
                del self._inside[place]
            if not line:
                return None
            first = next(iter(line))
            message, line[first] = line[first], None  # it goes once
            self._count(place, -(message is not None))
            return message

    def following(self, place: Place | None, owner: object) -> M | None:
        """Return the next of a key that was kept, to who has the key: to be sent to ``enter``."""
        if place is None:
            return None
        with self._mutex:
            holder, line = self._inside.get(place), self._lines.get(place)
            if holder is None or holder.owner is not owner or line is None:
                return None
            first = next(iter(line))
            message, line[first] = line[first], None
            self._count(place, -(message is not None))
            return message

    def _count(self, place: Place, more: int) -> None:
        if more:
            self.kept += more
            self._kept[place] = self._kept.get(place, 0) + more
            if not self._kept[place]:
                del self._kept[place]

    @property
    def keys(self) -> int:
        """Of how many keys some are kept: each is for one handler at a time."""
        return len(self._kept)

    def waits(self, place: Place) -> bool:
        """Whether a message of a key has yet to go through."""
        return place in self._lines


class _Holder:
    """Who has a key, with messages that went through."""

    __slots__ = ("deliveries", "owner")

    def __init__(self, owner: object, delivery: Delivery) -> None:
        self.owner = owner
        self.deliveries = {delivery}
