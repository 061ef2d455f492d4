"""Hints that a consumer logs once if it waits for something that may never happen."""

from __future__ import annotations

import difflib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Unsettled", "say_unpublished"]

log = logging.getLogger("durable_notify")


class Unsettled:
    """Detects an iteration that waits for messages while its own are not settled.

    Args:
        until_empty: whether the iteration ends once nothing is left.
    """

    def __init__(self, *, until_empty: bool) -> None:
        self._until_empty = until_empty
        self._waiting = 0
        self._before = 0  # how many were unsettled at the previous check, while it waited
        self._said = False

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Mark that an iteration waits for its next message."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._before = 0

    def look(self, unsettled: int, *, room: bool) -> None:
        """Warn if nothing has changed since the last call; call it from time to time.

        Args:
            unsettled: how many messages were delivered and are not settled.
            room: whether more messages may be held.
        """
        stuck = self._waiting and unsettled and (self._until_empty or not room)
        if stuck and unsettled == self._before and not self._said:
            self._said = True
            log.warning(
                "iteration waits: %d delivered messages are not settled, and %s. Settle "
                "each one: ack(), retry() or reject(); run(handler) does that for you",
                unsettled,
                "until_empty ends it once they are"
                if self._until_empty
                else "prefetch is reached, so no more are claimed",
            )
        self._before = unsettled if stuck else 0


def say_unpublished(group: str, unpublished: Iterable[str], others: Iterable[str]) -> None:
    """Log topics to which nothing was ever published, and suggest similar ones."""
    known = list(others)
    for topic in unpublished:
        near = difflib.get_close_matches(topic, known, 3, 0.7)
        meant = f". Is it {' or '.join(map(repr, near))} that is meant?" if near else ""
        log.warning(
            "group %r waits for topic %r, to which no message was published so far%s",
            group,
            topic,
            meant,
        )
