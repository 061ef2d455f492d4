"""Hostile arguments: they fail their own statement, with a clear error, or do no harm to others."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.security.decisions import MAY
from tests.support.api import Api, Recorder, running
from tests.support.injection import plant
from tests.support.observe import asleep, outstanding, value
from tests.support.roles import Roles, allowed, everything, roles
from tests.support.sessions import Session
from tests.support.wait import wait_until

Connection = psycopg.Connection[Any]
Leases = dict[str, tuple[int, int]]

#: By type, what to give instead of what belongs there.
HOSTILE: dict[str, tuple[str, ...]] = {
    "text": ("NULL", "''", "'orders.eu' || chr(1)", "repeat('x', 1000000)", "'*'", "'>'", "'%s%n'"),
    "text[]": (
        "NULL", "'{}'", "'{NULL}'", "ARRAY['orders.eu', NULL]", "'{{orders.eu},{orders.us}}'",
        "array_fill('orders.eu'::text, '{100000}')", "'[5:6]={orders.eu,orders.us}'",
    ),
    "bigint": ("NULL", "0", "-1", "9223372036854775807", "-9223372036854775808"),
    "bigint[]": (
        "NULL", "'{}'", "'{NULL}'", "'{0,-1,9223372036854775807}'", "array_fill(1::bigint, '{100000}')",
        "'{{1,2},{3,4}}'", "'[-5:-4]={1,2}'",
    ),
    "integer": ("NULL", "0", "-1", "2147483647", "-2147483648"),
    "integer[]": ("NULL", "'{}'", "'{NULL}'", "'{-1,2147483647}'", "array_fill(1, '{100000}')"),
    "interval": ("NULL", "'0'", "'-1 day'", "'178000000 years'", "'-178000000 years'", "'infinity'", "'-infinity'"),
    "interval[]": ("NULL", "'{}'", "'{NULL}'", "'{-1 day,178000000 years}'", "'{infinity}'"),
    "timestamp with time zone": ("NULL", "'infinity'", "'-infinity'", "'294276-12-31'", "'4713-01-01 BC'"),
    "timestamp with time zone[]": ("NULL", "'{}'", "'{infinity}'", "'{NULL}'"),
    "double precision": ("NULL", "0", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1e308", "1e-308"),
    "boolean": ("NULL", "true", "false"),
    "jsonb": (
        "NULL", "'null'", "'[]'", "'{\"max_attempts\": -1}'", "'{\"rate_limit\": \"NaN\"}'",
        "'{\"retry_base\": 1e308, \"retry_max\": \"Infinity\"}'", "'{\"order_by\": [1]}'",
        "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
    ),
    "jsonb[]": ("NULL", "'{}'", "'{NULL}'", "array_fill('1'::jsonb, '{20000}')"),
    "bytea": ("NULL", "''", "repeat('x', 5000000)::bytea"),
    "bytea[]": ("NULL", "'{NULL}'"),
    "jsonpath": ("NULL", "'$.**'", "'strict $.a.b.c'"),
    "pg_snapshot": ("NULL", "'1:1:'", "'9223372036854775806:9223372036854775807:'", "'3:9223372036854775807:4,5'"),
    "xid8": ("NULL", "'0'", "'18446744073709551615'"),
    "xid8[]": ("NULL", "'{NULL}'", "'{18446744073709551615}'"),
    "regclass[]": ("NULL", "'{NULL}'", "'{pg_catalog.pg_class}'"),
}  # fmt: skip
#: What belongs there, by name; the rest has a default.
GOOD = {
    "topic": "'orders.eu'", "topics": "'{orders.eu}'", "group_name": "'g'", "patterns": "'{orders.*}'",
    "payload": "'1'", "payloads": "'{1}'", "token": "TOKEN", "tokens": "'{TOKEN}'", "ids": "'{MESSAGE}'",
    "message_id": "MESSAGE", "lease": "'1 minute'", "consumer": "'c'", "options": "'{}'", "job_id": "1",
    "start_at": "'now'", "s0": "'3:3:'", "h0": "0", "s1": "NULL", "h1": "NULL", "p": "0", "xids": "'{}'",
    "tables": "'{}'", "hint": "'1'", "channel": "'c'", "writer": "'w'", "batch": "1", "pids": "'{1}'",
    "since": "'3:3:'", "passed": "'{}'", "until": "now()", "raw": "'r'", "after_id": "0", "upto_id": "9", "value": "'v'", "bad": "'[%]'",
    "url": "'https://x'", "changes": "'{}'",
    "name": "'n'", "or_space": "true", "xid": "'9'", "key": "'k'", "data": "NULL", "headers": "'{}'",
    "cron": "NULL", "every": "'1 hour'", "time_zone": "'UTC'", "next_at": "'2100-01-01'", "due": "'2000-01-01'", "ticks": "'{2000-01-01}'",
}  # fmt: skip
#: What else is needed, to get on to the argument in question.
BESIDES = {
    "settle": {"acked": "'{MESSAGE}'"}, "seek": {"after_id": "1"},
    **{f"{what}_schedule": {"name": "'s'"} for what in ("run", "pause", "resume", "delete")}, "publish_ticks": {"name": "'s'"},
    "redrive": {"everything": "true"}, "discard": {"everything": "true"},
}  # fmt: skip
#: What may come of it: a value that cannot be, a refusal, or an error of ours.
CLEAR = ("22", "23", "42501", "DN")


def calls(conn: Connection, name: str) -> list[str]:
    """Calls of a function, each with one hostile argument."""
    query = """
        SELECT array_agg(a.name ORDER BY a.place), array_agg(a.type::regtype::text ORDER BY a.place),
               min(p.pronargs - p.pronargdefaults)
          FROM pg_proc p, ROWS FROM (unnest(p.proargnames), unnest(p.proargtypes)) WITH ORDINALITY AS a (name, type, place)
         WHERE p.pronamespace = 'durable_notify'::regnamespace AND p.proname = %s AND a.type IS NOT NULL"""
    row = conn.execute(query.encode(), [name]).fetchone()
    assert row is not None
    names, types, required = row
    found = []
    for argument, kind in zip(names or [], types or [], strict=True):
        for worst in HOSTILE[kind]:
            given = (
                {n: GOOD[n] for n in names[:required]} | BESIDES.get(name, {}) | {argument: worst}
            )
            arguments = ", ".join(f"{n} => {v}::{types[names.index(n)]}" for n, v in given.items())
            found.append(
                f"SELECT count(*) FROM (SELECT durable_notify.{name}({arguments})) AS called"
            )
    return found


@pytest.mark.parametrize("kind", ["publisher", "consumer", "reader", "inserter"])
def test_hostile_arguments(conn: Connection, cast: Roles, furnished: Leases, kind: str) -> None:
    token, message = furnished["g orders.eu"]
    before = everything(conn)
    failures = []
    with psycopg.connect(cast.login(kind), autocommit=True) as session:
        session.execute("SET statement_timeout = '60s'")
        for name, kinds in MAY.items():
            if kind not in kinds or name in (
                "_validate_message",
                "_notify_payload",
            ):  # whose argument is a row
                continue
            for call in calls(conn, name):
                query = call.replace("TOKEN", str(token)).replace("MESSAGE", str(message))
                try:
                    allowed(session, query)
                except psycopg.Error as error:
                    state = error.sqlstate or "no connection"
                    if not state.startswith(CLEAR) and not (
                        state == "22008" or "::interval" in query
                    ):
                        failures.append((state, str(error).split("\n")[0], query[:200]))
                assert not session.closed, query
    assert failures == []
    assert everything(conn) == before


async def test_times_without_end(dsn: str, conn: Connection) -> None:
    """A message that is due at infinity does not block the others, asleep or awake."""
    api = Api("async")
    kinds: Any = {"publisher": [("publish", ["t"], None), ("insert", None, None)]}
    with (
        roles(dsn, kinds) as made,
        psycopg.connect(made.login("publisher"), autocommit=True) as own,
    ):
        seen = Recorder()
        consumer = api.consumer(dsn)
        async with running(consumer, seen):
            await asleep(consumer)
            waiting = "SELECT unread FROM durable_notify.status()"
            insert = "INSERT INTO durable_notify.outbox (topic, key, payload, deliver_at, expires_at) VALUES ('t', 'k', '0', {})"
            for times in ("'infinity', NULL", "'294276-12-31', NULL", "NULL, 'infinity'", "NULL, '-infinity'",
                          "'-infinity', 'infinity'", "'infinity', 'infinity'", "'4713-01-01 BC', NULL"):  # fmt: skip
                own.execute(insert.format(times).encode())
                await wait_until(
                    lambda: value(conn, waiting) == 0
                )  # there is nothing else to wait for
                await asleep(consumer)
                dn.Publisher().publish(own, "t", 1)
                await wait_until(lambda: [m.payload for m in seen.messages].count(1) >= wanted(own))
            await asleep(consumer)
            assert conn.execute("SELECT durable_notify.status()").fetchall()
        assert outstanding(conn) == 3  # due at infinity


def test_arithmetic_with_infinity_is_caught(dsn: str, conn: Connection) -> None:
    """It ended each consumer as it fell asleep."""
    if conn.info.server_version >= 170000:
        pytest.skip("Since PostgreSQL 17 an infinite time can be subtracted.")
    session = Session(dsn)
    session.subscribe()
    session.run("SELECT durable_notify.publish('t', '1', deliver_at => 'infinity')")
    assert session.claim() == []
    next_due = "SELECT durable_notify.next_due('g', '{t}')"
    assert session.value(next_due) > 1e6
    clamp = "LEAST(GREATEST(due, now_time), now_time + interval '1 year')"
    plant(session, "next_due", (clamp, "due"))
    with pytest.raises(psycopg.errors.DatetimeFieldOverflow):
        session.value(next_due)
    session.close()


def wanted(own: Connection) -> int:
    """How many messages with a payload of 1 were published: every second one."""
    row = own.execute("SELECT count(id) FROM durable_notify.outbox").fetchone()
    assert row is not None
    return int(row[0]) // 2
