"""Conditions and rows that dead letters and retries have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...durations import check_time
from ...errors import InvalidArgument
from ...payloads import readable
from ...topics import check_group

if TYPE_CHECKING:
    from ...models import DeadLetterFilter

__all__ = ["chosen", "content", "decoded", "group_or_all"]


def group_or_all(group: str | None) -> str | None:
    """Return the name of a group, checked; None means all groups."""
    return None if group is None else check_group(group)


def chosen(conditions: DeadLetterFilter) -> tuple[Any, ...]:
    """Return conditions in the order of ``dead_letters()`` and ``retries()``."""
    names = ("topic", "ids", "key", "error_type", "since", "until")
    if unknown := set(conditions) - set(names):
        raise InvalidArgument(f"unknown condition {sorted(unknown)}; use {', '.join(names)}")
    check_time("since", conditions.get("since"))
    check_time("until", conditions.get("until"))
    ids = conditions.get("ids")
    if isinstance(ids, int):
        ids = [ids]
    given = {**conditions, "ids": None if ids is None else list(ids)}
    return tuple(given.get(name) for name in names)


def decoded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row with the JSON in its last column decoded."""
    return (*row[:-1], None if row[-1] is None else readable(row[-1]))


def content(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of ``dead_letters()`` or ``retries()`` with one payload, all JSON decoded."""
    group, topic, message_id, key, payload, data, headers, *about = decoded(row)
    if data is not None:
        payload = data
    elif payload is not None:  # else the role may not see it
        payload = readable(payload)
    kept = {} if headers is None else readable(headers)
    return (group, topic, message_id, key, payload, kept, *about)
