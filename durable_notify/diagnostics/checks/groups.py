"""Groups: messages that they do not handle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from ..context import CheckContext
from ..findings import Finding, finding

#: The most messages to count; above that they are estimated.
MAX_COUNT = 10_000
#: The most handlers to name, those that run longest.
MAX_HANDLERS = 5
#: The most pairs of group and topic to look at, those that are latest.
MAX_LATE = 10_000
#: The most of them to name in each kind of finding.
MAX_NAMED = 20


def _status(context: CheckContext) -> list[tuple[Any, ...]]:
    """Return what groups have not settled for long, and their dead letters; asked once.

    If it fails or takes too long, it is not asked again.
    """
    if context.status is None:
        try:
            context.status = _late(context)
        except psycopg.Error as error:
            context.status = error
    if isinstance(context.status, psycopg.Error):
        raise context.status
    return context.status


def _late(context: CheckContext) -> list[tuple[Any, ...]]:
    limits = context.thresholds
    return context.rows(
        """
        WITH s AS MATERIALIZED (
            SELECT s.group_name, s.topic, s.unread, s.is_exact, s.leases, s.leased, s.retrying,
                   s.parked, s.oldest_unread, s.oldest_unsettled, s.dead
              FROM durable_notify.status(%s) s),
        n AS MATERIALIZED (SELECT clock_timestamp() AS at)
        (SELECT s.group_name, s.topic, s.unread, s.is_exact, s.leases, s.leased, s.retrying,
                s.parked, extract(epoch FROM n.at - s.oldest_unread)::float8,
                extract(epoch FROM n.at - s.oldest_unsettled)::float8, s.dead
           FROM s CROSS JOIN n
          WHERE s.group_name IS NOT NULL AND s.oldest_unsettled < n.at - make_interval(secs => %s)
          ORDER BY s.oldest_unsettled LIMIT %s)
        UNION ALL
        (SELECT s.group_name, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                sum(s.dead)::bigint
           FROM s GROUP BY 1 HAVING sum(s.dead) > %s)
        ORDER BY 1, 2
        """,
        max(MAX_COUNT, limits.dead_letters + 1),
        min(limits.unused, limits.unclaimed, limits.unsettled),
        MAX_LATE,
        limits.dead_letters,
    )


def unused(context: CheckContext) -> Iterator[Finding]:
    """Topics of groups for which messages wait for long, without a consumer."""
    waiting = [row for row in _status(context) if row[1] is not None and row[2]]
    left = set()
    if any(row[8] >= context.thresholds.unclaimed for row in waiting):
        for found in _unclaimed(context):
            left.add((found.data["group"], found.data["topic"]))
            yield found
    unread = [row for row in waiting if not row[4] and row[8] > context.thresholds.unused]
    unread = [row for row in unread if (row[0], row[1]) not in left]
    for group, topic, count, exact, *_, age, _late, _dead in _worst(unread, 8):
        what = (
            f"group {group} has no consumer of {topic}: {_waiting(context, count, exact)}, "
            f"the oldest for {age / 86_400:.1f} days{_others(unread)}"
        )
        yield finding(
            "group-unused", what,
            group=group, topic=topic, unread=count, seconds=round(age),
            bytes=_held(context, count),
        )  # fmt: skip


def _worst(rows: list[tuple[Any, ...]], age: int) -> list[tuple[Any, ...]]:
    """Return the rows to name: the oldest, by group and topic."""
    return sorted(sorted(rows, key=lambda row: -row[age])[:MAX_NAMED])


def _others(rows: list[tuple[Any, ...]]) -> str:
    more = len(rows) - MAX_NAMED
    if more <= 0:
        return ""
    return f" (one of the {MAX_NAMED} oldest; {'at least ' * (len(rows) >= MAX_LATE)}{more:,} more)"


def _unclaimed(context: CheckContext) -> Iterator[Finding]:
    for group, topic, unread, exact, oldest, other in context.rows(
        """
        SELECT u.group_name, u.topic, u.unread, u.is_exact, u.oldest_unread, u.other_topic
          FROM durable_notify.unclaimed_topics(make_interval(secs => %s), %s) u LIMIT %s
        """,
        context.thresholds.unclaimed,
        MAX_COUNT,
        MAX_NAMED,
    ):
        what = (
            f"no running consumer of group {group} reads its topic {topic}, others read {other}: "
            f"{_waiting(context, unread, exact)}, the oldest since {oldest:%Y-%m-%d %H:%M}"
        )
        yield finding(
            "topic-unclaimed", what,
            group=group, topic=topic, unread=unread, oldest=oldest, other_topic=other,
            bytes=_held(context, unread),
        )  # fmt: skip


def patterns(context: CheckContext) -> Iterator[Finding]:
    """Patterns of groups that no consumer asks for, nor maintenance: new topics are not found."""
    for group, pattern, topics, example in context.rows(
        """
        SELECT g.name, p.pattern, count(*), min(t.topic)
          FROM durable_notify.group_pattern p
          JOIN durable_notify.consumer_group g ON g.id = p.group_id
          JOIN durable_notify.topics() t ON t.topic ~ durable_notify._topic_regex(p.pattern)
         WHERE NOT EXISTS (SELECT FROM durable_notify.subscription s
                            WHERE s.group_id = p.group_id AND s.topic = t.topic)
           AND (SELECT o.created_at FROM durable_notify.outbox o WHERE o.topic = t.topic
                 ORDER BY o.id LIMIT 1) < clock_timestamp() - make_interval(secs => %s)
         GROUP BY 1, 2 ORDER BY 1, 2 LIMIT %s
        """,
        context.thresholds.unclaimed,
        MAX_NAMED,
    ):
        what = (
            f"no consumer of group {group} asks for its pattern {pattern}: {topics:,} topic"
            f"{'' if topics == 1 else 's'} that it matches, such as {example}, "
            f"{'is' if topics == 1 else 'are'} not subscribed"
        )
        yield finding(
            "pattern-unclaimed", what, group=group, pattern=pattern, topics=topics, example=example
        )


def _waiting(context: CheckContext, unread: int, exact: bool) -> str:
    held = _held(context, unread)
    size = "" if held is None else f", about {held / 10**6:,.1f} MB"
    return f"{'' if exact else 'about '}{unread:,} messages wait{size}"


def _held(context: CheckContext, messages: int) -> int | None:
    """Return the size of so many messages, by the outbox's average; None if it is unknown."""
    ((size, rows),) = context.rows(
        """
        SELECT sum(pg_table_size(c.oid))::bigint, sum(c.reltuples)::bigint
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'durable_notify' AND c.relkind = 'r' AND c.relname LIKE 'outbox%%'
           AND c.reltuples > 0
        """
    )
    return messages * size // rows if rows else None


def paused(context: CheckContext) -> Iterator[Finding]:
    """Groups that were paused long ago."""
    for group, since in context.rows(
        """
        SELECT g.name, g.paused_at FROM durable_notify.groups() g
         WHERE g.paused_at < clock_timestamp() - make_interval(secs => %s)
         ORDER BY 1
        """,
        context.thresholds.paused,
    ):
        what = f"group {group} is paused since {since:%Y-%m-%d %H:%M}"
        yield finding("group-paused", what, group=group, since=since)


def handlers(context: CheckContext) -> Iterator[Finding]:
    """Handlers that do not return: leases that their consumers have extended for very long."""
    for group, topic, owner, messages, seconds in context.rows(
        """
        SELECT l.group_name, l.topic, l.owner, l.messages,
               extract(epoch FROM clock_timestamp() - l.claimed_at)::float8
          FROM durable_notify.leases() l
         WHERE l.claimed_at < clock_timestamp() - make_interval(secs => %s)
           AND l.deadline > clock_timestamp() AND l.messages > 0
         ORDER BY l.claimed_at, 1, 2, 3 LIMIT %s
        """,
        context.thresholds.handler,
        MAX_HANDLERS,
    ):
        what = (
            f"{owner} has held {messages:,} messages of {topic} in group {group} for "
            f"{seconds / 3600:.1f} hours, and extends its lease"
        )
        yield finding(
            "handler-at-work-for-long", what,
            group=group, topic=topic, owner=owner, messages=messages, seconds=round(seconds),
        )  # fmt: skip


def unsettled(context: CheckContext) -> Iterator[Finding]:
    """Messages that were delivered long ago, and are not settled: they fail, or handlers hang."""
    stuck = [
        row for row in _status(context)
        if row[1] is not None and row[9] > context.thresholds.unsettled
        and (row[8] is None or row[9] > row[8])
    ]  # fmt: skip
    if stuck:
        stopped = {name for (name,) in context.rows(
            "SELECT g.name FROM durable_notify.groups() g WHERE g.paused_at IS NOT NULL"
        )}  # fmt: skip
        stuck = [row for row in stuck if row[0] not in stopped]
    for group, topic, *_, leased, retrying, parked, _age, seconds, _dead in _worst(stuck, 9):
        what = (
            f"group {group} has not settled a message of {topic} for {seconds / 3600:.1f} hours: "
            f"{leased:,} are held by consumers, {retrying:,} wait for a retry, {parked:,} for an "
            f"earlier one of their key{_others(stuck)}"
        )
        yield finding(
            "messages-unsettled", what,
            group=group, topic=topic, leased=leased, retrying=retrying, parked=parked,
            seconds=round(seconds),
        )  # fmt: skip


def dead_letters(context: CheckContext) -> Iterator[Finding]:
    """Groups with many dead letters."""
    for group, topic, *_, dead in _status(context):
        if topic is None:
            more = " or more" if dead >= MAX_COUNT else ""
            what = f"group {group} has {dead:,}{more} dead letters"
            yield finding("dead-letters", what, group=group, dead=dead)
