"""browse() and message_states(): for people who look at messages."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.observe import send

Connection = psycopg.Connection[tuple[Any, ...]]


def browse(conn: Connection, **arguments: Any) -> list[tuple[Any, ...]]:
    """The ids and continue_before of each row."""
    named = ", ".join(f"{name} => %s" for name in arguments)
    query = f"SELECT id, continue_before FROM durable_notify.browse('t', {named})"
    return conn.execute(query, list(arguments.values())).fetchall()


def test_the_newest_first_and_page_by_page(conn: Connection) -> None:
    ids = send(conn, range(5))
    send(conn, [0], topic="other")
    assert browse(conn, max_messages=2) == [(ids[4], None), (ids[3], None)]
    assert browse(conn, max_messages=2, before_id=ids[3]) == [(ids[2], None), (ids[1], None)]
    assert browse(conn, max_messages=2, before_id=ids[1]) == [(ids[0], None)]
    assert browse(conn, max_messages=2, before_id=ids[0]) == []


def test_a_bounded_scan_says_where_to_continue(conn: Connection) -> None:
    ids = [
        dn.Publisher().publish(conn, "t", 0, key="rare" if number == 7 else "a")
        for number in range(11)
    ]
    rare = ids[7]
    first = browse(conn, for_key="rare", max_scanned=2)
    assert first == [(None, first[0][1])]
    assert browse(conn, for_key="rare", max_scanned=2, before_id=first[0][1])[0] == (rare, None)
    # All is seen once, whatever the size of the steps.
    seen, before = [], None
    while True:
        rows = browse(conn, for_key="a", max_scanned=3, before_id=before)
        seen += [row[0] for row in rows if row[0] is not None]
        if not rows or rows[-1][1] is None:
            break
        before = rows[-1][1]
    assert len(seen) == 10
    assert min(seen) == ids[0]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"for_key": "a"}, [0]),
        ({"for_headers": '{"source": "shop"}'}, [1]),
        ({"path": ["order", "n"], "value": "7"}, [2]),
        ({"path": ["order", "n"], "value": '"7"'}, []),
        ({"for_key": "a", "path": ["order", "n"], "value": "7"}, []),
    ],
)
def test_conditions(conn: Connection, arguments: Any, found: list[int]) -> None:
    publisher = dn.Publisher()
    ids = [
        publisher.publish(conn, "t", 1, key="a"),
        publisher.publish(conn, "t", 1, headers={"source": "shop", "more": 1}),
        publisher.publish(conn, "t", {"order": {"n": 7}}),
    ]
    if "value" in arguments:
        arguments = {**arguments, "value": arguments["value"]}
    assert browse(conn, **arguments) == [(ids[number], None) for number in found]


def test_until_a_time(conn: Connection) -> None:
    ids = send(conn, [1])
    ((between,),) = conn.execute("SELECT clock_timestamp()").fetchall()
    send(conn, [2])
    assert browse(conn, until=between) == [(ids[0], None)]


def test_a_large_payload_is_left_out(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO durable_notify.outbox (topic, payload) SELECT 't',"
        " to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 2000) AS i"
    )
    query = "SELECT payload, bytes > 20000 FROM durable_notify.browse('t')"
    assert conn.execute(query).fetchall() == [(None, True)]


def states(conn: Connection, message_id: int) -> dict[str, tuple[Any, ...]]:
    query = (
        "SELECT group_name, state, reason, owner, attempt, error ->> 'type', published_before"
        " FROM durable_notify.message_states('t', %s)"
    )
    return {row[0]: row[1:] for row in conn.execute(query, [message_id]).fetchall()}


def test_one_message_in_every_group(conn: Connection) -> None:
    """Whatever a group has done with it."""
    names = ("acked", "dead", "held", "later", "parked", "retrying", "unread")
    for name in names[:3] + names[4:]:
        conn.execute("SELECT durable_notify.subscribe(%s, '{t}')", [name])
        conn.execute("""SELECT durable_notify.configure(%s, '{"max_attempts": 1}')""", [name])
    publisher = dn.Publisher()
    first, second = (publisher.publish(conn, "t", n, key="a") for n in (1, 2))
    conn.execute("SELECT durable_notify.subscribe('later', '{t}', 'now')")
    tokens = {}
    for name in ("acked", "dead", "held", "retrying"):
        query = "SELECT min(token) FROM durable_notify.claim(%s, '{t}', 1, '1 hour', 'me')"
        ((tokens[name],),) = conn.execute(query, [name]).fetchall()
    conn.execute("SELECT * FROM durable_notify.claim('parked', '{t}', 1, '1 hour', 'me')")
    conn.execute("SELECT * FROM durable_notify.claim('parked', '{t}', 1, '1 hour', 'me')")
    conn.execute("SELECT durable_notify.settle(%s, ARRAY[%s])", [tokens["acked"], first])
    settle = "SELECT durable_notify.settle(%s, {} => ARRAY[%s::int8], {} => %s)"
    error = ['{"type": "KeyError"}']
    conn.execute(settle.format("rejected", "reject_errors"), [tokens["dead"], first, error])
    conn.execute("""SELECT durable_notify.configure('retrying', '{"max_attempts": 9}')""")
    conn.execute(settle.format("retried", "retry_errors"), [tokens["retrying"], first, error])
    found = states(conn, first)
    assert {name: row[0] for name, row in found.items()} == {
        "acked": "settled", "dead": "dead", "held": "leased", "later": "settled",
        "parked": "leased", "retrying": "deferred", "unread": "unread",
    }  # fmt: skip
    assert found["held"][2:4] == ("me", 1)
    assert found["dead"][4] == "KeyError"
    assert found["retrying"][1:] == ("retry", None, 2, "KeyError", False)
    assert found["later"][-1] is True
    assert states(conn, second)["parked"][:2] == ("deferred", "key")


def test_a_message_that_was_removed(conn: Connection) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    assert states(conn, 5) == {"g": ("unknown", None, None, None, None, None)}
