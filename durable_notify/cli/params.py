"""Values on the command line, and as JSON on standard output."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..payloads import Decode, Decoder, JsonText

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .database import Connection

__all__ = [
    "AsWritten", "Length", "Moment", "as_text", "error_line", "json_line", "messages", "resolve",
    "shortened", "shown", "shown_age",
]  # fmt: skip

#: The most characters of a payload or an error in a table.
CELL = 60

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: Characters that change the direction of text, so that a terminal shows something else.
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
# In JSON these occur only in strings. Some readers end lines at them, terminals interpret others.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, *_BIDI)}
_CONTROL = set(range(0x20)) - {0x09, 0x0A}
_SHOWN = {code: ascii(chr(code))[1:-1] for code in (*_CONTROL, *_ESCAPED, *range(0xD800, 0xE000))}


class Moment(click.ParamType[Any]):
    """A point in time: ISO 8601, or how long ago, as in ``10m``, ``2h``, ``1d``."""

    name = "TIME"

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | datetime | timedelta:
        """Return one of the allowed words, a time, or how long ago it was."""
        if not isinstance(value, str) or value in self._words:
            return value  # type: ignore[no-any-return]
        try:
            if ago := re.fullmatch(r"(\d+)([smhdw])(?: ago)?", value.strip()):
                return timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            return datetime.fromisoformat(value.strip()).astimezone()
        except (ValueError, OverflowError):
            words = "".join(f"{word}, " for word in self._words)
            self.fail(
                f"{value!r} is not a time: write {words}2026-01-31T09:00:00+01:00 (without a zone: "
                "local time), or how long ago, as in 90s, 10m, 2h, 1d",
                param,
                ctx,
            )


class Length(click.ParamType[float]):
    """A length of time: seconds, or as in ``10m``, ``2h``, ``1d``."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        if isinstance(value, (int, float)):
            return value
        try:
            if found := re.fullmatch(r"(\d+)([smhdw])", value.strip()):
                return timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()
            return float(value)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a length of time: write seconds, or 10m, 2h, 1d", param, ctx
            )


def resolve(moment: datetime | timedelta, connection: Connection) -> datetime:
    """Return a point in time, by the database's clock if it was given relative to now."""
    if isinstance(moment, datetime):
        return moment
    row = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
    now: datetime = row[0]  # type: ignore[index]
    try:
        return now - moment
    except OverflowError:
        return datetime(1, 1, 2, tzinfo=UTC)


def shown(value: object) -> str:
    """Return a value as text for a terminal, with control characters escaped."""
    return str(value).translate(_SHOWN)


class AsWritten(Decoder):
    """Keeps the JSON of payloads and headers as written; see ``json_line``."""

    def of(self, topic: str) -> Decode:
        del topic
        return lambda text, data: data if text is None else JsonText(text)

    def headers(self, text: str) -> Any:
        return JsonText(text)


def json_line(value: Any) -> str:
    """Return JSON on one line; members of a mapping that are ``JsonText`` stay unchanged."""
    if isinstance(value, dict) and any(isinstance(one, JsonText) for one in value.values()):
        parts = (
            f"{json.dumps(name, ensure_ascii=False)}: {_text(one)}" for name, one in value.items()
        )
        return f"{{{', '.join(parts)}}}".translate(_ESCAPED)
    return _text(value).translate(_ESCAPED)


def _text(value: Any) -> str:
    if isinstance(value, JsonText):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def shortened(text: str) -> str:
    """Return a text for a cell of a table."""
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


def as_text(value: Any) -> str:
    """Return a value as JSON for a cell of a table."""
    return shortened(json_line(value))


def error_line(error: Mapping[str, str]) -> str:
    """Return the type and the message of a stored error."""
    return f"{error.get('type', '')}: {error.get('message', '')}"


def messages(number: int) -> str:
    """Return a number of messages in words."""
    return f"{number} message{'' if number == 1 else 's'}"


def shown_age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in words."""
    if moment is None:
        return "-"
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            rest, smaller = seconds % size, {"d": ("h", 3600), "h": ("m", 60), "m": ("s", 1)}[unit]
            return f"{seconds // size}{unit} {rest // smaller[1]}{smaller[0]}"
    return f"{seconds}s"
