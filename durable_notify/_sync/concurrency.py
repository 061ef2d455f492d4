"""What differs between the asynchronous and the synchronous API: waiting and starting threads.

The twin of ``_async/concurrency.py``, and the only file of this folder that is written by hand.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import os
import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psycopg import Connection
from psycopg.rows import tuple_row

from .._core.callables import check_done
from .._core.posix import wait_readable
from .._core.signals import handle_signals
from ..adapters import OwnCursor
from ..drivers import begun as begun_by_driver
from ..drivers import find as find_driver
from ..middleware import begin, end, end_by

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AWAITS", "CANCELLED", "Event", "Lock", "Queue", "StillRuns", "Task", "Waiter", "aside",
    "begun_by_driver", "call", "checkpoint", "current_task", "find_driver", "in_threads",
    "on_signals", "own_cursor", "scope", "sharing_lock", "shielded", "spawn", "within",
]  # fmt: skip

T = TypeVar("T")

Lock = threading.Lock
#: Whether the consumer awaits what handlers return.
AWAITS = False
#: The exceptions that end a thread from outside: none.
CANCELLED: tuple[type[BaseException], ...] = ()


class Event:
    """A flag that can be waited for, and that a signal handler can set.

    Trap: ``threading.Event.set`` takes a lock. A signal handler interrupts its thread, which may
    hold that lock, and would then wait for it for ever.
    """

    def __init__(self) -> None:
        self._flag = False
        self._waiters: collections.deque[threading.Lock] = collections.deque()

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True
        # The order matters: a waiting thread is either found here or finds the flag.
        with contextlib.suppress(IndexError):
            while True:
                self._waiters.popleft().release()

    def clear(self) -> None:
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, for ``timeout`` seconds at most; return whether it was set."""
        if self._flag:
            return True
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        if self._flag:
            timeout = 0.0
        rung = waiter.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)
        return rung or self._flag


class Queue(Generic[T]):
    """An unbounded queue."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.get_nowait = self._queue.get_nowait  # raises EMPTY
        self.size = self._queue.qsize
        self.checkpoint = checkpoint

    EMPTY = queue.Empty

    def put(self, *entries: T) -> None:
        """Add entries."""
        for entry in entries:
            self._queue.put(entry)

    def get(self, timeout: float | None = None) -> T:
        """Return the next entry, or raise EMPTY if none comes in time."""
        return self._queue.get(timeout=None if timeout is None else max(0.0, timeout))


class Task:
    """A function that runs beside its caller. ``join`` raises the exception it ended with."""

    def __init__(self, function: Callable[..., None], args: tuple[Any, ...], name: str) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._body, args=(function, args), name=name, daemon=True
        )
        self._thread.start()

    def _body(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        while self._thread.is_alive():
            # Short waits: a signal that arrives as a wait begins is handled only after it.
            self._thread.join(1.0)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Wait until it has ended; a thread cannot be cancelled, and was asked to end."""
        self._thread.join()

    def cancel(self, patience: float) -> bool:  # noqa: ARG002 - a wait would not help
        """Return whether it has ended: a thread cannot be cancelled."""
        return not self._thread.is_alive()


def spawn(function: Callable[..., None], *args: Any, name: str) -> Task:
    """Run a function beside the caller."""
    return Task(function, args, name)


def shielded(function: Callable[[], T]) -> T:
    """Run a function to its end."""
    return function()


def aside(function: Callable[..., T], *args: Any, meanwhile: Callable[[], Any], every: float) -> T:
    """Run a blocking function in a thread; until it returns, call another at intervals."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(function, *args)
        while not wait([running], timeout=every).done:
            meanwhile()
        return running.result()


def checkpoint() -> None:
    """Let other threads run: otherwise one that was woken waits until this one does."""
    _let_others_run()


#: Trap: time.sleep(0) fails if a library such as libfaketime changes the clock.
_let_others_run: Callable[[], Any] = getattr(os, "sched_yield", functools.partial(time.sleep, 0))


current_task = threading.current_thread


def call(handler: Callable[..., Any], *arguments: Any, task: Any = None) -> Any:  # noqa: ARG001
    """Call a handler, and return its result; ``task`` is for the other half."""
    try:
        return handler(*arguments)
    except asyncio.CancelledError as error:
        raise RuntimeError("the handler was cancelled, and not by its consumer") from error
    except GeneratorExit as error:
        raise TypeError("the handler raised GeneratorExit") from error


def within(
    middleware: Callable[[Any], Any], inner: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], None]:
    """Return a function that calls another within a middleware's generator."""

    # Trap: contextlib.contextmanager would cost as much as all else around a handler.
    def call_within(about: Any, argument: Any) -> None:
        generator = middleware(about)
        begin(generator)
        try:
            check_done(inner(about, argument))
        except BaseException as error:
            end_by(generator, error)
        else:
            end(generator)

    return call_within


def in_threads(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler: it runs in a thread anyway."""
    return handler


class StillRuns(BaseException):
    """Never raised: a handler cannot be cancelled."""


class Waiter:
    """Waits until a descriptor is readable, a time is over, or ``wake`` is called."""

    def __init__(self) -> None:
        self._wakes, self._waker = socket.socketpair()
        self._wakes.setblocking(False)
        self._waker.setblocking(False)
        self._watched: int | None = None

    def watch(self, descriptor: int, ready: Callable[[], None] | None = None) -> None:
        """Watch a descriptor; ``ready`` is not called, because the waiting thread is as fast."""
        del ready
        self._watched = descriptor

    def unwatch(self) -> None:
        self._watched = None

    def wake(self) -> None:
        # Full: it will wake anyway. Closed: no thread waits.
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def wait(self, timeout: float | None) -> None:
        # poll(), not select(): descriptors over 1023 are common in servers.
        files = [self._wakes] if self._watched is None else [self._wakes, self._watched]
        wait_readable(files, timeout)
        with contextlib.suppress(BlockingIOError):
            while self._wakes.recv(4096):
                pass

    def close(self) -> None:
        self._wakes.close()
        self._waker.close()


def scope() -> object:
    """Return the scope within which a listening connection is shared: here, a process."""
    return os.getpid()


_sharing = threading.Lock()


def sharing_lock() -> threading.Lock:
    """Return the lock for creating and closing what is shared within a scope."""
    return _sharing


def on_signals(
    stop: Callable[[], None], hurry: Callable[[], None] | None = None
) -> contextlib.AbstractContextManager[None]:
    """Stop at SIGTERM or SIGINT, hurry at a second one, unless the application handles them."""
    return handle_signals(stop, hurry)


def own_cursor(driver: Connection[Any]) -> OwnCursor:
    """Return a cursor of this library's own kind."""
    return OwnCursor(driver, row_factory=tuple_row)
