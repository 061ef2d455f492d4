"""A lease and the outcomes of its messages, as its consumer knows them; no I/O, no clock."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING

from ..durations import Seconds, in_seconds
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
    """Redeliver the message after a delay, or by its group's backoff.

    ``error`` is the reason to store: ``type``, ``message`` and ``traceback``.
    """

    delay: Seconds | None = None
    error: Failure | None = None

    def __post_init__(self) -> None:
        delay = in_seconds("delay", self.delay, zero=True, optional=True)
        object.__setattr__(self, "delay", delay)
        object.__setattr__(self, "error", sanitize_error(self.error))

    @property
    def seconds(self) -> float | None:
        """The delay; None: by the group's backoff."""
        return self.delay  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """Make the message a dead letter; ``error`` as in ``Retry``."""

    reason: str = "rejected"
    error: Failure | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str):
            raise InvalidArgument(f"a reason must be a str, not {type(self.reason).__name__}")
        object.__setattr__(self, "reason", to_storable(self.reason))
        object.__setattr__(self, "error", sanitize_error(self.error))


Outcome = Ack | Retry | Reject


class Settlement:
    """Collects outcomes of one lease, to settle them in one statement."""

    __slots__ = ("acked", "error", "flushed", "refused", "rejected", "retried", "uncertain")

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.retried: list[tuple[int, Retry]] = []
        self.rejected: list[tuple[int, Reject]] = []
        self.flushed = False
        self.error: Exception | None = None
        self.refused: dict[int, Exception] = {}  # single messages that could not be settled
        self.uncertain = False  # the connection broke during the send: it may have arrived

    def error_of(self, message_id: int) -> Exception | None:
        """Return why a message could not be settled; None: it is settled."""
        return self.refused.get(message_id, self.error)

    def pop(self, rank: Callable[[int], int]) -> tuple[int, Settlement]:
        """Remove the outcome of the message that ranks first, and return it as a settlement."""
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
        """Return the ids of the messages."""
        return {*self.acked, *(i for i, _ in self.retried), *(i for i, _ in self.rejected)}

    def add(self, other: Settlement) -> None:
        """Add the outcomes of another settlement."""
        self.acked += other.acked
        self.retried += other.retried
        self.rejected += other.rejected

    def __len__(self) -> int:
        return len(self.acked) + len(self.retried) + len(self.rejected)


def already_settled(message_id: int) -> AlreadySettled:
    return AlreadySettled(f"message {message_id} was already settled")


class Lease:
    """A lease that this consumer holds, and the state of its messages.

    A message is *open* until it is *settled* (an outcome was recorded) or *finished* (its handler
    has acknowledged it in a transaction of its own). Its outcome is *durable* once it was flushed,
    or once that transaction is known to have committed. Then the next message of its key may be
    handled. The lease is done once no message is open and all outcomes are flushed.
    """

    __slots__ = (
        "_mutex", "_on_durable", "_ordered", "_sent_back", "_sizes", "_unsent", "attempts",
        "claimed_at", "given_up", "ids", "in_transaction", "lost", "open", "ordering_keys",
        "pending", "rolled_back_by", "sure_at", "token", "topic", "unconfirmed", "withdrawn",
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
        self.topic = ""  # set, as the attempts are, only if events have a subscriber
        self.attempts: Mapping[int, int] = {}
        self.ordering_keys = ordering_keys
        self.ids = tuple(ordering_keys)
        self._ordered = any(key is not None for key in ordering_keys.values())
        self._sizes = sizes or {}
        self._on_durable = on_durable  # called for each message whose outcome is durable
        self._sent_back: dict[int, list[int]] = {}  # by the message they were sent back with
        self.open = set(self.ids)
        self.pending = Settlement()
        self._unsent: list[Settlement] = []
        # Acknowledged in a transaction that may still roll back, with its name if that is known.
        self.in_transaction: dict[int, str | None] = {}
        self.rolled_back_by: dict[int, BaseException] = {}  # the error that ended its transaction
        self.withdrawn: dict[int, str] = {}  # what its handler may no longer settle, and why
        self.unconfirmed = False
        self.lost = False
        self.given_up = False
        self.claimed_at = claimed_at
        self.sure_at = claimed_at  # when it was last known to be held
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def record(self, message_id: int, outcome: Outcome, *, withdrawn: bool = False) -> Settlement:
        """Record an outcome; return the settlement it will be flushed with.

        Args:
            message_id: the message.
            outcome: its outcome.
            withdrawn: whether its handler was given up, and may not settle it.

        Raises:
            AlreadySettled: the message has an outcome.
            LeaseLost: the lease was superseded.
        """
        with self._mutex:
            self._close(message_id, withdrawn)
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
            self._close(message_id, True)

    def withdraw(self, message_id: int, why: str) -> None:
        """Prevent a message's handler from settling it."""
        with self._mutex:
            self.withdrawn[message_id] = why

    def mark_durable(self, message_ids: Iterable[int]) -> None:
        """Mark the outcomes of messages as durable: the next of their keys may be handled."""
        if not self._ordered:
            return
        ordering_keys, still_open, sent_back = self.ordering_keys, self.open, self._sent_back
        for message_id in message_ids:
            if message_id in still_open:
                continue  # it was refused, and waits to be settled
            if sent_back:
                self._report_durable(message_id)
            elif (ordering_key := ordering_keys[message_id]) is not None:
                self._on_durable(ordering_key, (self.token, message_id))

    def take(self) -> Settlement | None:
        """Take the outcomes recorded so far, to flush them; None if there are none."""
        with self._mutex:
            if self._unsent:
                return self._unsent.pop(0)
            if not len(self.pending):
                return None
            taken, self.pending = self.pending, Settlement()
            if len(taken.acked) == len(self.ids):
                taken.acked = list(self.ids)  # in this order the database settles the lease whole
            return taken

    def put_back(self, taken: Settlement) -> None:
        """Return outcomes that could not be flushed."""
        with self._mutex:
            self._unsent.insert(0, taken)

    def lose(self) -> None:
        """Mark the lease as superseded; outcomes that wait to be flushed have failed.

        Except those that may have arrived when the connection broke: the next flush finds out.
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
        """Reopen a message whose outcome was refused as out of order: it may be settled later.

        If it is not, the lease expires, and its open messages are redelivered.
        """
        with self._mutex:
            self.open.add(message_id)
            self.given_up = True

    def rolled_back(self, message_ids: Iterable[int], outcome: Outcome) -> None:
        """Settle messages whose transactions have rolled back with another outcome."""
        ids = set(message_ids)
        with self._mutex:
            if self.lost:
                return
            self.open |= ids
            for message_id in ids:
                self.in_transaction.pop(message_id, None)
        for message_id in self.ids:
            # Trap: a message sent back with an earlier one of its key has that one's outcome.
            if message_id in ids and message_id in self.open:
                with contextlib.suppress(LeaseLost):  # then it is redelivered anyway
                    self.record(message_id, outcome, withdrawn=True)

    def check(self, message_id: int, *, withdrawn: bool = False) -> None:
        """Raise AlreadySettled or LeaseLost if the message cannot be settled."""
        if self.lost:
            raise self._lost_error()
        if not withdrawn and (why := self.withdrawn.get(message_id)) is not None:
            raise AlreadySettled(f"message {message_id} is redelivered: {why}")
        if message_id not in self.open:
            raise already_settled(message_id)

    @property
    def held(self) -> int:
        """How many messages are open, or have an outcome that is not flushed."""
        return len(self.open) + len(self.pending) + sum(len(taken) for taken in self._unsent)

    @property
    def held_bytes(self) -> int:
        """The size of the payloads of the open messages."""
        return sum(self._sizes.get(message_id, 0) for message_id in tuple(self.open))

    @property
    def settled(self) -> bool:
        """Whether no message is open and nothing waits to be flushed."""
        return not (self.open or self._unsent or len(self.pending))

    @property
    def uncertain(self) -> bool:
        """Whether an outcome that waits to be flushed may have arrived already."""
        return any(outcomes.uncertain for outcomes in tuple(self._unsent))

    @property
    def presumed_settled(self) -> bool:
        """Whether a transaction, ended or not, has acknowledged each open message."""
        return self.open <= self.in_transaction.keys()

    def _report_durable(self, message_id: int) -> None:
        for each in (message_id, *self._sent_back.pop(message_id, ())):
            if (ordering_key := self.ordering_keys[each]) is not None:
                self._on_durable(ordering_key, (self.token, each))

    def _send_back(self, message_id: int) -> None:
        """Close the later messages of a retried message's key: the database sends them back too."""
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

    def _close(self, message_id: int, withdrawn: bool) -> None:
        if self.lost or self.withdrawn or message_id not in self.open:
            self.check(message_id, withdrawn=withdrawn)
        self.open.discard(message_id)
        if message_id in self.in_transaction:
            # If two transactions settle the last two messages at once, the lease remains.
            self.unconfirmed = True

    def _lost_error(self) -> LeaseLost:
        return LeaseLost(f"lease {self.token} was superseded: another consumer has its messages")
