"""What a claim costs with few and with many messages retained in the log."""

from __future__ import annotations

import statistics
import time
import uuid

import psycopg

from benchmarks.common import Figure, fill, machine, report, server

CLAIM = "SELECT token, id FROM durable_notify.claim(%s, '{orders}', 100)"


def cost(connection: psycopg.Connection, last: int, claims: int) -> list[float]:
    """Seconds of each of some claims (settled in between), in the middle of the log."""
    group = uuid.uuid4().hex
    connection.execute("SELECT durable_notify.subscribe(%s, '{orders}')", (group,))
    # Hand over all but what is claimed here at one stroke: forward by hand, for the measurement.
    connection.execute(
        "UPDATE durable_notify.position SET s0 = pg_current_snapshot(), h0 = %s FROM"
        " durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id"
        " WHERE s.id = subscription_id AND g.name = %s",
        (last - claims * 100, group),
    )
    times = []
    for _ in range(claims):
        begun = time.perf_counter()
        rows = connection.execute(CLAIM, (group,)).fetchall()
        times.append(time.perf_counter() - begun)
        assert len(rows) == 100
        connection.execute(
            "SELECT durable_notify.settle(%s, %s)", (rows[0][0], [row[1] for row in rows])
        )
    return times


def main(few: int = 10_000, many: int = 5_000_000, rounds: int = 7, claims: int = 60) -> None:
    ratios, tails = [], []
    with (
        server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as admin
    ):  # fmt: skip
        admin.execute("CREATE DATABASE many TEMPLATE postgres")
        with psycopg.connect(postgres.dsn("many"), autocommit=True) as other:
            for connection, messages in ((admin, few), (other, many)):
                fill(connection, "orders", messages)
                connection.execute("VACUUM (ANALYZE) durable_notify.outbox")
            for connection, messages in ((admin, few), (other, many)):
                cost(connection, messages, claims)  # warm
            for _ in range(rounds):
                small = cost(admin, few, claims)
                large = cost(other, many, claims)
                ratios.append(statistics.median(large) / statistics.median(small))
                tails.append(
                    statistics.quantiles(large, n=20)[-1] / statistics.quantiles(small, n=20)[-1]
                )
            about = machine(admin) | {"few": few, "many": many, "claims": claims}
    report(
        "retained",
        [
            Figure(f"a claim with {many:,} beside {few:,} messages retained", "<= 1.3", ratios),
            Figure("the same, 95th percentile of the claims", "<= 1.3", tails),
        ],
        about,
    )


if __name__ == "__main__":
    main()
