"""Flushing: send the outcomes of messages to the database together."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from ..._core.leases import Retry, already_settled
from ..._core.log_throttle import LogThrottle
from ...dsn import safe_message
from ...errors import LeaseLost, OutOfOrder, SettleError
from ..concurrency import Event, Lock
from ..database.connection import TRANSIENT, ConnectFailed

if TYPE_CHECKING:
    from ..._core.emitter import EventEmitter
    from ..._core.lease_table import LeaseTable
    from ..._core.leases import Lease, Settlement
    from ..database.queries import AsyncQueries

__all__ = ["AsyncFlusher"]

log = logging.getLogger("durable_notify")

#: How long an outcome may wait for others if no caller waits for it, in seconds.
FLUSH_AFTER = 0.05
#: How soon to check again whether handlers' transactions have ended, at first and at most.
AGAIN = (0.1, 3.0)
#: Why a message is redelivered if its handler returned and its transaction did not commit.
ROLLED_BACK = {"type": "", "message": "the transaction that acknowledged it was rolled back"}


class AsyncFlusher:
    """Sends outcomes, one transaction per lease, and checks those in handlers' transactions.

    A caller that waits for an outcome flushes it, with all others recorded during the previous
    flush (group commit). Other outcomes are flushed when their lease is complete, when a handler
    could only start the next message of their keys, or after ``FLUSH_AFTER``.

    Args:
        queries: the database half.
        leases: those of the consumer.
        emitter: emits the events of durable outcomes.
        closing: ends the loop.
    """

    def __init__(
        self, queries: AsyncQueries, leases: LeaseTable, emitter: EventEmitter, closing: Event
    ) -> None:
        self._queries = queries
        self._leases = leases
        self._emitter = emitter
        self._closing = closing
        self._flushing = Lock()
        self._dirty = Event()  # there are outcomes to flush
        self._urgent = Event()  # and they should not wait
        self._doubtful: list[tuple[Lease, int]] = []  # finished, and the next of a key waits
        self._log_throttle = LogThrottle()
        self.soon = self._dirty.set  # flush within FLUSH_AFTER

    def hurry(self) -> None:
        """Flush at once."""
        self._urgent.set()
        self._dirty.set()

    def doubt(self, lease: Lease, message_id: int) -> None:
        """Check later whether a handler's transaction that acknowledged a message committed."""
        self._doubtful.append((lease, message_id))
        self.hurry()

    async def loop(self) -> None:
        """Flush outcomes for which no caller waits, until closing."""
        pause = AGAIN[0]
        while not self._closing.is_set():
            await self._dirty.wait()
            await self._urgent.wait(FLUSH_AFTER)
            self._dirty.clear()
            self._urgent.clear()
            try:
                await self._flush()
                again = await self._resolve_doubtful()
                again |= await self._confirm()
            except Exception as error:
                # The outcomes are kept. Whatever is wrong, it may be fixed by the next attempt.
                level = self._log_throttle.level("settling", error, time.monotonic())
                log.log(level, "settling failed, and will be retried: %s", safe_message(error))
                self._dirty.set()
                await self._closing.wait(0.5)
                continue
            if again and not self._dirty.is_set():
                await self._urgent.wait(pause)
                self._dirty.set()
            pause = min(2 * pause, AGAIN[1]) if again and not self._urgent.is_set() else AGAIN[0]

    async def flush(self) -> None:
        """Send all recorded outcomes, and have the loop check those in handlers' transactions."""
        await self._flush()
        if any(lease.unconfirmed and lease.settled for lease in list(self._leases.values())):
            self.hurry()

    async def _flush(self) -> None:
        """Send all recorded outcomes; one transaction per lease, so that each fails alone."""
        async with self._flushing:
            for lease in list(self._leases.values()):
                while (outcomes := lease.take()) is not None:
                    await self._send(lease, outcomes)
                if lease.settled and lease.unconfirmed:
                    continue  # the loop confirms it
                if lease.settled or lease.lost:
                    self._leases.forget(lease)

    async def _send(self, lease: Lease, outcomes: Settlement) -> None:
        try:
            try:
                await self._settle(lease, outcomes)
            except LeaseLost as error:
                await self._lease_lost(lease, outcomes, error)
            except SettleError:
                await self._send_one_by_one(lease, outcomes)
        except BaseException as error:
            # Without a connection nothing was sent; otherwise it may have been settled.
            outcomes.uncertain |= not isinstance(error, ConnectFailed)
            lease.put_back(outcomes)
            raise
        outcomes.flushed = True
        self._leases.on_capacity()

    async def _settle(self, lease: Lease, outcomes: Settlement) -> None:
        before = time.monotonic()
        await self._queries.settle(lease.token, outcomes)
        lease.mark_durable(outcomes.ids())
        if not self._emitter:
            return
        seconds = time.monotonic() - before
        dead: dict[int, bool] = {}
        if outcomes.retried:
            # The database decides by the group's options whether this attempt was the last.
            with contextlib.suppress(*TRANSIENT):
                retried = (message_id for message_id, _ in outcomes.retried)
                dead = await self._queries.unacknowledged(retried)
        self._emitter.settled(lease, outcomes, seconds, dead)

    async def _send_one_by_one(self, lease: Lease, outcomes: Settlement) -> None:
        """Find out which are refused: one that was settled before must not fail the others."""
        while len(outcomes):
            message_id, one = outcomes.pop(lease.ids.index)
            try:
                await self._settle(lease, one)
            except LeaseLost as error:
                outcomes.add(one)
                await self._lease_lost(lease, outcomes, error)
                return
            except OutOfOrder as error:
                lease.reopen(message_id)  # its key stays busy until it is settled in order
                outcomes.refused[message_id] = error
                log.warning("message %s was settled out of order: %s", message_id, error)
            except SettleError as error:
                if not outcomes.uncertain:  # otherwise this consumer has settled it
                    outcomes.refused[message_id] = error
                    log.warning("the outcome of message %s was refused: %s", message_id, error)
                lease.mark_durable([message_id])
            except BaseException:
                outcomes.add(one)
                raise

    async def _lease_lost(self, lease: Lease, outcomes: Settlement, error: LeaseLost) -> None:
        """Handle a lost lease: all of it was settled, or another consumer has its messages."""
        if outcomes.uncertain:
            # The settle may have arrived as the connection broke. What is acknowledged is settled.
            out = await self._queries.unacknowledged(outcomes.ids())
            retried = {message_id for message_id, _ in outcomes.retried}
            rejected = {message_id for message_id, _ in outcomes.rejected}
            for message_id, is_dead in out.items():
                if not (message_id in retried or (is_dead and message_id in rejected)):
                    outcomes.refused[message_id] = error
            if lease.open or outcomes.refused:
                log.warning("%d outcomes were refused: %s", len(outcomes.refused), error)
                self._leases.lose(lease, len(outcomes.refused))
        elif lease.presumed_settled and outcomes.ids() <= lease.in_transaction.keys():
            for message_id in outcomes.ids():
                outcomes.refused[message_id] = already_settled(message_id)
        else:
            outcomes.error = error
            self._leases.lose(lease, len(outcomes))
            log.warning("%d outcomes were refused: %s", len(outcomes), error)
        lease.mark_durable(outcomes.ids())
        self._leases.forget(lease)

    async def _resolve_doubtful(self) -> bool:
        """Check messages acknowledged in transactions that are not known to have ended.

        If the transaction rolled back, the message is redelivered, before the next of its key. If
        it is still open, it settles several messages, and its author decides their order. Returns
        whether one must be waited for: that of a handler that was given up.
        """
        doubtful, self._doubtful = self._doubtful, []
        if not doubtful:
            return False
        try:
            names = {lease.in_transaction.get(message_id) for lease, message_id in doubtful}
            known = (name for name in names if name is not None)
            ended = {None, *await self._queries.ended_transactions(known)}
            out = await self._queries.unacknowledged(message_id for _, message_id in doubtful)
        except BaseException:
            self._doubtful += doubtful
            raise
        for lease in {lease.token: lease for lease, _ in doubtful}.values():
            ids = [message_id for held, message_id in doubtful if held is lease]
            has_ended = {i for i in ids if lease.in_transaction.get(i) in ended}
            waits = {i for i in ids if i in out and i in lease.withdrawn} - has_ended
            self._doubtful += [(lease, message_id) for message_id in waits]
            ids = [message_id for message_id in ids if message_id not in waits]
            back = [i for i in ids if i in out and i in has_ended]
            if back and lease.token in self._leases:  # otherwise other consumers have it
                lease.rolled_back(back, Retry(0.0, ROLLED_BACK))
                self.hurry()
            lease.mark_durable(ids)
        return bool(self._doubtful)

    async def _confirm(self) -> bool:
        """End leases whose messages were acknowledged in transactions not known to have ended.

        Messages that were rolled back are redelivered at once. Returns whether some are still open.
        """
        leases = list(self._leases.values())
        settled = [lease for lease in leases if lease.unconfirmed and lease.settled]
        if not settled:
            return False
        tokens = [lease.token for lease in settled]
        still_open = await self._queries.release(tokens, counted=True)
        for lease in settled:
            if lease.token not in still_open:
                self._leases.forget(lease)
        return bool(still_open)
