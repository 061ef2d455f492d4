"""What a capture has heard and not yet published, and the limits of its promise."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime

__all__ = ["CaptureBuffer", "Gap", "Heard", "Item", "Mark", "not_promised"]


@dataclass(frozen=True, slots=True)
class Heard:
    """A notification."""

    payload: str
    pid: int  # the sender's


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in the stream: what is visible in the snapshot was heard before it, or never.

    What this process saw committed before ``after``, a time of its monotonic clock, is visible in
    the snapshot. ``at`` is the database's time then; None for the point at which listening begins.
    Nothing is heard before that point.
    """

    snapshot: str
    after: float
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which nothing was heard; ``since``: when the capture was last known to hear."""

    since: datetime
    until: datetime
    why: str


Item = Heard | Mark | Gap


class CaptureBuffer:
    """Holds what was heard and is not yet published, in order. One task adds, one takes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0  # notifications, including those that are being published
        self._items: deque[Item] = deque()
        self._mutex = threading.Lock()

    @property
    def full(self) -> bool:
        return self.waiting >= self.limit

    @property
    def roomy(self) -> bool:
        """Whether there is enough room to listen again."""
        return self.waiting <= self.limit // 2

    def add(self, item: Item) -> None:
        with self._mutex:
            self._items.append(item)
            self.waiting += isinstance(item, Heard)

    def take(self, limit: int) -> list[Item]:
        """Return the next notifications, up to ``limit``, or the next mark or gap."""
        with self._mutex:
            taken: list[Item] = []
            while self._items and len(taken) < limit:
                if not isinstance(self._items[0], Heard):
                    return taken or [self._items.popleft()]
                taken.append(self._items.popleft())
            return taken

    def done(self, items: list[Item]) -> None:
        """Remove what was published."""
        with self._mutex:
            self.waiting -= sum(isinstance(item, Heard) for item in items)


def not_promised(channel: str) -> list[str]:
    """Return what a capture of a channel cannot promise, a line each."""
    return [
        f"What is sent to channel {channel} is durable once it is heard here. Not promised:",
        "- what is sent while no capture listens; it reports such gaps, with start and end;",
        "- what was heard and is not published yet, if this process crashes;",
        "- the same payload several times in one transaction: PostgreSQL merges it into one.",
    ]
