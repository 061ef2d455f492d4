"""What goes from topics, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from .._core import sql
from ..errors import InvalidArgument
from ..models import LostMessages, Retention, RetentionBlocker
from ..topics import check_pattern
from .database.callers import fetch_alone

if TYPE_CHECKING:
    from .database.callers import Publishable

__all__ = ["AsyncRetentionAdmin"]


class AsyncRetentionAdmin:
    """What goes from topics, and when; a part of ``AsyncAdmin``."""

    async def set_retention(
        self,
        connection: Publishable,
        topic: str,
        *,
        max_age: float | timedelta | None = None,
        max_bytes: int | None = None,
        when_settled: bool = False,
        on_lag: str = "block",
        alarm_bytes: int | None = None,
        compact: bool = False,
        archive: bool = False,
    ) -> list[str]:
        """Say what goes from a topic, or a pattern of topics, and when; return warnings.

        It replaces what was said before; maintenance removes what is to go. For the owner of the
        schema. A warning names a group that lags by now, and what that means.

        Args:
            topic: the topic, or a pattern; of several that fit, the most specific counts.
            max_age: messages go so many seconds after they were published.
            max_bytes: they go once so much of the topic is younger.
            when_settled: they go as soon as every group has settled them.
            on_lag: ``"block"``: what a group has not settled stays; ``"lose"``: it goes by age and
                size, and is recorded.
            alarm_bytes: how much may stay because a group lags before it is an alarm.
            compact: of each key the latest stays; messages without a key are refused.
            archive: only what is archived goes.

        Raises:
            InvalidArgument: these contradict each other. Nothing has changed.
        """
        if isinstance(max_age, (int, float)) and not isinstance(max_age, bool):
            try:
                max_age = timedelta(seconds=max_age)
            except (OverflowError, ValueError):
                raise InvalidArgument(f"max_age is not a number of seconds: {max_age!r}") from None
        if max_age is not None and not isinstance(max_age, timedelta):
            raise InvalidArgument(f"max_age must be seconds or a timedelta, not {max_age!r}")
        for name, size in (("max_bytes", max_bytes), ("alarm_bytes", alarm_bytes)):
            if size is not None and (not isinstance(size, int) or not 0 < size < 2**63):
                raise InvalidArgument(f"{name} must be a positive whole number, not {size!r}")
        params = (
            check_pattern(topic), max_age, max_bytes, when_settled, on_lag, alarm_bytes, compact,
            archive,
        )  # fmt: skip
        return list((await fetch_alone(connection, sql.SET_RETENTION, params))[0][0])

    async def delete_retention(self, connection: Publishable, topic: str) -> bool:
        """Take back what ``set_retention`` said of a topic or pattern; False: nothing was said."""
        rows = await fetch_alone(connection, sql.DELETE_RETENTION, (check_pattern(topic),))
        return bool(rows[0][0])

    async def retention(self, connection: Publishable) -> list[Retention]:
        """Return what goes from which topics, the most specific first."""
        return [Retention(*row) for row in await fetch_alone(connection, sql.RETENTION, ())]

    async def retention_blockers(self, connection: Publishable) -> list[RetentionBlocker]:
        """Return what stays although its age or size says that it is to go, and because of whom."""
        return [
            RetentionBlocker(*row)
            for row in await fetch_alone(connection, sql.RETENTION_BLOCKERS, ())
        ]

    async def lost_messages(
        self, connection: Publishable, group: str | None = None, *, limit: int = 100
    ) -> list[LostMessages]:
        """Return what a group, or all, lost to retention with ``on_lag="lose"``, newest first."""
        return [
            LostMessages(*row)
            for row in await fetch_alone(connection, sql.LOST_MESSAGES, (group, limit))
        ]
