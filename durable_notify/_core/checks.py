"""Checks of options, with errors that say what they may be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["check_count", "check_number", "check_word", "unknown_option"]


def check_count(name: str, value: int, greatest: int | None = None) -> None:
    """Raise InvalidArgument unless it is a whole number of 1 or more; ``greatest``: up to that."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if greatest is None and not is_count:
        raise InvalidArgument(f"{name} must be 1 or more, not {value!r}")
    if greatest is not None and not (is_count and value <= greatest):
        raise InvalidArgument(f"{name} must be a whole number from 1 to {greatest}, not {value!r}")


def check_number(name: str, value: float, least: float, greatest: float) -> None:
    """Raise InvalidArgument unless it is a number from ``least`` to ``greatest``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= greatest:
        raise InvalidArgument(
            f"{name} must be a number from {least:g} to {greatest:g}, not {value!r}"
        )


def check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    """Raise InvalidArgument unless it is one of some words."""
    if value not in words:
        raise InvalidArgument(f"{name} must be one of {', '.join(words)}, not {value!r}")


def unknown_option(
    whose: str, name: str, known: Iterable[str], elsewhere: Mapping[str, str]
) -> InvalidArgument:
    """Return the error of an unknown option, with the one that may have been meant.

    Args:
        whose: what has no such option.
        name: the option.
        known: the options that there are.
        elsewhere: what to write for other names.
    """
    listed = tuple(known)
    close = next(iter(difflib.get_close_matches(name, [*listed, *elsewhere], 1)), None)
    meant = elsewhere.get(name) or elsewhere.get(close or "", close)
    if meant is None:
        return InvalidArgument(f"{whose} has no option {name!r}; it has {', '.join(listed)}")
    return InvalidArgument(f"{whose} has no option {name!r}. Did you mean {meant}?")
