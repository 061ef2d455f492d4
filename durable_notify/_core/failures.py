"""What is kept of an exception: for those who look at a retry or a dead letter."""

from __future__ import annotations

import re
import traceback

from ..errors import InvalidArgument

__all__ = ["Failure", "describe", "kept", "storable", "unsecret"]

#: As jsonb in the database: type, message and traceback.
Failure = dict[str, str]

_MOST_TEXT = 2_000
_MOST_TRACE = 8_000
#: A password in a URI, and in a connection string of libpq's.
_IN_URI = re.compile(r"([a-zA-Z][\w+.-]*://[^\s:/@'\"]*:)[^\s'\"]*(?=@)")
_IN_PAIRS = re.compile(r"(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'\",)]+)", re.IGNORECASE)


def storable(text: str) -> str:
    """Replace what a ``text`` of PostgreSQL cannot hold: NUL characters and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def unsecret(text: str) -> str:
    """Replace passwords in connection strings: source lines in tracebacks have them."""
    return _IN_PAIRS.sub(r"\1***", _IN_URI.sub(r"\1***", text))


def kept(error: object) -> Failure | None:
    """Return a failure as the database can keep it: text for text, and nothing that is no JSON."""
    if error is None:
        return None
    if isinstance(error, str):
        error = {"type": "", "message": error}
    if not isinstance(error, dict):
        raise InvalidArgument(f"an error is a str or a dict of them, not {type(error).__name__}")
    return {storable(str(name)): storable(str(text)) for name, text in error.items()}


def describe(error: BaseException) -> Failure:
    """Return an exception's type, message and traceback; the end of that, where it is long."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    trace = unsecret("".join(traceback.format_exception(error)))
    if len(trace) > _MOST_TRACE:
        trace = "...\n" + trace[-_MOST_TRACE:]
    return {
        "type": storable(name),
        "message": storable(unsecret(str(error))[:_MOST_TEXT]),
        "traceback": storable(trace),
    }
