"""Middleware: what runs around each call of a handler, and around publishing."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from .payloads import NewMessage

__all__ = ["Around", "Handling", "Middleware", "Publishing", "check_middleware", "managers"]

#: What a middleware's method returns, when it is called.
Around = (
    Iterator[Any]
    | AsyncIterator[Any]
    | contextlib.AbstractContextManager[Any]
    | contextlib.AbstractAsyncContextManager[Any]
)


class Handling:
    """A call of a handler.

    Attributes:
        group: the consumer's group.
        messages: the message; or those of a batch.
        is_batch: whether the handler receives a list.
    """

    __slots__ = ("group", "is_batch", "messages")

    def __init__(self, group: str, messages: Sequence[Any], is_batch: bool) -> None:
        self.group = group
        self.messages = messages
        self.is_batch = is_batch


class Publishing:
    """A call of ``publish`` or ``publish_many``.

    Attributes:
        topic: the topic's name.
        messages: what is published; a middleware may replace them, to add headers for example.
        is_batch: whether it is ``publish_many``.
        ids: the ids of the messages, once they are published.
    """

    __slots__ = ("ids", "is_batch", "messages", "topic")

    def __init__(self, topic: str, messages: list[NewMessage[Any]], *, is_batch: bool) -> None:
        self.topic = topic
        self.messages = messages
        self.is_batch = is_batch
        self.ids: list[int] = []


class Middleware:
    """Runs around handlers and around publishing; a subclass overrides one method or both.

    A method is a generator that yields once: there the call runs. So the same middleware serves
    both halves of the library::

        class Timing(dn.Middleware):
            def handling(self, call):
                began = time.monotonic()
                try:
                    yield
                finally:
                    log.info("%s took %.3f s", call.messages, time.monotonic() - began)

    Or it returns a context manager. In asyncio it may be an asynchronous generator. The first of a
    list is outermost. An exception of the call is raised at the ``yield``; if a middleware
    suppresses it, the handler counts as returned.
    """

    def handling(self, call: Handling, /) -> Around:
        """Run around the call of a handler, its transaction included."""
        del call
        return contextlib.nullcontext()

    def publishing(self, call: Publishing, /) -> Around:
        """Run around publishing. What it raises before its ``yield`` prevents it."""
        del call
        return contextlib.nullcontext()


def check_middleware(middleware: Iterable[Middleware], *, awaited: bool) -> tuple[Middleware, ...]:
    """Return middleware as a tuple.

    Args:
        middleware: what the user gave.
        awaited: whether it may be asynchronous.

    Raises:
        InvalidArgument: it is no list of middleware, or one is for asyncio and may not be.
    """
    if not isinstance(middleware, (list, tuple)):
        raise InvalidArgument(f"middleware is a list of dn.Middleware objects, not {middleware!r}")
    for one in middleware:
        if not isinstance(one, Middleware):
            raise InvalidArgument(f"middleware has {one!r}, which is no dn.Middleware object")
        for name in ("handling", "publishing"):
            method = getattr(one, name)
            where = f"{type(one).__name__}.{name}()"
            if inspect.iscoroutinefunction(method):
                raise InvalidArgument(f"{where} must yield once: there the call runs")
            if not awaited and inspect.isasyncgenfunction(inspect.unwrap(method)):
                raise InvalidArgument(f"{where} is for asyncio: use it with the Async classes")
    return tuple(middleware)


def managers(middleware: Iterable[Middleware], name: str) -> list[Callable[[Any], Any]]:
    """Return the methods of this name that are overridden, each as one that returns a manager."""
    return [
        _managing(getattr(one, name))
        for one in middleware
        if getattr(type(one), name) is not getattr(Middleware, name)
    ]


def _managing(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if inspect.isasyncgenfunction(method):
        return contextlib.asynccontextmanager(method)
    if not inspect.isgeneratorfunction(method):
        return method

    def manager(call: Any) -> _Yielding:
        return _Yielding(method(call))

    return manager


class _Yielding:
    """A generator as a context manager. It costs a third of contextlib's."""

    __slots__ = ("_generator",)

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self._generator = generator

    def __enter__(self) -> None:
        if next(self._generator, self) is self:
            raise RuntimeError("a middleware did not yield: it must once, there the call runs")

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None:
            over = next(self._generator, self) is self
        else:
            try:
                over = self._generator.throw(error) is self
            except StopIteration:
                return True  # it has suppressed the error
            except BaseException as raised:
                # Trap: a StopIteration that leaves a generator becomes a RuntimeError.
                same = raised.__cause__ if isinstance(error, StopIteration) else raised
                if same is error:
                    return False
                raise
        if not over:
            self._generator.close()
            raise RuntimeError("a middleware yielded twice: the call runs only once")
        return False
