"""Compare the cost of a claim with few and with many messages, retained or waiting."""

from __future__ import annotations

import statistics

import psycopg

from benchmarks.harness import Figure, Report, claims, fill, machine, new_group, percentile, server


def at_the_end(connection: psycopg.Connection, last: int, number: int) -> list[float]:
    """Return the seconds of claims near the end of the outbox; the rest has been delivered."""
    group = new_group(connection)
    # Move the position by hand, for the measurement.
    connection.execute(
        "UPDATE durable_notify.position SET s0 = pg_current_snapshot(), h0 = %s FROM"
        " durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id"
        " WHERE s.id = subscription_id AND g.name = %s",
        (last - number * 100, group),
    )
    return claims(connection, group, number)


def at_the_beginning(connection: psycopg.Connection, _last: int, number: int) -> list[float]:
    """Return the seconds of claims of a new group, which has the whole outbox to read."""
    return claims(connection, new_group(connection), number)


def compare(*, name: str, what: str, cost, few: int, many: int, rounds: int, number: int) -> Report:
    medians, tails = [], []
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE many TEMPLATE postgres")
        with psycopg.connect(postgres.dsn("many"), autocommit=True) as other:
            for connection, messages in ((admin, few), (other, many)):
                fill(connection, "orders", messages)
                connection.execute("VACUUM (ANALYZE) durable_notify.outbox")
            for connection, messages in ((admin, few), (other, many)):
                cost(connection, messages, number)  # warm
            for _ in range(rounds):
                small, large = cost(admin, few, number), cost(other, many, number)
                medians.append(statistics.median(large) / statistics.median(small))
                tails.append(percentile(large, 99) / percentile(small, 99))
            about = machine(admin) | {"few": few, "many": many, "claims": number}
    title = f"a claim with {many:,} messages {what}, of one with {few:,}"
    figures = [
        Figure(f"{title}: median", "<= 1.3", medians),
        Figure(f"{title}: 99th percentile", "<= 1.3", tails),
    ]
    return Report(name, about, figures, {})


def measure(
    *, few: int = 10_000, many: int = 5_000_000, rounds: int = 7, claims: int = 80
) -> Report:
    return compare(
        name="retained",
        what="retained",
        cost=at_the_end,
        few=few,
        many=many,
        rounds=rounds,
        number=claims,
    )


def backlog(
    *, few: int = 10_000, many: int = 10_000_000, rounds: int = 7, claims: int = 80
) -> Report:
    return compare(
        name="backlog",
        what="waiting",
        cost=at_the_beginning,
        few=few,
        many=many,
        rounds=rounds,
        number=claims,
    )
