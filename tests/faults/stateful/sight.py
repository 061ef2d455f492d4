"""One look at where every message is, and a database that is as good as new for each example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.sessions import Session

Part = tuple[str, str]
"""A group, and a topic that it reads."""


@dataclass
class Sight:
    """What one snapshot of the database shows."""

    log: set[tuple[str, int]]
    """(topic, id)."""
    unread: set[tuple[str, str, int]]
    """(group, topic, id): of the outbox, what is unread by the group's position."""
    rows: dict[tuple[str, str, int], set[int | None]]
    """What is deferred: the replays that may cancel the rows, None: nothing may."""
    keys: dict[tuple[str, str, int], set[str | None]]
    """What rows hold back that wait for their turn or another attempt."""
    leases: dict[int, set[int]]
    """By token, what is not settled."""
    dead: set[tuple[str, str, int]]
    losses: dict[Part, list[tuple[int, int, int]]]
    """First id, last id, and how many."""
    expired: dict[Part, int]
    jobs: dict[int, tuple[str, int]]
    """State, and the last id looked at."""


# Written from the definition, row by row: nothing here is shared with the functions it judges.
LOOK = """
    WITH newest AS (
        SELECT DISTINCT ON (p.subscription_id) p.* FROM durable_notify.position p
         ORDER BY p.subscription_id, p.seq DESC),
    part AS (
        SELECT g.name, s.topic, s.id FROM durable_notify.subscription s
          JOIN durable_notify.consumer_group g ON g.id = s.group_id)
    SELECT jsonb_build_object(
        'log', (SELECT jsonb_agg(jsonb_build_array(o.topic, o.id)) FROM durable_notify.outbox o),
        'unread', (SELECT jsonb_agg(jsonb_build_array(t.name, t.topic, o.id))
                     FROM part t JOIN newest p ON p.subscription_id = t.id
                     JOIN durable_notify.outbox o ON o.topic = t.topic
                    WHERE NOT (o.id <= p.h0 AND pg_visible_in_snapshot(o.xid, p.s0)
                               OR o.id <= p.p AND COALESCE(pg_visible_in_snapshot(o.xid, p.s1), false))),
        'rows', (SELECT jsonb_agg(jsonb_build_array(t.name, t.topic, d.message_id, d.replay_job,
                                                           d.reason, d.key))
                   FROM part t JOIN durable_notify.deferred d ON d.subscription_id = t.id),
        'leases', (SELECT jsonb_agg(jsonb_build_array(l.token, ARRAY(
                              SELECT m.id FROM unnest(l.ids) AS m (id)
                               WHERE NOT EXISTS (SELECT FROM durable_notify.settlement x
                                                  WHERE x.token = l.token AND x.message_id = m.id))))
                     FROM durable_notify.lease l),
        'dead', (SELECT jsonb_agg(jsonb_build_array(t.name, t.topic, d.message_id))
                   FROM part t JOIN durable_notify.dead_letter d ON d.subscription_id = t.id),
        'losses', (SELECT jsonb_agg(jsonb_build_array(x.group_name, x.topic, x.first_id, x.last_id, x.messages))
                     FROM durable_notify.lost_message x),
        'expired', (SELECT jsonb_agg(jsonb_build_array(t.name, t.topic, p.expired))
                      FROM part t JOIN newest p ON p.subscription_id = t.id),
        'jobs', (SELECT jsonb_agg(jsonb_build_array(j.id, j.state, j.last_id)) FROM durable_notify.replay_job j))"""


def look(session: Session) -> Sight:
    """A look, once: all of it is of one moment."""
    found: dict[str, list[list[Any]] | None] = session.value(LOOK)
    part = {name: found[name] or [] for name in found}
    sight = Sight(
        {(topic, i) for topic, i in part["log"]},
        {(group, topic, i) for group, topic, i in part["unread"]},
        {},
        {},
        {token: set(ids) for token, ids in part["leases"]},
        {(group, topic, i) for group, topic, i in part["dead"]},
        {},
        {(group, topic): count for group, topic, count in part["expired"]},
        {job: (state, last) for job, state, last in part["jobs"]},
    )
    for group, topic, i, job, reason, key in part["rows"]:
        sight.rows.setdefault((group, topic, i), set()).add(job)
        if reason in {"retry", "key"}:
            sight.keys.setdefault((group, topic, i), set()).add(key)
    for group, topic, first, last, messages in part["losses"]:
        sight.losses.setdefault((group, topic), []).append((first, last, messages))
    return sight


PARTITIONS, WIDTH = 4, 8

# The groups first, and much with them. TRUNCATE would make new files for each table.
TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND c.relname NOT IN ('cluster_identity', 'schema_version', 'partition_settings')
     ORDER BY c.relname <> 'consumer_group', c.relname"""


def begin_again(session: Session) -> None:
    """Have the database as it was after its migration, but with narrow partitions; ids begin with 1 again."""
    session.run("; ".join(f"DELETE FROM {table}" for table in session.column(TABLES)))
    partitions = session.run("SELECT name::text, first_id FROM durable_notify.partitions()")
    wanted = [1 + n * WIDTH for n in range(PARTITIONS)]
    closed = session.column("SELECT closed_below FROM durable_notify.partition_settings")
    if [first for _, first in partitions] != wanted or closed != [0]:
        for partition, _ in partitions:
            session.run(f"DROP TABLE {partition}")
        for first in wanted:
            session.run(
                f"CREATE TABLE durable_notify.outbox_{first} PARTITION OF durable_notify.outbox"
                f" FOR VALUES FROM ({first}) TO ({first + WIDTH})"
            )
        session.run("DELETE FROM durable_notify.partition_settings")
        layout = "INSERT INTO durable_notify.partition_settings (min_width, ahead) VALUES (%s, 2)"
        session.run(layout, WIDTH)
        session.run("SELECT durable_notify._set_closed_below(0, '3')")
    session.run(
        "ALTER SEQUENCE durable_notify.outbox_id_seq RESTART 1;"
        "ALTER SEQUENCE durable_notify.replay_job_id_seq RESTART 1"
    )
