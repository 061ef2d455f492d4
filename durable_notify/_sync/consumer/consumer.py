# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A consumer: claims messages of its group, hands them out, and sees them settled."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from ..._core.callables import check_handler
from ..._core.emitter import EventEmitter
from ..._core.health import HealthTracker
from ..._core.hints import Unsettled
from ..._core.log_throttle import LogThrottle
from ..._core.pacing import BatchSizer, BusyPoller, backoff, shortest
from ..._core.topic_set import TopicSet
from ...dsn import said
from ...errors import ClaimBusy, ConsumerClosed, InvalidArgument, UsedAfterFork
from ...events import ClaimFailed, ClaimRecovered, Polled, name_of
from ...options import ConsumerOptions, check_known
from ...topics import check_topics
from ..concurrency import AWAITS, CANCELLED, Event, checkpoint, on_signals, spawn
from ..database.connection import TRANSIENT
from ..database.queries import Queries
from ..maintenance import keep_up
from ..wakeups.listener import listen
from ..wakeups.subscription import DEAF_POLL, LONGEST_SLEEP, REREAD
from .buffer import PrefetchBuffer
from .dispatcher import Dispatcher
from .leases import LeaseManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self, Unpack

    from ..._core.leases import Outcome
    from ...models import ConsumerState, Health
    from ...options import ConsumerSettings
    from ..concurrency import Task
    from ..wakeups.subscription import Subscription
    from .message import Message

__all__ = ["Consumer"]

log = logging.getLogger("durable_notify")

#: How often to look, where a consumer is to end once nothing is left, in seconds.
DRAIN_POLL = 0.5
#: How many messages a loop is given at first: it may settle several in one transaction of its own,
#: and those of one key must then be of one lease.
ITERATED = 10
#: How often a busy consumer looks whether a replay was started, in seconds.
REPLAY_LOOK = 5.0


class Consumer:
    """Consumes topics as a member of a group.

    Every group gets every message; the consumers of one group, in any number of processes, share
    them. A message is delivered at least once: until it is acknowledged, whatever crashes.

    Iterate over it, and settle each message::

        with Consumer(dsn, group="billing", topics=["orders"]) as consumer:
            for message in consumer:
                message.ack()

    or give ``run`` a handler. A consumer is used once; its options are those of
    ``ConsumerOptions``.

    Args:
        dsn: a libpq connection string or URI. The consumer opens connections of its own.
        group: the consumer group.
        topics: the topics it consumes, or patterns: ``orders.*``, ``orders.>``.
        listen_dsn: a direct connection for listening, where ``dsn`` leads through a pooler.
        options: see ``ConsumerOptions``.
    """

    #: What becomes of the text of a payload: a relay passes it on as it is.
    _loads: Callable[[str], Any] = staticmethod(json.loads)

    def __init__(
        self,
        dsn: str,
        *,
        group: str,
        topics: Iterable[str],
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        check_known(options)
        self.options = ConsumerOptions(group=group, topics=check_topics(topics), **options)
        self._dsn = dsn
        self._listen_dsn = listen_dsn or dsn
        self._store = Queries(dsn, self.options)
        self._stopping = Event()
        self._room = Event()  # there may be room for another batch
        self._full = False  # it waits for that
        self._intake = PrefetchBuffer(self._stopping, self._room, self._loads)
        self._settler = LeaseManager(self._store, self.options, self._freed, self._intake)
        self._intake.settler = self._settler
        self._attention = TopicSet(self.options.topics)
        self._linger = BusyPoller()
        self._pacer = BatchSizer(ITERATED, self.options.batch_size)
        self._unsettled = Unsettled(until_empty=self.options.until_empty)
        self._out = 0  # how many an iteration has
        self._out_at = 0.0
        self._started = self._running = self._closed = False
        self._process = os.getpid()
        self._tasks: list[Task] = []
        self._ear: Subscription | None = None
        self._replay_at = 0.0  # when to look for replays to advance
        self._replaying = False
        self._complaints = LogThrottle()
        self._teller = EventEmitter(self.options.on_event, self.options.group)
        self._vitals = HealthTracker(self.options.heartbeat)
        self._dispatcher = Dispatcher(
            self._intake,
            self._settler,
            options=self.options,
            teller=self._teller,
            took=self._pacer.took,
            stopping=self._stopping,
            ended=self._ended_by,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Check the schema, create or join the group, and begin to claim.

        Raises:
            SchemaError: the migrations do not fit this package; the text says what to run.
            psycopg.Error: the database cannot be reached or used. Once started, a consumer
                outlasts outages by itself.
        """
        self._check_process()
        if self._started:
            raise ConsumerClosed("a consumer starts once: make a new one")
        self._started = True
        self._settler.say_differing(self._store.open(), started=True)
        try:
            beat = self.options.heartbeat
            ear = listen(self._listen_dsn, self._attention.channels, beat, self._teller)
        except BaseException:
            self._store.close()
            raise
        ear.when_it_hangs = self._store.opened.cut
        self._ear = ear
        self._vitals.beat(time.monotonic())
        self._tasks = [
            spawn(self._fetch, ear, name="durable_notify fetch"),
            self._kept_up(self._settler.flush_loop, "flush"),
            self._kept_up(self._settler.heartbeat_loop, "heartbeat"),
            self._kept_up(self._settler.check_loop, "check", self._beat),
        ]
        if self.options.maintenance:
            upkeep = (self._store, self._dsn, self._stopping, lambda: ear.quiet)
            self._tasks.append(self._kept_up(keep_up, "maintenance", *upkeep))

    def _kept_up(self, function: Callable[..., Any], name: str, *args: Any) -> Task:
        """Start a loop without which the consumer is none: what ends it ends the consumer."""

        def body() -> None:
            try:
                function(*args)
            except CANCELLED:
                raise
            except BaseException as error:
                log.exception("%s ended by an error", name)
                self._intake.failure = error
                self._ended_by(error)
                self._intake.end()

        return spawn(body, name=f"durable_notify {name}")

    def _ended_by(self, error: BaseException) -> None:
        self._vitals.end(error)
        self.stop()

    def _check_process(self) -> None:
        """Raise UsedAfterFork in a process that this consumer's threads are not in."""
        if os.getpid() != self._process:
            raise UsedAfterFork("the consumer was made before the fork: make a new one here")

    def _beat(self) -> bool:
        """Give a sign of life; returns whether the database is to be left alone."""
        self._vitals.beat(time.monotonic())
        self._unsettled.look(self._settler.held - self._intake.size, room=self._room_for() > 0)
        return self._ear is not None and self._ear.quiet

    def health(self) -> Health:
        """Return how the consumer is: whether it lives, and whether it works. From any thread.

        Nothing is asked of the database. A consumer whose event loop is blocked, or which has
        ended by an error, does not live; one whose claims fail lives, and is not ready.
        """
        ear, options = self._ear, self.options
        return self._vitals.health(
            time.monotonic(),
            hears=ear is not None and ear.hears,
            deaf=ear is not None and ear.deaf,
            lost_at=None if ear is None else ear.lost_at,
            polls=options.poll is not None or options.idle_poll is not None,
            held=self._settler.held,
            group=options.group,
            state=self._state,
        )

    @property
    def _state(self) -> ConsumerState:
        if not self._started:
            return "new"
        if self._stopping.is_set():
            return "stopping"
        if self._full and not self._room.is_set():
            return "full"
        if self._ear is None or not self._ear.waits:
            return "fetching"
        return "sleeping" if self._ear.asleep else "polling"

    def stop(self) -> None:
        """Claim nothing more; iteration and ``run`` end once what is under way is done."""
        self._vitals.stop()
        self._stopping.set()
        self._room.set()
        if self._ear is not None:
            self._ear.end()

    def close(self) -> None:
        """Stop, send the acknowledgements recorded, and give unsettled messages back at once."""
        if os.getpid() != self._process:
            return  # the connections are the other process's
        self.stop()
        self._closed = True
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        try:
            tasks[0].join()
            self._finish_tried()
            self._settler.close()
            self._settler.stop_loops()
            for task in tasks[1:]:
                task.join()
        finally:
            # Whatever happens: others may share the listener, and the pool's own tasks do not end
            # with those of a loop that ends.
            try:
                if self._ear is not None:
                    self._ear.close()
            finally:
                self._store.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        self._check_process()
        if not self._started:
            raise ConsumerClosed("this consumer was not started: enter it first, or use run()")
        self._finish_tried()
        self._came_back()
        with self._unsettled.waits():
            message = self._intake.next()
        if message is None:
            raise StopIteration
        self._went_out(1)
        return message

    def _went_out(self, messages: int) -> None:
        self._out, self._out_at = messages, time.monotonic()
        self._intake.begun(messages)

    def _came_back(self) -> None:
        if self._out:
            self._pacer.took(self._out, time.monotonic() - self._out_at)
            self._out = 0

    def run(self, handler: Callable[[Message], Any], *, concurrency: int = 1) -> None:
        """Hand messages to a handler until stopped: by ``stop()``, SIGTERM or SIGINT.

        A message whose handler returns without having settled it is acknowledged. One whose
        handler raises comes again, later each time, up to the group's ``max_attempts``; then it
        becomes a dead letter. On stopping, handlers at work finish, their acknowledgements are
        sent and what was not begun is given back. At a second signal they are not waited for.

        Args:
            handler: called with each message; may be a plain function or return an awaitable.
            concurrency: how many messages are handled at once.

        Raises:
            InvalidArgument: a call of the handler would only make a coroutine or generator.
            ConsumerClosed: the consumer has run before.
            BaseException: what a handler raised that is no Exception, such as SystemExit.
        """
        _check_concurrency(concurrency)
        check_handler(handler, awaited=AWAITS)
        self._dispatcher.singly(handler)
        self._run(concurrency, concurrency)

    def _run(self, concurrency: int, least: int) -> None:
        self._check_process()
        if self._closed or self._running:
            state = "was closed" if self._closed else "runs already"
            raise ConsumerClosed(f"this consumer {state}: make a new one")
        self._running = True
        self._pacer.can_begin(least, concurrency)
        with on_signals(self.stop, self._dispatcher.hurry):
            try:
                if not self._started:
                    self.start()
                self._dispatcher.run(concurrency)
            finally:
                self.stop()
                self.close()
        if self._dispatcher.fault is not None:
            raise self._dispatcher.fault

    def run_batches(
        self,
        handler: Callable[[list[Message]], Any],
        *,
        size: int = 100,
        max_wait: float = 1.0,
        concurrency: int = 1,
    ) -> None:
        """Hand batches of messages to a handler until stopped, as ``run`` does single ones.

        The handler may settle messages of a batch one by one: those it has not settled when it
        returns are acknowledged; those it has not settled when it raises come again, by the rules
        for errors. A batch may have several messages of a key, in their order.

        Args:
            handler: called with lists of 1 to ``size`` messages.
            size: the most messages in a batch; no more than ``prefetch``.
            max_wait: how many seconds a batch waits for more messages after its first.
            concurrency: how many batches are handled at once.
        """
        _check_concurrency(concurrency)
        self._check_batches(size, max_wait, concurrency)
        check_handler(handler, awaited=AWAITS)
        self._dispatcher.in_batches(handler, size, max_wait)
        self._run(concurrency, size * concurrency)

    def batches(self, *, size: int = 100, max_wait: float = 0.0) -> Iterator[list[Message]]:
        """Iterate over batches; the body settles each message, sooner or later.

        Several may iterate at once, as long as all sizes together are no more than ``prefetch``:
        messages that are kept in order do not get into two batches at once. What is not settled
        when the consumer is closed is given back, and its attempt does not count.

        Args:
            size: the most messages in a batch.
            max_wait: how many seconds a batch waits for more messages after its first.
        """
        self._check_process()
        self._check_batches(size, max_wait, 1)
        self._pacer.can_begin(size)
        while batch := self._next_batch(size, max_wait):
            self._went_out(len(batch))
            yield batch
            self._came_back()
            for message in batch:
                if message in self._settler.tried:  # the body is over: so is its transaction
                    self._settler.tried.discard(message)
                    self._settler.finish(message._lease, message)
            checkpoint()

    def _next_batch(self, size: int, max_wait: float) -> list[Message]:
        with self._unsettled.waits():
            return self._intake.batch(size, max_wait)

    def settle_soon(self, message: Message, outcome: Outcome) -> None:
        """Settle a message together with others, before long; not durable on return.

        Should the process die first, the message comes again.

        Args:
            outcome: ``Ack()``, ``Retry()`` or ``Reject()``; messages kept in order get theirs in
                that order.

        Raises:
            AlreadySettled: it was settled before, or sent back with an earlier one of its key.
            LeaseLost: somebody else has the message by now.
        """
        self._settler.check_open()
        self._settler.settle_soon(message._lease, message.id, outcome)

    def still_held(self, messages: Iterable[Message]) -> list[Message]:
        """Return which of some messages are unsettled and this consumer's still.

        For who has waited long: a lease may have run out while the process was suspended or the
        database out of reach, and what it held may be with another consumer.
        """
        held = []
        for message in messages:
            self._intake.make_sure(message)
            if not (message._lease.lost or message.is_settled):
                held.append(message)
        return held

    def _check_batches(self, size: int, max_wait: float, concurrency: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InvalidArgument(f"size must be 1 or more, not {size!r}")
        if size * concurrency > self.options.prefetch:
            raise InvalidArgument("size times concurrency is over prefetch: raise prefetch")
        if not isinstance(max_wait, (int, float)) or not 0 <= max_wait <= LONGEST_SLEEP:
            raise InvalidArgument(f"max_wait must be 0 or more seconds, not {max_wait!r}")

    def _finish_tried(self) -> None:
        """The loop's body is over: so are, as far as we can tell, its transactions."""
        tried = self._settler.tried
        while tried:
            message = tried.pop()
            self._settler.finish(message._lease, message)

    def _freed(self) -> None:
        """Messages are no longer held."""
        self._room.set()
        if self._ear is not None and (
            self.options.until_empty
            or (self.options.idle_poll is not None and self._settler.held == 0)
        ):
            self._ear.wake()  # it may be empty now, or time to be idle

    def _fetch(self, ear: Subscription) -> None:
        """Claim messages until stopped; whatever ends it also ends those who wait for messages."""
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    self._fetch_once(ear)
                    failures = 0
                except ClaimBusy as error:
                    log.info("%s", error)
                except TRANSIENT as error:
                    failures += 1
                    self._stopping.wait(self._claiming_failed(error, failures))
        except CANCELLED:
            raise
        except BaseException as error:
            self._intake.failure = error
            self._vitals.end(error)
        finally:
            self._intake.end()

    def _claiming_failed(self, error: Exception, failures: int) -> float:
        """Say so; returns how long to wait."""
        now, delay = time.monotonic(), backoff(failures, 0.1, 10.0)
        level = self._complaints.level("claiming", error, now)
        log.log(level, "claiming failed, next try in %.1f s: %s", delay, said(error))
        self._vitals.fails(error, now)
        if self._teller:
            group, name = self.options.group, name_of(error)
            self._teller.tell(ClaimFailed(group=group, failures=failures, delay=delay, error=name))
        return delay

    def _fetch_once(self, ear: Subscription) -> None:
        """Claim a batch when there is room for one; where nothing is there, sleep until woken."""
        self._room.clear()
        rung = ear.heard()
        if self._stopping.is_set():
            return  # stop() may have set both events just before
        # Trap: one that was started before the bell was armed has rung nobody.
        if rung is None or any(payloads & {"*", REREAD} for payloads in rung.values()):
            self._replay_at = 0.0  # one may have been started
        if ear.hears and self._listen_dsn == self._dsn:
            self._store.direct()  # a wake-up has come through
        told = "" in ear.armed
        if self._attention.heard(rung) or self._attention.look_for_topics(
            time.monotonic(), told=told
        ):
            ear.listen(self._attention.add(self._store.discover()))
        if (most := min(self._room_for(), self._to_claim())) <= 0:
            self._full = True
            self._room.wait()
            self._full = False
            return
        self._advance_replays()
        rows = self._claim(ear, most)
        if rows:
            self._intake.fill(rows)
            self._intake.low_water = self._pacer.size // 2
            self._pacer.claimed(full=len(rows) == most)
            self._linger.found(len(rows), time.monotonic())
            ear.rise({row[2] for row in rows})
            checkpoint()  # whoever waits for messages goes before the next claim
            if len(rows) < most:
                self._lingered(ear)  # that was all: let some more come together
            return
        self._wait(ear)

    def _lingered(self, ear: Subscription) -> bool:
        """Wait a moment for more, where messages come fast."""
        pause = None if self.options.until_empty else self._linger.pause(time.monotonic())
        if pause is not None:
            ear.woken.wait(pause)
        return pause is not None

    def _wait(self, ear: Subscription) -> None:
        """Wait for more where nothing is left: look again soon, or be rung."""
        if self._lingered(ear):
            return
        self._pacer.rest()
        if not self.options.until_empty:
            ear.rest()
            if ear.arming:
                ear.woken.wait(DEAF_POLL)  # and look once more, which is what the bell needs
                return
        due = shortest(self._store.next_due(self._attention.topics), self._replay_due())
        if self.options.until_empty:
            if due is None and self._settler.held == 0:
                self._stopping.set()
                return
            due = shortest(due, DRAIN_POLL)
        self._sleep(ear, due)

    def _to_claim(self) -> int:
        """How many more messages are wanted, by what can be begun and how fast it goes."""
        begun = max(self._dispatcher.busy + self._out, self._intake.keys)
        return self._pacer.to_claim(begun, self._intake.queued, self._intake.size)

    def _room_for(self) -> int:
        """How many more messages may be held, by number and by size."""
        room = self.options.prefetch - self._settler.held
        if (most := self.options.prefetch_bytes) is not None:
            left = most - self._settler.held_bytes
            # The first is taken whatever its size, and tells how large those after it may be.
            fits = int(left / self._intake.largest) if self._intake.largest else 1
            room = min(room, max(fits, 0) if self._settler.held else max(fits, 1))
        return room

    def _advance_replays(self) -> None:
        now = time.monotonic()
        if now >= self._replay_at and self._attention.topics:
            due = self._store.advance_replays(self._attention.topics)
            self._replaying = due is not None
            self._replay_at = now + (REPLAY_LOOK if due is None else due)

    def _replay_due(self) -> float | None:
        """In how many seconds a replay goes on, where one runs."""
        return max(0.0, self._replay_at - time.monotonic()) if self._replaying else None

    def _claim(self, ear: Subscription, most: int) -> list[tuple[Any, ...]]:
        if self.options.until_empty:
            self._attention.all()
        topics = self._attention.to_claim()
        rings = ear.armed  # before the read: what comes later is heard of
        before = time.monotonic()
        rows = self._store.claim(topics, most) if topics else []
        failed_for = self._vitals.works(now := time.monotonic()) if topics else None
        if self._teller:
            self._teller.claimed(rows, now - before)
            if failed_for is not None:
                self._teller.tell(ClaimRecovered(group=self.options.group, seconds=failed_for))
        if len(rows) < most:
            self._attention.exhausted(rings.intersection(topics))
        return rows

    def _sleep(self, ear: Subscription, due: float | None) -> None:
        idle_poll = None if self.options.until_empty else self.options.idle_poll
        # What a settle may bring back is not heard of where the listening connection is gone.
        idle = self._settler.held == 0
        if not ear.sleep(self.options.poll, idle_poll, due=due, idle=idle):
            self._attention.all()  # something is due, or it is time to look
            if self._teller and not self._stopping.is_set():
                self._teller.tell(Polled(group=self.options.group))
            if idle_poll is not None:
                self._store.check()  # they may have gone, or been dropped by a NAT


def _check_concurrency(concurrency: int) -> None:
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise InvalidArgument(f"concurrency must be 1 or more, not {concurrency!r}")
