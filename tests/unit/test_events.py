"""The flag of the synchronous half can be set by a signal's handler, wherever that strikes."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from durable_notify._sync.concurrency import Event

FILES = {inspect.getsourcefile(Event), threading.__file__}


def struck(action: Callable[[], Any], handler: Callable[[], Any], line: int) -> bool | None:
    """Call `handler` at the nth line of what `action` runs, as a signal would.

    Returns whether it ended, None: it has fewer lines.
    """
    seen = 0

    def trace(frame: FrameType, what: str, _arg: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in FILES:
            return None
        if what == "line":
            seen += 1
            if seen == line:
                sys.settrace(None)
                handler()
        return trace

    def run() -> None:
        sys.settrace(trace)
        action()
        sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(2.0)
    if thread.is_alive():
        return False
    return True if seen >= line else None


def all_end(event: Any, action: Callable[[], Any]) -> bool:
    """Whether an action ends wherever it is struck by a handler that sets the event."""
    line = 1
    while (ended := struck(action, event.set, line)) is not None:
        if not ended:
            return False
        event.clear()
        line += 1
    assert line > 1, "nothing was struck"
    return True


@pytest.mark.parametrize("action", ["set", "clear", "is_set"])
def test_it_is_set_in_the_midst_of(action: str) -> None:
    event = Event()
    assert all_end(event, getattr(event, action))


def test_it_is_set_while_a_wait_begins_and_no_wake_up_is_lost() -> None:
    event = Event()
    for line in range(1, 6):  # by then it waits
        event.clear()
        ended = struck(event.wait, event.set, line)
        if ended is None:
            break
        assert ended, f"struck at line {line} of wait()"


def test_the_standard_library_has_the_trap() -> None:
    """Else this file could not fail."""
    event = threading.Event()
    assert not all_end(event, event.set)


def test_it_wakes_all_waiting_threads_and_only_them() -> None:
    event = Event()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(event.wait(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    while len(event._waiters) < 5:
        pass
    event.set()
    for thread in threads:
        thread.join()
    assert woken == [True] * 5
    event.clear()
    assert not event.wait(0.01)
    assert not event.wait(-1)
    assert not event._waiters
