"""Settling: outcomes are collected, and sent together."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from ..._core.emitter import EventEmitter
from ..._core.leases import Ack, Lease, Retry, already_settled
from ..._core.log_throttle import LogThrottle
from ..._core.pacing import backoff
from ..._core.sanitize import describe
from ...dsn import said
from ...errors import (
    AlreadySettled,
    ConsumerClosed,
    LeaseLost,
    OutOfOrder,
    SettleError,
    UsedAfterFork,
)
from ...events import OptionDiffers
from ..concurrency import Event, Lock, shielded
from ..database.connection import TRANSIENT, ConnectFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..._core.leases import Outcome, Settlement
    from ..._core.ordering import Place
    from ...options import ConsumerOptions
    from ..database.queries import AsyncQueries
    from ..database.transactions import AsyncTransactionPool
    from .buffer import AsyncPrefetchBuffer
    from .message import AsyncMessage

__all__ = ["AsyncLeaseManager"]

log = logging.getLogger("durable_notify")

#: How long an acknowledgement that nobody waits for may wait for others, in seconds.
LINGER = 0.05
#: How often to look whether the group's options are still those that were given, in seconds.
COMPARE = 60.0
#: Why a message is redelivered whose handler returned, and whose transaction did not commit.
ROLLED_BACK = {"type": "", "message": "the transaction that acknowledged it was rolled back"}


class AsyncLeaseManager:
    """Holds a consumer's leases: keeps them alive, and flushes the outcomes of their messages.

    Who waits for an outcome flushes it, with whatever else has come together while the flush
    before was under way (group commit). Outcomes nobody waits for go when their lease is complete,
    when the next of their keys is all that a handler could do, or after ``LINGER``.
    """

    def __init__(
        self,
        store: AsyncQueries,
        options: ConsumerOptions,
        freed: Callable[[], None],
        intake: AsyncPrefetchBuffer,
    ) -> None:
        self._store = store
        self._options = options
        self._leases: dict[int, Lease] = {}
        self._flushing = Lock()
        self._dirty = Event()  # there is something to flush
        self._urgent = Event()  # and it should not wait
        self._closing = Event()
        self._closed = False
        self._process = os.getpid()
        self._freed = freed  # called whenever messages stop being held
        self._intake = intake  # which is told of each message that is over
        self._said: dict[str, Any] = {}  # what was said of options that differ
        self._doubtful: list[tuple[Lease, int]] = []  # finished, and the next of a key waits
        self._complaints = LogThrottle()
        self._teller = EventEmitter(options.on_event, options.group)
        self.tried: set[AsyncMessage] = set()  # acknowledged in transactions not known to be over

    def hold(
        self, token: int, places: Mapping[int, Place | None], sizes: Mapping[int, int]
    ) -> Lease:
        """Take note of a lease: its messages, what they are in order by, and their sizes."""
        lease = Lease(token, places, time.monotonic(), self._intake.done, sizes)
        self._leases[token] = lease
        return lease

    @property
    def held(self) -> int:
        """How many messages are held: not settled, or their outcome not flushed."""
        return sum(lease.held for lease in list(self._leases.values()))

    @property
    def held_bytes(self) -> int:
        """How large the payloads of the messages are that have no outcome yet."""
        return sum(lease.held_bytes for lease in list(self._leases.values()))

    @property
    def tells(self) -> bool:
        """Whether somebody is told of events."""
        return bool(self._teller)

    @property
    def group(self) -> str:
        """The consumer group."""
        return self._options.group

    @property
    def transactions(self) -> AsyncTransactionPool:
        """The connections for the handlers' transactions."""
        return self._store.transactions

    def check_open(self) -> None:
        """Raise ConsumerClosed where the leases were given back; UsedAfterFork where we are not."""
        if os.getpid() != self._process:
            raise UsedAfterFork(
                "the message was taken before the fork: settle it in the parent process"
            )
        if self._closed:
            raise ConsumerClosed("the consumer was closed; its unsettled messages are redelivered")

    async def settle(
        self, lease: Lease, message_id: int, outcome: Outcome, *, withdrawn: bool = False
    ) -> None:
        """Settle a message, durably on return."""
        outcomes = lease.record(message_id, outcome, withdrawn=withdrawn)
        delay = 0.0
        while not outcomes.flushed:
            self.check_open()
            # It may be known to be over, but not by whom; or have been given up meanwhile.
            self._leases.setdefault(lease.token, lease)
            try:
                await shielded(self.flush)
            except TRANSIENT as error:
                # The outcome is kept: it goes once the database is back, or the lease is lost.
                delay = backoff(1, min(max(delay * 2, 0.1), 5.0), 5.0)
                self._complain("settling waits for the database", error)
                await self._closing.wait(delay)
        if (refusal := outcomes.error_of(message_id)) is not None:
            raise refusal

    def settle_soon(self, lease: Lease, message_id: int, outcome: Outcome) -> None:
        """Settle a message before long, without waiting for it."""
        lease.record(message_id, outcome)
        if (
            not lease.open
            or not isinstance(outcome, Ack)
            or self._intake.hinders(lease.places[message_id])
        ):
            self._urgent.set()
        self._dirty.set()

    def hurry(self) -> None:
        """Flush at once: a handler has nothing to do before what was settled is durable."""
        self._urgent.set()
        self._dirty.set()

    def finish(self, lease: Lease, message: AsyncMessage, *, committed: bool = False) -> None:
        """Take note that a message was acknowledged in a transaction of its handler's."""
        if message.id in lease.open and not lease.lost:
            lease.finish(message.id)
            if self._teller:
                self._teller.finished(lease)
            if committed or not self._intake.next_waits(lease.places[message.id]):
                lease.over([message.id])
            else:
                self._doubtful.append((lease, message.id))
                self.hurry()
            if not lease.open:
                self.hurry()

    async def failed(self, message: AsyncMessage, lease: Lease, error: BaseException) -> None:
        """Settle a message whose handler raised, as the rules for errors say.

        Raises:
            BaseException: by the rules for errors themselves, where that is no Exception.
        """
        outcome, fault = self._outcome_of(error, message)
        try:
            await self.settle(lease, message.id, outcome, withdrawn=message.id in lease.withdrawn)
        except (AlreadySettled, LeaseLost):
            # Settled before it failed, or gone to another consumer: nothing is left to do here.
            log.info("message %s was settled before its handler failed", message.id)
        if fault is not None:
            raise fault

    async def withdrawn(self, message: AsyncMessage, lease: Lease, error: BaseException) -> None:
        """Settle a message whose handler was given up."""
        if message.id not in lease.open:
            return
        if message.id in lease.tried:
            # Trap: to settle it waits for the handler's transaction, and all others wait with it.
            lease.finish(message.id)
            self._doubtful.append((lease, message.id))
            self.hurry()
        else:
            await self.failed(message, lease, error)

    def _outcome_of(
        self, error: BaseException, message: AsyncMessage
    ) -> tuple[Outcome, BaseException | None]:
        """Return what the rules for errors say, and what they raised that is no Exception."""
        try:
            return self._options.outcome_of(error, message), None
        except BaseException as flaw:
            log.exception("on_error failed at %r: the message is retried", message)
            return Retry(error=describe(error)), None if isinstance(flaw, Exception) else flaw

    async def extend(self, lease: Lease, seconds: float) -> None:
        """Prolong one lease."""
        extended = await self._store.extend([lease.token], seconds)
        # What was acknowledged in a transaction that is still open cannot be extended, nor be lost.
        if lease.token not in extended and not lease.presumed_settled:
            self._lose(lease)
            raise LeaseLost(
                f"lease {lease.token} was superseded: another consumer has its messages"
            )

    def is_sure(self, lease: Lease) -> bool:
        """Whether a lease cannot have run out unawares."""
        age = time.monotonic() - lease.sure_at
        return age < self._options.lease or lease.token not in self._leases

    async def confirm(self, lease: Lease) -> None:
        """Find out whether a lease is still ours: we slept, or the database was out of reach."""
        try:
            await self._prolong([lease.token])
        except TRANSIENT as error:
            self._complain("could not verify the lease", error)

    async def flush(self) -> None:
        """Send all outcomes collected; one transaction a lease, so that each stands for itself."""
        async with self._flushing:
            for lease in list(self._leases.values()):
                while (outcomes := lease.take()) is not None:
                    await self._send(lease, outcomes)
                if lease.settled and lease.unconfirmed:
                    self._urgent.set()  # for the flush loop to confirm it
                    self._dirty.set()
                elif lease.settled or lease.lost:
                    self._forget(lease)

    async def _send(self, lease: Lease, outcomes: Settlement) -> None:
        try:
            try:
                await self._settle(lease, outcomes)
            except LeaseLost as error:
                await self._superseded(lease, outcomes, error)
            except SettleError:
                await self._send_one_by_one(lease, outcomes)
        except BaseException as error:
            # Without a connection nothing was sent; else it may have been settled nevertheless.
            outcomes.uncertain |= not isinstance(error, ConnectFailed)
            lease.put_back(outcomes)
            raise
        outcomes.flushed = True
        self._freed()

    async def _settle(self, lease: Lease, outcomes: Settlement) -> None:
        before = time.monotonic()
        await self._store.settle(lease.token, outcomes)
        lease.over(outcomes.ids())
        if not self._teller:
            return
        seconds = time.monotonic() - before
        dead: dict[int, bool] = {}
        if outcomes.retried:
            # Whether it was once too often the database has decided, by the group's options.
            with contextlib.suppress(*TRANSIENT):
                dead = await self._store.still_out(message_id for message_id, _ in outcomes.retried)
        self._teller.settled(lease, outcomes, seconds, dead)

    def _lose(self, lease: Lease, refused: int = 0) -> None:
        """Take note that others have what is open of a lease, and what was refused."""
        if self._teller and not lease.lost:
            self._teller.lost(lease, len(lease.open) + refused)
        lease.lose()

    async def _send_one_by_one(self, lease: Lease, outcomes: Settlement) -> None:
        """Find out which were refused: one that was settled before must not fail the others."""
        while len(outcomes):
            message_id, one = outcomes.pop(lease.ids.index)
            try:
                await self._settle(lease, one)
            except LeaseLost as error:
                outcomes.add(one)
                await self._superseded(lease, outcomes, error)
                return
            except OutOfOrder as error:
                lease.reopen(message_id)  # its key is not free before it is settled in order
                outcomes.refused[message_id] = error
                log.warning("message %s was settled out of order: %s", message_id, error)
            except SettleError as error:
                if not outcomes.uncertain:  # else it was us who settled it
                    outcomes.refused[message_id] = error
                    log.warning("the outcome of message %s was refused: %s", message_id, error)
                lease.over([message_id])
            except BaseException:
                outcomes.add(one)
                raise

    async def _superseded(self, lease: Lease, outcomes: Settlement, error: LeaseLost) -> None:
        """The lease is gone: all of it was settled, or somebody else has its messages."""
        if outcomes.uncertain:
            # It may have arrived when the connection broke: what is not out any more is settled.
            out = await self._store.still_out(outcomes.ids())
            retried = {message_id for message_id, _ in outcomes.retried}
            rejected = {message_id for message_id, _ in outcomes.rejected}
            for message_id, is_dead in out.items():
                if not (message_id in retried or (is_dead and message_id in rejected)):
                    outcomes.refused[message_id] = error
            if lease.open or outcomes.refused:
                log.warning("%d outcomes were refused: %s", len(outcomes.refused), error)
                self._lose(lease, len(outcomes.refused))
        elif lease.presumed_settled and outcomes.ids() <= lease.tried.keys():
            for message_id in outcomes.ids():
                outcomes.refused[message_id] = already_settled(message_id)
        else:
            outcomes.error = error
            self._lose(lease, len(outcomes))
            log.warning("%d outcomes were refused: %s", len(outcomes), error)
        lease.over(outcomes.ids())
        self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        self._leases.pop(lease.token, None)
        self._freed()

    def _complain(self, what: str, error: BaseException) -> None:
        level = self._complaints.level(what, error, time.monotonic())
        log.log(level, "%s: %s", what, said(error))

    async def flush_loop(self) -> None:
        """Flush what nobody waits for, until closed."""
        while not self._closing.is_set():
            await self._dirty.wait()
            await self._urgent.wait(LINGER)
            self._dirty.clear()
            self._urgent.clear()
            try:
                await self.flush()
                again = await self._find_out()
                again |= await self._confirm()
            except Exception as error:
                # Outcomes are kept. Whatever is wrong, the next attempt may find it mended.
                self._complain("settling failed, and will be retried", error)
                self._dirty.set()
                await self._closing.wait(0.5)
                continue
            if again and not self._dirty.is_set():
                await self._urgent.wait(0.5)
                self._dirty.set()

    async def check_loop(self, quiet: Callable[[], bool]) -> None:
        """See whether the connections are alive, until closed; not while all is to be quiet."""
        compared_at = time.monotonic()
        while not await self._closing.wait(self._options.heartbeat):
            if quiet():
                continue
            await self._store.check()
            if time.monotonic() - compared_at >= COMPARE:
                compared_at = time.monotonic()
                with contextlib.suppress(*TRANSIENT):
                    self.say_differing(await self._store.differing(), started=False)

    def say_differing(self, options: Mapping[str, tuple[Any, Any]], *, started: bool) -> None:
        """Warn of options of the group that others were given otherwise: once of each value."""
        for name, (stored, given) in options.items():
            if self._said.get(name) == stored:
                continue
            self._said[name] = stored
            why = (
                "it is what we were given that counts from here on"
                if started
                else "it was set since we started"
            )
            log.warning(
                "group %r: %s %s %r, and this consumer was given %r: %s. Give all consumers of the "
                "group the same, or none, and set it by configure",
                self.group, name, "was" if started else "is", stored, given, why,
            )  # fmt: skip
            if self._teller:
                differs = OptionDiffers(
                    group=self.group, option=name, stored=str(stored), given=str(given)
                )
                self._teller.tell(differs)

    async def _find_out(self) -> bool:
        """See what became of messages acknowledged in transactions whose end we were not told.

        One that rolled back has its message redelivered, before the next of its key. Where one is
        open still, several messages are settled by it: what else it does is its maker's to order.
        Returns whether one is waited for: that of a handler that was given up.
        """
        doubtful, self._doubtful = self._doubtful, []
        if not doubtful:
            return False
        try:
            names = {lease.tried.get(message_id) for lease, message_id in doubtful}
            over = await self._store.over(name for name in names if name is not None)
            out = await self._store.still_out(message_id for _, message_id in doubtful)
        except BaseException:
            self._doubtful += doubtful
            raise
        for lease in {lease.token: lease for lease, _ in doubtful}.values():
            ids = [message_id for held, message_id in doubtful if held is lease]
            waits = {i for i in ids if i in out and i in lease.withdrawn}
            waits -= {i for i in ids if lease.tried.get(i) in (None, *over)}
            self._doubtful += [(lease, message_id) for message_id in waits]
            ids = [message_id for message_id in ids if message_id not in waits]
            back = [i for i in ids if i in out and lease.tried.get(i) in (None, *over)]
            if back and lease.token in self._leases:  # else others have it
                lease.rolled_back(back, Retry(0.0, ROLLED_BACK))
                self.hurry()
            lease.over(ids)
        return bool(self._doubtful)

    async def _confirm(self) -> bool:
        """End leases whose messages were acknowledged in transactions not known to be over.

        What was rolled back comes again at once. Returns whether some are still open.
        """
        over = [
            lease for lease in list(self._leases.values()) if lease.unconfirmed and lease.settled
        ]
        if not over:
            return False
        still_open = await self._store.release([lease.token for lease in over], counted=True)
        for lease in over:
            if lease.token not in still_open:
                self._forget(lease)
        return bool(still_open)

    async def heartbeat_loop(self) -> None:
        """Prolong the leases held, until closed."""
        pause = self._options.lease / 3
        while not await self._closing.wait(pause):
            pause = self._options.lease / 3
            held = [
                token
                for token, lease in list(self._leases.items())
                if not (lease.settled or lease.given_up)
            ]
            if not (held or self._store.exclusive):
                continue
            try:
                await self._store.stay_active()
                await self._prolong(held)
            except TRANSIENT as error:
                self._complain("leases could not be extended", error)
                pause = min(1.0, self._options.lease / 10)  # there is time for one more

    async def _prolong(self, tokens: list[int]) -> None:
        """Prolong leases, and take note of those that were lost."""
        before = time.monotonic()
        alive = await self._store.extend(tokens, self._options.lease)
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
                self._lose(lease)
            if not lease.uncertain:  # else the flush finds out
                self._forget(lease)

    async def close(self) -> None:
        """Send all outcomes and give back what is unsettled; a longer outage is logged."""
        for delay in (0.1, 0.3, 1.0, 0.0):  # after a restart each connection of the pool is stale
            try:
                await self.flush()
                if tokens := list(self._leases):
                    await self._store.release(tokens, counted=False)
                if self._store.exclusive:
                    await self._store.stand_down()
                break
            except Exception as error:
                if not delay or not isinstance(error, TRANSIENT):
                    # Nothing is lost: the leases run out by themselves.
                    log.warning("leases were not released, and will expire: %s", said(error))
                    break
                await self._closing.wait(delay)
        self._closed = True
        self._leases.clear()

    def stop_loops(self) -> None:
        """Have the two loops end."""
        self._closing.set()
        self._dirty.set()
        self._urgent.set()
