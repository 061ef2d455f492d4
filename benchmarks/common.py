"""What the longer benchmarks share; the rest is in ``durable_notify.bench.harness``."""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg

RESULTS = Path(__file__).parent / "results"

#: One message as it might be: about 120 bytes of JSON.
PAYLOAD = (
    "jsonb_build_object('order', i, 'customer', 'customer-' || i % 1000, 'amount', i * 1.5,"
    " 'note', repeat('x', 60))"
)
CLAIM = "SELECT token, id FROM durable_notify.claim(%s, '{orders}', %s)"
SETTLE = "SELECT durable_notify.settle(%s, %s)"


def fill(connection: psycopg.Connection[Any], topic: str, messages: int) -> None:
    """Publish that many messages, 100,000 a transaction."""
    for first in range(1, messages + 1, 100_000):
        connection.execute(
            "INSERT INTO durable_notify.outbox (topic, key, payload) "
            f"SELECT %s, 'key-' || i %% 1000, {PAYLOAD.replace('%', '%%')} "
            "FROM generate_series(%s::int, %s::int) AS i",
            (topic, first, min(first + 99_999, messages)),
        )


def wal_bytes(connection: psycopg.Connection[Any], since: str | None = None) -> Any:
    """The place in the WAL now, or the bytes written since one."""
    if since is None:
        return connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()[0]
    query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)::bigint"
    return connection.execute(query, (since,)).fetchone()[0]


def claims(connection: psycopg.Connection[Any], group: str, number: int) -> list[float]:
    """Seconds that each of some claims of 100 messages takes; settled in between."""
    times = []
    for _ in range(number):
        begun = time.perf_counter()
        rows = connection.execute(CLAIM, (group, 100)).fetchall()
        times.append(time.perf_counter() - begun)
        assert len(rows) == 100
        connection.execute(SETTLE, (rows[0][0], [row[1] for row in rows]))
    return times


def new_group(connection: psycopg.Connection[Any], start: str = "beginning") -> str:
    group = uuid.uuid4().hex
    connection.execute("SELECT durable_notify.subscribe(%s, '{orders}', %s)", (group, start))
    return group


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
