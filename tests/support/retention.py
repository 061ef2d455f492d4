"""Partitions of a test's own width, and what groups have settled, counted row by row.

The library's own answer is compared with that.
"""

from __future__ import annotations

from tests.support.sessions import Session

#: For every subscription of a topic, the messages there are that it has not settled.
UNSETTLED = """
    SELECT g.name, o.id
      FROM durable_notify.subscription s
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
      JOIN durable_notify.outbox o ON o.topic = s.topic
     CROSS JOIN LATERAL (
           SELECT p.* FROM durable_notify.position p WHERE p.subscription_id = s.id ORDER BY p.seq DESC LIMIT 1) AS place
     WHERE s.topic = %s
       AND (NOT (pg_visible_in_snapshot(o.xid, place.s0) AND o.id <= place.h0
                 OR COALESCE(pg_visible_in_snapshot(o.xid, place.s1), false) AND o.id <= place.p)
            OR EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = s.id AND d.message_id = o.id)
            OR EXISTS (SELECT FROM durable_notify.lease l
                        WHERE l.subscription_id = s.id AND o.id = ANY (l.ids)
                          AND NOT EXISTS (SELECT FROM durable_notify.settlement t
                                           WHERE t.token = l.token AND t.message_id = o.id)))
     ORDER BY 1, 2"""
FAR = 2**63 - 1


def unsettled(session: Session, topic: str = "t") -> dict[str, list[int]]:
    """By group, the ids it has not settled, of those there are."""
    found: dict[str, list[int]] = {}
    for group, message_id in session.run(UNSETTLED, topic):
        found.setdefault(group, []).append(message_id)
    return found


def outbox_ids(session: Session, topic: str = "t") -> list[int]:
    """The ids there are."""
    return session.column(
        "SELECT id FROM durable_notify.outbox WHERE topic = %s ORDER BY id", topic
    )


def reported_unsettled(session: Session) -> dict[str, int]:
    """By group of topic t, below which id the library says that all is settled."""
    query = """
        SELECT g.name, durable_notify._settled_watermark(s.id, %s)
          FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE s.topic = 't'"""
    return dict(session.run(query, FAR))  # type: ignore[arg-type]


def retain(session: Session, topic: str = "t", **options: object) -> list[str]:
    """Set a topic's retention; returns the warnings."""
    names = ", ".join(f"{name} => %s" for name in options)
    query = f"SELECT durable_notify.set_retention(%s{', ' if names else ''}{names})"
    found = session.value(query, topic, *options.values())
    assert isinstance(found, list)
    return found


def advance_watermark(session: Session) -> None:
    """Advance the watermark; twice, since transactions seen at the first call may have ended."""
    session.run("SELECT durable_notify._advance_watermark()")
    session.run("SELECT durable_notify._advance_watermark()")


def age(session: Session, upto: int, topic: str = "t") -> None:
    """Have messages be as old as can be."""
    session.run(
        "UPDATE durable_notify.outbox SET created_at = '2000-01-01' WHERE topic = %s AND id <= %s",
        topic,
        upto,
    )


def maintain(session: Session) -> dict[str, object] | None:
    """One round of maintenance."""
    found = session.value("CALL durable_notify.maintain()")
    assert found is None or isinstance(found, dict)
    return found


def lay_out_partitions(owner: Session, width: int, ahead: int = 1) -> None:
    """Recreate the partitions of an empty outbox."""
    for (partition,) in owner.run("SELECT name::text FROM durable_notify.partitions()"):
        owner.run(f"DROP TABLE {partition}")
    owner.run(
        "INSERT INTO durable_notify.partition_settings (min_width, ahead) VALUES (%s, %s)",
        width,
        ahead,
    )
    make_partitions(owner)


def make_partitions(session: Session) -> int:
    """Create partitions until no more are needed; returns the number of steps."""
    steps = 0
    while session.value("SELECT durable_notify.create_partitions()"):
        steps += 1
    return steps
