# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A consumer's life: its parts, its start, its health, and its end."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from ..._core.emitter import EventEmitter
from ..._core.health import HealthTracker
from ..._core.pacing import BatchSizer
from ...errors import ConsumerClosed, InvalidArgument, UsedAfterFork
from ..concurrency import CANCELLED, Event, spawn
from ..database.queries import Queries
from ..maintenance import keep_up
from ..wakeups.listener import listen
from .buffer import PrefetchBuffer
from .dispatcher import Dispatcher
from .fetcher import Fetcher
from .iteration import Iteration
from .leases import LeaseManager
from .upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ...models import ConsumerState, Health
    from ...options import ConsumerOptions
    from ...payloads import Decoder
    from ..concurrency import Task
    from ..wakeups.subscription import Subscription

__all__ = ["Lifecycle"]

log = logging.getLogger("durable_notify")

#: How many messages to claim first for a loop. It may settle several in one transaction of its
#: own, and those of one key must then be of one lease.
ITERATED = 10


class Lifecycle:
    """What a consumer is made of, and how it starts and ends; see ``Consumer``."""

    def __init__(
        self, dsn: str, listen_dsn: str, options: ConsumerOptions, decoder: Decoder
    ) -> None:
        self.options = options
        self._decoder = decoder
        self._dsn = dsn
        self._listen_dsn = listen_dsn
        self._set_up()

    def _set_up(self) -> None:
        self._stopping = Event()
        self._room = Event()  # there may be room for another batch
        self._emitter = EventEmitter(self.options.on_event, self.options.group.name)
        self._health = HealthTracker(self.options.heartbeat_interval)
        self._started = self._running = self._closed = self._ended = False
        self._process = os.getpid()
        self._tasks: list[Task] = []
        self._subscription: Subscription | None = None
        self._compose()

    def _make_queries(self) -> Queries:
        return Queries(self._dsn, self.options)

    def _compose(self) -> None:
        """Create the parts: what claims, what buffers, what calls handlers, what settles."""
        options = self.options
        self._batch_sizer = BatchSizer(ITERATED, options.batch_size)
        self._queries = self._make_queries()
        self._buffer = PrefetchBuffer(self._stopping, self._room, self._decoder)
        self._lease_manager = LeaseManager(
            self._queries, options, self._emitter, self._on_capacity, self._buffer
        )
        self._buffer.lease_manager = self._lease_manager
        self._upkeep = Upkeep(self._queries, options, self._emitter)
        self._iteration = Iteration(
            self._buffer,
            self._lease_manager,
            self._batch_sizer,
            until_empty=options.until_empty,
        )
        self._dispatcher = Dispatcher(
            self._buffer,
            self._lease_manager,
            options=options,
            emitter=self._emitter,
            took=self._batch_sizer.took,
            stopping=self._stopping,
            ended=self._end_by,
        )
        self._fetcher = Fetcher(
            self._queries,
            self._buffer,
            self._lease_manager,
            options=options,
            batch_sizer=self._batch_sizer,
            emitter=self._emitter,
            health=self._health,
            being_handled=lambda: self._dispatcher.busy + self._iteration.out,
            stopping=self._stopping,
            room=self._room,
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
        """Check the schema, create or join the group, and start to claim.

        Raises:
            SchemaError: the migrations do not fit this package; the text says what to run.
            psycopg.Error: the database cannot be reached or used. Once started, a consumer
                outlasts outages.
        """
        self._check_process()
        if self._started:
            raise ConsumerClosed("a consumer starts once: make a new one")
        if not self.options.topics:
            raise InvalidArgument("there are no topics: give topics=, or handlers by on()")
        self._started = True
        try:
            self._upkeep.say_differing(self._queries.open(), started=True)
            beat = self.options.heartbeat_interval
            subscription = listen(self._listen_dsn, self._fetcher.channels, beat, self._emitter)
        except BaseException:
            self._queries.close()
            self._ended = True
            raise
        subscription.on_timeout = self._queries.registry.cut
        self._subscription = subscription
        self._health.beat(time.monotonic())
        closing, direct = self._lease_manager.closing, self._listen_dsn == self._dsn

        def suspended() -> bool:
            return subscription.suspended

        self._tasks = [
            spawn(self._fetcher.run, subscription, direct, name="durable_notify fetch"),
            self._keep_up("flush", self._lease_manager.flush_loop),
            self._keep_up("heartbeat", self._lease_manager.heartbeat_loop, suspended),
            self._keep_up("check", self._upkeep.check_loop, closing, self._beat),
        ]
        if self.options.maintenance:
            params = (self._queries, self._dsn, self._stopping, suspended)
            self._tasks.append(self._keep_up("maintenance", keep_up, *params))

    def _keep_up(self, name: str, function: Callable[..., Any], *args: Any) -> Task:
        """Start a loop that the consumer needs: an error in it ends the consumer."""

        def body() -> None:
            try:
                function(*args)
            except CANCELLED:
                raise
            except BaseException as error:
                log.exception("%s ended by an error", name)
                self._buffer.failure = error
                self._end_by(error)
                self._buffer.end()

        return spawn(body, name=f"durable_notify {name}")

    def _end_by(self, error: BaseException) -> None:
        self._health.end(error)
        self.stop()

    def _check_process(self) -> None:
        """Raise UsedAfterFork in a process that does not have this consumer's threads."""
        if os.getpid() != self._process:
            raise UsedAfterFork("the consumer was made before the fork: make a new one here")

    def _beat(self) -> bool:
        """Record that the consumer is alive; return whether the database may be suspended."""
        self._health.beat(time.monotonic())
        self._iteration.warn_if_stuck(room=self._fetcher.free > 0)
        return self._subscription is not None and self._subscription.suspended

    def health(self) -> Health:
        """Return whether the consumer is alive, and whether it is ready. Thread-safe.

        It does not ask the database. A consumer whose event loop is blocked, or which an error has
        ended, is not alive. One whose claims fail is alive, and not ready.
        """
        subscription, options = self._subscription, self.options
        return self._health.health(
            time.monotonic(),
            hears=subscription is not None and subscription.hears,
            deaf=subscription is not None and subscription.deaf,
            lost_at=None if subscription is None else subscription.lost_at,
            polls=options.poll_interval is not None or options.idle_poll_interval is not None,
            held=self._lease_manager.held,
            group=options.group.name,
            state=self._state,
        )

    @property
    def _state(self) -> ConsumerState:
        if not self._started:
            return "new"
        if self._stopping.is_set():
            return "stopping"
        if self._fetcher.full:
            return "full"
        if self._subscription is None or not self._subscription.waits:
            return "fetching"
        return "sleeping" if self._subscription.asleep else "polling"

    def stop(self) -> None:
        """Claim nothing more; iteration and ``run`` end once current handlers have finished."""
        self._health.stop()
        self._stopping.set()
        self._room.set()
        if self._subscription is not None:
            self._subscription.end()

    def close(self) -> None:
        """Stop, send recorded acknowledgements, and release unsettled messages at once."""
        if os.getpid() != self._process:
            return  # the connections belong to the other process
        self.stop()
        self._closed = True
        if not self._tasks:
            self._ended = self._ended or not self._started
            return
        tasks, self._tasks = self._tasks, []
        try:
            tasks[0].join()
            self._lease_manager.finish_pending()
            self._lease_manager.close()
            self._lease_manager.stop_loops()
            for task in tasks[1:]:
                task.join()
        finally:
            # Even after an error: other consumers may share the listener, and the pool's tasks do
            # not end with the event loop's.
            try:
                if self._subscription is not None:
                    self._subscription.close()
            finally:
                self._queries.close()
                self._ended = True

    def _renew(self) -> None:
        """Become as new, after a run, or in a child process that was forked before the start."""
        if self._ended or (not self._started and os.getpid() != self._process):
            self._set_up()

    def _check_new(self) -> None:
        self._check_process()
        if self._closed or self._running:
            state = "was closed" if self._closed else "runs already"
            raise ConsumerClosed(f"this consumer {state}: make a new one")

    def _run(self, concurrency: int, least: int) -> None:
        self._check_new()
        self._running = True
        self._batch_sizer.can_begin(least, concurrency)
        try:
            if not self._started:
                self.start()
            self._dispatcher.run(concurrency)
        finally:
            self.stop()
            self.close()
        if self._dispatcher.fault is not None:
            raise self._dispatcher.fault

    def _on_capacity(self) -> None:
        """Check for room and for the end, because messages are no longer held."""
        self._room.set()
        if self._subscription is not None and (
            self.options.until_empty
            or (self.options.idle_poll_interval is not None and self._lease_manager.held == 0)
        ):
            self._subscription.wake()  # the consumer may have to stop or be suspended now
