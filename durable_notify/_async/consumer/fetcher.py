"""Fetching: when to claim, how much, and from which topics."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from ..._core.log_throttle import LogThrottle
from ..._core.pacing import BusyPoller, Patience, RingPacer, backoff, shortest
from ..._core.topic_set import TopicSet
from ...dsn import safe_message
from ...errors import ClaimBusy
from ...events import ClaimFailed, ClaimRecovered, Polled, name_of
from ..concurrency import CANCELLED, Event, checkpoint
from ..database.connection import TRANSIENT
from ..wakeups.subscription import DEAF_POLL, RECHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..._core.emitter import EventEmitter
    from ..._core.health import HealthTracker
    from ..._core.pacing import BatchSizer
    from ...options import ConsumerOptions
    from ..database.queries import AsyncQueries
    from ..wakeups.subscription import AsyncSubscription
    from .buffer import AsyncPrefetchBuffer
    from .leases import AsyncLeaseManager

__all__ = ["AsyncFetcher"]

log = logging.getLogger("durable_notify")

#: How often a consumer with ``until_empty`` polls, in seconds.
DRAIN_POLL = 0.5
#: How often a busy consumer checks for a new replay, in seconds.
REPLAY_LOOK = 5.0


class AsyncFetcher:
    """Claims messages into the buffer when there is room, and sleeps when there are none.

    Args:
        queries: the database half.
        buffer: receives claimed messages.
        lease_manager: knows how much is held.
        options: of the consumer.
        batch_sizer: decides how much to claim.
        emitter: emits the events of claims.
        health: records whether claims work.
        being_handled: returns how many messages handlers or loops have.
        stopping: set once nothing more may be claimed.
        room: set when there may be room for another batch.
    """

    subscription: AsyncSubscription  # set by run()

    def __init__(
        self,
        queries: AsyncQueries,
        buffer: AsyncPrefetchBuffer,
        lease_manager: AsyncLeaseManager,
        *,
        options: ConsumerOptions,
        batch_sizer: BatchSizer,
        emitter: EventEmitter,
        health: HealthTracker,
        being_handled: Callable[[], int],
        stopping: Event,
        room: Event,
    ) -> None:
        self._queries = queries
        self._buffer = buffer
        self._lease_manager = lease_manager
        self._options = options
        self._topic_set = TopicSet(options.topics)
        self._batch_sizer = batch_sizer
        self._emitter = emitter
        self._health = health
        self._being_handled = being_handled
        self._stopping = stopping
        self._room = room
        self._full = False
        self._busy_poller = BusyPoller()
        self._patience = Patience()
        self._ring_pacer = RingPacer()
        self._due_at = -math.inf  # when messages become due, as known until something rings
        self._log_throttle = LogThrottle()
        self._replay_at = 0.0  # when to check for replays to advance
        self._replaying = False

    async def run(self, subscription: AsyncSubscription, direct: bool) -> None:
        """Claim until stopped. The end of this also ends the workers and loops that wait.

        Args:
            subscription: what wakes it.
            direct: whether a wake-up proves that there is no pooler before the database.
        """
        self.subscription = subscription
        subscription.concerns = self._topic_set.concerns
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    if direct and subscription.hears:
                        self._queries.direct()
                    await self.fetch_once()
                    failures = 0
                except ClaimBusy as error:
                    log.info("%s", error)
                except TRANSIENT as error:
                    failures += 1
                    await self._stopping.wait(self._claim_failed(error, failures))
        except CANCELLED:
            raise
        except BaseException as error:
            self._buffer.failure = error
            self._health.end(error)
        finally:
            self._buffer.end()

    async def fetch_once(self) -> None:
        """Claim a batch if there is room for one; if there are no messages, sleep until woken."""
        self._room.clear()
        if pause := self._ring_pacer.pause:
            await self._stopping.wait(pause)
        rung = self.subscription.take_notifications()
        if self._stopping.is_set():
            return  # stop() may have set both events just before
        if self._note_wakeups(rung):
            await self._discover_topics()
        if (limit := min(self.free, self.wanted)) <= 0:
            await self._wait_for_room()
            return
        if self._replaying or not self._replay_at:
            await self._advance_replays()
        await self._free_keys()
        rows = await self._claim(limit)
        self._ring_pacer.looked(rung=bool(rung), found=bool(rows))
        if rows:
            await self._pass_on(rows, limit)
            await self._advance_replays()  # here: nothing delays the claim after a wake-up
        else:
            await self._idle()

    async def _free_keys(self) -> None:
        """Make outcomes durable whose keys the next messages most likely have.

        Trap: the claim would read these messages only to defer them, until the settle, which may
        be under way. That costs ten times as much as to deliver them.
        """
        if self._buffer.keys_repeat:
            with contextlib.suppress(*TRANSIENT):  # the loop that flushes reports it
                await self._lease_manager.flush()

    async def _wait_for_room(self) -> None:
        self._full = True
        await self._room.wait()
        self._full = False

    @property
    def full(self) -> bool:
        """Whether it waits because the buffer is full."""
        return self._full and not self._room.is_set()

    @property
    def channels(self) -> dict[str, str]:
        """The channels to listen to, with the topic of each."""
        return self._topic_set.channels

    @property
    def wanted(self) -> int:
        """How many more messages to claim, by free handlers and their speed."""
        begun = max(self._being_handled(), self._buffer.keys)
        return self._batch_sizer.to_claim(begun, self._buffer.queued, self._buffer.size)

    @property
    def free(self) -> int:
        """How many more messages may be held, by number and by size."""
        held = self._lease_manager.held
        free = self._options.prefetch - held
        if (max_bytes := self._options.prefetch_bytes) is not None:
            left = max_bytes - self._lease_manager.held_bytes
            # The first is claimed whatever its size, and shows how large the next ones may be.
            fits = int(left / self._buffer.largest) if self._buffer.largest else 1
            free = min(free, max(fits, 0) if held else max(fits, 1))
        return free

    def _note_wakeups(self, rung: Mapping[str, set[str]] | None) -> bool:
        """Record which topics may have messages; return whether to check for new topics."""
        # Trap: a replay that was started before the doorbell was armed did not ring.
        if rung is None or any(payloads & {"*", RECHECK} for payloads in rung.values()):
            self._replay_at = 0.0  # a replay may have been started
        notified = self._topic_set.family in self.subscription.armed
        return self._topic_set.mark_ready(rung) or self._topic_set.look_for_topics(
            time.monotonic(), notified=notified
        )

    async def _discover_topics(self) -> None:
        self.subscription.listen(self._topic_set.add(await self._queries.discover()))

    async def _advance_replays(self) -> None:
        now = time.monotonic()
        if now >= self._replay_at and self._topic_set.topics:
            due = await self._queries.advance_replays(self._topic_set.topics)
            self._replaying = due is not None
            self._replay_at = now + (REPLAY_LOOK if due is None else due)

    @property
    def _replay_due(self) -> float | None:
        """Return in how many seconds to advance a replay; None: none runs."""
        return max(0.0, self._replay_at - time.monotonic()) if self._replaying else None

    async def _claim(self, limit: int) -> list[tuple[Any, ...]]:
        if self._options.until_empty:
            self._topic_set.mark_all()
        topics = self._topic_set.to_claim()
        armed = self.subscription.armed  # before the claim: what commits later rings
        before = time.monotonic()
        rows = await self._queries.claim(topics, limit) if topics else []
        failed_for = self._health.claim_succeeded(now := time.monotonic()) if topics else None
        if self._emitter:
            self._emitter.claimed(rows, now - before)
            if failed_for is not None:
                group = self._options.group.name
                self._emitter.emit(ClaimRecovered(group=group, seconds=failed_for))
        if len(rows) < limit:
            self._topic_set.mark_empty(armed.intersection(topics))
        return rows

    def _claim_failed(self, error: Exception, failures: int) -> float:
        """Log a failed claim; return how long to wait."""
        now, delay = time.monotonic(), backoff(failures, 0.1, 10.0)
        level = self._log_throttle.level("claiming", error, now)
        log.log(level, "claiming failed, next try in %.1f s: %s", delay, safe_message(error))
        self._health.claim_failed(error, now)
        if self._emitter:
            group, name = self._options.group.name, name_of(error)
            failed = ClaimFailed(group=group, failures=failures, delay=delay, error=name)
            self._emitter.emit(failed)
        return delay

    async def _pass_on(self, rows: list[tuple[Any, ...]], limit: int) -> None:
        """Add claimed messages to the buffer."""
        self._buffer.fill(rows)
        await checkpoint()  # handlers start before all else
        self._batch_sizer.claimed(full=len(rows) == limit)
        self._batch_sizer.ahead = not self._buffer.keys_repeat
        self._buffer.low_water = self._batch_sizer.low_water
        self._busy_poller.found(len(rows), time.monotonic())
        self._patience.found()
        self._due_at = -math.inf
        self.subscription.disarm({row[2] for row in rows})
        if len(rows) < limit:
            await self._busy_poll()  # there were no more: let some collect

    async def _busy_poll(self) -> bool:
        """If messages arrive fast, wait a moment for more; return whether it has waited."""
        pause = None if self._options.until_empty else self._busy_poller.pause(time.monotonic())
        if pause is not None:
            await self.subscription.woken.wait(pause)
        return pause is not None

    async def _idle(self) -> None:
        """Poll again soon, or arm the doorbells and sleep."""
        if await self._busy_poll():
            return
        self._batch_sizer.rest(time.monotonic())
        if not self._options.until_empty:
            self.subscription.arm()
            if self.subscription.arming:
                # Claim once more after arming: a message may have committed just before.
                self._due_at = -math.inf
                await self.subscription.woken.wait(DEAF_POLL)
                return
        due = shortest(await self._next_due(), self._replay_due)
        if self._options.until_empty:
            if due is None and self._lease_manager.held == 0:
                self._stopping.set()
                return
            due = shortest(due, DRAIN_POLL)
        await self._sleep(self._patience.wait(due))

    async def _next_due(self) -> float | None:
        """Return in how many seconds a message becomes due; None: none will.

        It asks the database once for all polls until then. Something else that falls due rings; if
        no ring arrives, the next poll finds it.
        """
        now = time.monotonic()
        if self._options.until_empty or now >= self._due_at:
            due = await self._queries.next_due(self._topic_set.topics)
            self._due_at = math.inf if due is None else now + due
        return None if self._due_at == math.inf else self._due_at - now

    async def _sleep(self, due: float | None) -> None:
        idle_poll = None if self._options.until_empty else self._options.idle_poll_interval
        # If the listening connection is lost, a settle that makes messages available does not ring.
        idle = self._lease_manager.held == 0
        if not await self.subscription.sleep(
            self._options.poll_interval, idle_poll, due=due, idle=idle
        ):
            self._topic_set.mark_all()  # a message is due, or it is time to poll
            self._patience.missed()
            if time.monotonic() >= self._replay_at:  # not at each poll
                self._replay_at = 0.0
            if self._emitter and not self._stopping.is_set():
                self._emitter.emit(Polled(group=self._options.group.name))
            if idle_poll is not None:
                await self._queries.check()  # a NAT may have dropped the connections meanwhile
        else:
            self._due_at = -math.inf
