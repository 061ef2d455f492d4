"""What clients read from the database, for others that begin at the same place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .place import Mark, mark_of

if TYPE_CHECKING:
    from .events import Event, Frame
    from .place import Place

__all__ = ["Passage", "Passages", "Recording"]

#: How many to keep.
PASSAGES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """What a client read from its place on, and how it joined the ring."""

    gap: Event | None
    frames: list[Frame]
    number: int
    place: Place


class Recording:
    """What a client reads, up to a number of bytes.

    Attributes:
        marks: those of all messages since this was set.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.frames: list[Frame] = []
        self.marks: set[Mark] | None = None

    def add(self, frame: Frame) -> None:
        """Record a frame."""
        if self.marks is not None:
            self.marks.add(mark_of(frame.message))
        self._left -= frame.size
        if self.is_whole:
            self.frames.append(frame)

    @property
    def is_whole(self) -> bool:
        """Whether it holds all that was read."""
        return self._left >= 0


class Passages:
    """The last passages, by the tokens they began with.

    When a server has started again, all its clients come at once, and most with the same token.

    Args:
        limit: how many bytes a passage may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._found: dict[str, Passage] = {}

    def find(self, token: str | None, first: int) -> Passage | None:
        """Return the passage from a token, if the ring has what follows: its frames from first."""
        passage = None if token is None else self._found.get(token)
        return None if passage is None or passage.number < first else passage

    def add(self, token: str, passage: Passage) -> None:
        """Keep a passage for other clients."""
        self._found.pop(token, None)
        self._found[token] = passage
        if len(self._found) > PASSAGES:
            del self._found[next(iter(self._found))]
