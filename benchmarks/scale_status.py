"""Measure status, a scrape and the doctor with very many subscriptions, all of them behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import psycopg
from prometheus_client import CollectorRegistry

from benchmarks.harness import PAYLOAD, Figure, Report, machine, server, timed
from durable_notify.diagnostics.doctor import diagnose
from durable_notify.integrations.prometheus import StatusCollector, page

#: What subscribe() makes, as sets: one group by one topic it takes minutes.
SUBSCRIBE = """
    WITH g AS (
        INSERT INTO durable_notify.consumer_group (name)
        SELECT 'group-' || i FROM generate_series(1, %s) i RETURNING id),
    s AS (
        INSERT INTO durable_notify.subscription (group_id, topic)
        SELECT g.id, 'topic-' || i FROM g, generate_series(1, %s) i RETURNING id),
    p AS (
        INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, p, lease_tokens)
        SELECT s.id, 1, '3:3:', 0, 0, '{}' FROM s)
    INSERT INTO durable_notify.ordering (group_id) SELECT g.id FROM g"""
#: Every group stops elsewhere in each topic, some within a window.
STOP = """
    UPDATE durable_notify.position p
       SET s0 = pg_current_snapshot(), h0 = p.subscription_id %% %s,
           s1 = CASE WHEN p.subscription_id %% 2 = 0 THEN pg_current_snapshot() END,
           p = CASE WHEN p.subscription_id %% 2 = 0 THEN p.subscription_id %% %s ELSE 0 END"""


def publish(connection: psycopg.Connection[object], topics: int, messages: int) -> None:
    """Publish to all topics in turn."""
    for first in range(1, messages + 1, 100_000):
        connection.execute(
            "INSERT INTO durable_notify.outbox (topic, key, payload) "
            f"SELECT 'topic-' || 1 + i %% %s, 'key-' || i %% 1000, {PAYLOAD.replace('%', '%%')}"
            " FROM generate_series(%s::int, %s::int) AS i",
            (topics, first, min(first + 99_999, messages)),
        )


def measure(
    *, groups: int = 300, topics: int = 1_000, messages: int = 1_000_000, rounds: int = 3
) -> Report:
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(SUBSCRIBE, (groups, topics))
        publish(connection, topics, messages)
        figures = _figures(postgres.dsn(), "not analyzed, none read", rounds)
        connection.execute("VACUUM (ANALYZE)")
        figures += _figures(postgres.dsn(), "none read", rounds)
        connection.execute(STOP, (messages, messages))
        connection.execute("VACUUM (ANALYZE)")
        figures += _figures(postgres.dsn(), "each stopped elsewhere", rounds)
        about = machine(connection) | {"groups": groups, "topics": topics, "messages": messages}
    return Report("status", about, figures, {})


def _figures(dsn: str, state: str, rounds: int) -> list[Figure]:
    registry = CollectorRegistry()
    registry.register(collector := StatusCollector(dsn, timeout=60))
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            count = "SELECT count(*), sum(unread) FROM durable_notify.status()"
            measured: list[tuple[str, str, Callable[[], object]]] = [
                ("status()", "<= 2", lambda: connection.execute(count).fetchall()),
                ("durable-notify status", "<= 2", lambda: _command(dsn)),
                ("a scrape", "<= 2", lambda: page(registry)),
                ("doctor", "<= 5", lambda: diagnose(dsn)),
            ]
            return [
                Figure(f"{name}, {state}", target, [timed(call) for _ in range(rounds)], "s")
                for name, target, call in measured
            ]
    finally:
        collector.close()


def _command(dsn: str) -> None:
    command = [sys.executable, "-m", "durable_notify.cli", "--dsn", dsn, "status"]
    subprocess.run(command, check=True, capture_output=True)
