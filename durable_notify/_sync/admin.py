# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Inspecting, changing and rewinding groups."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .._core import sql
from .._core.sqlstate import reported
from ..deprecated import old_retry_options
from ..dsn import safe_message
from ..durations import check_time
from ..errors import InvalidArgument
from ..groups import changed
from ..models import (
    AccessGrant,
    AuditEntry,
    DeadLetter,
    GroupInfo,
    OpenPublisher,
    ReanchorResult,
    ReplayJob,
    SeekResult,
    TopicStatus,
)
from ..payloads import as_json
from ..topics import check_group, check_topic, check_topics
from .database.callers import fetch_alone
from .erasure import ErasureAdmin
from .operating import OperatingAdmin
from .retention import RetentionAdmin
from .scheduling import ScheduleAdmin
from .waiting import WaitingAdmin, chosen, content, decoded, group_or_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import LiteralString, Unpack

    from ..groups import GroupSettings
    from ..models import DeadLetterFilter, ReplayFilter
    from ..topics import TopicName
    from .database.callers import Publishable

__all__ = ["Admin"]

#: The SQLSTATEs of what is no SQL/JSON path: syntax errors, and the class of data exceptions.
_BAD_PATH = ("42601", "22")


class Admin(
    ErasureAdmin,
    OperatingAdmin,
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

    def grant(
        self,
        connection: Publishable,
        role: str,
        action: str,
        topics: Iterable[TopicName] = (),
        *,
        group: str | None = None,
    ) -> None:
        """Grant an action to a database role and its members. For the owner of the schema.

        Args:
            role: the name of the role.
            action: ``"publish"``, ``"consume"`` or ``"read"``, for some topics; ``"observe"``: see
                status, audit and dead letters of all groups; ``"insert"``: run its own INSERT
                statements, for any topic; ``"maintain"``: run maintenance, except for the archive.
            topics: topics, or patterns of topics.
            group: the group in which it may consume, and which it may manage.

        Raises:
            InvalidArgument: there is no such role, or the arguments contradict each other.
                Nothing has changed.
        """
        fetch_alone(connection, sql.GRANT_ACCESS, (role, action, _patterns(topics), group))

    def revoke(
        self,
        connection: Publishable,
        role: str,
        action: str | None = None,
        topics: Iterable[TopicName] = (),
        *,
        group: str | None = None,
    ) -> int:
        """Revoke all grants that match the arguments; return how many there were.

        Give patterns as they were granted. For the owner of the schema.

        Raises:
            InvalidArgument: there is no such role.
        """
        params = (role, action, _patterns(topics), group)
        return int((fetch_alone(connection, sql.REVOKE_ACCESS, params))[0][0])

    def grants(self, connection: Publishable) -> list[AccessGrant]:
        """Return all grants, by role. For the owner of the schema."""
        return [AccessGrant(*row) for row in fetch_alone(connection, sql.ACCESS, ())]

    def _call(self, connection: Publishable, query: LiteralString, group: str, *more: str) -> None:
        fetch_alone(connection, query, (check_group(group), *more))

    def dead_letters(
        self,
        connection: Publishable,
        group: str | None = None,
        *,
        limit: int | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> list[DeadLetter]:
        """Return the dead letters of one group or of all, by group, topic and id.

        Args:
            limit: the most to return.
            conditions: all of them must match (``DeadLetterFilter``).

        Raises:
            UnknownGroup: there is no group of this name.
        """
        params = (group_or_all(group), *chosen(conditions), limit)
        rows = fetch_alone(connection, sql.DEAD_LETTERS, params)
        return [DeadLetter(*content(row)) for row in rows]

    def redrive(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> int:
        """Redeliver dead letters to the group that gave them up, and return how many.

        Give conditions, of which all must match, or ``everything``. Each is delivered as a first
        attempt. In a group that keeps order, later messages of its key wait for it. The audit
        records the role, the time and ``why``.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
            MessageNotFound: retention has removed one of them; nothing is redelivered.
        """
        params = (check_group(group), *chosen(conditions), everything, why)
        return int((fetch_alone(connection, sql.REDRIVE, params))[0][0])

    def discard(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> int:
        """Delete dead letters of a group, and return how many; select them as for ``redrive``.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
        """
        params = (check_group(group), *chosen(conditions), everything, why)
        return int((fetch_alone(connection, sql.DISCARD, params))[0][0])

    def audit(
        self, connection: Publishable, group: str | None = None, *, limit: int = 100
    ) -> list[AuditEntry]:
        """Return the recorded changes to groups, the newest first."""
        rows = fetch_alone(connection, sql.AUDIT_ENTRIES, (group, limit))
        return [AuditEntry(*decoded(row)) for row in rows]

    def replay(
        self,
        connection: Publishable,
        group: str,
        topic: TopicName,
        *,
        after: int | None = None,
        since: datetime | None = None,
        why: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Rewind a group in a topic, and return how many messages are redelivered.

        It is a ``seek`` that never moves the group forward.

        Args:
            after: redeliver every message with a higher id; 0: from the beginning.
            since: redeliver every message published at or after that time.
            why: recorded in the audit.
            dry_run: only count.

        Raises:
            InvalidArgument: not exactly one of ``after`` and ``since``, or a time without a zone.
            UnknownGroup, UnknownTopic: there is no group or topic of this name.
        """
        group = check_group(group)
        topic = check_topic(topic)
        if (after is None) == (since is None):
            raise InvalidArgument("give after=ID (0: from the beginning) or since=TIME")
        if after is not None and not 0 <= after < 2**63:
            raise InvalidArgument(f"after is an id, or 0 for the beginning, not {after!r}")
        check_time("since", since)
        params = (group, topic, after, since, False, why, dry_run, True, False)
        return int((fetch_alone(connection, sql.SEEK, params))[0][0])

    def seek(
        self,
        connection: Publishable,
        group: str,
        topic: TopicName,
        *,
        after: int | None = None,
        since: datetime | None = None,
        now: bool = False,
        drop_waiting: bool = False,
        why: str | None = None,
        dry_run: bool = False,
    ) -> SeekResult:
        """Move a group in a topic, back or forward, and return what is redelivered or skipped.

        No straggler is lost: a message in flight is delivered when it commits. After a move back,
        committed messages that were not delivered yet are delivered too. After a move forward,
        pending retries stay, unless ``drop_waiting`` is set.

        Args:
            after: deliver messages with a higher id next; 0: from the beginning.
            since: deliver messages published at or after that time next.
            now: skip to what commits from here on.
            drop_waiting: also skip messages up to there that wait for another attempt or for their
                key, and cancel running replays of the topic into the group. It ends a replay that
                fails again and again; pause the group first, because a message that a consumer
                holds may fail afterwards.
            why: recorded in the audit.
            dry_run: only count.

        Raises:
            InvalidArgument: not exactly one of ``after``, ``since`` and ``now``.
            UnknownGroup, UnknownTopic: there is no group or topic of this name.
        """
        check_time("since", since)
        params = (
            check_group(group), check_topic(topic), after, since, now, why, dry_run, False,
            drop_waiting,
        )  # fmt: skip
        return SeekResult(*(fetch_alone(connection, sql.SEEK, params))[0])

    def start_replay(
        self,
        connection: Publishable,
        group: str,
        topic: TopicName,
        *,
        rate_limit: float | None = None,
        why: str | None = None,
        dry_run: bool = False,
        **conditions: Unpack[ReplayFilter],
    ) -> int:
        """Redeliver messages of a topic to a group, beside new ones; return the job's id.

        It replays messages that match all conditions, if they have been delivered to the group or
        are older than it. The group's position does not move. Its consumers advance the job, and
        after a crash the job continues at its own position. Order by key holds for replays too.

        Args:
            rate_limit: the most messages a second.
            why: recorded in the audit.
            dry_run: start nothing, and return how many messages would be replayed.
            conditions: see ``ReplayFilter``.

        Raises:
            InvalidArgument: a condition is invalid, or the group has a running replay of the topic.
            UnknownGroup, UnknownTopic: there is no group or topic of this name.
        """
        group = check_group(group)
        topic = check_topic(topic)
        params = (group, topic, *_replayed(conditions), rate_limit, why, dry_run)
        try:
            job, total = (fetch_alone(connection, sql.START_REPLAY, params))[0]
        except Exception as error:
            state = reported(error).sqlstate or ""
            if conditions.get("path") is None or not state.startswith(_BAD_PATH):
                raise
            raise InvalidArgument(f"path is not an SQL/JSON path: {safe_message(error)}") from error
        return int(total if dry_run else job)

    def replay_jobs(self, connection: Publishable, *, limit: int = 100) -> list[ReplayJob]:
        """Return replay jobs, the newest first."""
        return [ReplayJob(*row) for row in fetch_alone(connection, sql.REPLAY_JOBS, (limit,))]

    def cancel_replay(self, connection: Publishable, job: int) -> bool:
        """Stop a replay; what it has not delivered yet is not replayed. False: it was over."""
        rows = fetch_alone(connection, sql.CANCEL_REPLAY, (job,))
        return bool(rows[0][0])

    def reanchor(self, connection: Publishable, *, why: str | None = None) -> list[ReanchorResult]:
        """Continue on a cluster to which the messages were restored or replicated.

        Call it as the owner of the schema, once everything has been copied. Every group continues
        with exactly what had not been delivered to it. This rewrites the log, and locks out
        publishers and consumers until the transaction ends. Returns the unread messages of each
        group and topic; an empty list if the messages are from this cluster.
        """
        rows = fetch_alone(connection, sql.REANCHOR, (why,))
        return [ReanchorResult(*row) for row in rows]


def _replayed(conditions: ReplayFilter) -> tuple[Any, ...]:
    """Return conditions in the order of ``start_replay()``."""
    names = ("after", "upto", "since", "until", "keys", "headers", "payload", "path")
    if unknown := set(conditions) - set(names):
        raise InvalidArgument(f"unknown condition {sorted(unknown)}; use {', '.join(names)}")
    check_time("since", conditions.get("since"))
    check_time("until", conditions.get("until"))
    keys = conditions.get("keys")
    return (
        conditions.get("after"),
        conditions.get("upto"),
        conditions.get("since"),
        conditions.get("until"),
        None if keys is None else [keys] if isinstance(keys, str) else list(keys),
        _as_json(conditions.get("headers"), "headers"),
        _as_json(conditions.get("payload"), "payload"),
        conditions.get("path"),
    )


def _as_json(value: Any, what: str) -> str | None:
    return None if value is None else as_json(value, what)


def _patterns(topics: Iterable[TopicName]) -> list[str] | None:
    """Return checked topics or patterns, None if there are none."""
    return list(check_topics(topics)) if topics else None
