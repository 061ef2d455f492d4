"""Checkpoints of a reader, to find the last message read that the log still has."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .position import Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["Checkpoints", "Step", "closed"]

#: How many batches that were read a fail-over may lose.
LENGTH = 100


class Step(NamedTuple):
    """The highest id read, when that message was published, and the position after it."""

    id: int
    published_at: datetime | None
    position: Position


def closed(position: Position) -> Position:
    """Return a position with no window open: the rest of the window is read with the next one.

    A window's end is a snapshot of the old server; the new one has other transactions in it. Late
    messages of the window may be read again.
    """
    if position.s1 is None:
        return position
    if position.p < position.h0:
        return Position(position.s0, position.h0, None, None, 0)
    return Position(position.s1, position.p, None, None, 0)


class Checkpoints:
    """Holds positions in a topic, one per batch.

    A server that has the message with the highest id that was read draws no lower ids. If a
    fail-over lost that message, the server reuses its id for another, and transaction ids as well.
    From there on, ids tell nothing about what was read.
    """

    def __init__(self, start: Position, published_at: datetime | None) -> None:
        position = closed(start)
        self._steps = deque([Step(position.h0, published_at, position)], maxlen=LENGTH)

    def note(self, published_at: datetime, after: Position) -> None:
        """Record the position after a message; a late one tells nothing of the ids above it."""
        if after.p >= after.h0:
            self._steps.append(Step(after.p, published_at, closed(after)))

    def back(self) -> Iterator[Step]:
        """Yield the steps, the newest first."""
        return iter(list(reversed(self._steps)))

    def forget_after(self, step: Step) -> None:
        while self._steps[-1] is not step:
            self._steps.pop()
