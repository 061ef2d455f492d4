"""How open transactions of other programs affect messages."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks.harness import CLAIM, SETTLE, Figure, Report, Worker, machine, percentile, server
from benchmarks.waking import latencies

INSERT = (
    "INSERT INTO durable_notify.outbox (topic, payload) SELECT 'orders', to_jsonb(i)"
    " FROM generate_series(1, %s) AS i"
)
DEAD = (
    "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables"
    " WHERE schemaname = 'durable_notify'"
)


def flow(dsn: str, rate: int, seconds: float) -> dict[str, Any]:
    """Publish at a steady rate, 20 at once, and claim; return how the claims went."""
    times: list[float] = []
    claimed = 0
    published = 0
    begun = time.monotonic()
    with (
        psycopg.connect(dsn, autocommit=True) as publisher,
        psycopg.connect(dsn, autocommit=True) as consumer,
    ):
        publisher.execute("SELECT durable_notify.subscribe('flow', '{orders}', 'now')")
        while (now := time.monotonic() - begun) < seconds:
            while published < now * rate:
                publisher.execute(INSERT, (20,))
                published += 20
            before = time.perf_counter()
            rows = consumer.execute(CLAIM, ("flow", 500)).fetchall()
            if rows:
                times.append(time.perf_counter() - before)
                claimed += len(rows)
                consumer.execute(SETTLE, (rows[0][0], [row[1] for row in rows]))
            else:
                time.sleep(0.005)
        return {"rate": claimed / seconds, "claims": times}


@contextlib.contextmanager
def held_xmin(dsn: str) -> Iterator[None]:
    """Keep a long report running for as long as the block lasts."""
    with psycopg.connect(dsn) as report:
        report.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT count(*) FROM pg_class")
        yield


def xmin(*, seconds: float = 600.0, rate: int = 2_000, part: float = 60.0) -> Report:
    """Compare a flow with the last part of one during which xmin was held."""
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        dsn = running.dsn()
        flow(dsn, rate, part / 4)  # warm
        before = flow(dsn, rate, part)
        with held_xmin(dsn):
            number = 0
            left = seconds
            while left > part:
                number += len(flow(dsn, rate, part)["claims"])
                left -= part
            during = flow(dsn, rate, part)
            number += len(during["claims"])
            time.sleep(1.5)  # idle sessions hand in their statistics once a second
            (tuples,) = admin.execute(DEAD).fetchone()  # type: ignore[misc]
        about = machine(admin) | {"seconds": seconds, "rate": rate, "part": part, "claims": number}
    slow, fast = percentile(during["claims"], 99), percentile(before["claims"], 99)
    medians = statistics.median(during["claims"]) / statistics.median(before["claims"])
    figures = [
        Figure("throughput at the end, of before", ">= 0.97", [during["rate"] / before["rate"]]),
        Figure("claim, 99th percentile, of before", "<= 1.03", [slow / fast]),
        Figure("claim, median, of before", "", [medians]),
        Figure("dead tuples past 1,000, a claim", "<= 2", [max(0, tuples - 1_000) / number]),
    ]
    rates = {"before": before, "during": during, "dead_tuples": tuples}
    return Report("held_xmin", about, figures, rates)


def open_writers(*, rounds: int = 5, messages: int = 200) -> Report:
    """Compare wake-ups with and without open transactions of other sessions."""
    taken: dict[str, list[list[float]]] = {"none": [], "elsewhere": [], "has published": []}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        dsn = running.dsn()
        admin.execute("CREATE DATABASE elsewhere")
        with psycopg.connect(running.dsn("elsewhere"), autocommit=True) as other:
            other.execute("CREATE TABLE work (n int)")
        holders = {
            "none": None,
            "elsewhere": (running.dsn("elsewhere"), "INSERT INTO work VALUES (1)"),
            "has published": (dsn, INSERT % 1),
        }
        options = {"topics": ["orders"], "group": "bench"}
        with (
            Worker("consume", dsn, **options) as listener,
            Worker("publish", dsn, kind="ours") as publisher,
        ):
            latencies(listener, publisher, 10)  # warm
            for _ in range(rounds):
                for name, holder in holders.items():
                    with contextlib.ExitStack() as stack:
                        if holder is not None:
                            held = stack.enter_context(psycopg.connect(holder[0]))
                            held.execute(holder[1].encode())
                            stack.callback(held.rollback)
                        taken[name].append(latencies(listener, publisher, messages))
        about = machine(admin) | {"messages": messages, "unit": "ms"}
    base = [percentile(values, 99) for values in taken["none"]]
    figures = [
        Figure(
            f"99th percentile beside a transaction that {what}, of without",
            "<= 2",
            [percentile(v, 99) / b for v, b in zip(taken[name], base, strict=True)],
        )
        for name, what in (("elsewhere", "writes elsewhere"), ("has published", "has published"))
    ]
    return Report("open", about, figures, taken)
