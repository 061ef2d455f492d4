"""Compare the cost of a claim with few and with many messages waiting."""

from __future__ import annotations

import statistics

import psycopg

from benchmarks.harness import Figure, Report, claims, fill, machine, new_group, percentile, server


def cost(connection: psycopg.Connection, number: int) -> list[float]:
    """Return the seconds of claims of a new group, which has the whole outbox to read."""
    return claims(connection, new_group(connection), number)


def measure(
    *, few: int = 10_000, many: int = 10_000_000, rounds: int = 7, number: int = 80
) -> Report:
    medians, tails = [], []
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE many TEMPLATE postgres")
        with psycopg.connect(postgres.dsn("many"), autocommit=True) as other:
            for connection, messages in ((admin, few), (other, many)):
                fill(connection, "orders", messages)
                connection.execute("VACUUM (ANALYZE) durable_notify.outbox")
            for connection in (admin, other):
                cost(connection, number)  # warm
            for _ in range(rounds):
                small, large = cost(admin, number), cost(other, number)
                medians.append(statistics.median(large) / statistics.median(small))
                tails.append(percentile(large, 99) / percentile(small, 99))
            about = machine(admin) | {"few": few, "many": many, "claims": number}
    title = f"a claim with {many:,} messages waiting, of one with {few:,}"
    figures = [
        Figure(f"{title}: median", "<= 1.3", medians),
        Figure(f"{title}: 99th percentile", "<= 1.3", tails),
    ]
    return Report("backlog", about, figures, {})
