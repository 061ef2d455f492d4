# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A consumer: claims messages of its group, delivers them, and settles them."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, Generic, overload

from ..._core.callables import check_handler
from ..._core.emitter import EventEmitter
from ..._core.health import HealthTracker
from ..._core.pacing import BatchSizer
from ...codecs import T
from ...errors import ConsumerClosed, InvalidArgument, UsedAfterFork
from ...options import ConsumerOptions, check_known
from ...payloads import Decoder
from ...topics import check_topics, listed
from ..concurrency import AWAITS, CANCELLED, Event, checkpoint, on_signals, spawn
from ..database.queries import Queries
from ..maintenance import keep_up
from ..wakeups.listener import listen
from ..wakeups.subscription import LONGEST_SLEEP
from .buffer import PrefetchBuffer
from .dispatcher import Dispatcher
from .fetcher import Fetcher
from .iteration import Iteration
from .leases import LeaseManager
from .upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self, Unpack

    from ..._core.leases import Outcome
    from ...models import ConsumerState, Health
    from ...options import ConsumerSettings
    from ...topics import Topic, TopicName
    from ..concurrency import Task
    from ..wakeups.subscription import Subscription
    from .message import Message

__all__ = ["Consumer"]

log = logging.getLogger("durable_notify")

#: How many messages to claim first for a loop. It may settle several in one transaction of its
#: own, and those of one key must then be of one lease.
ITERATED = 10


class Consumer(Generic[T]):
    """Consumes topics as a member of a group.

    Every group receives every message; the consumers of one group, in any number of processes,
    share them. A message is delivered at least once: until it is acknowledged, whatever crashes.

    Iterate over it, and settle each message::

        with Consumer(dsn, group="billing", topics=["orders"]) as consumer:
            for message in consumer:
                message.ack()

    or give ``run`` a handler. Use a consumer only once.

    Args:
        dsn: a libpq connection string or URI. The consumer opens connections of its own.
        group: the consumer group.
        topics: the topics it consumes, or patterns: ``orders.*``, ``orders.>``. The messages of a
            ``Topic`` have payloads of its type.
        listen_dsn: a direct connection for listening, if ``dsn`` leads through a pooler.
        options: see ``ConsumerOptions``.
    """

    #: Decodes payloads; a relay passes them on unchanged.
    _decoder_class = Decoder

    @overload
    def __init__(
        self,
        dsn: str,
        *,
        group: str,
        topics: Iterable[Topic[T]],
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None: ...
    @overload
    def __init__(
        self: Consumer[Any],
        dsn: str,
        *,
        group: str,
        topics: Iterable[TopicName],
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None: ...
    def __init__(
        self,
        dsn: str,
        *,
        group: str,
        topics: Iterable[TopicName],
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        check_known(options)
        given = listed(topics)
        self.options = ConsumerOptions(group=group, topics=check_topics(given), **options)
        self._decoder = self._decoder_class(given)
        self._dsn = dsn
        self._listen_dsn = listen_dsn or dsn
        self._stopping = Event()
        self._room = Event()  # there may be room for another batch
        self._emitter = EventEmitter(self.options.on_event, self.options.group)
        self._health = HealthTracker(self.options.heartbeat)
        self._started = self._running = self._closed = False
        self._process = os.getpid()
        self._tasks: list[Task] = []
        self._subscription: Subscription | None = None
        self._compose()

    def _compose(self) -> None:
        """Create the parts: what claims, what buffers, what calls handlers, what settles."""
        options = self.options
        self._batch_sizer = BatchSizer(ITERATED, options.batch_size)
        self._queries = Queries(self._dsn, options)
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
        self._started = True
        self._upkeep.say_differing(self._queries.open(), started=True)
        try:
            beat = self.options.heartbeat
            subscription = listen(self._listen_dsn, self._fetcher.channels, beat, self._emitter)
        except BaseException:
            self._queries.close()
            raise
        subscription.on_timeout = self._queries.registry.cut
        self._subscription = subscription
        self._health.beat(time.monotonic())
        closing, direct = self._lease_manager.closing, self._listen_dsn == self._dsn
        self._tasks = [
            spawn(self._fetcher.run, subscription, direct, name="durable_notify fetch"),
            self._keep_up("flush", self._lease_manager.flush_loop),
            self._keep_up("heartbeat", self._lease_manager.heartbeat_loop),
            self._keep_up("check", self._upkeep.check_loop, closing, self._beat),
        ]
        if self.options.maintenance:
            params = (self._queries, self._dsn, self._stopping, lambda: subscription.suspended)
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
            polls=options.poll is not None or options.idle_poll is not None,
            held=self._lease_manager.held,
            group=options.group,
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

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message[T]:
        self._check_process()
        if not self._started:
            raise ConsumerClosed("this consumer was not started: enter it first, or use run()")
        message = self._iteration.next()
        if message is None:
            raise StopIteration
        return message

    def run(self, handler: Callable[[Message[T]], Any], *, concurrency: int = 1) -> None:
        """Deliver messages to a handler until ``stop()``, SIGTERM or SIGINT.

        If the handler returns without settling its message, the consumer acknowledges it. If it
        raises, the message is redelivered, with longer delays, up to the group's ``max_attempts``;
        then it becomes a dead letter. To stop, the consumer lets running handlers finish, sends
        their acknowledgements, and releases the other messages. A second signal ends the wait.

        Args:
            handler: called with each message; may be a plain function or return an awaitable.
            concurrency: how many messages to handle at once.

        Raises:
            InvalidArgument: a call of the handler would only create a coroutine or generator.
            ConsumerClosed: the consumer has run before.
            BaseException: a handler raised one that is not an Exception, such as SystemExit.
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
        self._batch_sizer.can_begin(least, concurrency)
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
        handler: Callable[[list[Message[T]]], Any],
        *,
        size: int = 100,
        max_wait: float = 1.0,
        concurrency: int = 1,
    ) -> None:
        """Deliver batches of messages to a handler, as ``run`` does single messages.

        The handler may settle messages of a batch one by one. If it returns, the consumer
        acknowledges the others. If it raises, it redelivers the others, by the rules for errors. A
        batch may have several messages of a key, in order.

        Args:
            handler: called with lists of 1 to ``size`` messages.
            size: the most messages in a batch; no more than ``prefetch``.
            max_wait: how many seconds to wait for more messages after the first of a batch.
            concurrency: how many batches to handle at once.
        """
        _check_concurrency(concurrency)
        self._check_batches(size, max_wait, concurrency)
        check_handler(handler, awaited=AWAITS)
        self._dispatcher.in_batches(handler, size, max_wait)
        self._run(concurrency, size * concurrency)

    def batches(self, *, size: int = 100, max_wait: float = 0.0) -> Iterator[list[Message[T]]]:
        """Iterate over batches; the body settles each message, sooner or later.

        Several loops may iterate at once, if all sizes together are no more than ``prefetch``.
        Messages that are kept in order are never in two batches at once. ``close`` releases what
        is not settled, and its attempt does not count.

        Args:
            size: the most messages in a batch.
            max_wait: how many seconds to wait for more messages after the first of a batch.
        """
        self._check_process()
        self._check_batches(size, max_wait, 1)
        self._batch_sizer.can_begin(size)
        while batch := self._iteration.next_batch(size, max_wait):
            yield batch
            self._iteration.end_batch(batch)
            checkpoint()

    def settle_soon(self, message: Message, outcome: Outcome) -> None:
        """Settle a message together with others, soon; not durable on return.

        If the process dies first, the message is redelivered.

        Args:
            outcome: ``Ack()``, ``Retry()`` or ``Reject()``. Settle messages that are kept in order
                in that order.

        Raises:
            AlreadySettled: it was settled before, or sent back with an earlier one of its key.
            LeaseLost: another consumer has the message by now.
        """
        self._lease_manager.check_open()
        self._lease_manager.settle_soon(message._lease, message.id, outcome)

    def filter_held(self, messages: Iterable[Message[T]]) -> list[Message[T]]:
        """Return the messages that are unsettled and still leased by this consumer.

        Call it after a long wait. A lease may have expired while the process was suspended or the
        database unreachable, and another consumer may have its messages.
        """
        held = []
        for message in messages:
            self._buffer.verify_lease(message)
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

    def _on_capacity(self) -> None:
        """Check for room and for the end, because messages are no longer held."""
        self._room.set()
        if self._subscription is not None and (
            self.options.until_empty
            or (self.options.idle_poll is not None and self._lease_manager.held == 0)
        ):
            self._subscription.wake()  # the consumer may have to stop or be suspended now


def _check_concurrency(concurrency: int) -> None:
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise InvalidArgument(f"concurrency must be 1 or more, not {concurrency!r}")
