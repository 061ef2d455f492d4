# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A consumer: claims messages of its group, delivers them, and settles them."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ..._core.checks import check_count
from ...codecs import M, T
from ...deprecated import INTERVALS, old_spelling
from ...durations import in_seconds
from ...errors import ConsumerClosed, InvalidArgument
from ...events import subscribers
from ...middleware import check_middleware
from ...options import ConsumerOptions
from ...payloads import Decoder
from ...topics import check_topics, listed
from ..concurrency import AWAITS, checkpoint, on_signals
from .handlers import Handlers
from .lifecycle import Lifecycle
from .runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self, Unpack

    from ..._core.leases import Outcome
    from ...durations import Seconds
    from ...groups import Group
    from ...options import ConsumerSettings
    from ...topics import Topic, TopicName
    from .message import Message

__all__ = ["Consumer"]

R = TypeVar("R")
H = TypeVar("H", bound="Callable[..., Any]")


class Consumer(Lifecycle, Generic[T]):
    """Consumes topics as a member of a group.

    Every group receives every message; the consumers of one group, in any number of processes,
    share them. A message is delivered at least once: until it is acknowledged, whatever crashes.

    Iterate over it, and settle each message:

        with Consumer(dsn, group="billing", topics=["orders"]) as consumer:
            for message in consumer:
                message.ack()

    or let ``run`` call handlers: one that it is given, or one a topic, by ``on``. Use a consumer
    only once, unless it has handlers by ``on``: then it can run again, once it has ended.

    Args:
        dsn: a libpq connection string or URI. The consumer opens connections of its own.
        group: the consumer group: its name, or a ``Group`` with options that are stored for all
            its consumers.
        topics: the topics it consumes, or patterns: ``orders.*``, ``orders.>``. The messages of a
            ``Topic`` have payloads of its type. If they are left out: those that have handlers.
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
        group: str | Group,
        topics: Iterable[Topic[T]],
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None: ...
    @overload
    def __init__(
        self: Consumer[Any],
        dsn: str,
        *,
        group: str | Group,
        topics: Iterable[TopicName] | None = None,
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None: ...
    @old_spelling(INTERVALS, of_group=True)
    def __init__(
        self,
        dsn: str,
        *,
        group: str | Group,
        topics: Iterable[TopicName] | None = None,
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        given = () if topics is None else listed(topics)
        names = () if topics is None else check_topics(given)
        checked = ConsumerOptions.of(group, names, options)
        super().__init__(dsn, listen_dsn or dsn, checked, self._decoder_class(given))
        self._given = topics is not None
        middleware = check_middleware(checked.middleware, awaited=AWAITS)
        self._handlers = Handlers(checked.group.name, middleware)

    def __iter__(self) -> Self:
        self._check_loop()
        return self

    def _check_loop(self) -> None:
        if self._handlers.topics:
            raise InvalidArgument("this consumer has handlers: call run(), or iterate without them")

    def __next__(self) -> Message[T]:
        self._check_process()
        if not self._started:
            raise ConsumerClosed("this consumer was not started: enter it first, or use run()")
        message = self._iteration.next()
        if message is None:
            raise StopIteration
        return message

    @overload
    def on(
        self, topic: Topic[M], /, *, transaction: None = None, thread: bool = False
    ) -> Callable[[Callable[[Message[M]], R]], Callable[[Message[M]], R]]: ...
    @overload
    def on(
        self, topic: Topic[M], /, *, transaction: Any, thread: bool = False
    ) -> Callable[[Callable[[Message[M], Any], R]], Callable[[Message[M], Any], R]]: ...
    @overload
    def on(
        self, topic: str, /, *, transaction: Any = None, thread: bool = False
    ) -> Callable[[H], H]: ...
    def on(self, topic: TopicName, /, *, transaction: Any = None, thread: bool = False) -> Any:
        """Decorate the handler of a topic or pattern; ``run()`` then calls it.

        A topic's own handler gets its messages before that of a pattern, and the first pattern
        that matches before later ones. Without ``topics``, the consumer consumes what has handlers.

        Args:
            topic: a ``Topic``, a topic's name, or a pattern.
            transaction: where a connection comes from, as for ``message.transaction()``; True: a
                psycopg connection of the consumer's own. The handler gets it as its second
                argument, and its commit acknowledges the message.
            thread: run a plain function in a thread, because it blocks. All handlers of a
                ``Consumer`` run in threads.

        Raises:
            InvalidArgument: the topic has a handler, or the handler cannot be called like this.
            ConsumerClosed: the consumer has started.
        """

        def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
            if self._started:
                raise ConsumerClosed("this consumer has started: add handlers before")
            self._decoder.add_handled(topic)
            self._handlers.add(topic, handler, transaction, thread=thread)
            if not self._given:
                self.options = dataclasses.replace(self.options, topics=self._handlers.topics)
                self._compose()
            return handler

        return decorate

    def run(
        self,
        handler: Callable[[Message[T]], Any] | None = None,
        *,
        concurrency: int | None = None,
    ) -> None:
        """Deliver messages to a handler until ``stop()``, SIGTERM or SIGINT.

        If the handler returns without settling its message, the consumer acknowledges it. If it
        raises, the message is redelivered, with longer delays, up to the group's ``max_attempts``;
        then it becomes a dead letter. To stop, the consumer lets running handlers finish, sends
        their acknowledgements, and releases the other messages. A second signal ends the wait.

        Args:
            handler: called with each message; may be a plain function or return an awaitable.
                None: the handlers by ``on()``.
            concurrency: how many messages to handle at once, instead of the consumer's option.

        Raises:
            InvalidArgument: a call of the handler would only create a coroutine or generator; or a
                topic has no handler.
            ConsumerClosed: the consumer has run before.
            BaseException: a handler raised one that is not an Exception, such as SystemExit.
        """
        concurrency = self._prepare(handler, concurrency)
        with on_signals(self.stop, self._dispatcher.hurry):
            self._run(concurrency, concurrency)

    @contextlib.contextmanager
    def running(
        self,
        handler: Callable[[Message[T]], Any] | None = None,
        *,
        concurrency: int | None = None,
    ) -> Iterator[Self]:
        """Run beside the body, such as an application's; stop at its end, as ``run`` does.

        The consumer has started when the body begins. It leaves signals to the application. If it
        fails meanwhile, ``health()`` shows that, and the block's end raises it.

        Raises:
            InvalidArgument, ConsumerClosed, BaseException: as for ``run``.
            SchemaError, psycopg.Error: as for ``start``.
        """
        runner = Runner({self: self._prepare(handler, concurrency)})
        runner.start()
        try:
            yield self
        finally:
            runner.stop()
            runner.join()

    def _observe(self, metrics: Any) -> None:
        """Measure this consumer too, before its start; for a program that runs it."""
        options = self.options
        heard = (*subscribers(options.on_event), metrics)
        around = (metrics, *options.middleware)
        self.options = dataclasses.replace(options, on_event=heard, middleware=around)
        self._handlers.surround(metrics)
        self._set_up()

    def _prepare(self, handler: Callable[[Message[T]], Any] | None, concurrency: int | None) -> int:
        """Check what ``run`` was given, and return how many messages to handle at once."""
        concurrency = self.options.concurrency if concurrency is None else concurrency
        check_count("concurrency", concurrency)
        self._handlers.check_concurrency(concurrency)
        if self._handlers.topics:
            self._renew()
        self._check_new()
        self._dispatcher.singly(self._handlers.prepared(handler))
        if handler is None and self._given:
            self._handlers.check_topics(self.options.topics)
        return concurrency

    def run_batches(
        self,
        handler: Callable[[list[Message[T]]], Any],
        *,
        size: int = 100,
        max_wait: Seconds = 1.0,
        concurrency: int | None = None,
    ) -> None:
        """Deliver batches of messages to a handler, as ``run`` does single messages.

        The handler may settle messages of a batch one by one. If it returns, the consumer
        acknowledges the others. If it raises, it redelivers the others, by the rules for errors. A
        batch may have several messages of a key, in order.

        Args:
            handler: called with lists of 1 to ``size`` messages.
            size: the most messages in a batch; no more than ``prefetch``.
            max_wait: how long to wait for more messages after the first of a batch.
            concurrency: how many batches to handle at once.
        """
        concurrency = self.options.concurrency if concurrency is None else concurrency
        check_count("concurrency", concurrency)
        seconds = self._check_batches(size, max_wait, concurrency)
        prepared = self._handlers.prepared(handler, is_batch=True)
        self._dispatcher.in_batches(prepared, size, seconds)
        with on_signals(self.stop, self._dispatcher.hurry):
            self._run(concurrency, size * concurrency)

    def batches(self, *, size: int = 100, max_wait: Seconds = 0.0) -> Iterator[list[Message[T]]]:
        """Iterate over batches; the body settles each message, sooner or later.

        Several loops may iterate at once, if all sizes together are no more than ``prefetch``.
        Messages that are kept in order are never in two batches at once. ``close`` releases what
        is not settled, and its attempt does not count.

        Args:
            size: the most messages in a batch.
            max_wait: how long to wait for more messages after the first of a batch.
        """
        self._check_process()
        self._check_loop()
        seconds = self._check_batches(size, max_wait, 1)
        self._batch_sizer.can_begin(size)
        while batch := self._iteration.next_batch(size, seconds):
            yield list(batch)  # a copy: the body may take its list apart
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

    def _check_batches(self, size: int, max_wait: Seconds, concurrency: int) -> float:
        """Check the arguments of batches, and return ``max_wait`` in seconds."""
        check_count("size", size)
        if size * concurrency > self.options.prefetch:
            raise InvalidArgument("size times concurrency is over prefetch: raise prefetch")
        return in_seconds("max_wait", max_wait, zero=True)
