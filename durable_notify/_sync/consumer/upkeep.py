# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Regular checks of a consumer's connections and its group's options."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from ...events import OptionDiffers
from ..database.connection import TRANSIENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..._core.emitter import EventEmitter
    from ...options import ConsumerOptions
    from ..concurrency import Event
    from ..database.queries import Queries

__all__ = ["Upkeep"]

log = logging.getLogger("durable_notify")

#: How often to check whether the group still has the options that were given, in seconds.
COMPARE = 60.0


class Upkeep:
    """Finds dead connections, and warns if the group's options are not those that were given."""

    def __init__(self, queries: Queries, options: ConsumerOptions, emitter: EventEmitter) -> None:
        self._queries = queries
        self._options = options
        self._emitter = emitter
        self._reported: dict[str, Any] = {}  # the value of each option in the last warning

    def check_loop(self, closing: Event, beat: Callable[[], bool]) -> None:
        """Check until closing.

        Args:
            closing: ends the loop.
            beat: called each time; returns whether the database may be suspended.
        """
        compared_at = time.monotonic()
        while not closing.wait(self._options.heartbeat_interval):
            if beat():
                continue
            self._queries.check()
            if time.monotonic() - compared_at >= COMPARE:
                compared_at = time.monotonic()
                with contextlib.suppress(*TRANSIENT):
                    self.say_differing(self._queries.differing(), started=False)

    def say_differing(self, options: Mapping[str, tuple[Any, Any]], *, started: bool) -> None:
        """Warn of options of the group that differ from those given, once for each value."""
        group = self._options.group.name
        for name, (stored, given) in options.items():
            if self._reported.get(name) == stored:
                continue
            self._reported[name] = stored
            why = (
                "the options of this consumer apply from here on"
                if started
                else "the group's option was changed since this consumer started"
            )
            log.warning(
                "group %r: %s %s %r, and this consumer was given %r: %s. Give all consumers of the "
                "group the same, or none, and set it by configure",
                group, name, "was" if started else "is", stored, given, why,
            )  # fmt: skip
            if self._emitter:
                differs = OptionDiffers(
                    group=group, option=name, stored=str(stored), given=str(given)
                )
                self._emitter.emit(differs)
