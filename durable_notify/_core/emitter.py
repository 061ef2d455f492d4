"""Events: subscribers are told, and what they raise does no harm."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from ..events import (
    Claimed,
    DeadLettered,
    Handled,
    LostLease,
    Retried,
    Settled,
    name_of,
    subscribers,
)
from .log_throttle import LogThrottle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..events import Event, OnEvent
    from .leases import Lease, Settlement

__all__ = ["EventEmitter"]

log = logging.getLogger("durable_notify")


class EventEmitter:
    """Tells subscribers; false if there are none, so that nothing need be measured."""

    def __init__(self, on_event: OnEvent | Sequence[OnEvent] | None, group: str = "") -> None:
        self._subscribers = subscribers(on_event)
        self._log_throttle = LogThrottle()
        self.group = group

    def __bool__(self) -> bool:
        return bool(self._subscribers)

    def emit(self, event: Event) -> None:
        """Call the subscribers. What they raise is theirs: no message is lost or late for it."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except KeyboardInterrupt:
                raise  # it is not the subscriber's
            except BaseException as error:
                # Trap: of each subscriber once a minute, or the log fills at the rate of messages.
                about = f"on_event {subscriber!r}"
                level = self._log_throttle.level(about, error, time.monotonic())
                log.log(level, "%s failed at %r", about, event.name, exc_info=True)

    def claimed(self, rows: Iterable[tuple[Any, ...]], seconds: float) -> None:
        """Tell of messages claimed: of each lease, which is of one topic."""
        for _, part in itertools.groupby(rows, key=lambda row: row[0]):
            batch = list(part)
            size = sum(len(row[4] if row[5] is None else row[5]) for row in batch)
            self.emit(
                Claimed(
                    group=self.group, topic=batch[0][2], messages=len(batch), bytes=size,
                    seconds=seconds,
                )
            )  # fmt: skip

    def handled(self, messages: Sequence[Any], seconds: float, error: BaseException | None) -> None:
        """Tell of a handler's call."""
        for message in messages:
            self.emit(
                Handled(
                    group=self.group, topic=message.topic, message_id=message.id,
                    attempt=message.attempt, batch=len(messages), seconds=seconds,
                    error=None if error is None else name_of(error),
                )
            )  # fmt: skip

    def settled(
        self, lease: Lease, outcomes: Settlement, seconds: float, dead: Mapping[int, bool]
    ) -> None:
        """Tell of outcomes that are durable; ``dead``: those retried once too often."""
        self.emit(
            Settled(
                group=self.group, topic=lease.topic, acked=len(outcomes.acked),
                retried=len(outcomes.retried), rejected=len(outcomes.rejected), seconds=seconds,
            )
        )  # fmt: skip
        for message_id, retry in outcomes.retried:
            error = None if retry.error is None else retry.error["type"]
            if dead.get(message_id, False):
                self._dead(lease, message_id, error)
                continue
            self.emit(
                Retried(
                    group=self.group, topic=lease.topic, message_id=message_id,
                    attempt=lease.attempts.get(message_id, 0), delay=retry.seconds, error=error,
                )
            )  # fmt: skip
        for message_id, reject in outcomes.rejected:
            self._dead(lease, message_id, None if reject.error is None else reject.error["type"])

    def _dead(self, lease: Lease, message_id: int, error: str | None) -> None:
        self.emit(
            DeadLettered(
                group=self.group, topic=lease.topic, message_id=message_id,
                attempt=lease.attempts.get(message_id, 0), error=error,
            )
        )  # fmt: skip

    def finished(self, lease: Lease) -> None:
        """Tell of a message that was acknowledged in a transaction of its handler's."""
        self.emit(
            Settled(
                group=self.group, topic=lease.topic, acked=1, retried=0, rejected=0, seconds=0.0,
                in_transaction=True,
            )
        )  # fmt: skip

    def lost(self, lease: Lease, messages: int) -> None:
        """Tell of a lease that another consumer has."""
        self.emit(LostLease(group=self.group, topic=lease.topic, messages=messages))
