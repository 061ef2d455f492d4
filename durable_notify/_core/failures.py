"""What is kept of an exception: for those who look at a retry or a dead letter."""

from __future__ import annotations

import traceback

__all__ = ["Failure", "describe", "storable"]

#: As jsonb in the database: type, message and traceback.
Failure = dict[str, str]

_MOST_TEXT = 2_000
_MOST_TRACE = 8_000


def storable(text: str) -> str:
    """Replace what a ``text`` of PostgreSQL cannot hold: NUL characters and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def describe(error: BaseException) -> Failure:
    """Return an exception's type, message and traceback; the end of that, where it is long."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    trace = "".join(traceback.format_exception(error))
    if len(trace) > _MOST_TRACE:
        trace = "...\n" + trace[-_MOST_TRACE:]
    return {
        "type": storable(name),
        "message": storable(str(error)[:_MOST_TEXT]),
        "traceback": storable(trace),
    }
