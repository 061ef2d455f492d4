"""Handlers: which one gets a message, in which transaction, and within which middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._core.callables import HALVES, check_arguments, check_done, check_handler, is_async, name_of
from ...errors import InvalidArgument, NoHandler
from ...middleware import Handling, generators
from ...topics import ByTopic, check_pattern, overlap
from ..concurrency import AWAITS, call, in_threads, within
from ..database.callers import begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...middleware import Middleware
    from ...topics import TopicName
    from .message import AsyncMessage

__all__ = ["AsyncHandlers"]

#: What a handler is called with, without a transaction and with one.
_ARGUMENTS = (("message",), ("message", "connection"))


class AsyncHandlers:
    """The handlers of a consumer: by topic, or one for all.

    Args:
        group: the consumer's group.
        middleware: runs around each call of a handler.
    """

    def __init__(self, group: str, middleware: Iterable[Middleware]) -> None:
        self._group = group
        self._around = list(generators(middleware, "handling", awaited=AWAITS))
        self._by_topic: ByTopic[Callable[..., Any]] = ByTopic()
        self._on_one_connection: list[str] = []  # topics whose handlers share a connection

    def surround(self, middleware: Middleware) -> None:
        """Run a middleware around all others."""
        self._around[:0] = generators([middleware], "handling", awaited=AWAITS)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics and patterns that have a handler."""
        return tuple(self._by_topic)

    def add(
        self, topic: TopicName, handler: Callable[..., Any], transaction: Any, *, thread: bool
    ) -> None:
        """Add the handler of a topic or pattern.

        Raises:
            InvalidArgument: it has one, or the handler cannot be called like this.
        """
        name = check_pattern(topic)
        if name in self.topics:
            raise InvalidArgument(f"topic {name!r} has a handler already")
        check_handler(handler, awaited=AWAITS)
        check_arguments(handler, _ARGUMENTS[transaction is not None])
        if thread:
            if is_async(handler):
                raise InvalidArgument(
                    f"thread=True is for plain functions: {name_of(handler)} is async"
                )
            if AWAITS and transaction is not None:
                raise InvalidArgument(f"a thread cannot use a connection for asyncio: {HALVES}")
            handler = in_threads(handler)
        if transaction is not None:
            handler = _in_transaction(handler, transaction)
            if _is_one_connection(transaction):
                self._on_one_connection.append(name)
        self._by_topic.set(name, handler)

    def check_concurrency(self, concurrency: int) -> None:
        """Raise InvalidArgument if handlers would use one connection at the same time."""
        if concurrency > 1 and self._on_one_connection:
            raise InvalidArgument(
                f"the handler of {self._on_one_connection[0]!r} has one connection for all "
                f"messages, which {concurrency} handlers cannot use at once: give on() an engine, "
                "a sessionmaker or a pool as transaction, or run with concurrency=1"
            )

    def check_topics(self, topics: Iterable[str]) -> None:
        """Raise InvalidArgument if a topic has no handler, or a handler no topic."""
        wanted, handled = tuple(topics), self.topics
        for names, others, what in (
            (wanted, handled, "topic {!r} has no handler: add one with on(), or leave it out"),
            (handled, wanted, "the handler of {!r} gets no messages: add it to topics"),
        ):
            for name in names:
                if not any(overlap(name.split("."), other.split(".")) for other in others):
                    raise InvalidArgument(what.format(name))

    def prepared(
        self, handler: Callable[[Any], Any] | None, *, is_batch: bool = False
    ) -> Callable[[Any], Any]:
        """Return what to call with each message or batch: the handler, within the middleware.

        Raises:
            InvalidArgument: there is none, or one for all beside those by topic.
        """
        if handler is None and not is_batch:
            if not self.topics:
                raise InvalidArgument("there is no handler: give one to run(), or use on()")
            return self._within_middleware(self._route, is_batch=False)
        if self.topics:
            raise InvalidArgument("this consumer has handlers by on(): run it without another")
        check_handler(handler, awaited=AWAITS)
        check_arguments(handler, ("a list of messages",) if is_batch else ("message",))
        return self._within_middleware(handler, is_batch=is_batch)

    def _route(self, message: AsyncMessage[Any]) -> Any:
        handler = self._by_topic.find(message.topic)
        if handler is None:
            raise NoHandler(f"no handler was added for topic {message.topic!r}")
        return handler(message)

    def _within_middleware(self, handler: Any, *, is_batch: bool) -> Callable[[Any], Any]:
        if not self._around:
            plain: Callable[[Any], Any] = handler
            return plain

        def innermost(_: Handling, argument: Any) -> Any:
            return handler(argument)

        chain: Callable[[Any, Any], Any] = innermost
        for around in reversed(self._around):
            chain = within(around, chain)
        group = self._group

        def handle(argument: Any) -> Any:
            messages = list(argument) if is_batch else [argument]
            return chain(Handling(group, messages, is_batch), argument)

        return handle


def _in_transaction(handler: Callable[..., Any], transaction: Any) -> Callable[[Any], Any]:
    """Return a handler that gets the connection of a transaction, which acknowledges its message.

    Raises:
        InvalidArgument: connections cannot come from there.
    """
    source = None if transaction is True else transaction
    if source is not None and not hasattr(begun(source), "__aenter__"):
        raise InvalidArgument(f"transaction={source!r} is for the other half: {HALVES}")

    async def handle(message: AsyncMessage[Any]) -> None:
        async with message.transaction(source) as connection:
            # Here, not by the caller: the transaction must not commit.
            check_done(await call(handler, message, connection))

    return handle


def _is_one_connection(source: Any) -> bool:
    """Whether it is a Connection or Session of SQLAlchemy, not a registry with one a thread."""
    return all(hasattr(source, name) for name in ("begin", "execute")) and not hasattr(
        source, "registry"
    )
