"""unsubscribe(), and the topics that no running consumer of a group asks for."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.diagnostics.test_doctor import findings
from tests.support.cli import good, run
from tests.support.sessions import Sessions, ids

Connection = psycopg.Connection[tuple[Any, ...]]


def test_nothing_of_the_subscription_is_left(sessions: Sessions) -> None:
    (one,) = sessions.take(1)
    one.subscribe(topics="t u")
    for topic in ("t", "t", "t", "u"):
        one.publish(topic=topic)
    first, second, third = one.claim(topics="t")
    one.settle(first.token, retried=[first])
    one.settle(first.token, rejected=[second])
    other = one.claim(topics="u")
    assert one.column("SELECT durable_notify.unsubscribe('g', '{t}', 'old')") == ["t"]
    left = one.column("SELECT DISTINCT subscription_id FROM durable_notify.position")
    for table in ("lease", "deferred", "dead_letter", "settlement", "lease_deadline"):
        count = one.value(f"SELECT count(*) FROM durable_notify.{table}")
        assert count == (1 if table == "lease" else 0), table
    assert left == one.column("SELECT id FROM durable_notify.subscription WHERE topic = 'u'")
    one.ack(other)
    with pytest.raises(psycopg.DatabaseError, match="was superseded"):
        one.ack([third])
    with pytest.raises(psycopg.DatabaseError, match='not subscribed to topic "t"'):
        one.claim(topics="t")
    assert one.run("SELECT topic, why FROM durable_notify.audit WHERE action = 'unsubscribe'") == [
        ("t", "old")
    ]
    one.subscribe(topics="t")
    assert len(ids(one.claim(topics="t"))) == 3


def test_it_waits_for_handlers_of_the_topic_alone_without_the_groups_lock(
    sessions: Sessions,
) -> None:
    one, handler, admin = sessions.take(3)
    one.subscribe(topics="t u")
    one.publish(topic="t")
    one.publish(topic="u")
    held = one.claim(topics="t")
    handler.begin()
    handler.settle(held[0].token, rejected=held)
    assert one.column("SELECT durable_notify.unsubscribe('g', '{u}')") == ["u"]
    changing = admin.start("SELECT durable_notify.unsubscribe('g', '{t}')")
    later = one.publish(topic="t")
    assert ids(one.claim(topics="t")) == [later]  # claims continue meanwhile
    handler.commit()
    assert changing.result(timeout=10) == [("t",)]


def test_patterns(conn: Connection) -> None:
    admin, publisher = dn.Admin(), dn.Publisher()
    for topic in ("a.x", "a.y", "b.x", "other"):
        publisher.publish(conn, topic, 1)
    conn.execute("SELECT durable_notify.subscribe('g', '{a.*,*.x,other}')")
    with pytest.raises(dn.InvalidArgument, match="would subscribe it again"):
        admin.unsubscribe(conn, "g", ["a.y"])
    with pytest.raises(dn.errors.UnknownTopic, match="not subscribed"):
        admin.unsubscribe(conn, "g", ["other", "c.*"])
    with pytest.raises(dn.errors.UnknownGroup):
        admin.unsubscribe(conn, "h", ["other"])
    assert admin.unsubscribe(conn, "g", ["a.*"]) == ["a.y"]  # *.x still has a.x
    (group,) = admin.groups(conn)
    assert (group.topics, group.patterns) == (["a.x", "b.x", "other"], ["*.x"])
    assert admin.unsubscribe(conn, "g", ["*.x", "other"]) == ["a.x", "b.x", "other"]
    assert conn.execute("SELECT * FROM durable_notify.discover('g', '{*}')").fetchall() == []


def test_by_command(dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t,u}')")
    assert "unsubscribed from t" in good("group", "unsubscribe", "g", "t", "--yes", dsn=dsn)
    (group,) = json.loads(good("group", "list", "--json", dsn=dsn))
    assert group["topics"] == ["u"]
    done = run("group", "unsubscribe", "g", "t", "--yes", dsn=dsn)
    assert done.returncode == 1
    assert "not subscribed" in done.stderr
    assert run("group", "unsubscribe", "g", dsn=dsn).returncode == 2


# What the doctor says.


def of_the_topic(dsn: str) -> Any:
    return findings(dsn, unclaimed=0).get("topic-unclaimed")


@pytest.fixture
def left(dsn: str, conn: Connection) -> Connection:
    """A group that read t and u, and whose consumers read only u since."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t,u}')")
    for topic in ("t", "t", "u"):
        dn.Publisher().publish(conn, topic, 1)
    claim(conn, "t", 1)  # of two: the rest of its window stays unread
    claim(conn, "u")
    return conn


def claim(conn: Connection, topic: str, most: int = 100) -> None:
    claimed = "SELECT token, array_agg(id) FROM durable_notify.claim('g', %s, %s) GROUP BY 1"
    for token, found in conn.execute(claimed, [[topic], most]).fetchall():
        conn.execute("SELECT durable_notify.settle(%s, %s)", [token, found])


def publish(conn: Connection, *topics: str) -> None:
    for topic in topics:
        dn.Publisher().publish(conn, topic, 1)


def test_a_topic_that_no_running_consumer_reads(dsn: str, left: Connection) -> None:
    with psycopg.connect(dsn, application_name="durable_notify consumer g", autocommit=True):
        publish(left, "t", "u", "u")
        claim(left, "u")
        finding = of_the_topic(dsn)
        data = finding.data
        assert (data["group"], data["topic"], data["unread"]) == ("g", "t", 2)
        assert data["other_topic"] == "u"
        assert "durable-notify group unsubscribe g t" in finding.remedy
        assert "2 messages wait" in finding.what
        # Not sooner than asked, nor of a paused group.
        assert "topic-unclaimed" not in findings(dsn)
        dn.Admin().pause(left, "g")
        assert of_the_topic(dsn) is None
        dn.Admin().resume(left, "g")
        dn.Admin().unsubscribe(left, "g", ["t"])
        assert of_the_topic(dsn) is None
    publish(left, "u", "u")


def test_no_alarm_for_a_group_that_is_stopped(dsn: str, left: Connection) -> None:
    publish(left, "t", "u")
    claim(left, "u")
    assert of_the_topic(dsn) is None  # no consumer is connected
    publish(left, "t")
    with psycopg.connect(dsn, application_name="durable_notify consumer h", autocommit=True):
        assert of_the_topic(dsn) is None  # that of another group


def test_no_alarm_for_a_topic_that_is_behind(dsn: str, left: Connection) -> None:
    """A consumer works through it, though nothing is leased at this moment."""
    with psycopg.connect(dsn, application_name="durable_notify consumer g", autocommit=True):
        publish(left, "t", "t", "u", "u")
        claim(left, "u")
        assert of_the_topic(dsn) is not None
        claim(left, "t", 1)
        assert of_the_topic(dsn) is None
        left.execute("SELECT durable_notify.claim('g', '{t}', 1)")  # leased
        publish(left, "u", "u")
        claim(left, "u")
        assert of_the_topic(dsn) is None


def test_no_alarm_while_a_retry_of_a_strict_group_waits(dsn: str, left: Connection) -> None:
    dn.Admin().configure(left, "g", order_by="strict", retry=dn.RetryPolicy(base=600, max=600))
    with psycopg.connect(dsn, application_name="durable_notify consumer g", autocommit=True):
        publish(left, "t")
        left.execute(
            "SELECT durable_notify.settle(token, retried => ARRAY[id])"
            " FROM durable_notify.claim('g', '{t}', 1)"
        )
        publish(left, "u", "u")
        claim(left, "u")
        assert of_the_topic(dsn) is None
