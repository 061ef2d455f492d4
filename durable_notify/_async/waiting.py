"""Messages of groups that wait: for their next attempt, or for an earlier one of their key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import sql
from ..durations import check_time
from ..errors import InvalidArgument
from ..models import BlockedKey, PendingRetry, RetryCount
from ..payloads import readable
from ..topics import check_group
from .database.callers import fetch_alone

if TYPE_CHECKING:
    from typing import Unpack

    from ..models import DeadLetterFilter, RetryFilter
    from .database.callers import Publishable

__all__ = ["AsyncWaitingAdmin", "chosen", "content", "decoded", "group_or_all"]


class AsyncWaitingAdmin:
    """The part of ``AsyncAdmin`` that is about messages that wait."""

    async def retries(
        self,
        connection: Publishable,
        group: str | None = None,
        *,
        limit: int | None = None,
        **conditions: Unpack[RetryFilter],
    ) -> list[PendingRetry]:
        """Return the messages of one group or of all that wait for a retry, the next due first.

        Args:
            limit: the most to return.
            conditions: all of them must match (``RetryFilter``).

        Raises:
            UnknownGroup: there is no group of this name.
        """
        params = (group_or_all(group), *chosen(conditions), limit)
        rows = await fetch_alone(connection, sql.RETRIES, params)
        return [PendingRetry(*content(row)) for row in rows]

    async def retry_counts(
        self, connection: Publishable, group: str | None = None, *, topic: str | None = None
    ) -> list[RetryCount]:
        """Return how many messages wait for a retry, by the type of their last exception.

        Raises:
            UnknownGroup: there is no group of this name.
        """
        params = (group_or_all(group), topic)
        return [RetryCount(*row) for row in await fetch_alone(connection, sql.RETRY_COUNTS, params)]

    async def retry_now(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[RetryFilter],
    ) -> int:
        """Redeliver messages that wait for a retry at once, and return how many.

        Give conditions, of which all must match, or ``everything``. Attempts stay counted. The
        audit records the role, the time and ``why``.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
        """
        params = (check_group(group), *chosen(conditions), everything, why)
        return int((await fetch_alone(connection, sql.RETRY_NOW, params))[0][0])

    async def drop_retries(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[RetryFilter],
    ) -> int:
        """Make dead letters of messages that wait for a retry, and return how many.

        Select them as for ``retry_now``. Later messages of their keys are delivered then. The
        reason of the dead letters is ``dropped``, and ``why``; ``redrive`` takes it back.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
        """
        params = (check_group(group), *chosen(conditions), everything, why)
        return int((await fetch_alone(connection, sql.DROP_RETRIES, params))[0][0])

    async def blocked_keys(
        self,
        connection: Publishable,
        group: str | None = None,
        *,
        topic: str | None = None,
        limit: int = 1000,
    ) -> list[BlockedKey]:
        """Return the keys of which messages wait for an earlier one, the longest wait first.

        Args:
            limit: at how many keys of each topic to look.

        Raises:
            UnknownGroup: there is no group of this name.
        """
        params = (group_or_all(group), topic, limit)
        rows = await fetch_alone(connection, sql.BLOCKED_KEYS, params)
        return [BlockedKey(*decoded(row)) for row in rows]


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
