"""blocked_keys(): which keys wait, behind which message, and what that one waits for."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.cli import good, run

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def group(conn: Connection) -> Connection:
    """Group g of topic t, with retries in an hour."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(max_attempts=5, base=3600, max=3600))
    return conn


def publish(conn: Connection, *keys: str) -> list[int]:
    return [dn.Publisher().publish(conn, "t", 1, key=key) for key in keys]


def claim(conn: Connection, most: int = 100, owner: str = "host:1") -> dict[int, int]:
    """Claim; the token of each id."""
    query = "SELECT id, token FROM durable_notify.claim('g', '{t}', %s, '1 hour', %s)"
    return dict(conn.execute(query, [most, owner]).fetchall())


def retry(conn: Connection, token: int, message_id: int) -> None:
    conn.execute(
        "SELECT durable_notify.settle(%s, retried => ARRAY[%s::int8],"
        """ retry_errors => '{"{\\"type\\": \\"KeyError\\", \\"message\\": \\"x\\"}"}')""",
        [token, message_id],
    )


def test_behind_a_lease(group: Connection) -> None:
    first, *_ = publish(group, "a", "a", "a", "b")
    claim(group, 1)
    assert dn.Admin().blocked_keys(group) == []  # nothing was read that waits
    claim(group, 2)
    (found,) = dn.Admin().blocked_keys(group, "g")
    assert (found.group, found.topic, found.key, found.waiting) == ("g", "t", "a", 2)
    assert (found.message_id, found.state, found.owner) == (first, "leased", "host:1")
    ((deadline,),) = group.execute("SELECT max(deadline) FROM durable_notify.leases()").fetchall()
    assert found.until is not None
    assert abs((found.until - deadline).total_seconds()) < 60


def test_behind_a_retry_and_then_behind_nothing(group: Connection) -> None:
    first, second, third = publish(group, "a", "a", "a")
    held = claim(group)
    retry(group, held[first], first)
    (found,) = dn.Admin().blocked_keys(group)
    assert (found.waiting, found.message_id, found.state) == (2, first, "retry")
    (due,) = dn.Admin().retries(group)
    assert (found.until, found.attempt, found.owner) == (due.due_at, 1, None)
    assert found.error == {"type": "KeyError", "message": "x"}
    assert dn.Admin().drop_retries(group, "g", ids=first) == 1
    (found,) = dn.Admin().blocked_keys(group)
    assert (found.waiting, found.message_id, found.state) == (1, second, "ready")
    assert sorted(claim(group)) == [second, third]
    assert dn.Admin().blocked_keys(group) == []


def test_a_strict_group_waits_as_one_key(group: Connection) -> None:
    dn.Admin().configure(group, "g", order_by="strict")
    first, _ = publish(group, "a", "b")
    held = claim(group)
    retry(group, held[first], first)
    (found,) = dn.Admin().blocked_keys(group)
    assert (found.key, found.waiting, found.state) == ("", 1, "retry")


def test_chosen(group: Connection) -> None:
    ids = publish(group, *"abcdef", *"abcdef")
    held = claim(group)
    for message_id in ids[:6]:
        retry(group, held[message_id], message_id)
    admin = dn.Admin()
    assert [one.key for one in admin.blocked_keys(group)] == [*"abcdef"]
    assert [one.key for one in admin.blocked_keys(group, limit=2)] == ["a", "b"]
    assert admin.blocked_keys(group, topic="other") == []
    with pytest.raises(dn.errors.UnknownGroup):
        admin.blocked_keys(group, "other")
    with pytest.raises(dn.InvalidArgument):
        admin.blocked_keys(group, limit=0)


def test_by_command(dsn: str, group: Connection) -> None:
    assert "No key waits" in run("group", "blocked", "g", dsn=dsn).stderr
    first, _ = publish(group, "a", "a")
    retry(group, claim(group)[first], first)
    shown = good("group", "blocked", "g", dsn=dsn)
    assert "a retry, attempt 1 failed: KeyError: x" in shown
    (found,) = json.loads(good("group", "blocked", "g", "--topic", "t", "--json", dsn=dsn))
    assert (found["key"], found["waiting"], found["message_id"]) == ("a", 1, first)


def test_the_cost_does_not_depend_on_how_many_subscriptions_there_are(group: Connection) -> None:
    group.execute("""
        INSERT INTO durable_notify.subscription (group_id, topic)
        SELECT g.id, 't' || i FROM durable_notify.consumer_group g, generate_series(1, 20000) i""")
    first, _ = publish(group, "a", "a")
    retry(group, claim(group)[first], first)
    group.execute("ANALYZE durable_notify.subscription")
    query = """
        SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
         WHERE relid = 'durable_notify.subscription'::regclass"""
    with group.transaction():
        assert len(dn.Admin().blocked_keys(group)) == 1
        ((read,),) = group.execute(query).fetchall()
    assert read < 100
