"""What a consumer knows of the leases it holds: pure bookkeeping, without I/O or a clock."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from ..errors import AlreadySettled, InvalidArgument, LeaseLost
from .sanitize import sanitize_error, to_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .ordering import Delivery, OrderingKey
    from .sanitize import Failure

__all__ = [
    "Ack",
    "Lease",
    "Outcome",
    "Reject",
    "Retry",
    "Settlement",
    "already_settled",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """The message was handled."""


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """The message is to be redelivered after ``delay`` seconds, or as its group backs off.

    ``error`` is what is kept of the reason: ``type``, ``message`` and ``traceback``.
    """

    delay: float | timedelta | None = None
    error: Failure | None = None

    def __post_init__(self) -> None:
        delay = self.delay
        if isinstance(delay, timedelta):
            object.__setattr__(self, "delay", delay := delay.total_seconds())
        if delay is not None and not 0 <= delay < 10**9:
            raise InvalidArgument(f"delay must be 0 or more seconds, not {delay!r}")
        object.__setattr__(self, "error", sanitize_error(self.error))

    @property
    def seconds(self) -> float | None:
        """The delay, or None: as the group backs off."""
        return None if self.delay is None else float(self.delay)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """The message is to become a dead letter; ``error`` as in ``Retry``."""

    reason: str = "rejected"
    error: Failure | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str):
            raise InvalidArgument(f"a reason must be a str, not {type(self.reason).__name__}")
        object.__setattr__(self, "reason", to_storable(self.reason))
        object.__setattr__(self, "error", sanitize_error(self.error))


Outcome = Ack | Retry | Reject


class Settlement:
    """Outcomes of one lease, collected to be settled in one statement."""

    __slots__ = ("acked", "error", "flushed", "refused", "rejected", "retried", "uncertain")

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.retried: list[tuple[int, Retry]] = []
        self.rejected: list[tuple[int, Reject]] = []
        self.flushed = False
        self.error: Exception | None = None
        self.refused: dict[int, Exception] = {}  # single messages that could not be settled
        self.uncertain = False  # the connection broke while it was sent: it may have arrived

    def error_of(self, message_id: int) -> Exception | None:
        """Return what became of a message's outcome; None: it is settled."""
        return self.refused.get(message_id, self.error)

    def pop(self, rank: Callable[[int], int]) -> tuple[int, Settlement]:
        """Take out the outcome of the message that ranks first, as a collection of its own."""
        message_id = min(self.ids(), key=rank)
        one = Settlement()
        one.acked = [i for i in self.acked if i == message_id]
        one.retried = [pair for pair in self.retried if pair[0] == message_id]
        one.rejected = [pair for pair in self.rejected if pair[0] == message_id]
        self.acked = [i for i in self.acked if i != message_id]
        self.retried = [pair for pair in self.retried if pair[0] != message_id]
        self.rejected = [pair for pair in self.rejected if pair[0] != message_id]
        return message_id, one

    def ids(self) -> set[int]:
        """Return the messages whose outcomes these are."""
        return {*self.acked, *(i for i, _ in self.retried), *(i for i, _ in self.rejected)}

    def add(self, other: Settlement) -> None:
        """Put outcomes in again."""
        self.acked += other.acked
        self.retried += other.retried
        self.rejected += other.rejected

    def __len__(self) -> int:
        return len(self.acked) + len(self.retried) + len(self.rejected)


def already_settled(message_id: int) -> AlreadySettled:
    return AlreadySettled(f"message {message_id} was already settled")


class Lease:
    """A lease this consumer holds, and how far its messages have come.

    A message is *open* until it is *settled* (an outcome was recorded) or *finished* (its handler
    has acknowledged it in a transaction of its own). Its outcome is *durable* once it was flushed,
    or that transaction is known to have committed; then the next of its key may be handled. The
    lease is done once no message is open and all outcomes are flushed.
    """

    __slots__ = (
        "_mutex", "_on_durable", "_sent_back", "_sizes", "_unsent", "attempts", "claimed_at",
        "given_up", "ids", "in_transaction", "lost", "open", "ordering_keys", "pending",
        "rolled_back_by", "sure_at", "token", "topic", "unconfirmed", "withdrawn",
    )  # fmt: skip

    def __init__(
        self,
        token: int,
        ordering_keys: Mapping[int, OrderingKey | None],
        claimed_at: float,
        on_durable: Callable[[OrderingKey, Delivery], None] = lambda _key, _delivery: None,
        sizes: Mapping[int, int] | None = None,
    ) -> None:
        self.token = token
        self.topic = ""  # this and the attempts are known if anything subscribes to events
        self.attempts: Mapping[int, int] = {}
        self.ordering_keys = ordering_keys
        self.ids = tuple(ordering_keys)
        self._sizes = sizes or {}
        self._on_durable = on_durable  # called for each message whose outcome is durable
        self._sent_back: dict[int, list[int]] = {}  # with which one
        self.open = set(self.ids)
        self.pending = Settlement()
        self._unsent: list[Settlement] = []
        # Acknowledged in a transaction that may yet roll back; and in which, if that is known.
        self.in_transaction: dict[int, str | None] = {}
        self.rolled_back_by: dict[int, BaseException] = {}  # what ended a message's transaction
        self.withdrawn: dict[int, str] = {}  # what is not its handler's to settle any more, and why
        self.unconfirmed = False
        self.lost = False
        self.given_up = False
        self.claimed_at = claimed_at
        self.sure_at = claimed_at  # when it was last known to be ours
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def record(self, message_id: int, outcome: Outcome, *, withdrawn: bool = False) -> Settlement:
        """Record an outcome; returns the settlement it will be flushed with.

        Args:
            message_id: the message.
            outcome: what becomes of it.
            withdrawn: its handler was given up, and has no say in it.

        Raises:
            AlreadySettled: the message has an outcome.
            LeaseLost: the lease was superseded.
        """
        with self._mutex:
            self._close(message_id, withdrawn=withdrawn)
            pending = self.pending
            if isinstance(outcome, Ack):
                pending.acked.append(message_id)
            elif isinstance(outcome, Retry):
                pending.retried.append((message_id, outcome))
                self._send_back(message_id)
            else:
                pending.rejected.append((message_id, outcome))
        return pending

    def finish(self, message_id: int) -> None:
        """Finish a message that was settled in another transaction, not known to have ended."""
        with self._mutex:
            self._close(message_id, withdrawn=True)

    def withdraw(self, message_id: int, why: str) -> None:
        """Have nothing that its handler does settle a message any more."""
        with self._mutex:
            self.withdrawn[message_id] = why

    def mark_durable(self, message_ids: Iterable[int]) -> None:
        """Mark the outcomes of messages as durable: the next of their keys may be handled."""
        for message_id in message_ids:
            if message_id not in self.open:  # else it was refused, and waits to be settled
                self._report_durable(message_id)

    def take(self) -> Settlement | None:
        """Take outcomes recorded so far, to flush them; None if there are none."""
        with self._mutex:
            if self._unsent:
                return self._unsent.pop(0)
            if not len(self.pending):
                return None
            taken, self.pending = self.pending, Settlement()
            if len(taken.acked) == len(self.ids):
                taken.acked = list(self.ids)  # in this order the database settles it at one stroke
            return taken

    def put_back(self, taken: Settlement) -> None:
        """Return outcomes that could not be flushed."""
        with self._mutex:
            self._unsent.insert(0, taken)

    def lose(self) -> None:
        """Mark the lease as superseded; what waits to be flushed has failed.

        Except what may have arrived when the connection broke: the next flush finds out.
        """
        failed = set(self.open)
        with self._mutex:
            self.lost = True
            for outcomes in (*self._unsent, self.pending):
                if not outcomes.uncertain:
                    outcomes.error = self._lost_error()
                    outcomes.flushed = True
                    failed |= outcomes.ids()
            self._unsent = [outcomes for outcomes in self._unsent if outcomes.uncertain]
            self.pending = Settlement()
        for message_id in failed:
            self._report_durable(message_id)

    def reopen(self, message_id: int) -> None:
        """Open a message again whose outcome was refused as out of order: it may be settled later.

        If it is not, the lease runs out, and what is open of it is redelivered.
        """
        with self._mutex:
            self.open.add(message_id)
            self.given_up = True

    def rolled_back(self, message_ids: Iterable[int], outcome: Outcome) -> None:
        """Settle messages otherwise that were finished in transactions which have rolled back."""
        ids = set(message_ids)
        with self._mutex:
            if self.lost:
                return
            self.open |= ids
            for message_id in ids:
                self.in_transaction.pop(message_id, None)
        for message_id in self.ids:
            # Trap: one that is sent back with an earlier one of its key has its outcome by that.
            if message_id in ids and message_id in self.open:
                with contextlib.suppress(LeaseLost):  # then it is redelivered all the same
                    self.record(message_id, outcome, withdrawn=True)

    def check(self, message_id: int, *, withdrawn: bool = False) -> None:
        """Raise what settling the message would: AlreadySettled or LeaseLost."""
        if self.lost:
            raise self._lost_error()
        if not withdrawn and (why := self.withdrawn.get(message_id)) is not None:
            raise AlreadySettled(f"message {message_id} is redelivered: {why}")
        if message_id not in self.open:
            raise already_settled(message_id)

    @property
    def held(self) -> int:
        """How many messages are open, or their outcome not flushed."""
        return len(self.open) + len(self.pending) + sum(len(taken) for taken in self._unsent)

    @property
    def held_bytes(self) -> int:
        """How large the payloads of the open messages are."""
        return sum(self._sizes.get(message_id, 0) for message_id in tuple(self.open))

    @property
    def settled(self) -> bool:
        """Whether no message is open any more and nothing waits to be flushed."""
        return not (self.open or self._unsent or len(self.pending))

    @property
    def uncertain(self) -> bool:
        """Whether outcomes wait to be flushed that may have arrived already."""
        return any(outcomes.uncertain for outcomes in tuple(self._unsent))

    @property
    def presumed_settled(self) -> bool:
        """Whether every open message was acknowledged in some transaction, over or not."""
        return self.open <= self.in_transaction.keys()

    def _report_durable(self, message_id: int) -> None:
        for each in (message_id, *self._sent_back.pop(message_id, ())):
            if (ordering_key := self.ordering_keys[each]) is not None:
                self._on_durable(ordering_key, (self.token, each))

    def _send_back(self, message_id: int) -> None:
        """Close what follows a retried message of its key: the database sends it back with it."""
        ordering_key = self.ordering_keys[message_id]
        if ordering_key is None:
            return
        later = [
            other
            for other in self.ids[self.ids.index(message_id) + 1 :]
            if self.ordering_keys[other] == ordering_key
            and other in self.open
            and other not in self.in_transaction
        ]
        self.open.difference_update(later)
        self.withdrawn.update(dict.fromkeys(later, "it was sent back with one before it"))
        self._sent_back[message_id] = later

    def _close(self, message_id: int, *, withdrawn: bool) -> None:
        self.check(message_id, withdrawn=withdrawn)
        self.open.discard(message_id)
        # Two transactions that settle the last two messages at once leave the lease standing.
        self.unconfirmed |= message_id in self.in_transaction

    def _lost_error(self) -> LeaseLost:
        return LeaseLost(f"lease {self.token} was superseded: another consumer has its messages")
