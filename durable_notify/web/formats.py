"""How the pages write numbers, ages and times."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

__all__ = ["FILTERS"]

NONE = "-"
#: From this rate on, whole numbers are exact enough.
WHOLE = 10


def number(value: float | None, *, exact: bool = True) -> str:
    """Write a number exactly, with its thousands apart."""
    if value is None:
        return NONE
    text = f"{value:,}".removesuffix(".0")
    return text if exact else f"~{text}"


def rate(value: float | None) -> str:
    """Write a rate a second."""
    if value is None:
        return NONE
    return f"{value:,.0f}/s" if value == 0 or value >= WHOLE else f"{value:.1f}/s"


#: Units of durations: their seconds, their names, and the unit of the rest.
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def rounded(value: float | None) -> str:
    """Write a measured number: it is no more exact than this."""
    return NONE if value is None else number(round(value, 1))


def age(seconds: float | None) -> str:
    """Write a duration in one unit, or two."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    whole = int(seconds)
    for size, unit, below, name in _UNITS:
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def size(value: int | None) -> str:
    """Write a number of bytes."""
    if value is None:
        return NONE
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(max(0, value.bit_length() - 1) // 10, len(units) - 1)
    return f"{value / 1024**power:,.1f} {units[power]}" if power else f"{value} B"


def iso(at: datetime | float | None) -> str:
    """Write a time in UTC, to the millisecond; the page's script shows it locally."""
    if at is None:
        return NONE
    if not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "rate": rate,
    "rounded": rounded,
    "age": age,
    "size": size,
    "iso": iso,
    "sh": shlex.quote,
}
