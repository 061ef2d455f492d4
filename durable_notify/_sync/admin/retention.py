# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Retention: what maintenance removes from topics, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ..._core import sql
from ..._core.checks import check_count
from ...durations import in_seconds
from ...models import LostMessages, Retention, RetentionBlocker, TopicStorage
from ...topics import check_pattern
from ..database.callers import fetch_alone

if TYPE_CHECKING:
    from ...durations import Seconds
    from ...topics import TopicName
    from ..database.callers import Publishable

__all__ = ["RetentionAdmin"]


class RetentionAdmin:
    """The part of ``Admin`` that sets and shows retention."""

    def set_retention(
        self,
        connection: Publishable,
        topic: TopicName,
        *,
        max_age: Seconds | None = None,
        max_bytes: int | None = None,
        when_settled: bool = False,
        on_lag: str = "block",
        alarm_bytes: int | None = None,
        compact: bool = False,
        archive: bool = False,
        min_age: Seconds | None = None,
        forever: bool = False,
    ) -> list[str]:
        """Set the retention policy of a topic or pattern of topics; return warnings.

        It replaces the previous policy. Maintenance removes the messages. For the owner of the
        schema. A warning names a group that lags already, and the consequence.

        Args:
            topic: the topic, or a pattern; of several that match, the most specific applies.
            max_age: remove messages so long after they were published.
            max_bytes: remove the oldest messages beyond this size of the topic.
            when_settled: remove messages as soon as every group has settled them.
            on_lag: ``"block"``: keep what a group has not settled; ``"lose"``: remove it by age
                and size, and record the loss.
            alarm_bytes: how much may stay because a group lags, before maintenance warns.
            compact: keep only the latest message of each key; messages without a key are refused.
            archive: remove only messages that are archived.
            min_age: with ``when_settled``, keep messages so long after they were published.
            forever: remove nothing, whatever a pattern that matches the topic says.

        Raises:
            InvalidArgument: the arguments contradict each other. Nothing has changed.
        """
        ages = _interval("max_age", max_age), _interval("min_age", min_age)
        for name, size in (("max_bytes", max_bytes), ("alarm_bytes", alarm_bytes)):
            if size is not None:
                check_count(name, size, 2**63 - 1)
        params = (
            check_pattern(topic), ages[0], max_bytes, when_settled, on_lag, alarm_bytes, compact,
            archive, ages[1], forever,
        )  # fmt: skip
        return list((fetch_alone(connection, sql.SET_RETENTION, params))[0][0])

    def delete_retention(self, connection: Publishable, topic: TopicName) -> bool:
        """Delete the retention policy of a topic or pattern; False: there was none.

        The next most specific pattern that matches applies then: first of all ``>``, the default.
        """
        rows = fetch_alone(connection, sql.DELETE_RETENTION, (check_pattern(topic),))
        return bool(rows[0][0])

    def retention(self, connection: Publishable) -> list[Retention]:
        """Return all retention policies, the most specific first."""
        return [Retention(*row) for row in fetch_alone(connection, sql.RETENTION, ())]

    def set_record_age(self, connection: Publishable, kind: str, age: Seconds | None) -> None:
        """Set for how long maintenance keeps records; None: for ever. For the owner of the schema.

        Args:
            kind: ``"inbox"``: what ``once`` remembers; a message that is redelivered later counts
                as new. ``"audit"``: the audit, losses and ended replays.
            age: how old they may become.

        Raises:
            InvalidArgument: there is no such kind, or the age is not positive.
        """
        fetch_alone(connection, sql.SET_RECORD_AGE, (kind, _interval("age", age)))

    def record_ages(self, connection: Publishable) -> dict[str, float | None]:
        """Return for how many seconds each kind of records is kept; None: for ever."""
        return dict(fetch_alone(connection, sql.RECORD_AGES, ()))

    def topics(self, connection: Publishable) -> list[TopicStorage]:
        """Return what each topic takes, the most first, from a sample: it is quick."""
        return [TopicStorage(*row) for row in fetch_alone(connection, sql.TOPIC_STORAGE, ())]

    def retention_blockers(self, connection: Publishable) -> list[RetentionBlocker]:
        """Return what is kept beyond its age or size, and which group or archive keeps it."""
        return [
            RetentionBlocker(*row) for row in fetch_alone(connection, sql.RETENTION_BLOCKERS, ())
        ]

    def lost_messages(
        self, connection: Publishable, group: str | None = None, *, limit: int = 100
    ) -> list[LostMessages]:
        """Return what a group, or all, lost to retention with ``on_lag="lose"``, newest first."""
        return [
            LostMessages(*row) for row in fetch_alone(connection, sql.LOST_MESSAGES, (group, limit))
        ]


def _interval(name: str, age: Seconds | None) -> timedelta | None:
    seconds = in_seconds(name, age, optional=True)
    return None if seconds is None else timedelta(seconds=seconds)
