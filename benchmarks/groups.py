"""Compare the WAL of ten groups on one topic with that of one: publishing and consuming."""

from __future__ import annotations

import psycopg

from benchmarks.harness import CLAIM, SETTLE, Figure, Report, fill, machine, server, wal_bytes


def consume(connection: psycopg.Connection, group: str, messages: int, batch: int) -> None:
    seen = 0
    while rows := connection.execute(CLAIM, (group, batch)).fetchall():
        seen += len(rows)
        connection.execute(SETTLE, (rows[0][0], [row[1] for row in rows]))
    assert seen == messages


def measure(*, messages: int = 50_000, rounds: int = 5, batch: int = 500) -> Report:
    ratios: list[float] = []
    taken: dict[str, list[float]] = {"one": [], "ten": []}
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        for number in range(rounds):
            for name, groups in (("one", 1), ("ten", 10)):
                names = [f"{name} {number} {group}" for group in range(groups)]
                for group in names:
                    query = "SELECT durable_notify.subscribe(%s, '{orders}', 'now')"
                    connection.execute(query, (group,))
                connection.execute("CHECKPOINT")
                begun = wal_bytes(connection)
                fill(connection, "orders", messages)
                for group in names:
                    consume(connection, group, messages, batch)
                taken[name].append(wal_bytes(connection, begun) / messages)
            ratios.append(taken["ten"][-1] / taken["one"][-1])
        about = machine(connection) | {"messages": messages, "batch": batch}
    figures = [
        Figure("WAL of ten groups, of one", "<= 1.2", ratios),
        Figure("WAL bytes a message, one group", "", taken["one"]),
    ]
    return Report("groups", about, figures, {"wal_bytes_per_message": taken})
