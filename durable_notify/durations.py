"""Times with a zone, and durations: a number of seconds, or a timedelta."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import overload

from .errors import InvalidArgument

__all__ = ["Seconds", "check_time", "in_seconds"]

_LONGEST = 1e9  # seconds, about 30 years; a thread can wait for 290 years at most

#: A length of time: a number of seconds, or a timedelta.
Seconds = float | timedelta


@overload
def in_seconds(name: str, value: Seconds, *, zero: bool = False) -> float: ...
@overload
def in_seconds(
    name: str, value: Seconds | None, *, zero: bool = False, optional: bool
) -> float | None: ...
def in_seconds(
    name: str, value: Seconds | None, *, zero: bool = False, optional: bool = False
) -> float | None:
    """Return a duration in seconds.

    Args:
        name: what to call it in the error.
        value: what the user gave.
        zero: whether it may be 0.
        optional: whether it may be None.

    Raises:
        InvalidArgument: it is negative, longer than 30 years, or no duration.
    """
    if value is None and optional:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= _LONGEST or (seconds == 0 and not zero):  # type: ignore[operator]
        least = "0 or more" if zero else "a positive number of"
        raise InvalidArgument(
            f"{name} must be {least} seconds, or a timedelta, up to 30 years, not {value!r}"
        )
    return seconds


def check_time(name: str, time: datetime | None) -> None:
    """Raise InvalidArgument unless it is a time with a zone, or None."""
    if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
        raise InvalidArgument(f"{name} is a datetime with a time zone, not {time!r}")
