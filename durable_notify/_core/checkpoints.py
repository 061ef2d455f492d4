"""What a reader has read lately, to find the last of it that the log still has."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .position import Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["Checkpoints", "Step", "closed"]

#: How many batches a fail-over may lose of what was read.
LENGTH = 100


class Step(NamedTuple):
    """The highest id read, when that message was published, and the position after it."""

    id: int
    published_at: datetime | None
    position: Position


def closed(position: Position) -> Position:
    """Return a position with no window open: its rest is read with the next one.

    A window's end is a snapshot of the server there was; another has transactions of its own in it.
    In the midst of late messages, those of the window are read again.
    """
    if position.s1 is None:
        return position
    if position.p < position.h0:
        return Position(position.s0, position.h0, None, None, 0)
    return Position(position.s1, position.p, None, None, 0)


class Checkpoints:
    """Positions in a topic, one a batch.

    A server that has the message with the highest id that was read draws no id below it any more.
    One that does not, because it was lost in a fail-over, uses these ids again for others, and the
    transaction ids as well: from there on nothing can be told by them.
    """

    def __init__(self, start: Position, published_at: datetime | None) -> None:
        position = closed(start)
        self._steps = deque([Step(position.h0, published_at, position)], maxlen=LENGTH)

    def note(self, published_at: datetime, after: Position) -> None:
        """Note the position after a message; a late one says nothing of what is above it."""
        if after.p >= after.h0:
            self._steps.append(Step(after.p, published_at, closed(after)))

    def back(self) -> Iterator[Step]:
        """Go back, the newest step first."""
        return iter(list(reversed(self._steps)))

    def forget_after(self, step: Step) -> None:
        while self._steps[-1] is not step:
            self._steps.pop()
