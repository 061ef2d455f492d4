"""Publishing, one row a transaction and in bulk, beside the same rows in a plain table."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import psycopg

from benchmarks.harness import (
    INSERT,
    PLAIN,
    Figure,
    Report,
    Worker,
    machine,
    pgbench,
    server,
    timed,
)
from durable_notify.embedded import Server

_ROW_NOTIFY = """
    CREATE TABLE row_notify (LIKE plain INCLUDING ALL);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_notify('orders', NEW.id::text); RETURN NULL; END$$;
    CREATE TRIGGER tell AFTER INSERT ON row_notify FOR EACH ROW EXECUTE FUNCTION tell()"""
_BULK = (
    "INSERT INTO {} (topic, key, payload) SELECT 'orders', 'key-' || i % 1000,"
    " jsonb_build_object('order', i, 'note', repeat('x', 60)) FROM generate_series(1, {}) AS i"
)
OUTBOX = "durable_notify.outbox"
#: The table, and what runs beside it.
VARIANTS = {
    "plain": ("plain", None),
    "plain, read beside": ("plain", "read"),
    "ours": (OUTBOX, "consume"),
    "ours, no consumer": (OUTBOX, None),
    "row NOTIFY": ("row_notify", None),
}


def _round(running: Server, variant: str, clients: int, seconds: float) -> dict[str, float]:
    table, beside = VARIANTS[variant]
    options = {"topics": ["orders"], "group": "bench"} if beside == "consume" else {}
    worker = Worker(beside, running.dsn(), **options) if beside else None
    try:
        rate = pgbench(running, INSERT % table, clients, seconds)
        published = rate * seconds
        if beside != "consume" or worker is None:
            return {"rate": rate}
        told = worker.tell("count")
        return {
            "rate": rate,
            "handled": told["handled"] / published,  # by the time the last was published
            "rings": 1000 * told["rings"] / published,
        }
    finally:
        if worker is not None:
            worker.end()


def measure(
    *,
    clients: tuple[int, ...] = (1, 8, 32, 64),
    rounds: int = 5,
    seconds: float = 2.0,
    name: str = "publishing",
    **settings: str,
) -> Report:
    """Compare the rates of so many clients of pgbench, each with one row a transaction."""
    rates: dict[str, list[dict[str, float]]] = {}
    figures = []
    with server(**settings) as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        admin.execute(PLAIN)
        admin.execute(_ROW_NOTIFY)
        for number in clients:
            for _ in range(rounds):
                for variant in random.sample(list(VARIANTS), len(VARIANTS)):
                    admin.execute(f"TRUNCATE plain, row_notify, {OUTBOX}")
                    admin.execute("CHECKPOINT")
                    found = _round(running, variant, number, seconds)
                    rates.setdefault(f"{variant}/{number}", []).append(found)
            figures += _figures(rates, number)
        about = machine(admin) | {"seconds": seconds, "pgbench": "-M prepared -j 1"}
    return Report(name, about, figures, rates)


def _figures(rates: dict[str, list[dict[str, float]]], clients: int) -> list[Figure]:
    def ratio(one: str, other: str) -> list[float]:
        pairs = zip(rates[f"{one}/{clients}"], rates[f"{other}/{clients}"], strict=True)
        return [mine["rate"] / theirs["rate"] for mine, theirs in pairs]

    ours = rates[f"ours/{clients}"]
    of = f"{clients} clients" if clients > 1 else "1 client"
    return [
        Figure(f"{of}: consumer beside, of plain", ">= 0.85", ratio("ours", "plain")),
        Figure(f"{of}: of plain with a reader beside", "", ratio("ours", "plain, read beside")),
        Figure(f"{of}: no consumer, of plain", "", ratio("ours, no consumer", "plain")),
        Figure(f"{of}: a row NOTIFY, of plain", "", ratio("row NOTIFY", "plain")),
        Figure(f"{of}: NOTIFYs per 1,000 messages", "<= 5", [r["rings"] for r in ours]),
        Figure(f"{of}: handled by the end", "", [r["handled"] for r in ours]),
    ]


def measure_bulk(*, rounds: int = 15, rows: int = 10_000) -> Report:
    """Compare one statement with many rows, a consumer asleep."""
    taken: dict[str, list[float]] = {"plain": [], "ours": []}
    rings: list[float] = []
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        admin.execute(PLAIN)
        options: dict[str, Any] = {"topics": ["orders"], "group": "bench"}
        with Worker("consume", running.dsn(), **options) as worker:
            for turn in itertools.count():
                for name, table in random.sample([("plain", "plain"), ("ours", OUTBOX)], 2):
                    query = _BULK.format(table, rows).encode()
                    seconds = timed(functools.partial(admin.execute, query))
                    if turn:  # the first one warms up
                        taken[name].append(seconds)
                    handled = rung = 0
                    while name == "ours" and handled < rows:
                        told = worker.tell("count")
                        handled, rung = handled + told["handled"], rung + told["rings"]
                    if name == "ours" and turn:
                        rings.append(rung)
                    admin.execute("SELECT pg_sleep(0.1)")  # it falls asleep
                if turn == rounds:
                    break
        about = machine(admin) | {"rows": rows}
    pairs = zip(taken["plain"], taken["ours"], strict=True)
    figures = [
        Figure(f"{rows:,} rows in one statement, of plain", ">= 0.8", [p / o for p, o in pairs]),
        Figure("rings a statement", "1", rings),
    ]
    return Report("bulk", about, figures, {"seconds": taken})
