"""Middleware: what runs around each call of a handler, and around publishing."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .payloads import NewMessage

__all__ = ["Handling", "Middleware", "Publishing", "check_middleware", "overriding"]

Manager = contextlib.AbstractContextManager[Any] | contextlib.AbstractAsyncContextManager[Any]


class Handling:
    """A call of a handler.

    Attributes:
        group: the consumer's group.
        messages: the message; or those of a batch.
        is_batch: whether the handler receives a list.
    """

    __slots__ = ("group", "is_batch", "messages")

    def __init__(self, group: str, messages: Sequence[Any], *, is_batch: bool) -> None:
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

    Each returns a context manager, whose body is the call. So the same middleware serves both
    halves of the library::

        class Timing(dn.Middleware):
            @contextmanager
            def handling(self, call):
                began = time.monotonic()
                try:
                    yield
                finally:
                    log.info("%s took %.3f s", call.messages, time.monotonic() - began)

    The first of a list is outermost. An exception of the handler passes through; if a middleware
    suppresses it, the handler counts as returned. In asyncio the context managers may be
    asynchronous.
    """

    def handling(self, call: Handling, /) -> Manager:
        """Return what runs around the call of a handler, its transaction included."""
        del call
        return contextlib.nullcontext()

    def publishing(self, call: Publishing, /) -> Manager:
        """Return what runs around publishing. What it raises before its ``yield`` prevents it."""
        del call
        return contextlib.nullcontext()


def check_middleware(middleware: Iterable[Middleware], *, awaited: bool) -> tuple[Middleware, ...]:
    """Return middleware as a tuple.

    Args:
        middleware: what the user gave.
        awaited: whether context managers may be asynchronous.

    Raises:
        InvalidArgument: it is no list of middleware, or one is for asyncio and may not be.
    """
    if not isinstance(middleware, (list, tuple)):
        raise InvalidArgument(f"middleware is a list of dn.Middleware objects, not {middleware!r}")
    for one in middleware:
        if not isinstance(one, Middleware):
            raise InvalidArgument(f"middleware has {one!r}, which is no dn.Middleware object")
        for name in ("handling", "publishing"):
            _check_method(one, name, awaited=awaited)
    return tuple(middleware)


def _check_method(middleware: Middleware, name: str, *, awaited: bool) -> None:
    method = getattr(middleware, name)
    where = f"{type(middleware).__name__}.{name}()"
    if any(
        is_kind(method)
        for is_kind in (
            inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction
        )
    ):  # fmt: skip
        raise InvalidArgument(
            f"{where} must return a context manager: decorate it with @contextmanager, or in "
            "asyncio with @asynccontextmanager"
        )
    if not awaited and inspect.isasyncgenfunction(inspect.unwrap(method)):
        raise InvalidArgument(f"{where} is for asyncio: use it with the Async classes")


def overriding(middleware: Iterable[Middleware], name: str) -> list[Any]:
    """Return the methods of this name that are overridden; the others would do nothing."""
    return [
        getattr(one, name)
        for one in middleware
        if getattr(type(one), name) is not getattr(Middleware, name)
    ]
