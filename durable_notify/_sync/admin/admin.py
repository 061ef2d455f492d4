# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Inspecting and changing groups; the parts of other subjects are beside this."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..._core import sql
from ...deprecated import old_retry_options
from ...groups import changed
from ...models import AuditEntry, GroupInfo, OpenPublisher, ReanchorResult, TopicStatus
from ...topics import check_group, check_topic, check_topics
from ..database.callers import fetch_alone
from .access import AccessAdmin
from .dead_letters import DeadLetterAdmin
from .erasure import ErasureAdmin
from .operator_events import OperatorEventsAdmin
from .replays import ReplayAdmin
from .retention import RetentionAdmin
from .rows import decoded
from .schedules import ScheduleAdmin
from .waiting import WaitingAdmin

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import LiteralString, Unpack

    from ...groups import GroupSettings
    from ...topics import TopicName
    from ..database.callers import Publishable

__all__ = ["Admin"]


class Admin(
    AccessAdmin,
    DeadLetterAdmin,
    ErasureAdmin,
    OperatorEventsAdmin,
    ReplayAdmin,
    RetentionAdmin,
    ScheduleAdmin,
    WaitingAdmin,
):
    """Administers groups through the caller's connections; it holds none of its own.

    Connections are those that ``Publisher`` takes. Changes are part of their transaction.
    """

    def status(
        self,
        connection: Publishable,
        *,
        max_count: int | None = 10_000,
        limit: int | None = None,
    ) -> list[TopicStatus]:
        """Return the position and lag of each group in each topic, and the topics without a group.

        Args:
            max_count: larger counts are estimated. None counts all, which takes seconds if there
                are millions of unread messages.
            limit: return no more than this, those that lag most; None: all.
        """
        if limit is None:
            rows = fetch_alone(connection, sql.STATUS, (max_count,))
        else:
            rows = fetch_alone(connection, sql.STATUS_OF_MOST, (max_count, limit))
        return [TopicStatus(*row) for row in rows]

    def groups(self, connection: Publishable, group: str | None = None) -> list[GroupInfo]:
        """Return a group, or all, with their options, topics and patterns."""
        return [GroupInfo(*row) for row in fetch_alone(connection, sql.GROUPS, (group,))]

    def configure(
        self, connection: Publishable, group: str, **settings: Unpack[GroupSettings]
    ) -> None:
        """Change the options given, as of ``Group``; running consumers apply them at once.

        None removes ``max_in_flight`` or ``rate_limit``.

        Raises:
            InvalidArgument: there is no such option, or its value is invalid.
            UnknownGroup: there is no group of this name.
        """
        group = check_group(group)
        options = json.dumps(changed(old_retry_options({**settings})))
        fetch_alone(connection, sql.CONFIGURE, (group, options))

    def notify_policy(self, connection: Publishable, topic: TopicName) -> str:
        """Return how a topic wakes its consumers: ``when_waiting``, ``always`` or ``never``."""
        rows = fetch_alone(connection, sql.NOTIFY_POLICY, (check_topic(topic),))
        return str(rows[0][0])

    def set_notify_policy(self, connection: Publishable, topic: TopicName, policy: str) -> None:
        """Set how a topic wakes its consumers, in the transaction of a connection.

        ``"when_waiting"``: only while one waits, the default. ``"always"``: for listeners that
        cannot arm its doorbell. ``"never"``: consumers poll once a second; for publishers with
        PREPARE TRANSACTION. For the owner of the schema; running consumers apply it at once.

        Raises:
            InvalidArgument: the policy is none of these, or the transaction is not READ COMMITTED.
        """
        fetch_alone(connection, sql.SET_NOTIFY_POLICY, (check_topic(topic), policy))

    def pause(self, connection: Publishable, group: str) -> None:
        """Deliver nothing more to a group until ``resume``; leased messages can be settled."""
        self._call(connection, sql.PAUSE, group)

    def resume(self, connection: Publishable, group: str) -> None:
        """Continue a paused group at its position."""
        self._call(connection, sql.RESUME, group)

    def rename_group(self, connection: Publishable, group: str, new_name: str) -> None:
        """Give a group another name. Consumers that run under the old one end with UnknownGroup.

        Raises:
            InvalidArgument: there is a group of the new name.
        """
        self._call(connection, sql.RENAME_GROUP, group, check_group(new_name))

    def delete_group(self, connection: Publishable, group: str) -> None:
        """Delete a group with its positions, retries and dead letters; the messages stay.

        Its consumers end with UnknownGroup, and the database refuses what they settle.
        """
        self._call(connection, sql.DELETE_GROUP, group)

    def unsubscribe(
        self,
        connection: Publishable,
        group: str,
        topics: Iterable[str],
        *,
        why: str | None = None,
    ) -> list[str]:
        """End a group's subscriptions to topics, and return these; the messages stay.

        Its positions, retries and dead letters in them are deleted. A pattern ends the
        subscriptions to all topics that match it, and no other pattern of the group. Consumers
        that still ask for one of the topics end with UnknownTopic. The audit records ``why``.

        Raises:
            InvalidArgument: a pattern of the group matches a topic, and would subscribe it again.
            UnknownGroup, UnknownTopic: there is no such group, or it is not subscribed.
        """
        params = (check_group(group), list(check_topics(topics)), why)
        return [row[0] for row in fetch_alone(connection, sql.UNSUBSCRIBE, params)]

    def blocking_publishers(self, connection: Publishable, group: str) -> list[OpenPublisher]:
        """Return the open publishers that a strict group waits for; other groups wait for none."""
        rows = fetch_alone(connection, sql.BLOCKING_PUBLISHERS, (check_group(group),))
        return [OpenPublisher(*row) for row in rows]

    def _call(self, connection: Publishable, query: LiteralString, group: str, *more: str) -> None:
        fetch_alone(connection, query, (check_group(group), *more))

    def audit(
        self, connection: Publishable, group: str | None = None, *, limit: int = 100
    ) -> list[AuditEntry]:
        """Return the recorded changes to groups, the newest first."""
        rows = fetch_alone(connection, sql.AUDIT_ENTRIES, (group, limit))
        return [AuditEntry(*decoded(row)) for row in rows]

    def reanchor(self, connection: Publishable, *, why: str | None = None) -> list[ReanchorResult]:
        """Continue on a cluster to which the messages were restored or replicated.

        Call it as the owner of the schema, once everything has been copied. Every group continues
        with exactly what had not been delivered to it. This rewrites the log, and locks out
        publishers and consumers until the transaction ends. Returns the unread messages of each
        group and topic; an empty list if the messages are from this cluster.
        """
        rows = fetch_alone(connection, sql.REANCHOR, (why,))
        return [ReanchorResult(*row) for row in rows]
