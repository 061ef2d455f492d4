"""How long maintenance makes publishers and consumers wait while it removes messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks.harness import CLAIM, PAYLOAD, SETTLE, Figure, Report, machine, percentile, server

BATCH = 100_000
FILL = f"""
    INSERT INTO durable_notify.outbox (topic, key, payload, created_at)
    SELECT 'orders', 'key-' || i % 1000, {PAYLOAD}, clock_timestamp() - interval '1 day'
      FROM generate_series(1::int, {{}}) AS i"""
PUBLISH = "SELECT durable_notify.publish('orders', '1')"
EXPIRED = (
    "SELECT EXISTS (SELECT FROM durable_notify.outbox WHERE created_at < now() - interval '1 hour')"
)
PARTITIONS = "FROM pg_partition_tree('durable_notify.outbox') WHERE isleaf"
SIZE = f"SELECT sum(pg_total_relation_size(relid))::bigint {PARTITIONS}"
DISK = "SELECT pg_database_size(current_database())"
DEAD = f"SELECT coalesce(sum(pg_stat_get_dead_tuples(relid)), 0)::bigint {PARTITIONS}"
SEEN = """
    SELECT extract(epoch FROM clock_timestamp()), EXISTS (
        SELECT FROM pg_locks
         WHERE pid = %s AND granted AND mode = 'AccessExclusiveLock' AND locktype = 'relation'
           AND relation IN (SELECT relid FROM pg_partition_tree('durable_notify.outbox')))"""


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    return connection.execute(query.encode()).fetchone()[0]  # type: ignore[index]


def fill(dsn: str, messages: int) -> None:
    """Publish expired messages from two sessions; partitions are created ahead, a tenth each."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for (partition,) in connection.execute(
            "SELECT name::text FROM durable_notify.partitions()"
        ):
            connection.execute(f"DROP TABLE {partition}".encode())
        connection.execute(
            "INSERT INTO durable_notify.partition_settings (min_width) VALUES (%s)",
            (messages // 10,),
        )
        while one(connection, "SELECT durable_notify.create_partitions()"):
            pass

    def batch(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(FILL.format(number).encode())
            while one(connection, "SELECT durable_notify.create_partitions()"):
                pass

    with ThreadPoolExecutor(2) as pool:
        sizes = [min(BATCH, messages - begun) for begun in range(0, messages, BATCH)]
        for future in [pool.submit(batch, size) for size in sizes]:
            future.exception()  # create_partitions(): another session is running it
    with psycopg.connect(dsn, autocommit=True) as connection:
        there = one(connection, "SELECT count(*) FROM durable_notify.outbox")
        assert there == messages, there


class Load:
    """Two publishers and two consumers, one group each, without a pause."""

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
    """Measure the milliseconds of each publish and claim while the block lasts."""
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


def remove(connection: psycopg.Connection[Any]) -> None:
    """Maintain until nothing expired is left."""
    while one(connection, EXPIRED):
        connection.execute("CALL durable_notify.maintain()")


class Looks:
    """Measures how long pg_locks shows a session's lock that blocks readers, in milliseconds.

    The answer to a commit arrives after its locks are released: files are unlinked in between.
    """

    def __init__(self, dsn: str, pid: int) -> None:
        self.held = [0.0]
        self.gaps = [0.0]  # between two checks
        self.stop = threading.Event()
        self.dsn, self.pid = dsn, pid

    def go(self) -> None:
        since = before = None
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self.stop.wait(0.0005):
                row = connection.execute(SEEN, (self.pid,)).fetchone()
                now, seen = float(row[0]) * 1000, row[1]  # type: ignore[index]
                if before is not None:
                    self.gaps.append(now - before)
                since = (since or now) if seen else None
                if since is not None:
                    self.held.append(now - since)
                before = now


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
        sizes = [one(admin, SIZE), one(admin, DISK)]
        with load(dsn) as before:
            time.sleep(before_seconds)
        begun = time.monotonic()
        looks = Looks(dsn, admin.info.backend_pid)
        with ThreadPoolExecutor(1) as pool, load(dsn) as during:
            looking = pool.submit(looks.go)
            remove(admin)
            looks.stop.set()
            looking.result()
        took = time.monotonic() - begun
        left = [one(admin, SIZE), one(admin, DISK)]
        time.sleep(1.5)  # idle sessions hand in their statistics once a second
        dead = one(admin, DEAD)
        about = machine(admin) | {"messages": messages, "filled in seconds": filled, "unit": "ms"}
    assert len(looks.gaps) > 1
    figures = [
        Figure("longest that a lock was seen that bars readers", "<= 50", [max(looks.held)], "ms"),
        Figure("between two looks, 99th percentile", "", [percentile(looks.gaps, 99)], "ms"),
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
    rounds = {
        "seen": looks.held,
        "gaps": [max(looks.gaps)],
        "log": [sizes[0], left[0]],
        "database": [sizes[1], left[1]],
    }
    return Report("retention", about, figures, rounds)
