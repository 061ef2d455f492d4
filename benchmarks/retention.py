"""What maintenance removes beside who publishes and claims: how long they are kept waiting."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks.common import CLAIM, PAYLOAD, SETTLE, percentile
from durable_notify.bench.harness import Figure, Report, machine, server

BATCH = 100_000
FILL = f"""
    INSERT INTO durable_notify.outbox (topic, key, payload, created_at)
    SELECT 'orders', 'key-' || i % 1000, {PAYLOAD}, clock_timestamp() - interval '1 day'
      FROM generate_series(1::int, {{}}) AS i"""
PUBLISH = "SELECT durable_notify.publish('orders', '1')"
EXPIRED = (
    "SELECT EXISTS (SELECT FROM durable_notify.outbox WHERE created_at < now() - interval '1 hour')"
)
LEAVES = "FROM pg_partition_tree('durable_notify.outbox') WHERE isleaf"
SIZE = f"SELECT sum(pg_total_relation_size(relid))::bigint {LEAVES}"
DISK = "SELECT pg_database_size(current_database())"
DEAD = f"SELECT coalesce(sum(pg_stat_get_dead_tuples(relid)), 0)::bigint {LEAVES}"
#: Where a function takes, or has taken, a lock that bars readers.
BARS = re.compile(r"(LOCK TABLE \S+ IN ACCESS EXCLUSIVE MODE(?:', part\.leaf\))?;(?! *--))")
SAYS = r"\1 RAISE NOTICE 'locked %', extract(epoch FROM clock_timestamp());"
ATTACHES = re.compile(r"(PERFORM durable_notify\.make_leaf\()")
FUNCTIONS = """
    SELECT pg_get_functiondef(oid) FROM pg_proc
     WHERE pronamespace = 'durable_notify'::regnamespace
       AND proname IN ('remove_leaf', 'drop_leaf', 'put_copy', 'make_partitions')"""


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    return connection.execute(query.encode()).fetchone()[0]  # type: ignore[index]


def fill(dsn: str, messages: int) -> None:
    """Publish what has expired: two at once; leaves are made ahead, at first a tenth of it each."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for (leaf,) in connection.execute("SELECT leaf::text FROM durable_notify.leaves()"):
            connection.execute(f"DROP TABLE {leaf}".encode())
        connection.execute(
            "INSERT INTO durable_notify.log_layout (min_width) VALUES (%s)", (messages // 10,)
        )
        while one(connection, "SELECT durable_notify.make_partitions()"):
            pass

    def batch(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(FILL.format(number).encode())
            while one(connection, "SELECT durable_notify.make_partitions()"):
                pass

    with ThreadPoolExecutor(2) as pool:
        sizes = [min(BATCH, messages - begun) for begun in range(0, messages, BATCH)]
        for future in [pool.submit(batch, size) for size in sizes]:
            future.exception()  # make_partitions(): somebody else is at it
    with psycopg.connect(dsn, autocommit=True) as connection:
        there = one(connection, "SELECT count(*) FROM durable_notify.outbox")
        assert there == messages, there


class Load:
    """Two who publish and two who claim, one group each, without a pause."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"publish": [], "claim": []}
        self.stop = threading.Event()

    def publish(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not self.stop.wait(0.002):
                self.took("publish", connection, PUBLISH)

    def consume(self, dsn: str, group: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not self.stop.wait(0.002):
                rows = self.took("claim", connection, CLAIM, (group, 100))
                if rows:
                    connection.execute(SETTLE, (rows[0][0], [row[1] for row in rows]))

    def took(self, what: str, connection: Any, query: str, values: Any = None) -> list[Any]:
        begun = time.perf_counter()
        rows: list[Any] = connection.execute(query, values).fetchall()
        self.times[what].append((time.perf_counter() - begun) * 1000)
        return rows


@contextmanager
def load(dsn: str) -> Iterator[dict[str, list[float]]]:
    """Milliseconds of each publish and claim while the block lasts."""
    running = Load()
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(running.publish, dsn) for _ in range(2)]
        work += [pool.submit(running.consume, dsn, group) for group in ("one", "other")]
        try:
            yield running.times
        finally:
            running.stop.set()
        for each in work:
            each.result()


def locks_are_told(connection: psycopg.Connection[Any]) -> None:
    """Have maintenance tell when it has a lock that bars readers; the default's: when it waits."""
    told = 0
    for (definition,) in connection.execute(FUNCTIONS).fetchall():
        changed, number = BARS.subn(SAYS, definition)
        changed, attaching = ATTACHES.subn(SAYS.removeprefix(r"\1 ") + r" \1", changed)
        assert number + attaching == 1, definition
        connection.execute(changed)
        told += 1
    assert told == 4


def remove(connection: psycopg.Connection[Any]) -> list[float]:
    """Maintain until nothing expired is left; milliseconds of each lock, up to the commit."""
    since: list[float] = []
    held: list[float] = []

    def tell(notice: Any) -> None:
        if (said := notice.message_primary or "").startswith("locked "):
            since.append(float(said.split()[1]))

    connection.add_notice_handler(tell)
    while one(connection, EXPIRED):
        assert one(connection, "SELECT durable_notify.maintain_begin('bench', '0')")
        for step, topic in connection.execute(
            "SELECT step, topic FROM durable_notify.maintain_steps()"
        ).fetchall():
            done = 1
            while done:
                since.clear()
                query = "SELECT durable_notify.maintain_step('bench', %s, %s)"
                (done,) = connection.execute(query, (step, topic)).fetchone()  # type: ignore[misc]
                if since:
                    held.append((time.time() - since[0]) * 1000)
        connection.execute("SELECT durable_notify.maintain_end('bench', '{}')")
    return held


def measure(*, messages: int = 10_000_000, before_seconds: float = 20.0) -> Report:
    """Remove expired messages of a topic that is in use."""
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        dsn = running.dsn()
        begun = time.monotonic()
        fill(dsn, messages)
        filled = time.monotonic() - begun
        for group in ("one", "other"):
            admin.execute("SELECT durable_notify.subscribe(%s, '{orders}', 'now')", (group,))
        admin.execute("SELECT durable_notify.set_retention('orders', max_age => '1 hour')")
        locks_are_told(admin)
        sizes = [one(admin, SIZE), one(admin, DISK)]
        with load(dsn) as before:
            time.sleep(before_seconds)
        begun = time.monotonic()
        with load(dsn) as during:
            held = remove(admin)
        took = time.monotonic() - begun
        left = [one(admin, SIZE), one(admin, DISK)]
        time.sleep(1.5)  # idle sessions hand in their statistics once a second
        dead = one(admin, DEAD)
        about = machine(admin) | {"messages": messages, "filled in seconds": filled, "unit": "ms"}
    assert held
    figures = [
        Figure("longest that a lock kept readers out", "<= 50", [max(held)], "ms"),
        Figure("seconds until all had gone", "", [took], "s"),
        Figure("log on disk, before", "", [sizes[0] / 1e6], "MB"),
        Figure("log on disk, after", "", [left[0] / 1e6], "MB"),
        Figure("dead tuples left", "", [float(dead)]),
    ]
    for what in ("publish", "claim"):
        for name, times in (("before", before[what]), ("meanwhile", during[what])):
            figures.append(Figure(f"longest {what}, {name}", "", [max(times)], "ms"))
            figures.append(
                Figure(f"{what}, 99th percentile, {name}", "", [percentile(times, 99)], "ms")
            )
    rounds = {"held": held, "log": [sizes[0], left[0]], "database": [sizes[1], left[1]]}
    return Report("retention", about, figures, rounds)
