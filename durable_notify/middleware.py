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

__all__ = [
    "Around",
    "Handling",
    "Middleware",
    "Publishing",
    "begin",
    "check_middleware",
    "end",
    "end_by",
    "generators",
]

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
    both halves of the library:

        class Timing(dn.Middleware):
            def handling(self, call):
                began = time.monotonic()
                try:
                    yield
                finally:
                    log.info("%s took %.3f s", call.messages, time.monotonic() - began)

    Or it returns a context manager. In asyncio it may be an asynchronous generator. The first of a
    list is outermost. An exception of the call is raised at the ``yield``; if a middleware
    suppresses it, the handler counts as returned. A handler's transaction has rolled back even so,
    and its message is redelivered.
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


def generators(
    middleware: Iterable[Middleware], name: str, *, awaited: bool
) -> list[Callable[[Any], Any]]:
    """Return the methods of this name that are overridden, each as a generator function."""
    return [
        _generating(getattr(one, name), awaited=awaited)
        for one in middleware
        if getattr(type(one), name) is not getattr(Middleware, name)
    ]


def _generating(method: Callable[[Any], Any], *, awaited: bool) -> Callable[[Any], Any]:
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return method

    async def enter_async(call: Any) -> AsyncIterator[None]:
        manager = _managing(method, call)  # only now is it known of which kind it is
        if hasattr(manager, "__aenter__"):
            async with manager:
                yield
        else:
            with manager:
                yield

    def enter(call: Any) -> Iterator[None]:
        with _managing(method, call):
            yield

    return enter_async if awaited else enter


def _managing(method: Callable[[Any], Any], call: Any) -> Any:
    """Return the context manager that a method returns."""
    manager = method(call)
    if not (hasattr(manager, "__enter__") or hasattr(manager, "__aenter__")):
        where = f"{type(getattr(method, '__self__', None)).__name__}.{method.__name__}()"
        raise TypeError(
            f"the middleware {where} returned {manager!r}: yield once in it, or return a context "
            "manager"
        )
    return manager


#: What ``next`` returns for a generator that has ended.
OVER: Any = object()
_TWICE = "a middleware yielded twice: the call runs only once"


def begin(generator: Iterator[Any]) -> None:
    """Run a middleware up to its yield."""
    if next(generator, OVER) is OVER:
        raise RuntimeError("a middleware did not yield: it must once, there the call runs")


def end(generator: Iterator[Any]) -> None:
    """Run a middleware to its end, after the call has returned."""
    if next(generator, OVER) is not OVER:
        raise RuntimeError(_TWICE)


def end_by(generator: Generator[Any, Any, Any], error: BaseException) -> None:
    """Run a middleware to its end, after the call has raised; raise what it raises.

    It returns if the middleware has suppressed the error.
    """
    try:
        generator.throw(error)
    except StopIteration:
        return
    except RuntimeError as raised:
        # Trap: a StopIteration that leaves a generator becomes a RuntimeError.
        if isinstance(error, StopIteration) and raised.__cause__ is error:
            raise error from None
        raise
    raise RuntimeError(_TWICE)
