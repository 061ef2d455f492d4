"""Measure the CPU of a backend for claims and settles, beside that of a prepared SELECT."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import Any, Self

import psycopg

from benchmarks.harness import PAYLOAD, Figure, Report, fill, machine, server

CLAIM = "SELECT * FROM durable_notify.claim(%s, %s, %s, '30 seconds', 'benchmark', alone => true)"
SETTLE = "SELECT durable_notify.settle(%s, %s)"
PUBLISH = (
    "INSERT INTO durable_notify.outbox (topic, payload)"
    f" SELECT %s, {PAYLOAD.replace('%', '%%')} FROM generate_series(1, 1) AS i RETURNING id"
)
SELECT = "SELECT * FROM durable_notify.outbox WHERE topic = %s AND id > %s ORDER BY id LIMIT %s"


class Session:
    """A session whose statements are prepared, and which knows what its backend has used."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
        self._used = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(self, statement: str, *params: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, params, binary=True).fetchall()

    def lap(self) -> float:
        """Return the milliseconds of CPU that the backend has used since the last call."""
        self.run("SELECT pg_sleep(0.001)")  # what it used is counted when it sleeps
        path = Path(f"/proc/{self.connection.info.backend_pid}/schedstat")
        before, self._used = self._used, int(path.read_text().split()[0])
        return (self._used - before) / 1e6


class Bench:
    """Three sessions, so that each one's CPU is that of one kind of statement."""

    def __init__(self, dsn: str, stack: contextlib.ExitStack) -> None:
        self.claimer, self.settler, self.other = (
            stack.enter_context(Session(dsn)) for _ in range(3)
        )
        self.figures: dict[str, list[float]] = {}

    def group(self, topics: list[str], start: str, order_by: str = "key") -> str:
        name = uuid.uuid4().hex
        self.other.run("SELECT durable_notify.subscribe(%s, %s::text[], %s)", name, topics, start)
        options = f'{{"order_by": "{order_by}"}}'
        self.other.run("SELECT durable_notify.configure(%s, %s::jsonb)", name, options)
        return name

    def record(self, name: str, milliseconds: float) -> None:
        self.figures.setdefault(name, []).append(milliseconds)

    def time(self, name: str, times: int, statement: str, *params: object) -> None:
        """Record what a statement costs."""
        self.claimer.lap()
        for _ in range(times):
            self.claimer.run(statement, *params)
        self.record(name, self.claimer.lap() / times)

    def claim(self, name: str, times: int, claim: tuple[Any, ...], publish: str = "") -> None:
        """Record what a claim and a settle of what it got cost, after a publish if any."""
        self.claimer.lap()
        self.settler.lap()
        got = 0
        for _ in range(times):
            if publish:
                self.other.run(PUBLISH, publish)
            rows = self.claimer.run(CLAIM, *claim)
            got += len(rows)
            self.settler.run(SETTLE, rows[0][0], [row[1] for row in rows])
        self.record(f"claim of {name}", self.claimer.lap() / times)
        self.record(f"settle of {name}", self.settler.lap() / times)
        assert got == times * (1 if publish else claim[2])


def one_round(bench: Bench, topics: list[str], times: int) -> None:
    """Measure everything once."""
    few = max(times // 20, 5)
    bench.time("a SELECT of 1", times, SELECT, "keyed", 1000, 1)
    bench.time("a SELECT of 100", times, SELECT, "keyed", 1000, 100)
    for order_by in ("none", "key"):
        group = bench.group(["orders"], "now", order_by)
        bench.claim(f"1, order {order_by}", times, (group, ["orders"], 100), publish="orders")
        bench.time(f"empty claim, order {order_by}", times, CLAIM, group, ["orders"], 100)
    for topic, order_by in (("plain", "none"), ("plain", "key"), ("keyed", "key")):
        group = bench.group([topic], "beginning", order_by)
        bench.claim(f"100, {topic}, order {order_by}", times // 5, (group, [topic], 100))
    group = bench.group(topics, "now")
    number = f"{len(topics):,} topics"
    bench.claim(f"1, of {number}", few, (group, topics, 100), publish=topics[-1])
    bench.time(f"empty claim, of {number}", few, CLAIM, group, topics, 100)


def prepare(connection: psycopg.Connection[Any], topics: list[str], retained: int) -> None:
    """Retain messages of two topics, one with 1,000 keys; each other topic has one."""
    fill(connection, "keyed", retained)
    fill(connection, "plain", retained)
    connection.execute(
        "INSERT INTO durable_notify.outbox (topic, payload)"
        f" SELECT t, {PAYLOAD.replace('%', '%%')}"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS t (t, i)",
        ([*topics, "orders"],),
    )
    connection.execute("UPDATE durable_notify.outbox SET key = NULL WHERE topic = 'plain'")
    connection.execute("VACUUM (ANALYZE) durable_notify.outbox")


def measure(
    *, times: int = 100, rounds: int = 10, topics: int = 1000, retained: int = 50_000
) -> Report:
    names = [f"topic-{number}" for number in range(topics)]
    with server() as postgres, contextlib.ExitStack() as stack:
        bench = Bench(postgres.dsn(), stack)
        prepare(bench.other.connection, names, retained)
        one_round(bench, names, min(times, 20))  # warm
        bench.figures.clear()
        for _ in range(rounds):
            one_round(bench, names, times)
        about = machine(bench.other.connection) | {"times": times, "topics": topics}
    figures = [
        Figure(f"CPU of a backend, {name}", "", values, "ms")
        for name, values in bench.figures.items()
    ]  # fmt: skip
    return Report("claiming", about, figures, {})
