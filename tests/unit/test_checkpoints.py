"""Checkpoints of readers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from durable_notify._core.checkpoints import LENGTH, Checkpoints, closed
from durable_notify._core.position import BEGINNING, Position

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("position", "after"),
    [
        (Position("5:5:", 7, None, None, 0), Position("5:5:", 7, None, None, 0)),
        (Position("5:5:", 7, "9:9:", 12, 10), Position("9:9:", 10, None, None, 0)),
        (Position("5:5:", 7, "9:9:", 12, 7), Position("9:9:", 7, None, None, 0)),
        # In the midst of late messages: which of those above p are read, the window alone knows.
        (Position("5:5:", 7, "9:9:", 12, 3), Position("5:5:", 7, None, None, 0)),
    ],
)
def test_closed(position: Position, after: Position) -> None:
    assert closed(position) == after


def test_back() -> None:
    trail = Checkpoints(BEGINNING, None)
    for message_id in (3, 5):
        trail.note(NOW, Position("3:3:", 0, "9:9:", 12, message_id))
    trail.note(NOW, Position("9:9:", 5, "11:11:", 12, 2))  # late
    five, three, beginning = trail.back()
    assert (five.id, three.id) == (5, 3)
    assert (beginning.id, beginning.position) == (0, BEGINNING)
    trail.forget_after(three)
    assert list(trail.back()) == [three, beginning]


def test_it_is_not_kept_for_ever() -> None:
    trail = Checkpoints(BEGINNING, None)
    for message_id in range(1, LENGTH + 10):
        trail.note(NOW, Position("3:3:", 0, "9:9:", 999, message_id))
    assert len(list(trail.back())) == LENGTH
