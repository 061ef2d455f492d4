"""Check handlers: whether a call does the work, or only returns a coroutine or generator."""

from __future__ import annotations

import functools
import inspect
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument, WorkNotDone

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StopConsumer", "check_arguments", "check_handler", "is_async", "left_undone", "name_of"]


class StopConsumer(BaseException):
    """Raised by a handler of this library: end the consumer, and release the message."""


#: The fix for each kind of result that is unfinished work.
REMEDIES = {
    "a coroutine": "use AsyncConsumer, or run it with asyncio.run()",
    "an awaitable": "use AsyncConsumer, or wait for it in the handler",
    "a generator": "a handler with yield in it is never run: return instead",
    "an async generator": "a handler with yield in it is never run: return instead",
    "a future": "wait for its result() in the handler",
}


#: Which half of the library takes what; here, because the text is the same in both.
HALVES = "what is for asyncio goes with AsyncConsumer, other engines and pools with Consumer"
RUNNERS = "dn.run() takes Consumers, and dn.run_async() AsyncConsumers"


def _called(function: Any) -> Any:
    """Return the function that a call runs: within a partial, or an object's ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return getattr(type(function), "__call__", function)  # noqa: B004 - not whether, but which


def name_of(function: Any) -> str:
    """Return the name of a function as people know it: without an address."""
    return getattr(function, "__qualname__", None) or repr(function)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether the result of a function, or of an object's ``__call__``, must be awaited."""
    called = _called(function)
    flags = getattr(getattr(called, "__code__", None), "co_flags", 0)
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(called)
        or bool(flags & inspect.CO_ITERABLE_COROUTINE)  # of types.coroutine()
    )


def check_handler(handler: Any, *, awaited: bool) -> None:
    """Raise InvalidArgument if a call of the handler could not do its work.

    Trap: a decorator or a lambda may hide this; then only the result of a call shows it.

    Args:
        handler: what the user gave.
        awaited: whether the consumer awaits what it returns.
    """
    if not callable(handler):
        raise InvalidArgument(f"a handler must be a function, not {type(handler).__name__}")
    called = _called(handler)
    kind = ""
    if inspect.isasyncgenfunction(called):
        kind = "an async generator"
    elif is_async(handler):
        kind = "" if awaited else "a coroutine"
    elif inspect.isgeneratorfunction(called):
        kind = "a generator"
    if kind:
        raise InvalidArgument(f"calling {name_of(handler)} only makes {kind}: {REMEDIES[kind]}")


def check_arguments(handler: Any, names: tuple[str, ...]) -> None:
    """Raise InvalidArgument if a handler cannot be called with what has these names."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # some functions in C have none
    try:
        signature.bind(*names)
    except TypeError:
        raise InvalidArgument(
            f"a handler is called with {' and '.join(names)}, "
            f"and {name_of(handler)} takes {signature}"
        ) from None


def left_undone(result: Any) -> str | None:
    """Return an error text if a handler returned work instead of doing it; discard that work."""
    if result is None:
        return None
    if inspect.iscoroutine(result):
        result.close()  # or Python warns as well that it was never awaited
        kind = "a coroutine"
    elif inspect.isasyncgen(result):
        kind = "an async generator"
    elif inspect.isgenerator(result):
        kind = "a generator"
    elif inspect.isawaitable(result):
        kind = "an awaitable"
    elif isinstance(result, Future) and not result.done():
        kind = "a future"
    else:
        return None
    return f"the handler returned {kind} and has not done its work: {REMEDIES[kind]}"


def check_done(result: Any) -> None:
    """Raise WorkNotDone if a handler returned work instead of doing it."""
    if result is not None and (undone := left_undone(result)) is not None:
        raise WorkNotDone(undone)
