"""What the sampler keeps of a look: sums of topics and groups, and the pairs that lag most."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from ..adapters import OwnCursor
from ..diagnostics.status import GroupStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg

__all__ = ["EMPTY", "Sample", "Total", "session_names", "take_sample"]

#: The most messages to count; larger numbers are estimated.
MAX_COUNT = 10_000
#: Up to so many pairs of group and topic, all are kept. Of more, those that lag most of each topic
#: and of each group.
PAIRS, OF_TOPIC, OF_GROUP = 10_000, 20, 50
#: The most ranges of ids to count for rates.
RANGES = 10_000

_LOOK = """
    WITH found AS MATERIALIZED (
        SELECT s.*, s.unread + s.deferred + s.leased AS lag FROM durable_notify.status(%s) AS s),
    ranked AS (
        SELECT f.*, row_number() OVER (
                        PARTITION BY f.topic ORDER BY f.lag DESC, f.dead DESC) AS of_topic,
               row_number() OVER (
                        PARTITION BY f.group_name ORDER BY f.lag DESC, f.dead DESC) AS of_group,
               count(*) OVER () AS pairs
          FROM found f WHERE f.group_name IS NOT NULL),
    shown AS (
        SELECT topic, group_name, last_id, delivered_id, unread, is_exact, oldest_unread, deferred,
               leases, leased, dead, expired, asleep, oldest_unsettled, 1 AS parts,
               NULL::bigint AS behind, NULL AS delivered
          FROM ranked WHERE pairs <= %s OR of_topic <= %s OR of_group <= %s
        UNION ALL
        SELECT topic, NULL, max(last_id), NULL, sum(lag), bool_and(is_exact), NULL, NULL, NULL,
               NULL, sum(dead), NULL, max(asleep), min(oldest_unsettled), count(group_name),
               count(*) FILTER (WHERE lag > 0), NULL
          FROM found GROUP BY topic
        UNION ALL
        SELECT NULL, group_name, NULL, NULL, sum(lag), bool_and(is_exact), NULL, NULL, NULL, NULL,
               sum(dead), NULL, NULL, min(oldest_unsettled), count(*),
               count(*) FILTER (WHERE lag > 0), json_object_agg(topic, delivered_id)::text
          FROM found WHERE group_name IS NOT NULL GROUP BY group_name)
    SELECT s.topic, s.group_name, s.last_id, s.delivered_id, s.unread::bigint, s.is_exact,
           GREATEST(0, EXTRACT(epoch FROM n.now - s.oldest_unread))::float8, s.deferred, s.leases,
           s.leased, s.dead::bigint, s.expired, s.asleep,
           GREATEST(0, EXTRACT(epoch FROM n.now - s.oldest_unsettled))::float8,
           s.parts, s.behind, s.delivered, n.now
      FROM shown s CROSS JOIN (SELECT pg_catalog.clock_timestamp() AS now) AS n
"""
#: What status() makes for each row sorts in memory; a sort by disk takes twice as long.
_WORK_MEM = "SET LOCAL work_mem = '64MB'"
_BETWEEN = """
    SELECT durable_notify.messages_between(s.topic, s.after_id, s.upto_id)
      FROM ROWS FROM (unnest(%s::text[]), unnest(%s::bigint[]), unnest(%s::bigint[]))
           WITH ORDINALITY AS s (topic, after_id, upto_id, ord)
     ORDER BY s.ord
"""

#: Consumers name their sessions, and those of their handlers: see session_names().
_SESSIONS = """
    SELECT a.application_name, pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a
     WHERE a.datname = pg_catalog.current_database()
       AND pg_catalog.starts_with(a.application_name, 'durable_notify ')
     GROUP BY 1
"""

Range = tuple[str, int, int]


@dataclasses.dataclass(slots=True)
class Total:
    """A topic over all of its groups, or a group over all of its topics.

    Attributes:
        name: of the topic or the group.
        parts: how many groups, or topics, it has.
        behind: how many of them have not settled everything.
        rate_in: messages a second that are published to the topic.
        rate_out: messages a second that are delivered to its groups, or to the group.
    """

    name: str
    lag: int
    exact: bool
    oldest: float | None
    dead: int
    parts: int
    behind: int
    last_id: int = 0
    asleep: int = 0
    rate_in: float | None = None
    rate_out: float | None = None


def session_names(group: str) -> list[str]:
    """Return the application_name of a group's consumers, and of their handlers' connections."""
    # As AsyncQueries names them.
    return [f"durable_notify {f'{kind} {group}'[:45]}" for kind in ("consumer", "handler")]


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The topics, the groups and the pairs of both, those first that lag most.

    Attributes:
        delivered: by group and topic, the highest id delivered.
        sessions: how many sessions have a name, of those that this library names.
    """

    at: datetime
    pairs: list[GroupStatus]
    topics: dict[str, Total]
    groups: dict[str, Total]
    delivered: dict[str, dict[str, int]]
    sessions: dict[str, int]

    @property
    def is_whole(self) -> bool:
        """Whether all pairs are kept."""
        return len(self.pairs) >= sum(each.parts for each in self.groups.values())

    def connections(self, group: str) -> int:
        """Return how many connections the consumers of a group have, and their handlers."""
        return sum(self.sessions.get(name, 0) for name in session_names(group))


#: Before the first look.
EMPTY = Sample(datetime.min.replace(tzinfo=UTC), [], {}, {}, {}, {})


def take_sample(connection: psycopg.Connection[Any], before: Sample | None) -> Sample:
    """Return how far all groups are, and rates since ``before``."""
    with OwnCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(_WORK_MEM)
        cursor.execute(_LOOK, (MAX_COUNT, PAIRS, OF_TOPIC, OF_GROUP))
        rows = cursor.fetchall()
        if not rows:
            cursor.execute("SELECT pg_catalog.clock_timestamp()")
        at: datetime = rows[0][-1] if rows else cursor.fetchall()[0][0]
        cursor.execute(_SESSIONS)
        sessions = dict(cursor.fetchall())
    pairs = [GroupStatus(*row[:14]) for row in rows if None not in row[:2]]
    pairs.sort(key=lambda each: (-(each.lag or 0), each.group or "", each.topic))
    sample = Sample(
        at, pairs, _totals(rows, 0), _totals(rows, 1),
        {row[1]: json.loads(row[16]) for row in rows if row[16] is not None},
        sessions,
    )  # fmt: skip
    return sample if before is None else _with_rates(connection, sample, before)


def _totals(rows: list[tuple[Any, ...]], name: int) -> dict[str, Total]:
    found = [
        Total(
            row[name], row[4] or 0, row[5] is not False, row[13], row[10] or 0, row[14], row[15],
            row[2] or 0, row[12] or 0,
        )
        for row in rows
        if row[1 - name] is None
    ]  # fmt: skip
    found.sort(key=lambda each: (-each.lag, each.name))
    return {each.name: each for each in found}


def _with_rates(connection: psycopg.Connection[Any], now: Sample, before: Sample) -> Sample:
    seconds = (now.at - before.at).total_seconds()
    came = {
        name: (name, before.topics[name].last_id if name in before.topics else 0, total.last_id)
        for name, total in now.topics.items()
    }
    went = {
        name: _ranges(delivered, before.delivered[name])
        for name, delivered in now.delivered.items()
        if name in before.delivered
    }
    wanted = dict.fromkeys(came.values()) | dict.fromkeys(
        each for ranges in went.values() for each in ranges
    )
    counts = _counted(connection, [each for each in wanted if each[1] < each[2]][:RANGES])

    def rate(of: Range) -> float | None:
        """Return the messages a second of a range; None after a replay, and if it is unknown."""
        if of[1] == of[2]:
            return 0.0
        return counts[of] / seconds if of in counts and seconds > 0 else None

    for name, total in now.topics.items():
        total.rate_in, total.rate_out = rate(came[name]), 0.0
    for name, ranges in went.items():
        # Trap: a replay moves a group back, and that is no reading.
        moved = [each for each in ranges if each[1] < each[2]]
        now.groups[name].rate_out = _sum(rate(each) for each in moved)
        for each in moved:
            topic = now.topics[each[0]]
            topic.rate_out = _sum((topic.rate_out, rate(each)))
    pairs = [
        dataclasses.replace(
            one, rate_in=now.topics[one.topic].rate_in, rate_out=_pair_rate(one, before, rate)
        )
        for one in now.pairs
    ]
    return dataclasses.replace(now, pairs=pairs)


def _sum(rates: Iterable[float | None]) -> float | None:
    """Return a sum; None if a part of it is unknown."""
    total = 0.0
    for rate in rates:
        if rate is None:
            return None
        total += rate
    return total


def _pair_rate(
    one: GroupStatus, before: Sample, rate: Callable[[Range], float | None]
) -> float | None:
    was = before.delivered.get(one.group or "", {}).get(one.topic)
    if was is None or one.delivered_id is None:
        return None
    return rate((one.topic, was, one.delivered_id))


def _ranges(now: dict[str, int], before: dict[str, int]) -> list[Range]:
    """Return what was delivered to a group between two looks; most groups stand still in most."""
    if now == before:
        return []
    return [
        (topic, was, upto)
        for topic, upto in now.items()
        if (was := before.get(topic)) is not None and upto is not None and was != upto
    ]


def _counted(connection: psycopg.Connection[Any], ranges: list[Range]) -> dict[Range, int]:
    if not ranges:
        return {}
    with OwnCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(_BETWEEN, [list(part) for part in zip(*ranges, strict=True)])
        return {key: count for key, (count,) in zip(ranges, cursor.fetchall(), strict=True)}
