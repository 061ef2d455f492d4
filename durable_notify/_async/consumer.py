"""A consumer: claims messages of its group, hands them out, and sees them settled."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from .._core.attention import Attention
from .._core.leases import Ack, Reject
from .._core.ordering import KeyGate
from .._core.pacing import BatchPacer, backoff, shortest
from ..errors import (
    AlreadySettled,
    ClaimBusy,
    ConsumerClosed,
    InvalidArgument,
    LeaseLost,
    ListenerDeaf,
)
from ..options import ConsumerOptions
from ..topics import check_topics
from .compat import Event, Queue, call, checkpoint, on_signals, spawn
from .listener import listen
from .message import AsyncMessage
from .settler import AsyncSettler
from .store import TRANSIENT, AsyncStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self, Unpack

    from .._core.ordering import Delivery, Place
    from ..options import ConsumerSettings
    from .compat import Task
    from .listener import AsyncEar

__all__ = ["AsyncConsumer"]

log = logging.getLogger("durable_notify")

#: How often to look while wake-ups do not arrive and polling is allowed, in seconds.
DEAF_POLL = 1.0
#: No wait may be longer than a thread can wait.
LONGEST_SLEEP = 86_400.0
#: How often to look, where a consumer is to end once nothing is left, in seconds.
DRAIN_POLL = 0.5
#: After how many messages a handler that never waits lets others run.
BREATH = 64


class AsyncConsumer:
    """Consumes topics as a member of a group.

    Every group gets every message; the consumers of one group, in any number of processes, share
    them. A message is delivered at least once: until it is acknowledged, whatever crashes.

    Iterate over it, and settle each message::

        async with AsyncConsumer(dsn, group="billing", topics=["orders"]) as consumer:
            async for message in consumer:
                await message.ack()

    or give ``run`` a handler. A consumer is used once; its options are those of
    ``ConsumerOptions``.

    Args:
        dsn: a libpq connection string or URI. The consumer opens connections of its own.
        group: the consumer group.
        topics: the topics it consumes, or patterns: ``orders.*``, ``orders.>``.
        listen_dsn: a direct connection for listening, where ``dsn`` leads through a pooler.
        options: see ``ConsumerOptions``.
    """

    def __init__(
        self,
        dsn: str,
        *,
        group: str,
        topics: Iterable[str],
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        self.options = ConsumerOptions(group=group, topics=check_topics(topics), **options)
        self._listen_dsn = listen_dsn or dsn
        self._store = AsyncStore(dsn, self.options)
        self._settler = AsyncSettler(self._store, self.options, self._freed, self._done)
        self._attention = Attention(self.options.topics)
        self._gate: KeyGate[AsyncMessage] = KeyGate()
        self._queue: Queue[AsyncMessage | None] = Queue()
        self._stopping = Event()
        self._room = Event()  # there may be room for another batch
        self._filled = (0, 0.0)  # how many messages the queue had after the last claim, and when
        self._low_water = 0
        self._started = False
        self._failure: BaseException | None = None
        self._tasks: list[Task] = []
        self._ear: AsyncEar | None = None
        self._concurrency = 1

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Check the schema, create or join the group, and begin to claim.

        Raises:
            SchemaError: the migrations do not fit this package; the text says what to run.
            psycopg.Error: the database cannot be reached or used. Once started, a consumer
                outlasts outages by itself.
        """
        if self._started:
            raise ConsumerClosed("a consumer starts once: make a new one")
        self._started = True
        await self._store.open()
        try:
            ear = await listen(self._listen_dsn, self._attention.channels)
        except BaseException:
            await self._store.close()
            raise
        self._ear = ear
        self._tasks = [
            spawn(self._fetch, ear, name="durable_notify fetch"),
            spawn(self._settler.flush_loop, name="durable_notify flush"),
            spawn(self._settler.heartbeat_loop, name="durable_notify heartbeat"),
        ]

    def stop(self) -> None:
        """Claim nothing more; iteration and ``run`` end once what is under way is done."""
        self._stopping.set()
        self._room.set()
        if self._ear is not None:
            self._ear.wake()

    async def close(self) -> None:
        """Stop, send the acknowledgements recorded, and give unsettled messages back at once."""
        self.stop()
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        try:
            await tasks[0].join()
            self._finish_tried()
            await self._settler.close()
            self._settler.stop_loops()
            for task in tasks[1:]:
                await task.join()
            if self._ear is not None:
                await self._ear.close()
        finally:
            # Whatever happens: the pool's own tasks do not end with those of a loop that ends.
            await self._store.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncMessage:
        if not self._started:
            raise ConsumerClosed("this consumer was not started: enter it first, or use run()")
        self._finish_tried()
        message = await self._next()
        if message is None:
            raise StopAsyncIteration
        return message

    async def run(self, handler: Callable[[AsyncMessage], Any], *, concurrency: int = 1) -> None:
        """Hand messages to a handler until stopped: by ``stop()``, SIGTERM or SIGINT.

        A message whose handler returns without having settled it is acknowledged. One whose
        handler raises comes again, later each time, up to the group's ``max_attempts``; then it
        becomes a dead letter. On stopping, handlers at work finish, their acknowledgements are
        sent and what was not begun is given back.

        Args:
            handler: called with each message; may be a plain function or return an awaitable.
            concurrency: how many messages are handled at once.
        """
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
            raise InvalidArgument(f"concurrency is 1 or more, not {concurrency!r}")
        self._concurrency = concurrency
        workers: list[Task] = []
        try:
            with on_signals(self.stop):
                if not self._started:
                    await self.start()
                workers = [
                    spawn(self._work, handler, name=f"durable_notify worker {number}")
                    for number in range(concurrency)
                ]
                for worker in workers:
                    await worker.join()
        finally:
            self.stop()
            for worker in workers:
                await worker.stop()
            await self.close()

    async def _work(self, handler: Callable[[AsyncMessage], Any]) -> None:
        for handled in itertools.count(1):
            message = await self._next()
            if message is None:
                return
            lease = message._lease
            try:
                await call(handler, message)
            except Exception as error:
                log.warning("the handler of %r failed", message, exc_info=True)
                await self._settler.failed(message, lease, error)
            else:
                self._handled(message)
            self._settler.tried.discard(message)
            if handled % BREATH == 0:
                await checkpoint()

    def _handled(self, message: AsyncMessage) -> None:
        lease = message._lease
        if message.id in lease.tried:
            self._settler.finish(lease, message)
        elif message.id in lease.open:
            try:
                self._settler.settle_soon(lease, message.id, Ack())
            except (AlreadySettled, LeaseLost) as error:
                log.warning("the handler of %r was done too late: %s", message, error)

    def _finish_tried(self) -> None:
        """The loop's body is over: so are, as far as we can tell, its transactions."""
        tried = self._settler.tried
        while tried:
            message = tried.pop()
            self._settler.finish(message._lease, message)

    async def _next(self) -> AsyncMessage | None:
        """Return the next message, or None once the consumer stops."""
        while True:
            try:
                message = self._queue.get_nowait()
            except self._queue.EMPTY:
                message = await self._queue.get()
            if message is None:
                self._queue.put(None)  # for whoever else waits
                if self._failure is not None:
                    raise self._failure
                return None
            lease, place, delivery = message._lease, message._place, message._delivery
            if self._stopping.is_set() or lease.lost or message.id not in lease.open:
                # It is given back, gone to another consumer, or sent back with an earlier one.
                self._done(place, delivery)
                continue
            if not self._gate.enter(place, delivery, message, message):
                continue  # an earlier one of its key is at work
            if message._flaw is not None:
                self._refuse(message, message._flaw)
                continue
            if self._queue.size() <= self._low_water:
                self._room.set()
            return message

    def _refuse(self, message: AsyncMessage, flaw: Exception) -> None:
        log.warning("message %s is rejected, Python cannot decode it: %s", message.id, flaw)
        reason = f"Python cannot decode it: {flaw}"
        self._settler.settle_soon(message._lease, message.id, Reject(reason))

    def _done(self, place: Place | None, delivery: Delivery) -> None:
        """A message has its outcome: the next of its key may go."""
        following = self._gate.leave(place, delivery)
        if following is not None:
            self._queue.put(following)

    def _freed(self) -> None:
        """Messages are no longer held."""
        self._room.set()
        if self.options.until_empty and self._ear is not None:
            self._ear.wake()  # it may be empty now

    async def _fetch(self, ear: AsyncEar) -> None:
        """Claim messages until stopped; whatever ends it also ends those who wait for messages."""
        failures = 0
        pacer: BatchPacer | None = None
        try:
            while not self._stopping.is_set():
                pacer = pacer or BatchPacer(self._concurrency, self.options.batch_size)
                try:
                    await self._fetch_once(ear, pacer)
                    failures = 0
                except ClaimBusy as error:
                    log.info("%s", error)
                except TRANSIENT as error:
                    failures += 1
                    delay = backoff(failures, 0.1, 10.0)
                    log.warning("claiming failed, next try in %.1f s: %s", delay, error)
                    await self._stopping.wait(delay)
        except Exception as error:
            self._failure = error
        finally:
            self._queue.put(None)

    async def _fetch_once(self, ear: AsyncEar, pacer: BatchPacer) -> None:
        """Claim a batch when there is room for one; where nothing is there, sleep until woken."""
        self._room.clear()
        rung = ear.heard()
        if self._stopping.is_set():
            return  # stop() may have set both events just before
        if self._attention.heard(rung):
            ear.listen(self._attention.add(await self._store.discover()))
        room = self.options.prefetch - self._settler.held
        if room <= 0 or self._queue.size() > self._low_water:
            await self._room.wait()
            return
        filled, filled_at = self._filled
        pacer.handled(filled - self._queue.size(), time.monotonic() - filled_at)
        self._filled = (0, 0.0)
        rows = await self._claim(min(room, pacer.size))
        if rows:
            self._take_in(rows)
            self._low_water = pacer.size // 2
            self._filled = (self._queue.size(), time.monotonic())
            return
        due = await self._store.next_due(self._attention.topics)
        if self.options.until_empty:
            if due is None and self._settler.held == 0:
                self._stopping.set()
                return
            due = shortest(due, DRAIN_POLL)
        await self._sleep(ear, due)

    async def _claim(self, most: int) -> list[tuple[Any, ...]]:
        if self.options.until_empty:
            self._attention.all()
        topics = self._attention.to_claim()
        rows = await self._store.claim(topics, most) if topics else []
        if len(rows) < most:
            self._attention.exhausted(topics)
        return rows

    async def _sleep(self, ear: AsyncEar, due: float | None) -> None:
        poll = self.options.poll
        if ear.deaf and poll is None:
            raise ListenerDeaf(
                "wake-ups do not reach the listening connection, and polling is switched off: "
                "give a direct listen_dsn, or allow poll"
            )
        if not ear.hears and poll is not None:
            poll = min(poll, DEAF_POLL)
        await ear.woken.wait(shortest(due, poll, LONGEST_SLEEP))
        if not ear.woken.is_set():
            self._attention.all()  # something is due, or it is time to look

    def _take_in(self, rows: list[tuple[Any, ...]]) -> None:
        for token, part in itertools.groupby(rows, key=lambda row: row[0]):
            batch = list(part)
            lease = self._settler.hold(
                token, {row[1]: None if row[9] is None else (row[2], row[9]) for row in batch}
            )
            for row in batch:
                self._queue.put(AsyncMessage(row, lease, self._settler))
