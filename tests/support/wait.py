"""Wait for what happens elsewhere, no longer than it takes: in a coroutine, or in a thread."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

BOUND = 20.0
"""Seconds after which a test that waits for something gives up."""


async def with_timeout(awaitable: Any, seconds: float = BOUND) -> Any:
    """Wait for something, but not for ever."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def wait_until(what: Callable[[], Any], seconds: float = BOUND) -> None:
    """Return once `what` is true, or fail with its name; it may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while not (await found if inspect.isawaitable(found := what()) else found):
        assert time.monotonic() < deadline, f"not so after {seconds} seconds: {what}"
        await asyncio.sleep(0.01)


def eventually(what: Callable[[], bool], seconds: float = BOUND) -> None:
    """Return once `what` is true, or fail with its name: in a thread."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so after {seconds} seconds: {what}"
        time.sleep(0.01)
