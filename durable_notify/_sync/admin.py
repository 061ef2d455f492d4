# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Looking at groups and taking them back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument, UnknownGroup
from ..messages import DeadLetter, TopicStatus, readable
from ..topics import check_group, check_topic
from .connections import fetch

if TYPE_CHECKING:
    from .connections import Publishable

__all__ = ["Admin"]

_STATUS = (
    "SELECT topic, group_name, last_id, waiting, oldest_waiting, deferred, leases, leased, dead "
    "FROM durable_notify.status()"
)
_REPLAY = "SELECT durable_notify.replay(%s, %s, %s::bigint, %s::timestamptz, %s)"
_GROUP = "SELECT FROM durable_notify.consumer_group WHERE name = %s"
_DEAD_LETTERS = (
    "SELECT g.name, d.topic, d.message_id, d.key, d.payload::text, d.data,"
    " d.headers::text, d.published_at,"
    " d.attempt, d.reason, d.dead_at"
    " FROM durable_notify.dead_letter d"
    " JOIN durable_notify.subscription s ON s.id = d.subscription_id"
    " JOIN durable_notify.consumer_group g ON g.id = s.group_id"
    " WHERE %s::text IS NULL OR g.name = %s"
    " ORDER BY g.name, d.topic, d.message_id"
)


class Admin:
    """Administers groups through connections that it borrows; it holds none.

    A connection is what ``Publisher`` takes, and what is changed is part of its transaction.
    """

    def status(self, connection: Publishable) -> list[TopicStatus]:
        """Return how each group stands in each of its topics, and the topics without a group.

        Counts what waits: where millions do, that takes seconds.
        """
        rows = fetch(connection, _STATUS, ())
        return [TopicStatus(*row) for row in rows]

    def dead_letters(self, connection: Publishable, group: str | None = None) -> list[DeadLetter]:
        """Return the messages given up, of one group or of all, by group, topic and id.

        Raises:
            UnknownGroup: there is no group of this name.
        """
        if group is not None and not fetch(connection, _GROUP, (check_group(group),)):
            raise UnknownGroup(f'there is no consumer group "{group}"')
        rows = fetch(connection, _DEAD_LETTERS, (group, group))
        return [_dead_letter(row) for row in rows]

    def replay(
        self,
        connection: Publishable,
        group: str,
        topic: str,
        *,
        after: int | None = None,
        since: datetime | None = None,
        dry_run: bool = False,
    ) -> int:
        """Take a group back in a topic, and return how many messages come again.

        Args:
            after: every message with a higher id comes again; 0: from the beginning.
            since: every message published at or after that time comes again.
            dry_run: only count.

        Raises:
            InvalidArgument: not exactly one of ``after`` and ``since``, or a time without a zone.
            UnknownGroup, UnknownTopic: there is nothing of this name to take back.
        """
        check_group(group)
        check_topic(topic)
        if (after is None) == (since is None):
            raise InvalidArgument("replay after an id (0: from the beginning), or since a time")
        if after is not None and not 0 <= after < 2**63:
            raise InvalidArgument(f"after is an id, or 0 for the beginning, not {after!r}")
        if since is not None and since.tzinfo is None:
            raise InvalidArgument("since has no time zone: give an aware datetime")
        rows = fetch(connection, _REPLAY, (group, topic, after, since, dry_run))
        return int(rows[0][0])


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    group, topic, message_id, key, payload, data, headers, published_at, attempt, reason, at = row
    content = readable(payload) if data is None else data
    kept = {} if headers is None else readable(headers)
    return DeadLetter(
        group, topic, message_id, key, content, kept, published_at, attempt, reason, at
    )
