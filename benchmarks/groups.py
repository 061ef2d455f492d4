"""The WAL that ten groups on one topic write, beside one group's: publishing and consuming."""

from __future__ import annotations

import psycopg

from benchmarks.common import Figure, fill, machine, report, server, wal_bytes


def consume(connection: psycopg.Connection, group: str, messages: int, batch: int) -> None:
    seen = 0
    while rows := connection.execute(
        "SELECT token, id FROM durable_notify.claim(%s, '{orders}', %s)", (group, batch)
    ).fetchall():
        seen += len(rows)
        connection.execute(
            "SELECT durable_notify.settle(%s, %s)", (rows[0][0], [row[1] for row in rows])
        )
    assert seen == messages


def main(messages: int = 50_000, rounds: int = 5, batch: int = 500) -> None:
    ratios: list[float] = []
    taken: dict[str, list[float]] = {"one": [], "ten": []}
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        for number in range(rounds):
            for name, groups in (("one", 1), ("ten", 10)):
                names = [f"{name} {number} {group}" for group in range(groups)]
                for group in names:
                    connection.execute(
                        "SELECT durable_notify.subscribe(%s, '{orders}', 'now')", (group,)
                    )
                connection.execute("CHECKPOINT")
                begun = wal_bytes(connection)
                fill(connection, "orders", messages)
                for group in names:
                    consume(connection, group, messages, batch)
                taken[name].append(wal_bytes(connection, begun) / messages)
            ratios.append(taken["ten"][-1] / taken["one"][-1])
        about = machine(connection) | {
            "messages": messages, "batch": batch, "wal_bytes_per_message": taken
        }  # fmt: skip
    report("groups", [Figure("WAL of ten groups beside one", "<= 1.2", ratios)], about)


if __name__ == "__main__":
    main()
