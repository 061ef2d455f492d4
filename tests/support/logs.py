"""The library's log, where the command line runs in the tests' own process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_log() -> Iterator[None]:
    """Let a command set the log up as in a process of its own, and take it back."""
    log = logging.getLogger("durable_notify")
    handlers, propagates, level = log.handlers[:], log.propagate, log.level
    log.handlers.clear()
    try:
        yield
    finally:
        log.handlers[:], log.propagate = handlers, propagates
        log.setLevel(level)
