"""Retention: partitions ahead, what is never removed, what blocks it, maintenance; schedules."""

from __future__ import annotations

from collections.abc import Iterator

from ..context import CheckContext
from ..findings import Finding, finding

#: How late a schedule may be, in seconds: a scheduler looks every half minute.
LATE = 300
#: The most messages to count.
MAX_COUNT = 10_000


def partitions(context: CheckContext) -> Iterator[Finding]:
    """A partition is ready ahead, and none was missing."""
    last, ready = context.row(
        """
        SELECT s.last,
               (SELECT count(*) FROM durable_notify.partitions() p WHERE p.first_id > s.last)
          FROM (SELECT COALESCE(pg_sequence_last_value('durable_notify.outbox_id_seq'), 0)) s (last)
        """
    )
    if not ready:
        what = f"no partition of the outbox is ready for ids after the current one, {last:,}"
        yield finding("no-partition-ahead", what, last_id=last)
    (messages,) = context.row(
        "SELECT count(*) FROM (SELECT FROM durable_notify.outbox_default LIMIT %s) o", MAX_COUNT + 1
    )
    if messages:
        counted = f"{messages:,}" if messages <= MAX_COUNT else f"more than {MAX_COUNT:,}"
        what = f"{counted} message{'' if messages == 1 else 's'} are in outbox_default"
        yield finding("default-partition-used", what, messages=messages)


def held(context: CheckContext) -> Iterator[Finding]:
    """Which snapshots still need a partition that maintenance should empty."""
    for pid, who, count, seconds in context.rows(
        """
        SELECT s.pid, s.what, count(*),
               EXTRACT(epoch FROM clock_timestamp() - min(u.recorded_at))::float8
          FROM durable_notify.unwanted_partition u
         CROSS JOIN LATERAL durable_notify._older_snapshots(u.since) s
         WHERE u.recorded_at < clock_timestamp() - make_interval(secs => %s)
         GROUP BY 1, 2 ORDER BY 4 DESC, 1
        """,
        context.thresholds.transaction,
    ):
        process = "" if pid is None else f" (process {pid})"
        what = (
            f"{count} partition{'' if count == 1 else 's'} of the outbox wait for {who}{process}"
            f" for {seconds / 60:,.0f} minutes"
        )
        yield finding("partition-held", what, pid=pid, who=who, partitions=count, seconds=seconds)


def kept_forever(context: CheckContext) -> Iterator[Finding]:
    """Large topics from which nothing is removed: without a policy, or read by no group."""
    for topic, size, has_no_policy in context.rows(
        """
        SELECT t.topic, t.bytes, t.pattern IS NULL
          FROM durable_notify.topic_storage() t
          LEFT JOIN durable_notify.retention() r ON r.pattern = t.pattern
         WHERE t.bytes > %s
           AND (r.pattern IS NULL
                OR t.groups = 0 AND r.when_settled AND r.max_age IS NULL AND r.max_bytes IS NULL)
         ORDER BY t.bytes DESC
        """,
        context.thresholds.topic,
    ):
        why = "has no retention" if has_no_policy else "no group reads it: all of it is kept"
        what = f"topic {topic} takes about {size / 10**6:,.1f} MB, and {why}"
        yield finding("topic-kept-forever", what, topic=topic, bytes=size)


def blockers(context: CheckContext) -> Iterator[Finding]:
    """Messages due for removal that stay, if they are over the alarm."""
    for group, topic, size in context.rows(
        "SELECT l.group_name, l.topic, l.bytes FROM durable_notify.retention_blockers() l"
        " WHERE l.alarm ORDER BY 1, 2"
    ):
        held = f"{size / 10**6:,.1f} MB of topic {topic}, past their age or size,"
        if group is None:
            what = f"{held} wait to be archived"
            yield finding("archive-behind", what, topic=topic, bytes=size)
        else:
            what = f"{held} stay because group {group} has not settled them"
            yield finding("retention-blocked", what, group=group, topic=topic, bytes=size)


def lost_messages(context: CheckContext) -> Iterator[Finding]:
    """What groups lost recently."""
    for group, topic, messages, last in context.rows(
        """
        SELECT l.group_name, l.topic, sum(l.messages)::bigint, max(l.at)
          FROM durable_notify.lost_messages() l
         WHERE l.at > clock_timestamp() - make_interval(secs => %s)
         GROUP BY 1, 2 ORDER BY 1, 2
        """,
        context.thresholds.lost,
    ):
        what = (
            f"group {group} lost {messages:,} message{'' if messages == 1 else 's'} of {topic} to "
            f"retention, the last on {last:%Y-%m-%d %H:%M}"
        )
        yield finding("messages-lost", what, group=group, topic=topic, messages=messages, last=last)


def maintenance(context: CheckContext) -> Iterator[Finding]:
    """Maintenance runs if there is something to do, and no step fails."""
    since_done, report, waiting = context.row(
        """
        SELECT EXTRACT(epoch FROM clock_timestamp() - m.done_at)::float8, m.report,
               EXTRACT(epoch FROM clock_timestamp() - LEAST(
                   (SELECT min(r.set_at) FROM durable_notify.topic_retention r
                     WHERE r.pattern <> '>' OR EXISTS (SELECT FROM durable_notify.outbox)),
                   (SELECT min(d.until) FROM durable_notify.dedup d)))::float8
          FROM (SELECT) one LEFT JOIN durable_notify.maintenance m ON true
        """
    )
    late = context.thresholds.maintenance
    if waiting is not None and waiting > late and (since_done is None or since_done > late):
        done = (
            "was never done"
            if since_done is None
            else f"was last done {since_done / 3600:,.1f} hours ago"
        )
        yield finding("maintenance-late", f"maintenance {done}", seconds=since_done)
    for name, why in sorted((report or {}).items()):
        step, _, ending = name.rpartition(" ")
        if ending == "failed":
            what = f"step {step} of the last round of maintenance failed: {why}"
            yield finding("maintenance-failed", what, step=step, reason=why)


def schedules(context: CheckContext) -> Iterator[Finding]:
    """Whether a scheduler publishes what is due."""
    for name, topic, seconds in context.rows(
        "SELECT s.name, s.topic, -s.seconds FROM durable_notify.schedules() s"
        " WHERE s.seconds < -%s ORDER BY s.next_at LIMIT 10",
        LATE,
    ):
        what = f"schedule {name} for topic {topic} is {seconds / 60:,.0f} minutes late"
        yield finding("schedule-late", what, schedule=name, topic=topic, seconds=seconds)
