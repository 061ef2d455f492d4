# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A consumer's leases: extended, settled and released."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from ..._core.lease_table import LeaseTable
from ..._core.leases import Ack, Lease
from ..._core.log_throttle import LogThrottle
from ..._core.pacing import backoff
from ...dsn import safe_message
from ...errors import AlreadySettled, ConsumerClosed, LeaseLost, UsedAfterFork
from ..concurrency import Event, shielded
from ..database.connection import TRANSIENT
from .flusher import Flusher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..._core.emitter import EventEmitter
    from ..._core.leases import Outcome
    from ..._core.ordering import KeyQueue, OrderingKey
    from ...options import ConsumerOptions
    from ..database.queries import Queries
    from ..database.transactions import TransactionPool

__all__ = ["LeaseManager"]

log = logging.getLogger("durable_notify")


class LeaseManager:
    """Holds a consumer's leases: extends them, and flushes the outcomes of their messages.

    Args:
        queries: the database half.
        options: of the consumer.
        emitter: emits the events of leases and outcomes.
        on_capacity: called whenever messages are no longer held.
        buffer: receives each message whose outcome is durable.
    """

    def __init__(
        self,
        queries: Queries,
        options: ConsumerOptions,
        emitter: EventEmitter,
        on_capacity: Callable[[], None],
        buffer: KeyQueue,
    ) -> None:
        self._queries = queries
        self._options = options
        self._emitter = emitter
        self._buffer = buffer
        self._leases = LeaseTable(emitter, on_capacity)
        self.closing = Event()  # ends the loops
        self._flusher = Flusher(queries, self._leases, emitter, self.closing)
        self._closed = False
        self._process = os.getpid()
        self._log_throttle = LogThrottle()
        # Acknowledged in transactions that may still be open.
        self.pending_in_transaction: set[tuple[Lease, int]] = set()
        self.flush = self._flusher.flush
        self.flush_loop = self._flusher.loop
        self.hurry = self._flusher.hurry

    def hold(
        self, token: int, ordering_keys: Mapping[int, OrderingKey | None], sizes: Mapping[int, int]
    ) -> Lease:
        """Add a lease: its messages, their ordering keys, and their sizes."""
        lease = Lease(token, ordering_keys, time.monotonic(), self._buffer.finish, sizes)
        self._leases[token] = lease
        return lease

    @property
    def held(self) -> int:
        """How many messages are held: not settled, or with an outcome that is not flushed."""
        return self._leases.held

    @property
    def held_bytes(self) -> int:
        """The size of the payloads of messages that have no outcome yet."""
        return self._leases.held_bytes

    @property
    def emits(self) -> bool:
        """Whether events have a subscriber."""
        return bool(self._emitter)

    @property
    def group(self) -> str:
        """The consumer group."""
        return self._options.group.name

    @property
    def transactions(self) -> TransactionPool:
        """The connections for the handlers' transactions."""
        return self._queries.transactions

    def check_open(self) -> None:
        """Raise ConsumerClosed if the leases were released, UsedAfterFork in another process."""
        if os.getpid() != self._process:
            raise UsedAfterFork(
                "the message was taken before the fork: settle it in the parent process"
            )
        if self._closed:
            raise ConsumerClosed("the consumer was closed; its unsettled messages are redelivered")

    # Settling

    def settle(
        self, lease: Lease, message_id: int, outcome: Outcome, *, withdrawn: bool = False
    ) -> None:
        """Settle a message, durably on return."""
        outcomes = lease.record(message_id, outcome, withdrawn=withdrawn)
        delay = 0.0
        while not outcomes.flushed:
            self.check_open()
            # It may be known as settled, but not by whom; or have been given up meanwhile.
            self._leases.setdefault(lease.token, lease)
            try:
                shielded(self._flusher.flush)
            except TRANSIENT as error:
                # The outcome is kept until the database is back, or the lease is lost.
                delay = backoff(1, min(max(delay * 2, 0.1), 5.0), 5.0)
                self._log_throttled("settling waits for the database", error)
                self.closing.wait(delay)
        if (refusal := outcomes.error_of(message_id)) is not None:
            raise refusal

    def settle_soon(self, lease: Lease, message_id: int, outcome: Outcome) -> None:
        """Record the outcome of a message, without waiting for the flush."""
        lease.record(message_id, outcome)
        self.flush_soon(
            urgent=not lease.open
            or not isinstance(outcome, Ack)
            or self._buffer.blocks(lease.ordering_keys[message_id])
        )

    def flush_soon(self, *, urgent: bool) -> None:
        """Flush without a wait for it: at once if that is urgent, else with later outcomes."""
        if urgent:
            self._flusher.hurry()
        else:
            self._flusher.soon()

    def settle_failed(self, lease: Lease, message_id: int, outcome: Outcome) -> None:
        """Settle a message whose handler raised or was given up."""
        try:
            self.settle(lease, message_id, outcome, withdrawn=message_id in lease.withdrawn)
        except (AlreadySettled, LeaseLost):
            # It was settled before it failed, or another consumer has it: nothing is left to do.
            log.info("message %s was settled before its handler failed", message_id)

    def settled_in_transaction(
        self, lease: Lease, message_id: int, *, committed: bool = False
    ) -> None:
        """Finish a message that its handler's transaction acknowledged."""
        if message_id in lease.open and not lease.lost:
            lease.finish(message_id)
            if self._emitter:
                self._emitter.finished(lease)
            if committed or not self._buffer.next_waits(lease.ordering_keys[message_id]):
                lease.mark_durable([message_id])
            else:
                self._flusher.doubt(lease, message_id)
            if not lease.open:
                self._flusher.hurry()

    def finish_pending(self) -> None:
        """Finish pending messages: the loop's body has ended, and most likely its transactions."""
        while self.pending_in_transaction:
            self.settled_in_transaction(*self.pending_in_transaction.pop())

    def leave_to_transaction(self, lease: Lease, message_id: int) -> bool:
        """Leave the message of a given-up handler to the transaction that acknowledged it.

        Returns whether there is one.
        """
        if message_id not in lease.in_transaction:
            return False
        # Trap: settling it here would wait for that transaction, and block all other outcomes.
        lease.finish(message_id)
        self._flusher.doubt(lease, message_id)
        return True

    # Keeping leases alive

    def extend(self, lease: Lease, seconds: float) -> None:
        """Extend one lease."""
        extended = self._queries.extend([lease.token], seconds)
        # A message acknowledged in an open transaction can neither be extended nor lost.
        if lease.token not in extended and not lease.presumed_settled:
            self._leases.lose(lease)
            raise LeaseLost(
                f"lease {lease.token} was superseded: another consumer has its messages"
            )

    def is_sure(self, lease: Lease) -> bool:
        """Whether a lease cannot have expired unnoticed."""
        age = time.monotonic() - lease.sure_at
        return age < self._options.lease or lease.token not in self._leases

    def confirm(self, lease: Lease) -> None:
        """Find out whether a lease is still held, after a suspension or an outage."""
        try:
            self._prolong([lease.token])
        except TRANSIENT as error:
            self._log_throttled("could not verify the lease", error)

    def heartbeat_loop(self, suspended: Callable[[], bool]) -> None:
        """Extend the leases held, until closed; and what only one consumer of a group has.

        Trap: a consumer that is ``suspended`` lets another become the active one, because it may
        not keep the database awake. It has no leases.
        """
        pause = self._options.lease / 3
        while not self.closing.wait(pause):
            pause = self._options.lease / 3
            held = [
                token
                for token, lease in list(self._leases.items())
                if not (lease.settled or lease.given_up)
            ]
            try:
                if self._queries.exclusive and not suspended():
                    self._queries.renew_active()
                if held:
                    self._prolong(held)
            except TRANSIENT as error:
                self._log_throttled("leases could not be extended", error)
                pause = min(1.0, self._options.lease / 10)  # there is time to retry

    def _prolong(self, tokens: list[int]) -> None:
        """Extend leases, and mark those that were lost."""
        before = time.monotonic()
        alive = self._queries.extend(tokens, self._options.lease)
        for token in tokens:
            lease = self._leases.get(token)
            if lease is None:
                continue
            if token in alive:
                lease.sure_at = before
                continue
            if lease.settled:
                continue
            if not lease.presumed_settled:
                log.warning("lease %s was lost: its messages go to another consumer", token)
                self._leases.lose(lease)
            if not lease.uncertain:  # otherwise the flush finds out
                self._leases.forget(lease)

    def _log_throttled(self, what: str, error: BaseException) -> None:
        level = self._log_throttle.level(what, error, time.monotonic())
        log.log(level, "%s: %s", what, safe_message(error))

    # Closing

    def close(self) -> None:
        """Send all outcomes and release what is unsettled; log a longer outage."""
        for delay in (0.1, 0.3, 1.0, 0.0):  # after a restart each connection of the pool is stale
            try:
                self._flusher.flush()
                if tokens := list(self._leases):
                    self._queries.release(tokens, counted=False)
                if self._queries.exclusive:
                    self._queries.resign_active()
                break
            except Exception as error:
                if not delay or not isinstance(error, TRANSIENT):
                    # Nothing is lost: the leases expire.
                    log.warning(
                        "leases were not released, and will expire: %s", safe_message(error)
                    )
                    break
                self.closing.wait(delay)
        self._closed = True
        self._leases.clear()

    def stop_loops(self) -> None:
        """End the loops."""
        self.closing.set()
        self._flusher.hurry()
