"""Groups: what they leave lying."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, found
from ..patient import Patient


def unused(patient: Patient) -> Iterator[Finding]:
    """Groups for which messages wait for long, and nobody takes them."""
    for group, topic, waiting, seconds in patient.rows(
        """
        SELECT s.group_name, s.topic, s.waiting,
               EXTRACT(epoch FROM clock_timestamp() - s.oldest_waiting)::float8
          FROM durable_notify.status() s
         WHERE s.group_name IS NOT NULL AND s.leases = 0
           AND s.oldest_waiting < clock_timestamp() - make_interval(secs => %s)
         ORDER BY 1, 2
        """,
        patient.limits.unused,
    ):
        what = (
            f"nobody consumes {topic} in group {group}: {waiting:,} messages wait, the oldest for "
            f"{seconds / 86_400:.1f} days"
        )
        yield found(
            "group-unused", what, group=group, topic=topic, waiting=waiting, seconds=seconds
        )


def paused(patient: Patient) -> Iterator[Finding]:
    """Groups that were paused long ago."""
    for group, since in patient.rows(
        """
        SELECT g.name, g.paused_at FROM durable_notify.groups() g
         WHERE g.paused_at < clock_timestamp() - make_interval(secs => %s)
         ORDER BY 1
        """,
        patient.limits.paused,
    ):
        what = f"group {group} is paused since {since:%Y-%m-%d %H:%M}"
        yield found("group-paused", what, group=group, since=since)


def dead_letters(patient: Patient) -> Iterator[Finding]:
    """Dead letters that pile up."""
    for group, dead in patient.rows(
        """
        SELECT s.group_name, sum(s.dead)::bigint FROM durable_notify.status() s
         WHERE s.group_name IS NOT NULL
         GROUP BY 1 HAVING sum(s.dead) > %s ORDER BY 1
        """,
        patient.limits.dead_letters,
    ):
        yield found(
            "dead-letters", f"group {group} has {dead:,} dead letters", group=group, dead=dead
        )
