"""The lag and the rates of groups, for ``status --watch``.

A snapshot costs the same however many messages are unread, because it estimates above a limit.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, kwargs_row, tuple_row

from ..adapters import OwnCursor

__all__ = ["GroupStatus", "Lease", "StatusSnapshot", "take_snapshot"]

#: The most messages to count.
MAX_COUNT = 10_000
#: The most leases to show, the oldest first.
MAX_LEASES = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group in a topic; without a group, only topic, last_id and asleep are set.

    Attributes:
        topic: its name.
        group: its name.
        last_id: the topic's highest id.
        delivered_id: the highest id delivered to the group.
        unread: committed and not delivered yet; estimated unless ``exact``.
        exact: whether it was counted.
        oldest_unread_seconds: the age of the oldest of them; None if there is none.
        deferred: messages that wait for another attempt, counted up to 10,000.
        live_leases: batches that consumers hold.
        leased: messages in them.
        dead_letters: given up, counted up to 10,000.
        expired: not delivered, because they were past their expiry.
        asleep: sessions that wait for the topic's doorbell.
        oldest_unsettled_seconds: how long the oldest message waits that the group has not settled.
        rate_in: messages published a second since the previous snapshot; None in the first.
        rate_out: messages delivered to the group a second; None also after a replay.
    """

    topic: str
    group: str | None
    last_id: int
    delivered_id: int | None
    unread: int | None
    exact: bool | None
    oldest_unread_seconds: float | None
    deferred: int | None
    live_leases: int | None
    leased: int | None
    dead_letters: int | None
    expired: int | None
    asleep: int
    oldest_unsettled_seconds: float | None = None
    rate_in: float | None = None
    rate_out: float | None = None

    @property
    def lag(self) -> int | None:
        """How many messages the group has not settled."""
        if self.unread is None:
            return None
        return self.unread + (self.deferred or 0) + (self.leased or 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """A batch that a consumer holds."""

    topic: str
    group: str
    owner: str | None
    seconds: float
    seconds_left: float
    messages: int


@dataclasses.dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """The status of groups, at a time of the database's clock.

    Attributes:
        at: the time.
        groups: by topic and group.
        leases: the oldest ones.
        left_out: how many groups and topics lag less than these, and are not among them.
    """

    at: datetime
    groups: list[GroupStatus]
    leases: list[Lease]
    left_out: int = 0


def take_snapshot(
    connection: psycopg.Connection[Any],
    before: StatusSnapshot | None = None,
    limit: int | None = None,
) -> StatusSnapshot:
    """Return the status of groups and topics that the role may see, and rates since ``before``.

    `connection` must be in autocommit mode. `limit`: only so many, those that lag most.
    """
    with OwnCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute("SELECT pg_catalog.clock_timestamp()")
        ((at,),) = cursor.fetchall()
    with OwnCursor(connection, row_factory=kwargs_row(_counted_row)) as cursor:
        rows = cursor.execute(
            """
            WITH s AS (
                SELECT s.topic, s.group_name AS "group", s.last_id, s.delivered_id, s.unread,
                       s.is_exact AS exact,
                       GREATEST(0, EXTRACT(epoch FROM %s - s.oldest_unread))::float8
                           AS oldest_unread_seconds,
                       s.deferred, s.leases AS live_leases, s.leased, s.dead AS dead_letters,
                       s.expired, s.asleep,
                       GREATEST(0, EXTRACT(epoch FROM %s - s.oldest_unsettled))::float8
                           AS oldest_unsettled_seconds
                  FROM durable_notify.status(%s) s)
            SELECT * FROM (
                SELECT s.*, pg_catalog.count(*) OVER () AS in_all FROM s
                 ORDER BY s.unread + s.deferred + s.leased DESC NULLS LAST LIMIT %s) most
             ORDER BY most.topic, most."group"
            """,
            (at, at, MAX_COUNT, limit),
        ).fetchall()
    groups = [one for one, _ in rows]
    left_out = rows[0][1] - len(rows) if rows else 0
    with OwnCursor(connection, row_factory=class_row(Lease)) as cursor:
        leases = cursor.execute(
            """
            SELECT l.topic, l.group_name AS "group", l.owner,
                   EXTRACT(epoch FROM %s - l.claimed_at)::float8 AS seconds,
                   EXTRACT(epoch FROM l.deadline - %s)::float8 AS seconds_left, l.messages
              FROM durable_notify.leases() l LIMIT %s
            """,
            (at, at, MAX_LEASES),
        ).fetchall()
    if before is not None:
        groups = _with_rates(connection, StatusSnapshot(at, groups, leases), before)
    return StatusSnapshot(at, groups, leases, left_out)


def _counted_row(*, in_all: int, **fields: Any) -> tuple[GroupStatus, int]:
    return GroupStatus(**fields), in_all


def _with_rates(
    connection: psycopg.Connection[Any], now: StatusSnapshot, before: StatusSnapshot
) -> list[GroupStatus]:
    seconds = (now.at - before.at).total_seconds()
    earlier = {(s.topic, s.group): s for s in before.groups}
    ids = {s.topic: s.last_id for s in before.groups}
    # A topic that was not there is new, unless it was left out.
    unknown = None if before.left_out else 0
    stretches: dict[tuple[str, int, int], float | None] = {}

    def stretch(topic: str, after: int | None, upto: int | None) -> tuple[str, int, int] | None:
        if after is None or upto is None or upto < after:
            return None
        found = (topic, after, upto)
        stretches.setdefault(found, None)
        return found

    wanted = []
    for one in now.groups:
        was = earlier.get((one.topic, one.group))
        came = stretch(one.topic, ids.get(one.topic, unknown), one.last_id)
        went = stretch(one.topic, was.delivered_id, one.delivered_id) if was else None
        wanted.append((one, came, went))
    if seconds > 0:
        stretches.update(_counted(connection, list(stretches), seconds))
    return [
        dataclasses.replace(
            one,
            rate_in=None if came is None else stretches[came],
            rate_out=None if went is None else stretches[went],
        )
        for one, came, went in wanted
    ]


def _counted(
    connection: psycopg.Connection[Any], stretches: list[tuple[str, int, int]], seconds: float
) -> dict[tuple[str, int, int], float]:
    """Return the messages a second of each range of a topic."""
    topics, after, upto = (
        (list(part) for part in zip(*stretches, strict=True)) if stretches else ([], [], [])
    )
    with OwnCursor(connection, row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            """
            SELECT durable_notify.messages_between(s.topic, s.after_id, s.upto_id)
              FROM ROWS FROM (unnest(%s::text[]), unnest(%s::bigint[]), unnest(%s::bigint[]))
                   WITH ORDINALITY AS s (topic, after_id, upto_id, ord)
             ORDER BY s.ord
            """,
            (topics, after, upto),
        ).fetchall()
    return {key: count / seconds for key, (count,) in zip(stretches, rows, strict=True)}
