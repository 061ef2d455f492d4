"""Emit events to subscribers, and contain what they raise."""

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
    """Emits events to subscribers; false if there are none, so that nothing is measured."""

    def __init__(self, on_event: OnEvent | Sequence[OnEvent] | None, group: str = "") -> None:
        self._subscribers = subscribers(on_event)
        self._log_throttle = LogThrottle()
        self.group = group

    def __bool__(self) -> bool:
        return bool(self._subscribers)

    def emit(self, event: Event) -> None:
        """Call the subscribers. What they raise is logged, and loses or delays no message."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except KeyboardInterrupt:
                raise  # the subscriber did not raise it
            except BaseException as error:
                # Trap: log each subscriber once a minute, or the log fills at the rate of messages.
                about = f"on_event {subscriber!r}"
                level = self._log_throttle.level(about, error, time.monotonic())
                log.log(level, "%s failed at %r", about, event.name, exc_info=True)

    def claimed(self, rows: Iterable[tuple[Any, ...]], seconds: float) -> None:
        """Emit an event for each lease claimed; a lease is of one topic."""
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
        """Emit the event of a handler's call."""
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
        """Emit the events of durable outcomes; ``dead``: retried after the last attempt."""
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
        """Emit the event of a message that its handler's transaction acknowledged."""
        self.emit(
            Settled(
                group=self.group, topic=lease.topic, acked=1, retried=0, rejected=0, seconds=0.0,
                in_transaction=True,
            )
        )  # fmt: skip

    def lost(self, lease: Lease, messages: int) -> None:
        """Emit the event of a lease that was lost to another consumer."""
        self.emit(LostLease(group=self.group, topic=lease.topic, messages=messages))
