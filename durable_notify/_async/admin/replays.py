"""Replays: groups moved in their topics, and selected messages redelivered by a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._core import sql
from ..._core.sqlstate import reported
from ...dsn import safe_message
from ...durations import check_time
from ...errors import InvalidArgument
from ...models import ReplayJob, SeekResult
from ...payloads import as_json
from ...topics import check_group, check_topic
from ..database.callers import fetch_alone

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Unpack

    from ...models import ReplayFilter
    from ...topics import TopicName
    from ..database.callers import Publishable

__all__ = ["AsyncReplayAdmin"]

#: The SQLSTATEs of what is no SQL/JSON path: syntax errors, and the class of data exceptions.
_BAD_PATH = ("42601", "22")


class AsyncReplayAdmin:
    """The part of ``AsyncAdmin`` that moves groups and redelivers messages."""

    async def replay(
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
        return int((await fetch_alone(connection, sql.SEEK, params))[0][0])

    async def seek(
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
        return SeekResult(*(await fetch_alone(connection, sql.SEEK, params))[0])

    async def start_replay(
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
            job, total = (await fetch_alone(connection, sql.START_REPLAY, params))[0]
        except Exception as error:
            state = reported(error).sqlstate or ""
            if conditions.get("path") is None or not state.startswith(_BAD_PATH):
                raise
            raise InvalidArgument(f"path is not an SQL/JSON path: {safe_message(error)}") from error
        return int(total if dry_run else job)

    async def replay_jobs(self, connection: Publishable, *, limit: int = 100) -> list[ReplayJob]:
        """Return replay jobs, the newest first."""
        return [ReplayJob(*row) for row in await fetch_alone(connection, sql.REPLAY_JOBS, (limit,))]

    async def cancel_replay(self, connection: Publishable, job: int) -> bool:
        """Stop a replay; what it has not delivered yet is not replayed. False: it was over."""
        rows = await fetch_alone(connection, sql.CANCEL_REPLAY, (job,))
        return bool(rows[0][0])


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
