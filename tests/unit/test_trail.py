"""Where a reader goes back to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from durable_notify._core.checkpoints import LENGTH, Checkpoints, closed
from durable_notify._core.position import BEGINNING, Place

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("place", "after"),
    [
        (Place("5:5:", 7, None, None, 0), Place("5:5:", 7, None, None, 0)),
        (Place("5:5:", 7, "9:9:", 12, 10), Place("9:9:", 10, None, None, 0)),
        (Place("5:5:", 7, "9:9:", 12, 7), Place("9:9:", 7, None, None, 0)),
        # In the midst of late messages: which of those above p are read, the window alone knows.
        (Place("5:5:", 7, "9:9:", 12, 3), Place("5:5:", 7, None, None, 0)),
    ],
)
def test_closed(place: Place, after: Place) -> None:
    assert closed(place) == after


def test_back() -> None:
    trail = Checkpoints(BEGINNING, None)
    for message_id in (3, 5):
        trail.note(NOW, Place("3:3:", 0, "9:9:", 12, message_id))
    trail.note(NOW, Place("9:9:", 5, "11:11:", 12, 2))  # late
    five, three, beginning = trail.back()
    assert (five.id, three.id) == (5, 3)
    assert (beginning.id, beginning.place) == (0, BEGINNING)
    trail.forget_after(three)
    assert list(trail.back()) == [three, beginning]


def test_it_is_not_kept_for_ever() -> None:
    trail = Checkpoints(BEGINNING, None)
    for message_id in range(1, LENGTH + 10):
        trail.note(NOW, Place("3:3:", 0, "9:9:", 999, message_id))
    assert len(list(trail.back())) == LENGTH
