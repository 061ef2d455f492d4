"""How many connections a process has: what docs/production.md says, counted by the server."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.observe import send
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]
CONCURRENCY = 8
QUERY = (
    "SELECT split_part(application_name, ' ', 2) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'durable_notify %'"
)


def connections(conn: Connection) -> Counter[str]:
    """The connections of this database, by what they are for."""
    return Counter(row[0] for row in conn.execute(QUERY).fetchall())


def test_two_groups_in_one_process(dsn: str, conn: Connection) -> None:
    """One listens for both; each has three of its own, and one a handler in a transaction."""
    send(conn, range(4 * CONCURRENCY))
    together = threading.Barrier(2 * CONCURRENCY + 1)
    free = threading.Event()

    def handle(message: dn.Message) -> None:
        with message.transaction():
            if not free.is_set():
                together.wait(30)
                free.wait(30)

    consumers = [
        dn.Consumer(dsn, group=group, topics=["t"], concurrency=CONCURRENCY)
        for group in ("billing", "packing")
    ]
    with consumers[0].running(handle), consumers[1].running(handle):
        together.wait(30)
        busy = connections(conn)
        free.set()
        eventually(lambda: all(consumer.health().held == 0 for consumer in consumers))
    assert busy["listener"] == 1
    assert busy["handler"] == 2 * CONCURRENCY
    assert busy["consumer"] <= 6
    eventually(lambda: not connections(conn))


def test_handlers_without_a_transaction_have_none(dsn: str, conn: Connection) -> None:
    send(conn, range(10))
    seen: list[Counter[str]] = []
    consumer = dn.Consumer(dsn, group="g", topics=["t"], until_empty=True)
    consumer.run(lambda _: seen.append(connections(conn)), concurrency=1)
    assert max(found["handler"] for found in seen) == 0
    assert max(found.total() for found in seen) <= 4
