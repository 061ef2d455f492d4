"""What a consumer knows of the leases it holds: pure bookkeeping, without I/O or a clock."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from ..errors import AlreadySettled, LeaseLost

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Ack", "HeldLease", "Outcome", "Outcomes", "Reject", "Retry", "already_settled", "storable",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """The message was handled."""


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """The message is to come again after ``delay`` seconds."""

    delay: float
    error: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """The message is to become a dead letter."""

    reason: str


Outcome = Ack | Retry | Reject


class Outcomes:
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

    def pop(self) -> tuple[int, Outcomes]:
        """Take one outcome out, as a collection of its own."""
        one = Outcomes()
        if self.acked:
            one.acked.append(message_id := self.acked.pop())
        elif self.retried:
            one.retried.append(retried := self.retried.pop())
            message_id = retried[0]
        else:
            one.rejected.append(rejected := self.rejected.pop())
            message_id = rejected[0]
        return message_id, one

    def ids(self) -> set[int]:
        """Return the messages whose outcomes these are."""
        return {*self.acked, *(i for i, _ in self.retried), *(i for i, _ in self.rejected)}

    def add(self, other: Outcomes) -> None:
        """Put outcomes in again."""
        self.acked += other.acked
        self.retried += other.retried
        self.rejected += other.rejected

    def __len__(self) -> int:
        return len(self.acked) + len(self.retried) + len(self.rejected)


def already_settled(message_id: int) -> AlreadySettled:
    return AlreadySettled(f"message {message_id} was already settled")


def storable(text: str) -> str:
    """Replace what a ``text`` of PostgreSQL cannot hold: NUL characters and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class HeldLease:
    """A lease this consumer holds, and how far its messages have come.

    A message is *open* until it is *settled* (an outcome was recorded) or *finished* (its handler
    has acknowledged it in a transaction of its own, whose end nobody told us). The lease is done
    once no message is open and all outcomes are flushed.
    """

    __slots__ = (
        "_mutex", "_unsent", "claimed_at", "ids", "lost", "open", "pending", "token", "tried",
        "unconfirmed",
    )  # fmt: skip

    def __init__(self, token: int, ids: Iterable[int], claimed_at: float) -> None:
        self.token = token
        self.ids = tuple(ids)
        self.open = set(self.ids)
        self.pending = Outcomes()
        self._unsent: list[Outcomes] = []
        self.tried: set[int] = set()  # acknowledged in a transaction that may yet roll back
        self.unconfirmed = False
        self.lost = False
        self.claimed_at = claimed_at
        self._mutex = threading.Lock()  # sync handlers run in several threads

    def record(self, message_id: int, outcome: Outcome) -> Outcomes:
        """Take note of an outcome; returns the collection it will be flushed with.

        Raises:
            AlreadySettled: the message has an outcome.
            LeaseLost: the lease was superseded.
        """
        with self._mutex:
            self._close(message_id)
            pending = self.pending
            if isinstance(outcome, Ack):
                pending.acked.append(message_id)
            elif isinstance(outcome, Retry):
                pending.retried.append((message_id, outcome))
            else:
                pending.rejected.append((message_id, outcome))
            return pending

    def finish(self, message_id: int) -> None:
        """Take note that a message was settled elsewhere, in a transaction not known to be over."""
        with self._mutex:
            self._close(message_id)

    def take(self) -> Outcomes | None:
        """Take outcomes collected so far, to flush them; None where there are none."""
        with self._mutex:
            if self._unsent:
                return self._unsent.pop(0)
            if not len(self.pending):
                return None
            taken, self.pending = self.pending, Outcomes()
            if len(taken.acked) == len(self.ids):
                taken.acked = list(self.ids)  # in this order the database settles it at one stroke
            return taken

    def put_back(self, taken: Outcomes) -> None:
        """Return outcomes that could not be flushed."""
        with self._mutex:
            self._unsent.insert(0, taken)

    def lose(self) -> None:
        """Take note that the lease was superseded; what waits to be flushed has failed."""
        with self._mutex:
            self.lost = True
            for outcomes in (*self._unsent, self.pending):
                outcomes.error = self._lost_error()
                outcomes.flushed = True
            self._unsent, self.pending = [], Outcomes()

    def check(self, message_id: int) -> None:
        """Raise what settling the message would: AlreadySettled or LeaseLost."""
        if self.lost:
            raise self._lost_error()
        if message_id not in self.open:
            raise already_settled(message_id)

    @property
    def held(self) -> int:
        """How many messages are open, or their outcome not flushed."""
        return len(self.open) + len(self.pending) + sum(len(taken) for taken in self._unsent)

    @property
    def settled(self) -> bool:
        """Whether no message is open any more and nothing waits to be flushed."""
        return not (self.open or self._unsent or len(self.pending))

    @property
    def presumed_settled(self) -> bool:
        """Whether every open message was acknowledged in some transaction, over or not."""
        return self.open <= self.tried

    def _close(self, message_id: int) -> None:
        self.check(message_id)
        self.open.discard(message_id)
        # Two transactions that settle the last two messages at once leave the lease standing.
        self.unconfirmed |= message_id in self.tried

    def _lost_error(self) -> LeaseLost:
        return LeaseLost(f"lease {self.token} was superseded: another consumer has its messages")
