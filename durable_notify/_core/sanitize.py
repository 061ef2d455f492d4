"""What is stored of an exception, to explain a retry or a dead letter."""

from __future__ import annotations

import re
import traceback

from ..errors import InvalidArgument

__all__ = ["Failure", "describe", "redact", "sanitize_error", "text_of", "to_storable"]

#: As jsonb in the database: type, message and traceback.
Failure = dict[str, str]

_MAX_TEXT = 2_000
_MAX_TRACE = 8_000
#: How much of a text beyond what is kept is searched for passwords, before it is cut.
_MARGIN = 4_000
#: A password in a URI, after the scheme, and in a connection string of libpq. Trap: untrusted text
#: may be long and without a break; a pattern that backtracks over it takes quadratic time.
_USER = re.compile(r"://[^\s:/@'\"]*:")
_IN_PAIRS = re.compile(
    r"(\b(?:ssl)?password\s*=\s*)('(?:[^'\\\n]|\\.)*+'?|[^\s'\",)]+)", re.IGNORECASE
)
_BREAKS = re.compile(r"([\s'\"]+)")


def to_storable(text: str) -> str:
    """Replace what PostgreSQL's ``text`` cannot hold: NUL characters and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def redact(text: str) -> str:
    """Replace passwords in connection strings, which source lines in tracebacks contain."""
    if "://" in text:
        text = "".join(map(_without_password, _BREAKS.split(text)))
    return _IN_PAIRS.sub(r"\1***", text)


def _without_password(word: str) -> str:
    end = word.rfind("@")
    user = _USER.search(word) if end >= 0 else None
    if user is None or user.end() > end:
        return word
    return f"{word[: user.end()]}***{word[end:]}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception, without passwords, cut to the stored length."""
    try:
        text = str(error)[: _MAX_TEXT + _MARGIN]
    except Exception as flaw:  # noqa: BLE001 - it runs code of its class's
        return f"(its text cannot be read: {type(flaw).__name__})"
    return redact(text)[:_MAX_TEXT]


def sanitize_error(error: object) -> Failure | None:
    """Return a failure as the database can store it: a dict of texts."""
    if error is None:
        return None
    if isinstance(error, str):
        error = {"type": "", "message": error}
    if not isinstance(error, dict):
        raise InvalidArgument(
            f"an error must be a str or a dict of them, not {type(error).__name__}"
        )
    return {to_storable(str(name)): to_storable(str(text)) for name, text in error.items()}


def describe(error: BaseException) -> Failure:
    """Return an exception's type, message and traceback; only the end of a long traceback."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    return {
        "type": to_storable(name),
        "message": to_storable(text_of(error)),
        "traceback": to_storable(_trace_of(error)),
    }


def _trace_of(error: BaseException) -> str:
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception as flaw:  # noqa: BLE001
        return f"(its traceback cannot be read: {type(flaw).__name__})"
    if len(trace) > _MAX_TRACE + _MARGIN:
        # A pattern does not find a password that was cut in the middle.
        trace = re.split(r"\s", trace[-_MAX_TRACE - _MARGIN :], maxsplit=1)[-1]
        trace = "...\n" + trace
    trace = redact(trace)
    if len(trace) > _MAX_TRACE:
        trace = "...\n" + trace[-_MAX_TRACE:]
    return trace
