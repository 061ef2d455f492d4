"""Handle SIGTERM and SIGINT once for all consumers of a process.

Trap: if each consumer set a handler of its own, it would replace the previous one, which then
never receives a signal. And to restore the old handler at the end may overwrite one that the
application has set since.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .posix import after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["handle_signals"]

NUMBERS = (signal.SIGTERM, signal.SIGINT)

_previous: dict[int, Any] = {}
_received: list[int] = []  # since the first of the running consumers started
_handlers: list[Callable[[], None]] = []


@contextmanager
def handle_signals(
    stop: Callable[[], None], hurry: Callable[[], None] | None = None
) -> Iterator[None]:
    """Call ``stop`` at the first signal and ``hurry`` at the second; a third has its own effect.

    It does nothing in threads other than the main one, or for a signal that the application
    handles itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    steps = iter((stop, hurry or _nothing))

    def handle() -> None:
        step = next(steps, None)
        if step is not None:
            step()
        if step is not stop:
            _put_back()

    for number in NUMBERS:
        if _is_default(signal.getsignal(number)):
            _previous[number] = signal.signal(number, _handle)
    _handlers.append(handle)
    try:
        # Trap: one that starts while others stop would miss the signal that stopped them.
        for _ in tuple(_received):
            handle()
        yield
    finally:
        _handlers.remove(handle)
        if not _handlers:
            _received.clear()
            _put_back()


def _nothing() -> None:
    pass


def _is_default(handler: Any) -> bool:
    # asyncio.run() has its own handler for SIGINT, which would cancel the consumer instead.
    return handler in (signal.SIG_DFL, signal.default_int_handler) or "_on_sigint" in repr(handler)


def _handle(number: int, frame: FrameType | None) -> None:
    if _handlers:
        _received.append(number)
    for handle in tuple(_handlers):
        handle()
    if not _handlers:  # a handler that replaced this one has called it
        previous = _previous.get(number)
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _put_back() -> None:
    for number in NUMBERS:
        if signal.getsignal(number) is _handle:  # otherwise the application has set its own since
            signal.signal(number, _previous[number])


def _forked() -> None:
    """Restore the default handlers in a child process, because no consumer runs in it."""
    _handlers.clear()
    _received.clear()
    _put_back()


after_fork(_forked)
