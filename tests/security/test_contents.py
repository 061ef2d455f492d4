"""Who only observes sees what is wrong, and no payload."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.roles import roles

Connection = psycopg.Connection[Any]
ERROR = '{"type": "KeyError", "message": "secret", "traceback": "secret"}'


@pytest.fixture
def failed(conn: Connection) -> int:
    """A dead letter of group g, a retry of group h that blocks its key, all of them secret."""
    for name in ("g", "h"):
        conn.execute("SELECT durable_notify.subscribe(%s, '{t}')", [name])
    found = dn.Publisher().publish(conn, "t", {"a": "secret"}, key="k", headers={"h": "secret"})
    dn.Publisher().publish(conn, "t", 1, key="k")
    query = "SELECT token FROM durable_notify.claim(%s, '{t}', 9)"
    for name, how, named in (("g", "rejected", "reject"), ("h", "retried", "retry")):
        token = conn.execute(query, [name]).fetchall()[0][0]
        reasons = ", reject_reasons => '{failed: secret}'" if how == "rejected" else ""
        conn.execute(
            f"SELECT durable_notify.settle(%s, {how} => ARRAY[%s::int8],"
            f" {named}_errors => ARRAY[%s]::jsonb[]{reasons})",
            [token, found, ERROR],
        )
    return found


def seen(conn: Connection, message_id: int) -> str:
    """All that these functions say."""
    calls = (
        "SELECT x::text FROM durable_notify.dead_letters('g') AS x",
        "SELECT x::text FROM durable_notify.retries('h') AS x",
        "SELECT x::text FROM durable_notify.retry_counts('h') AS x",
        "SELECT x::text FROM durable_notify.blocked_keys('h') AS x",
        f"SELECT x::text FROM durable_notify.message_states('t', {message_id}) AS x",
    )
    said = []
    for call in calls:
        rows = conn.execute(call.encode()).fetchall()
        assert rows, call
        said += [row[0] for row in rows]
    return "\n".join(said)


def test_contents(dsn: str, conn: Connection, failed: int) -> None:
    owner = seen(conn, failed)
    assert owner.count("secret") > 10
    with roles(dsn, {"observer": [("observe", None, None)]}) as made:
        with psycopg.connect(made.login("observer"), autocommit=True) as session:
            told = seen(session, failed)
            assert "secret" not in told
            assert told.count("KeyError") >= 4
            (letter,) = dn.Admin().dead_letters(session, "g")
            assert (letter.payload, letter.headers) == (None, {})
            assert letter.error == {"type": "KeyError"}
            assert letter.reason == "failed"
            dn.Admin().grant(conn, made.names["observer"], "read", ["t"])
            assert seen(session, failed) == owner
