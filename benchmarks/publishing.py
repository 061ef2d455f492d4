"""Publishing, one row a transaction and in bulk, beside the same rows in a plain table."""

from __future__ import annotations

import collections
import contextlib
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
#: The outbox without its trigger.
_INDEXED = f"""
    CREATE TABLE indexed (LIKE {OUTBOX} INCLUDING ALL) PARTITION BY RANGE (id);
    CREATE TABLE indexed_1 PARTITION OF indexed FOR VALUES FROM (1) TO (1000000000);
    CREATE TABLE indexed_default PARTITION OF indexed DEFAULT"""
_TOPICS = [f"asleep-{number}" for number in range(20)]
_CONSUMER = ("consume", {"topics": ["orders"], "group": "bench"})
_SLEEPERS = (
    ("sleep", {"topics": _TOPICS, "group": "asleep"}),
    ("sleep", {"topics": ["asleep.*"], "group": "asleep by pattern"}),
)
#: The table, and what runs beside it.
VARIANTS: dict[str, tuple[str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "plain": ("plain", ()),
    "plain again": ("plain_again", ()),
    "no trigger": ("indexed", ()),
    "plain, read beside": ("plain", (("read", {}),)),
    "ours": (OUTBOX, (_CONSUMER,)),
    "ours, no consumer": (OUTBOX, ()),
    "ours, others asleep": (OUTBOX, _SLEEPERS),
    "row NOTIFY": ("row_notify", ()),
}


def _round(running: Server, variant: str, clients: int, seconds: float) -> dict[str, float]:
    table, beside = VARIANTS[variant]
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(role, running.dsn(), **options)) for role, options in beside
        ]
        rate = pgbench(running, INSERT % table, clients, seconds)
        if variant != "ours":
            return {"rate": rate}
        published = rate * seconds
        told = workers[0].tell("count")
        return {
            "rate": rate,
            "handled": told["handled"] / published,  # by the time the last was published
            "rings": 1000 * told["rings"] / published,
        }


def measure(
    *,
    clients: tuple[int, ...] = (1, 8, 32, 64),
    rounds: int = 10,
    seconds: float = 1.0,
    name: str = "publishing",
    **settings: str,
) -> Report:
    """Compare the rates of so many clients of pgbench, each with one row a transaction."""
    rates: dict[str, list[dict[str, float]]] = {}
    figures = []
    with server(**settings) as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        admin.execute(PLAIN)
        admin.execute("CREATE TABLE plain_again (LIKE plain INCLUDING ALL)")
        admin.execute(_INDEXED)
        admin.execute(_ROW_NOTIFY)
        for number in clients:
            for _ in range(rounds):
                for variant in random.sample(list(VARIANTS), len(VARIANTS)):
                    admin.execute(f"TRUNCATE plain, plain_again, indexed, row_notify, {OUTBOX}")
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
    none, asleep = "ours, no consumer", "ours, others asleep"
    return [
        Figure(f"{of}: no consumer, of plain", ">= 0.85", ratio(none, "plain")),
        Figure(f"{of}: consumers asleep on others, of plain", ">= 0.85", ratio(asleep, "plain")),
        Figure(f"{of}: no consumer, of no trigger", ">= 0.95", ratio(none, "no trigger")),
        Figure(f"{of}: consumer beside, of plain", "", ratio("ours", "plain")),
        Figure(
            f"{of}: consumer beside, of plain with a reader beside",
            ">= 0.9",
            ratio("ours", "plain, read beside"),
        ),
        Figure(f"{of}: no trigger, of plain", "", ratio("no trigger", "plain")),
        Figure(f"{of}: plain again, of plain", "1", ratio("plain again", "plain")),
        Figure(f"{of}: a row NOTIFY, of plain", "", ratio("row NOTIFY", "plain")),
        Figure(f"{of}: NOTIFYs per 1,000 messages", "<= 5", [r["rings"] for r in ours]),
        Figure(f"{of}: handled by the end", "", [r["handled"] for r in ours]),
    ]


def measure_bulk(*, rounds: int = 15, rows: int = 10_000) -> Report:
    """Compare one statement with many rows, a consumer asleep."""
    tables = {
        "plain": "plain",
        "plain again": "plain_again",
        "no trigger": "indexed",
        "ours": OUTBOX,
    }
    taken: dict[str, list[float]] = {name: [] for name in tables}
    rings: dict[str, list[float]] = {"rings": [], "freed": []}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        admin.execute(PLAIN)
        admin.execute("CREATE TABLE plain_again (LIKE plain INCLUDING ALL)")
        admin.execute(_INDEXED)
        options: dict[str, Any] = {"topics": ["orders"], "group": "bench"}
        with Worker("consume", running.dsn(), **options) as worker:
            for turn in itertools.count():
                for name, table in random.sample(list(tables.items()), len(tables)):
                    query = _BULK.format(table, rows).encode()
                    seconds = timed(functools.partial(admin.execute, query))
                    if turn:  # the first one warms up
                        taken[name].append(seconds)
                    told = collections.Counter[str]()
                    while name == "ours" and told["handled"] < rows:
                        said = worker.tell("count")
                        told.update({what: said[what] for what in ("handled", *rings)})
                    admin.execute("SELECT pg_sleep(0.1)")  # it falls asleep
                    if name == "ours" and turn:
                        for what, numbers in rings.items():
                            numbers.append(told[what])
                if turn == rounds:
                    break
        about = machine(admin) | {"rows": rows}

    def of_plain(name: str) -> list[float]:
        return [p / o for p, o in zip(taken["plain"], taken[name], strict=True)]

    figures = [
        Figure(f"{rows:,} rows in one statement, of plain", ">= 0.7", of_plain("ours")),
        Figure("no trigger, of plain", "", of_plain("no trigger")),
        Figure("plain again, of plain", "1", of_plain("plain again")),
        Figure("rings of a statement", "1", rings["rings"]),
        Figure("rings of the consumer, which frees keys meanwhile", "", rings["freed"]),
    ]
    return Report("bulk", about, figures, {"seconds": taken})
