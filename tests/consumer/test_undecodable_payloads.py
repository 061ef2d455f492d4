"""JSON that PostgreSQL holds and Python cannot read must not keep a group from the rest."""

from __future__ import annotations

import psycopg
import pytest

import durable_notify as dn


@pytest.mark.parametrize("json", ["1e5000", "[" * 2000 + "]" * 2000], ids=["number", "nested"])
def test_a_message_python_cannot_decode_becomes_a_dead_letter(
    dsn: str, conn: psycopg.Connection, json: str
) -> None:
    insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', %s::jsonb)"
    for payload in ("1", json, "2"):
        conn.execute(insert, (payload,))
    seen = []
    consumer = dn.Consumer(dsn, group="g", topics=["t"], poll_interval=None, until_empty=True)
    consumer.run(lambda message: seen.append(message.payload))
    assert seen == [1, 2]
    [letter] = dn.Admin().dead_letters(conn, "g")
    assert "cannot decode" in letter.reason
    assert isinstance(letter.payload, str)
