"""Limit how often an error is logged."""

from __future__ import annotations

import logging
import threading

__all__ = ["LogThrottle"]


class LogThrottle:
    """Lets an error be logged once, and then once a minute while it lasts.

    Two errors of one type about one thing count as the same, even if their texts differ: texts
    contain addresses and process ids.
    """

    EVERY = 60.0

    def __init__(self) -> None:
        self._said: dict[tuple[str, type, str | None], float] = {}
        self._mutex = threading.Lock()  # handlers run in several threads

    def level(self, about: str, error: BaseException | None, now: float) -> int:
        """Return the level to log an error at: WARNING, or DEBUG if it was logged recently."""
        trouble = (about, type(error), getattr(error, "sqlstate", None))
        with self._mutex:
            said = self._said.get(trouble)
            if said is not None and now - said < self.EVERY:
                return logging.DEBUG
            self._said[trouble] = now
        return logging.WARNING
