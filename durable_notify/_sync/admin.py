# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Looking at groups and taking them back."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from .._core import sql
from ..dsn import safe_message
from ..errors import InvalidArgument
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
from ..options import check_group_settings
from ..payloads import as_json, readable
from ..topics import check_group, check_topic, check_topics
from .database.callers import fetch_alone
from .retention import RetentionAdmin

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import LiteralString, Unpack

    from ..models import DeadLetterFilter, ReplayFilter
    from ..options import GroupSettings
    from .database.callers import Publishable

__all__ = ["Admin"]


class Admin(RetentionAdmin):
    """Administers groups through connections that it borrows; it holds none.

    A connection is what ``Publisher`` takes, and what is changed is part of its transaction.
    """

    def status(
        self, connection: Publishable, *, max_count: int | None = 10_000
    ) -> list[TopicStatus]:
        """Return how each group stands in each of its topics, and the topics without a group.

        Args:
            max_count: more messages than these are estimated, not counted. None counts all, which
                takes seconds if millions are unread.
        """
        rows = fetch_alone(connection, sql.STATUS, (max_count,))
        return [TopicStatus(*row) for row in rows]

    def groups(self, connection: Publishable) -> list[GroupInfo]:
        """Return all groups with their options, topics and patterns."""
        return [GroupInfo(*row) for row in fetch_alone(connection, sql.GROUPS, ())]

    def configure(
        self, connection: Publishable, group: str, **settings: Unpack[GroupSettings]
    ) -> None:
        """Change options of a group; running consumers apply them at once. Others stay as they are.

        Raises:
            InvalidArgument: there is no such option, or it cannot have that value.
            UnknownGroup: there is no group of this name.
        """
        group = check_group(group)
        check_group_settings(settings)
        fetch_alone(connection, sql.CONFIGURE, (group, json.dumps(settings)))

    def notify_policy(self, connection: Publishable, topic: str) -> str:
        """Return how a topic wakes its consumers: ``when_waiting``, ``always`` or ``never``."""
        rows = fetch_alone(connection, sql.NOTIFY_POLICY, (check_topic(topic),))
        return str(rows[0][0])

    def set_notify_policy(self, connection: Publishable, topic: str, policy: str) -> None:
        """Set how a topic wakes its consumers, in the transaction of a connection.

        ``"when_waiting"``: only while one waits, the default. ``"always"``: for listeners that
        cannot arm its doorbell. ``"never"``: consumers poll once a second; for publishers with
        PREPARE TRANSACTION. For the owner of the schema; running consumers apply it at once.

        Raises:
            InvalidArgument: it is none of these, or the transaction is not READ COMMITTED.
        """
        fetch_alone(connection, sql.SET_NOTIFY_POLICY, (check_topic(topic), policy))

    def pause(self, connection: Publishable, group: str) -> None:
        """Deliver nothing more to a group until ``resume``; what is leased can be settled."""
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
        """Forget a group, with its positions, retries and dead letters; the messages stay.

        Its consumers end with UnknownGroup, and what they settle is refused.
        """
        self._call(connection, sql.DELETE_GROUP, group)

    def blocking_publishers(self, connection: Publishable, group: str) -> list[OpenPublisher]:
        """Return the publishers in flight that a strict group waits for; of others, none."""
        rows = fetch_alone(connection, sql.BLOCKING_PUBLISHERS, (check_group(group),))
        return [OpenPublisher(*row) for row in rows]

    def grant(
        self,
        connection: Publishable,
        role: str,
        action: str,
        topics: Iterable[str] = (),
        *,
        group: str | None = None,
    ) -> None:
        """Let a role of the database, and its members, do something. For the owner of the schema.

        Args:
            role: its name.
            action: ``"publish"``, ``"consume"`` or ``"read"``, of some topics; ``"observe"``: see
                status, audit and dead letters of everything; ``"insert"``: INSERT statements of its
                own, for whatever topic.
            topics: topics, or patterns of topics.
            group: the group in which it may consume, and which it may manage.

        Raises:
            InvalidArgument: there is no such role, or not all of it fits together. Nothing has
                changed.
        """
        fetch_alone(connection, sql.GRANT_ACCESS, (role, action, _patterns(topics), group))

    def revoke(
        self,
        connection: Publishable,
        role: str,
        action: str | None = None,
        topics: Iterable[str] = (),
        *,
        group: str | None = None,
    ) -> int:
        """Take back what ``grant`` gave, all that fits what is given; return how many grants.

        Patterns are named as they were granted. For the owner of the schema.

        Raises:
            InvalidArgument: there is no such role.
        """
        params = (role, action, _patterns(topics), group)
        return int((fetch_alone(connection, sql.REVOKE_ACCESS, params))[0][0])

    def grants(self, connection: Publishable) -> list[AccessGrant]:
        """Return what roles were granted, by role. For the owner of the schema."""
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
        """Return the messages given up, of one group or of all, by group, topic and id.

        Args:
            limit: so many at most.
            conditions: those that fit all of them (``DeadLetterFilter``).

        Raises:
            UnknownGroup: there is no group of this name.
        """
        if group is not None:
            group = check_group(group)
        params = (group, *_chosen(conditions), limit)
        return [_dead_letter(row) for row in fetch_alone(connection, sql.DEAD_LETTERS, params)]

    def redrive(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> int:
        """Send dead letters to the group that gave them up again, and return how many.

        They come as first attempts; in a group that keeps order they hold back their keys. Those
        that fit all conditions, or ``everything``. Who did so, when and ``why`` is in ``audit``.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
            MessageNotFound: one of them is not in the log any more; nothing was sent.
        """
        params = (check_group(group), *_chosen(conditions), everything, why)
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
        """Forget dead letters of a group, and return how many; chosen as ``redrive`` does.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
        """
        params = (check_group(group), *_chosen(conditions), everything, why)
        return int((fetch_alone(connection, sql.DISCARD, params))[0][0])

    def audit(
        self, connection: Publishable, group: str | None = None, *, limit: int = 100
    ) -> list[AuditEntry]:
        """Return what was done to groups by hand, the newest first."""
        rows = fetch_alone(connection, sql.AUDIT_ENTRIES, (group, limit))
        return [AuditEntry(*_decoded(row)) for row in rows]

    def replay(
        self,
        connection: Publishable,
        group: str,
        topic: str,
        *,
        after: int | None = None,
        since: datetime | None = None,
        why: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Rewind a group in a topic, and return how many messages it redelivers.

        A :meth:`seek` that never moves the group forward.

        Args:
            after: every message with a higher id is redelivered; 0: from the beginning.
            since: every message published at or after that time is redelivered.
            why: kept in the audit.
            dry_run: only count.

        Raises:
            InvalidArgument: not exactly one of ``after`` and ``since``, or a time without a zone.
            UnknownGroup, UnknownTopic: there is nothing of this name to take back.
        """
        group = check_group(group)
        topic = check_topic(topic)
        if (after is None) == (since is None):
            raise InvalidArgument("give after=ID (0: from the beginning) or since=TIME")
        if after is not None and not 0 <= after < 2**63:
            raise InvalidArgument(f"after is an id, or 0 for the beginning, not {after!r}")
        if since is not None and since.tzinfo is None:
            raise InvalidArgument("since has no time zone: give an aware datetime")
        params = (group, topic, after, since, False, why, dry_run, True)
        return int((fetch_alone(connection, sql.SEEK, params))[0][0])

    def seek(
        self,
        connection: Publishable,
        group: str,
        topic: str,
        *,
        after: int | None = None,
        since: datetime | None = None,
        now: bool = False,
        why: str | None = None,
        dry_run: bool = False,
    ) -> SeekResult:
        """Move a group in a topic, back or forward, and return what is redelivered or skipped.

        No straggler is lost. What is in flight is delivered when it commits. Going back, what was
        committed and not delivered yet is delivered too. Going forward, retries keep waiting.

        Args:
            after: what has a higher id comes next; 0: the beginning.
            since: what was published at or after that time comes next.
            now: only what commits from here on comes next; the rest is skipped.
            why: kept in the audit.
            dry_run: only count.

        Raises:
            InvalidArgument: not exactly one of ``after``, ``since`` and ``now``.
            UnknownGroup, UnknownTopic: there is nothing of this name to move.
        """
        _check_time("since", since)
        params = (check_group(group), check_topic(topic), after, since, now, why, dry_run, False)
        return SeekResult(*(fetch_alone(connection, sql.SEEK, params))[0])

    def start_replay(
        self,
        connection: Publishable,
        group: str,
        topic: str,
        *,
        rate_limit: float | None = None,
        why: str | None = None,
        dry_run: bool = False,
        **conditions: Unpack[ReplayFilter],
    ) -> int:
        """Have a group get messages of a topic again, beside what is new; return the job's id.

        Those that fit all conditions, and that were delivered to the group by now, or were there
        before it started. Its position does not move. Its consumers advance the job; after a crash
        the job continues at its own. Order by key holds for what is replayed, too.

        Args:
            rate_limit: the most messages a second.
            why: kept in the audit.
            dry_run: start nothing, and return how many messages it would be.
            conditions: see ``ReplayFilter``.

        Raises:
            InvalidArgument: a condition cannot be, or a replay of the topic into the group runs.
            UnknownGroup, UnknownTopic: there is nothing of this name.
        """
        group = check_group(group)
        topic = check_topic(topic)
        params = (group, topic, *_replayed(conditions), rate_limit, why, dry_run)
        try:
            job, total = (fetch_alone(connection, sql.START_REPLAY, params))[0]
        except (psycopg.DataError, psycopg.errors.SyntaxError) as error:
            if conditions.get("path") is None:
                raise
            raise InvalidArgument(f"path is not an SQL/JSON path: {safe_message(error)}") from error
        return int(total if dry_run else job)

    def replay_jobs(self, connection: Publishable, *, limit: int = 100) -> list[ReplayJob]:
        """Return the replays started, the newest first."""
        return [ReplayJob(*row) for row in fetch_alone(connection, sql.REPLAY_JOBS, (limit,))]

    def cancel_replay(self, connection: Publishable, job: int) -> bool:
        """End a replay; what it has not delivered yet is not. False: it was not running."""
        rows = fetch_alone(connection, sql.CANCEL_REPLAY, (job,))
        return bool(rows[0][0])

    def reanchor(self, connection: Publishable, *, why: str | None = None) -> list[ReanchorResult]:
        """Continue on a cluster to which the messages were restored or replicated.

        For the owner of the schema, once everything has been copied. Every group continues with
        exactly what had not been delivered to it. This rewrites the log, and keeps publishers and
        consumers out until the transaction ends. Returns each group's topics, and how many messages
        are unread; nothing if nothing was to be done.
        """
        rows = fetch_alone(connection, sql.REANCHOR, (why,))
        return [ReanchorResult(*row) for row in rows]


def _replayed(conditions: ReplayFilter) -> tuple[Any, ...]:
    """Return conditions in the order of ``start_replay()``."""
    names = ("after", "upto", "since", "until", "keys", "headers", "payload", "path")
    if unknown := set(conditions) - set(names):
        raise InvalidArgument(f"unknown condition {sorted(unknown)}; use {', '.join(names)}")
    _check_time("since", conditions.get("since"))
    _check_time("until", conditions.get("until"))
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


def _patterns(topics: Iterable[str]) -> list[str] | None:
    """Return checked topics or patterns, None if there are none."""
    return list(check_topics(topics)) if topics else None


def _check_time(name: str, time: datetime | None) -> None:
    if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
        raise InvalidArgument(f"{name} is a datetime with a time zone, not {time!r}")


def _chosen(conditions: DeadLetterFilter) -> tuple[Any, ...]:
    """Return conditions in the order of ``dead_letters()``."""
    names = ("topic", "ids", "key", "error_type", "since", "until")
    if unknown := set(conditions) - set(names):
        raise InvalidArgument(f"unknown condition {sorted(unknown)}; use {', '.join(names)}")
    _check_time("since", conditions.get("since"))
    _check_time("until", conditions.get("until"))
    ids = conditions.get("ids")
    if isinstance(ids, int):
        ids = [ids]
    given = {**conditions, "ids": None if ids is None else list(ids)}
    return tuple(given.get(name) for name in names)


def _decoded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row with the JSON in its last column decoded."""
    return (*row[:-1], None if row[-1] is None else readable(row[-1]))


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    group, topic, message_id, key, payload, data, headers, *about = _decoded(row)
    content = readable(payload) if data is None else data
    kept = {} if headers is None else readable(headers)
    return DeadLetter(group, topic, message_id, key, content, kept, *about)
