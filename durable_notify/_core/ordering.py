"""Order within a consumer: one message of a key at a time; pure bookkeeping, without I/O."""

from __future__ import annotations

import threading
from collections import deque
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
    gate to that among the handlers of one.
    """

    def __init__(self) -> None:
        self._inside: dict[Place, _Holder] = {}
        self._waiting: dict[Place, deque[tuple[Delivery, M]]] = {}
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def enter(self, place: Place | None, delivery: Delivery, message: M, owner: object) -> bool:
        """Let a message through, or keep it until its key is free.

        Messages of one owner, a batch, do not wait for each other.
        """
        if place is None:
            return True
        with self._mutex:
            holder = self._inside.get(place)
            if holder is None:
                self._inside[place] = _Holder(owner, delivery)
            elif holder.reserved and delivery in holder.deliveries:
                holder.owner, holder.reserved = owner, False
            elif holder.owner is owner and not holder.reserved and place not in self._waiting:
                holder.deliveries.add(delivery)
            else:
                self._waiting.setdefault(place, deque()).append((delivery, message))
                return False
            return True

    def leave(self, place: Place | None, delivery: Delivery) -> M | None:
        """Take note that a message is done, or will not go through after all.

        Returns the one for which the key is now kept free, if one waited: to be sent to ``enter``
        again, or here. Whatever of the key comes meanwhile goes behind those that wait.
        """
        if place is None:
            return None
        with self._mutex:
            holder = self._inside.get(place)
            if holder is None or delivery not in holder.deliveries:
                return None
            holder.deliveries.discard(delivery)
            if holder.deliveries:
                return None
            waiting = self._waiting.get(place)
            if not waiting:
                del self._inside[place]
                return None
            following, message = waiting.popleft()
            if not waiting:
                del self._waiting[place]
            self._inside[place] = _Holder(None, following, reserved=True)
            return message


class _Holder:
    """Who has a key: an owner with messages that went through, or the message that is next."""

    __slots__ = ("deliveries", "owner", "reserved")

    def __init__(self, owner: object, delivery: Delivery, *, reserved: bool = False) -> None:
        self.owner = owner
        self.deliveries = {delivery}
        self.reserved = reserved
