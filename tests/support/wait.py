"""Wait for what other processes do, no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(what: Callable[[], bool], timeout: float = 20.0) -> None:
    """Return once `what` is true, or fail with its name."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, f"not so after {timeout} seconds: {what.__name__}"
        time.sleep(0.01)
