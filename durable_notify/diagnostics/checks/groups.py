"""Groups: messages that they do not handle."""

from __future__ import annotations

from collections.abc import Iterator

from ..context import CheckContext
from ..findings import Finding, finding

#: The most messages to count; above that they are estimated.
MAX_COUNT = 10_000
#: The most handlers to name, those that run longest.
MAX_HANDLERS = 5


def unused(context: CheckContext) -> Iterator[Finding]:
    """Topics of groups for which messages wait for long, without a consumer."""
    left = set()
    for group, topic, unread, exact, oldest, other in context.rows(
        """
        SELECT u.group_name, u.topic, u.unread, u.is_exact, u.oldest_unread, u.other_topic
          FROM durable_notify.unclaimed_topics(make_interval(secs => %s), %s) u
        """,
        context.thresholds.unclaimed,
        MAX_COUNT,
    ):
        left.add((group, topic))
        what = (
            f"no running consumer of group {group} reads its topic {topic}, others read {other}: "
            f"{_waiting(context, unread, exact)}, the oldest since {oldest:%Y-%m-%d %H:%M}"
        )
        yield finding(
            "topic-unclaimed", what,
            group=group, topic=topic, unread=unread, oldest=oldest, other_topic=other,
            bytes=_held(context, unread),
        )  # fmt: skip
    for group, topic, unread, exact, seconds in context.rows(
        """
        SELECT s.group_name, s.topic, s.unread, s.is_exact, a.seconds
          FROM durable_notify.status(%s) s CROSS JOIN LATERAL (
               SELECT extract(epoch FROM clock_timestamp() - s.oldest_unread)) AS a (seconds)
         WHERE s.leases = 0 AND s.unread > 0 AND a.seconds > %s ORDER BY 1, 2
        """,
        MAX_COUNT,
        context.thresholds.unused,
    ):
        if (group, topic) in left:
            continue
        what = (
            f"group {group} has no consumer of {topic}: {_waiting(context, unread, exact)}, "
            f"the oldest for {seconds / 86_400:.1f} days"
        )
        yield finding(
            "group-unused", what,
            group=group, topic=topic, unread=unread, seconds=round(seconds),
            bytes=_held(context, unread),
        )  # fmt: skip


def _waiting(context: CheckContext, unread: int, exact: bool) -> str:
    held = _held(context, unread)
    size = "" if held is None else f", about {held / (1 << 20):,.1f} MB"
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
    """Messages that were handed out long ago, and are not settled: they fail, or handlers hang."""
    for group, topic, leased, retrying, parked, seconds in context.rows(
        """
        SELECT s.group_name, s.topic, s.leased, s.retrying, s.parked, a.seconds
          FROM durable_notify.status(%s) s
          JOIN durable_notify.groups() g ON g.name = s.group_name
         CROSS JOIN LATERAL (
               SELECT extract(epoch FROM clock_timestamp() - s.oldest_unsettled)::float8)
               AS a (seconds)
         WHERE a.seconds > %s AND g.paused_at IS NULL
           AND (s.oldest_unread IS NULL OR s.oldest_unsettled < s.oldest_unread) ORDER BY 1, 2
        """,
        MAX_COUNT,
        context.thresholds.unsettled,
    ):
        what = (
            f"group {group} has not settled a message of {topic} for {seconds / 3600:.1f} hours: "
            f"{leased:,} are held by consumers, {retrying:,} wait for a retry, {parked:,} for an "
            "earlier one of their key"
        )
        yield finding(
            "messages-unsettled", what,
            group=group, topic=topic, leased=leased, retrying=retrying, parked=parked,
            seconds=round(seconds),
        )  # fmt: skip


def dead_letters(context: CheckContext) -> Iterator[Finding]:
    """Groups with many dead letters."""
    for group, dead in context.rows(
        """
        SELECT s.group_name, sum(s.dead)::bigint FROM durable_notify.status(%s) s
         GROUP BY 1 HAVING sum(s.dead) > %s ORDER BY 1
        """,
        max(MAX_COUNT, context.thresholds.dead_letters + 1),
        context.thresholds.dead_letters,
    ):
        more = " or more" if dead >= MAX_COUNT else ""
        what = f"group {group} has {dead:,}{more} dead letters"
        yield finding("dead-letters", what, group=group, dead=dead)
