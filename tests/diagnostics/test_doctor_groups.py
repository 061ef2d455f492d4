"""Findings of the doctor about groups and retention: each fault is made, and found."""

from __future__ import annotations

from typing import Any

import psycopg

from durable_notify import Admin, Schedule
from durable_notify.diagnostics.doctor import diagnose
from tests.diagnostics.test_doctor import findings, one, subscribe

Connection = psycopg.Connection[tuple[Any, ...]]


def test_an_unused_group(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    conn.execute("SELECT durable_notify.publish('t', '1')")
    assert not findings(dsn)
    conn.execute("SELECT durable_notify.publish('t', '2')")
    conn.execute(
        "UPDATE durable_notify.outbox SET created_at = now() - interval '30 days' WHERE payload = '1'"
    )
    conn.execute("ANALYZE durable_notify.outbox")
    finding = one("group-unused", dsn)
    assert 0 < finding.data["bytes"] < 1 << 20
    assert (finding.data["group"], finding.data["topic"], finding.data["unread"]) == ("g", "t", 2)


def test_a_group_is_paused(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    Admin().pause(conn, "g")
    assert not findings(dsn)
    assert one("group-paused", dsn, paused=0).data["group"] == "g"


def test_a_handler_does_not_return(dsn: str, conn: Connection) -> None:
    """Its lease is extended for ever; one that has run out is no finding."""
    subscribe(conn)
    conn.execute("INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')")
    conn.execute("SELECT durable_notify.claim('g', '{t}', 9, '1 hour', 'host:1')")
    assert not findings(dsn)
    finding = one("handler-at-work-for-long", dsn, handler=0)
    assert (finding.data["owner"], finding.data["messages"]) == ("host:1", 1)
    conn.execute("UPDATE durable_notify.lease SET deadline = now() - interval '1 second'")
    conn.execute("DELETE FROM durable_notify.lease_deadline")
    assert not findings(dsn, handler=0)


def test_a_message_is_not_settled(dsn: str, conn: Connection) -> None:
    """What is retried for long is one; what is unread, or waits for its time, is not."""
    subscribe(conn)
    put(conn, 1)
    assert not findings(dsn, unsettled=0)
    ((token, message_id),) = conn.execute(
        "SELECT token, id FROM durable_notify.claim('g', '{t}')"
    ).fetchall()
    assert one("messages-unsettled", dsn, unsettled=0).data["leased"] == 1
    conn.execute("SELECT durable_notify.settle(%s, retried => ARRAY[%s])", [token, message_id])
    assert not findings(dsn)
    finding = one("messages-unsettled", dsn, unsettled=0)
    assert (finding.data["group"], finding.data["topic"]) == ("g", "t")
    assert (finding.data["leased"], finding.data["retrying"]) == (0, 1)
    Admin().pause(conn, "g")
    assert not findings(dsn, unsettled=0)
    Admin().resume(conn, "g")
    Admin().drop_retries(conn, "g", everything=True)
    assert not findings(dsn, unsettled=0)


def test_dead_letters_pile_up(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    conn.execute("""
        INSERT INTO durable_notify.dead_letter (subscription_id, message_id, topic, published_at, attempt, reason)
        SELECT s.id, i, 't', now(), 1, 'r' FROM durable_notify.subscription s, generate_series(1, 1001) i""")
    assert one("dead-letters", dsn).data["dead"] == 1001
    conn.execute("DELETE FROM durable_notify.dead_letter WHERE message_id = 1")
    assert not findings(dsn)


def test_a_pattern_without_consumers(dsn: str, conn: Connection) -> None:
    """Not a topic that was published just now: its consumers may be about to find it."""
    conn.execute("SELECT durable_notify.subscribe('g', '{orders.*}')")
    conn.execute("SELECT durable_notify.publish('orders.eu', '1')")
    assert not findings(dsn)
    finding = one("pattern-unclaimed", dsn, unclaimed=0)
    assert (finding.data["group"], finding.data["pattern"]) == ("g", "orders.*")
    assert (finding.data["topics"], finding.data["example"]) == (1, "orders.eu")
    conn.execute("SELECT durable_notify.discover('g', '{orders.*}')")
    assert not findings(dsn, unclaimed=0)
    conn.execute("SELECT durable_notify.publish('orders.us', '1')")
    conn.execute("SELECT durable_notify.unsubscribe('g', '{orders.*}')")
    assert not findings(dsn, unclaimed=0)  # as its remedy says


def test_of_many_the_worst_are_named(dsn: str, conn: Connection) -> None:
    topics = [f"t{number:02}" for number in range(23)]
    conn.execute("SELECT durable_notify.subscribe('g', %s)", [topics])
    conn.execute(
        "INSERT INTO durable_notify.outbox (topic, payload, created_at)"
        " SELECT t.topic, '1', now() - t.n * interval '30 days'"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS t (topic, n)",
        [topics],
    )
    found = [each for each in diagnose(dsn) if each.name == "group-unused"]
    assert [each.data["topic"] for each in found] == topics[3:]
    assert "3 more" in found[0].what


# retention


def put(conn: Connection, count: int) -> None:
    """Messages that were published an hour ago."""
    conn.execute(
        "INSERT INTO durable_notify.outbox (topic, payload, created_at)"
        " SELECT 't', '1', now() - interval '1 hour' FROM generate_series(1, %s)",
        [count],
    )


def retain(conn: Connection, options: str) -> None:
    conn.execute(f"SELECT durable_notify.set_retention('t', {options})".encode())


def test_no_partition_is_ahead(dsn: str, conn: Connection) -> None:
    conn.execute("SELECT setval('durable_notify.outbox_id_seq', 1999999)")
    assert not findings(dsn)  # one is ready
    conn.execute("SELECT setval('durable_notify.outbox_id_seq', 2500000)")
    assert one("no-partition-ahead", dsn).data["last_id"] == 2_500_000
    conn.execute("CALL durable_notify.maintain()")
    assert not findings(dsn)


def test_the_default_partition_is_used(dsn: str, conn: Connection) -> None:
    conn.execute("SELECT setval('durable_notify.outbox_id_seq', 5000000)")
    put(conn, 3)
    assert set(findings(dsn)) == {"no-partition-ahead", "default-partition-used"}
    conn.execute("CALL durable_notify.maintain()")
    assert one("default-partition-used", dsn).data["messages"] == 3
    retain(conn, "max_age => '1 minute'")
    conn.execute("CALL durable_notify.maintain()")
    assert not findings(dsn)  # as its remedy says


def test_a_partition_waits_for_a_snapshot(dsn: str, conn: Connection) -> None:
    with psycopg.connect(dsn, application_name="backup") as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT")
        conn.execute("""
            INSERT INTO durable_notify.unwanted_partition (first_id, seen, since, recorded_at)
            VALUES (1, '3:3:', pg_current_xact_id(), now() - interval '1 hour')""")
        finding = one("partition-held", dsn)
        assert (finding.data["pid"], finding.data["partitions"]) == (other.info.backend_pid, 1)
        assert "backup" in finding.what
    assert not findings(dsn)


def test_a_large_topic_without_retention(dsn: str, conn: Connection) -> None:
    put(conn, 100)
    assert not findings(dsn)
    finding = one("topic-kept-forever", dsn, topic=1000)
    assert (finding.data["topic"], finding.data["bytes"] > 1000) == ("t", True)
    assert "no group reads it" in finding.what
    conn.execute("SELECT durable_notify.delete_retention('>')")
    assert "has no retention" in one("topic-kept-forever", dsn, topic=1000).what
    retain(conn, "forever => true")
    assert not findings(dsn, topic=1000), "as it was meant"
    retain(conn, "max_age => '1 year'")
    assert not findings(dsn, topic=1000)


def test_a_group_blocks_retention(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    put(conn, 2000)
    retain(conn, "max_age => '1 minute', alarm_bytes => 1000000000")
    conn.execute("CALL durable_notify.maintain()")
    assert not findings(dsn)  # not enough for an alarm
    retain(conn, "max_age => '1 minute', alarm_bytes => 1000")
    data = one("retention-blocked", dsn).data
    assert (data["group"], data["topic"], data["bytes"] > 1000) == ("g", "t", True)


def test_the_archive_is_behind(dsn: str, conn: Connection) -> None:
    put(conn, 2000)
    retain(conn, "max_age => '1 minute', alarm_bytes => 1000, archive => true")
    conn.execute("CALL durable_notify.maintain()")
    assert one("archive-behind", dsn).data["topic"] == "t"


def test_a_group_lost_messages(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    put(conn, 5)
    retain(conn, "max_age => '1 minute', on_lag => 'lose'")
    conn.execute("CALL durable_notify.maintain()")
    data = one("messages-lost", dsn).data
    assert (data["group"], data["topic"], data["messages"]) == ("g", "t", 5)
    assert not findings(dsn, lost=0)  # long ago


def test_no_maintenance(dsn: str, conn: Connection) -> None:
    assert not findings(dsn, maintenance=0)  # nothing is to be done
    retain(conn, "max_age => '1 year'")
    assert not findings(dsn)
    assert one("maintenance-late", dsn, maintenance=0).data["seconds"] is None
    conn.execute("CALL durable_notify.maintain()")
    conn.execute("UPDATE durable_notify.topic_retention SET set_at = now() - interval '1 week'")
    assert not findings(dsn)
    conn.execute("UPDATE durable_notify.maintenance SET done_at = now() - interval '2 days'")
    assert round(one("maintenance-late", dsn).data["seconds"] / 86400) == 2


def test_a_schedule_is_late(dsn: str, conn: Connection) -> None:
    Admin().set_schedule(conn, Schedule(name="s", topic="t", every=3600))
    assert not findings(dsn)
    conn.execute("UPDATE durable_notify.schedule SET next_at = now() - interval '10 minutes'")
    found = one("schedule-late", dsn)
    assert (found.data["schedule"], round(found.data["seconds"] / 60)) == ("s", 10)
    assert "durable-notify schedule delete s" in found.remedy
    Admin().pause_schedule(conn, "s")
    assert not findings(dsn)


def test_a_step_of_maintenance_fails(dsn: str, conn: Connection) -> None:
    conn.execute("ALTER TABLE durable_notify.dedup RENAME TO gone")
    conn.execute("CALL durable_notify.maintain()")
    conn.execute("ALTER TABLE durable_notify.gone RENAME TO dedup")
    assert one("maintenance-failed", dsn).data["step"] == "dedup"
    conn.execute("CALL durable_notify.maintain()")
    assert not findings(dsn)
