"""What differs between the asynchronous and the synchronous API: waiting and starting tasks.

``_sync/concurrency.py`` is its twin and is written by hand; everything else there is generated.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import inspect
import threading
import time
import weakref
from concurrent.futures import Future
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from .._core.callables import check_done
from .._core.signals import handle_signals
from ..adapters import AsyncOwnCursor
from ..drivers import begun_async as begun_by_driver
from ..drivers import find_async as find_driver
from ..middleware import begin, end, end_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = [
    "AWAITS", "CANCELLED", "Event", "Lock", "Queue", "StillRuns", "Task", "Waiter", "aside",
    "begun_by_driver", "call", "checkpoint", "current_task", "find_driver", "in_threads",
    "on_signals", "own_cursor", "scope", "sharing_lock", "shielded", "spawn", "within",
]  # fmt: skip

T = TypeVar("T")

Lock = asyncio.Lock
#: Whether the consumer awaits what handlers return.
AWAITS = True
#: The exception that ends a task from outside. The task cannot wait for anything after it.
CANCELLED = (asyncio.CancelledError, GeneratorExit)


async def _until_resolved(
    waiters: collections.deque[asyncio.Future[bool]], timeout: float | None
) -> bool:
    """Wait in a line until ``_resolve`` is called; return False if the time is over.

    ``asyncio.timeout`` would cost more than all else in a wait.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[bool] = loop.create_future()
    timer = None if timeout is None else loop.call_later(max(0.0, timeout), _resolve, waiter, False)
    waiters.append(waiter)
    try:
        return await waiter
    finally:
        waiters.remove(waiter)
        if timer is not None:
            timer.cancel()


def _resolve(waiter: asyncio.Future[bool], result: bool = True) -> bool:
    """End a wait; return False if it had ended."""
    if waiter.done():
        return False
    waiter.set_result(result)
    return True


class Event:
    """A flag that can be waited for."""

    def __init__(self) -> None:
        self._flag = False
        self._waiters: collections.deque[asyncio.Future[bool]] = collections.deque()

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        if self._flag:
            return  # no task waits for a flag that is set
        self._flag = True
        for waiter in self._waiters:
            _resolve(waiter)

    def clear(self) -> None:
        self._flag = False

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, for ``timeout`` seconds at most; returns whether it was set."""
        return self._flag or await _until_resolved(self._waiters, timeout) or self._flag


class Queue(Generic[T]):
    """An unbounded queue that wakes only as many getters as are needed.

    An entry wakes one getter. If entries are left in the next turn of the event loop, twice as many
    are woken, and so on. None is woken while one is at a checkpoint: that one takes the next entry.
    So one getter takes all entries if it never waits for anything else, and all take some if each
    of them waits.
    """

    EMPTY = asyncio.QueueEmpty

    def __init__(self) -> None:
        self._entries: collections.deque[T] = collections.deque()
        self._getters: collections.deque[asyncio.Future[bool]] = collections.deque()
        self._spreading = False  # whether more getters may be woken in the next turn
        self._at_checkpoint = 0  # how many getters are there
        self.size = self._entries.__len__

    def put(self, *entries: T) -> None:
        """Add entries."""
        self._entries.extend(entries)
        if not self._spreading:
            self._spread(1)

    def get_nowait(self) -> T:
        """Return the next entry, or raise EMPTY."""
        if self._entries:
            return self._entries.popleft()
        raise asyncio.QueueEmpty

    async def get(self, timeout: float | None = None) -> T:
        """Return the next entry, or raise EMPTY if none comes in time."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._entries:
            left = None if until is None else until - time.monotonic()
            try:
                in_time = await _until_resolved(self._getters, left)
            except BaseException:
                if self._entries:
                    self._wake(1)  # the cancelled one may have been woken for an entry
                raise
            if not (in_time or self._entries):
                raise asyncio.QueueEmpty
        return self._entries.popleft()

    async def checkpoint(self) -> None:
        """Let other tasks run; the caller takes the next entry after that."""
        self._at_checkpoint += 1
        try:
            await checkpoint()
        finally:
            self._at_checkpoint -= 1

    def _spread(self, getters: int) -> None:
        """Wake so many getters if there are entries, and more in the next turn if some are left."""
        self._spreading = bool(self._entries and self._getters)
        if self._spreading:
            woken = 0 if self._at_checkpoint else getters
            self._wake(woken)
            self._getters[0].get_loop().call_soon(self._spread, 2 * woken or 1)

    def _wake(self, getters: int) -> None:
        for getter in self._getters:
            if not getters:
                return
            getters -= _resolve(getter)


class Task:
    """A function that runs beside its caller. ``join`` raises the exception it ended with."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def join(self) -> None:
        """Wait until it has ended, or was cancelled, as all tasks are when a loop ends."""
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def stop(self) -> None:
        """Cancel the task if it waits, and wait until it has ended."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def cancel(self, patience: float) -> bool:
        """Cancel the task if it waits; return whether it has ended within so many seconds."""
        self._task.cancel()
        await asyncio.wait([self._task], timeout=patience)
        return self._task.done()


def spawn(function: Callable[..., Awaitable[None]], *args: Any, name: str) -> Task:
    """Run a function beside the caller."""

    async def body() -> None:
        await function(*args)

    return Task(asyncio.get_running_loop().create_task(body(), name=name))


async def shielded(function: Callable[[], Awaitable[T]]) -> T:
    """Run a function to its end, even if the caller is cancelled meanwhile."""
    return await asyncio.shield(asyncio.ensure_future(function()))


async def aside(
    function: Callable[..., T], *args: Any, meanwhile: Callable[[], Awaitable[Any]], every: float
) -> T:
    """Run a blocking function in a thread; until it returns, call another at intervals."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        while not (await asyncio.wait([running], timeout=every))[0]:
            await meanwhile()
    finally:
        await asyncio.wait([running])  # a thread cannot be cancelled
    return running.result()


async def checkpoint() -> None:
    """Let other tasks run: a handler that never waits would starve them."""
    await asyncio.sleep(0)


#: The task that runs. Trap: to ask takes a system call, which is much for each message.
current_task = asyncio.current_task


async def call(
    handler: Callable[..., Any], *arguments: Any, task: asyncio.Task[Any] | None = None
) -> Any:
    """Call a handler, synchronous or not, and return its final result; ``task``: the current."""
    task = task or current_task()
    try:
        result = handler(*arguments)
        awaits = type(result) is CoroutineType or inspect.isawaitable(result)
        return await result if awaits else result
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        raise RuntimeError("the handler was cancelled, and not by its consumer") from error
    except GeneratorExit as error:
        with contextlib.suppress(RuntimeError):  # the coroutine no longer runs
            if current_task() is task:
                raise TypeError("the handler raised GeneratorExit") from error
        raise


def within(
    middleware: Callable[[Any], Any], inner: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Awaitable[None]]:
    """Return a function that calls another to its end within a middleware's generator."""
    if inspect.isasyncgenfunction(middleware):
        manager = contextlib.asynccontextmanager(middleware)

        async def call_within_async(about: Any, argument: Any) -> None:
            async with manager(about):
                result = inner(about, argument)
                check_done(await result if inspect.isawaitable(result) else result)

        return call_within_async

    # Trap: contextlib.contextmanager would cost as much as all else around a handler.
    async def call_within(about: Any, argument: Any) -> None:
        generator = middleware(about)
        begin(generator)
        try:
            result = inner(about, argument)
            if result is not None:
                check_done(await result if inspect.isawaitable(result) else result)
        except BaseException as error:
            end_by(generator, error)
        else:
            end(generator)

    return call_within


def in_threads(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that runs another in a thread of its own.

    Trap: the process waits for the threads of a pool when it exits, also for a handler that a
    second signal has given up. And asyncio's own pool has few threads.
    """

    async def in_a_thread(*arguments: Any) -> Any:
        context, future = contextvars.copy_context(), Future[Any]()
        future.set_running_or_notify_cancel()  # a thread cannot be cancelled

        def body() -> None:
            try:
                future.set_result(context.run(handler, *arguments))
            except StopIteration:  # asyncio would wait for ever
                future.set_exception(RuntimeError("the handler raised StopIteration"))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=body, name="durable_notify handler", daemon=True).start()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            raise error if future.done() else StillRuns from None

    return in_a_thread


class StillRuns(asyncio.CancelledError):
    """A handler was cancelled, and the thread that it is in still runs."""


class Waiter:
    """Waits until a descriptor is readable, a time is over, or ``wake`` is called."""

    def __init__(self) -> None:
        self._event = Event()
        self._watched: int | None = None
        self.wake = self._event.set

    def watch(self, descriptor: int, ready: Callable[[], None] | None = None) -> None:
        """Watch a descriptor; ``ready`` is called in the event loop, before the waiting task."""
        self.unwatch()
        asyncio.get_running_loop().add_reader(descriptor, ready or self.wake)
        self._watched = descriptor

    def unwatch(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None

    async def wait(self, timeout: float | None) -> None:
        try:
            await self._event.wait(timeout)
        finally:
            self._event.clear()

    def close(self) -> None:
        self.unwatch()


def scope() -> object:
    """Return the scope within which a listening connection is shared: here, an event loop."""
    return asyncio.get_running_loop()


_sharing: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


def sharing_lock() -> asyncio.Lock:
    """Return the lock for creating and closing what is shared within a scope."""
    return _sharing.setdefault(asyncio.get_running_loop(), asyncio.Lock())


@contextlib.contextmanager
def on_signals(stop: Callable[[], None], hurry: Callable[[], None] | None = None) -> Iterator[None]:
    """Stop at SIGTERM or SIGINT, hurry at a second one, unless the application handles them."""
    loop = asyncio.get_running_loop()

    def soon(action: Callable[[], None]) -> Callable[[], None]:
        def call_soon() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(action)

        return call_soon

    with handle_signals(soon(stop), hurry and soon(hurry)):
        yield


def own_cursor(driver: AsyncConnection[Any]) -> AsyncOwnCursor:
    """Return a cursor of this library's own kind."""
    return AsyncOwnCursor(driver, row_factory=tuple_row)
