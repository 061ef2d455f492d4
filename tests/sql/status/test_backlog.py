"""How far groups are behind: exact if little waits, estimated at a bounded cost if much does."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.observe import send, value

Connection = psycopg.Connection[Any]


def backlog(conn: Connection, max_count: int | None = 10_000) -> list[tuple[Any, ...]]:
    query = """
        SELECT topic, group_name, unread, is_exact, deferred, leases, leased, dead
          FROM durable_notify.status(%s)"""
    return conn.execute(query, [max_count]).fetchall()


def subscribe(conn: Connection, group: str, *topics: str) -> None:
    conn.execute("SELECT durable_notify.subscribe(%s, %s::text[])", [group, list(topics)])


def claim(conn: Connection, group: str, max_count: int) -> list[tuple[int, int]]:
    query = "SELECT token, id FROM durable_notify.claim(%s, '{t}', %s)"
    return conn.execute(query, [group, max_count]).fetchall()


def test_what_is_counted_agrees(conn: Connection) -> None:
    subscribe(conn, "g", "t", "u")
    subscribe(conn, "other", "t")
    conn.execute("SELECT durable_notify.configure('g', '{\"order_by\": \"none\"}')")
    send(conn, range(10))
    send(conn, range(3), "u")
    ((token, first), (_, second), (_, third), _) = claim(conn, "g", 4)
    conn.execute(
        "SELECT durable_notify.settle(%s, ARRAY[%s], ARRAY[%s], ARRAY[%s])",
        [token, first, second, third],
    )
    assert backlog(conn) == [
        ("t", "g", 6, True, 1, 1, 1, 1),
        ("t", "other", 10, True, 0, 0, 0, 0),
        ("u", "g", 3, True, 0, 0, 0, 0),
    ]
    assert backlog(conn, None) == backlog(conn)
    assert [row[2:4] for row in backlog(conn, 10)] == [(6, True), (10, False), (3, True)]


def test_late_messages_are_among_them(conn: Connection, dsn: str) -> None:
    subscribe(conn, "g", "t")
    with psycopg.connect(dsn) as late:
        send(late, [0])
        send(conn, range(5))
        assert len(claim(conn, "g", 100)) == 5
        assert backlog(conn)[0][2:4] == (0, True)
        late.commit()
    assert backlog(conn)[0][2:4] == (1, True)


def test_the_age_of_the_oldest(conn: Connection) -> None:
    subscribe(conn, "g", "t")
    age = (
        "SELECT EXTRACT(epoch FROM clock_timestamp() - oldest_unread) FROM durable_notify.status()"
    )
    assert value(conn, age) is None
    send(conn, range(3))
    conn.execute("UPDATE durable_notify.outbox SET created_at = created_at - interval '1 hour'")
    assert 3600 <= value(conn, age) < 3700
    claim(conn, "g", 100)
    assert value(conn, age) is None


def test_the_oldest_that_is_not_settled(conn: Connection) -> None:
    """Unread, leased, retrying or parked; not what is to be delivered later, or replayed."""
    subscribe(conn, "g", "t")
    age = "SELECT EXTRACT(epoch FROM clock_timestamp() - oldest_unsettled) FROM durable_notify.status()"
    waiting = "SELECT retrying, parked FROM durable_notify.status()"
    conn.execute("SELECT durable_notify.publish('t', '1', 'a', delay => '1 day')")
    assert claim(conn, "g", 100) == []
    assert value(conn, age) is None
    conn.execute(
        "SELECT durable_notify.publish_many('t', ARRAY[1,2,3]::text[]::jsonb[], '{a,a,b}')"
    )
    conn.execute("UPDATE durable_notify.outbox SET created_at = created_at - interval '1 hour'")
    assert 3600 <= value(conn, age) < 3700
    (held,) = claim(conn, "g", 1)
    assert len(claim(conn, "g", 100)) == 1  # of key b; the other one of a is parked
    conn.execute(
        "SELECT durable_notify.settle(token, ids) FROM durable_notify.lease ORDER BY token DESC LIMIT 1"
    )
    assert 3600 <= value(conn, age) < 3700
    assert conn.execute(waiting).fetchone() == (0, 1)
    settle = "SELECT durable_notify.settle(%s, '{}', ARRAY[%s], '{}', '{1 hour}')"
    conn.execute(settle, held)
    assert 3600 <= value(conn, age) < 3700
    assert conn.execute(waiting).fetchone() == (1, 1)
    conn.execute("SELECT durable_notify.drop_retries('g', everything => true)")
    for token, message_id in claim(conn, "g", 100):
        conn.execute("SELECT durable_notify.settle(%s, ARRAY[%s])", [token, message_id])
    assert value(conn, age) is None
    conn.execute("SELECT durable_notify.start_replay('g', 't')")
    conn.execute("SELECT durable_notify.advance_replays('g', '{t}')")
    assert value(conn, age) is None
    assert value(conn, "SELECT deferred FROM durable_notify.status()") > 1


def test_much_is_estimated(conn: Connection) -> None:
    """Two topics have every second id each: neither its distance of ids is how many wait."""
    subscribe(conn, "g", "t", "u")
    publish = """
        INSERT INTO durable_notify.outbox (topic, payload)
        SELECT CASE n %% 2 WHEN 0 THEN 't' ELSE 'u' END, '1' FROM generate_series(1, %s) AS n"""
    conn.execute(publish, [20_000])
    for row in backlog(conn, 1000):
        assert row[3] is False
        assert 9_900 <= row[2] <= 10_100
    assert [row[2:4] for row in backlog(conn, None)] == [(10_000, True)] * 2
    claim(conn, "g", 9_500)
    assert backlog(conn, 1000)[0][2:4] == (500, True)


FETCHED = """
    SELECT sum(pg_stat_get_xact_tuples_fetched(c.oid) + pg_stat_get_xact_tuples_returned(c.oid))::bigint
      FROM pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relname LIKE 'outbox%%'"""


def cost(conn: Connection, max_count: int) -> int:
    """Return how many rows of the outbox it reads: not the time."""
    with conn.transaction():
        before = value(conn, FETCHED)
        backlog(conn, max_count)
        return int(value(conn, FETCHED) - before)


def test_its_cost_is_bounded(conn: Connection) -> None:
    subscribe(conn, "g", "t")
    publish = "INSERT INTO durable_notify.outbox (topic, payload) SELECT 't', '1' FROM generate_series(1, %s)"
    read = []
    for more in (20_000, 180_000):
        conn.execute(publish, [more])
        read.append(cost(conn, 100))
    assert 100 <= read[1] <= read[0] * 2
    assert read[1] < 5_000


def test_its_cost_does_not_grow_with_the_groups(conn: Connection) -> None:
    subscribe(conn, "first", "t")
    send(conn, range(1000))
    claim(conn, "first", 100)
    one = cost(conn, 10_000)
    for number in range(20):
        subscribe(conn, f"g{number}", "t")
        claim(conn, f"g{number}", 50 * number or 1)
    many = cost(conn, 10_000)
    assert 900 <= one <= many < one + 1000  # a few probes for each group


@pytest.mark.parametrize("max_count", [0, -1, 1_000_001])
def test_bad_bounds(conn: Connection, max_count: int) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_count is 1 to 1000000"):
        conn.execute("SELECT * FROM durable_notify.status(%s)", [max_count])


def test_a_group_that_is_new(conn: Connection) -> None:
    assert backlog(conn) == []
    subscribe(conn, "g", "t")
    assert backlog(conn) == [("t", "g", 0, True, 0, 0, 0, 0)]
    assert dn.Admin().status(conn)[0].unread == 0
