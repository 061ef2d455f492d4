"""Time every page of the dashboard: 10,000,000 messages, 1,000 topics, 300 groups, all far behind.

The database is thrown away, so it is filled the fastest way. The tables, partitions and indexes are
those of any other.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psycopg

from benchmarks.harness import PAYLOAD, Figure, Report, machine, server
from benchmarks.scale_status import SUBSCRIBE

#: What a page may take, in seconds.
TARGET = "<= 0.5"
#: How long the first look at the database may take, in seconds.
PATIENCE = 120.0
FASTEST = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off",
    "wal_level": "minimal", "max_wal_senders": "0",
}  # fmt: skip
BATCH = 250_000
PUBLISH = f"""
    INSERT INTO durable_notify.outbox (topic, key, payload, created_at)
    SELECT 'topic-' || 1 + i %% %s, 'key-' || i %% 7919, {PAYLOAD.replace("%", "%%")},
           now() - (%s - i) * interval '0.25 seconds'
      FROM generate_series(%s::int, %s::int) AS i"""
#: Every group stops elsewhere in each topic, some within a window.
STOP = """
    UPDATE durable_notify.position p
       SET s0 = pg_current_snapshot(), h0 = (p.subscription_id::bigint * 7919) %% %s,
           s1 = CASE WHEN p.subscription_id %% 2 = 0 THEN pg_current_snapshot() END,
           p = CASE WHEN p.subscription_id %% 2 = 0
                    THEN (p.subscription_id::bigint * 7919) %% %s ELSE 0 END"""
#: A third are of group-1, the others of all; the newest are of all.
DEAD = """
    INSERT INTO durable_notify.dead_letter
        (subscription_id, message_id, topic, key, payload, published_at, attempt, reason, error,
         dead_at)
    SELECT s.id, o.id, o.topic, o.key, o.payload, o.created_at, 5, 'attempts',
           jsonb_build_object('type', 'Error' || o.id %% 20, 'message', repeat('x', 200)),
           now() - interval '9 days' + o.id * interval '1 second'
      FROM durable_notify.outbox o
      JOIN durable_notify.consumer_group g
           ON g.name = 'group-' || CASE WHEN o.id <= %s / 3 THEN 1 ELSE 1 + o.id * 7919 %% %s END
      JOIN durable_notify.subscription s ON s.topic = o.topic AND s.group_id = g.id
     WHERE o.id <= %s"""
#: Of group-2 without keys; of group-3 each key waits for its first message.
WAITING = """
    INSERT INTO durable_notify.deferred
        (subscription_id, message_id, due_at, attempt, reason, key, error)
    SELECT s.id, o.id, now() + o.id %% 3600 * interval '1 second',
           CASE WHEN w.reason = 'retry' THEN 3 ELSE 1 END, w.reason, w.key,
           CASE WHEN w.reason = 'retry' THEN jsonb_build_object(
                'type', 'Error' || o.id %% 20, 'message', repeat('x', 200)) END
      FROM durable_notify.outbox o
     CROSS JOIN LATERAL (
           SELECT 2 AS number, 'retry' AS reason, NULL AS key
            UNION ALL
           SELECT 3, CASE WHEN o.id <= %s / 10 THEN 'retry' ELSE 'key' END, 'key-' || o.id %% 20
           ) AS w
      JOIN durable_notify.consumer_group g ON g.name = 'group-' || w.number
      JOIN durable_notify.subscription s ON s.topic = o.topic AND s.group_id = g.id
     WHERE o.id <= %s"""
LEASED = """
    INSERT INTO durable_notify.lease
        (token, subscription_id, owner, claimed_at, deadline, ids, attempts, order_by)
    SELECT i, i, 'host-' || i %% 40 || ':4711', now() - i * interval '10 ms',
           now() + interval '1 hour', ARRAY(SELECT i * 20 + n FROM generate_series(1, 20) n),
           array_fill(1, ARRAY[20]), 'key'
      FROM generate_series(1, LEAST(5000, %s)) i"""
RECORDED = """
    WITH audited AS (
        INSERT INTO durable_notify.audit (action, group_name, topic, messages, why)
        SELECT 'redrive', 'group-' || 1 + i % 20, 'topic-1', i, 'why'
          FROM generate_series(1, 200000) i),
    lost AS (
        INSERT INTO durable_notify.lost_message
            (group_name, topic, first_id, last_id, messages, reason)
        SELECT 'group-1', 'topic-1', i, i + 9, 10, 'age' FROM generate_series(1, 20000) i)
    INSERT INTO durable_notify.replay_job
        (subscription_id, state, s0, h0, p, after_id, upto_id, total, last_id)
    SELECT i, 'done', '3:3:', 0, 0, 0, 9, 9, 9 FROM generate_series(1, 1000) i"""


def measure(
    *, groups: int = 300, topics: int = 1_000, messages: int = 10_000_000, dead: int = 300_000,
    rounds: int = 10,
) -> Report:  # fmt: skip
    with (
        server(**FASTEST) as postgres,
        psycopg.connect(postgres.dsn(), autocommit=True) as connection,
    ):
        fill(connection, groups, topics, messages, dead)
        with served(postgres.dsn()) as base:
            figures = pages(base, messages, topics, rounds)
        about = machine(connection) | {
            "groups": groups, "topics": topics, "messages": messages, "dead_letters": dead,
        }  # fmt: skip
    return Report("web", about, figures, {})


def fill(
    connection: psycopg.Connection[object], groups: int, topics: int, messages: int, dead: int
) -> None:
    """Make groups that have stopped anywhere in every topic, and all that the pages list."""
    layout = "INSERT INTO durable_notify.partition_settings (min_width, ahead) VALUES (%s, 11)"
    connection.execute(layout, (messages // 10,))
    create = "SELECT durable_notify.create_partitions()"
    while connection.execute(create).fetchone() != (0,):
        pass
    connection.execute(SUBSCRIBE, (groups, topics))
    # No consumer sleeps: the trigger would do nothing.
    trigger = "ALTER TABLE durable_notify.outbox {} TRIGGER outbox_after_insert"
    connection.execute(trigger.format("DISABLE").encode())
    for first in range(1, messages + 1, BATCH):
        last = min(first + BATCH - 1, messages)
        connection.execute(PUBLISH.encode(), (topics, messages, first, last))
    connection.execute(trigger.format("ENABLE ALWAYS").encode())
    connection.execute(STOP, (messages, messages))
    connection.execute(DEAD, (dead, groups - 1, dead))
    connection.execute(WAITING, (dead // 3, dead // 3))
    connection.execute(LEASED, (groups * topics,))
    connection.execute(RECORDED)
    connection.execute("VACUUM (ANALYZE)")


@contextlib.contextmanager
def served(dsn: str) -> Iterator[str]:
    """Serve the dashboard in a process of its own."""
    command = [sys.executable, "-m", "durable_notify.cli", "--dsn", dsn, "web", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+", process.stderr.readline())
            if found is None:
                raise RuntimeError("the dashboard does not run; see its output above")
            yield found[0].rstrip("/")
        finally:
            process.terminate()


def addresses(messages: int, topics: int) -> dict[str, str]:
    """The pages by what they show."""
    newest = messages - messages % topics + 6
    newest -= topics if newest > messages else 0
    return {
        "overview": "/",
        "overview, the last day": "/?span=day",
        "topics": "/topics",
        "topics, by size": "/topics?sort=size",
        "topics that match": "/topics?q=topic-77",
        "a topic": "/topics/topic-7",
        "groups": "/groups",
        "groups that match": "/groups?q=group-77",
        "a group": "/groups/group-7",
        "a group with many retries": "/groups/group-2",
        "a group with many keys that wait": "/groups/group-3",
        "messages": "/messages?topic=topic-7",
        "messages, no key matches": "/messages?topic=topic-7&key=nothing",
        "messages, no payload matches": "/messages?topic=topic-7&path=customer&value=nothing",
        "messages, no header matches": "/messages?topic=topic-7&header=a&header_value=nothing",
        "a message": f"/messages/{newest}/topic-7",
        "a message in many states": "/messages/6/topic-7",
        "dead letters": "/dead-letters",
        "dead letters of a group": "/dead-letters?group=group-1",
        "dead letters of a group with few": "/dead-letters?group=group-7",
        "dead letters of a topic": "/dead-letters?topic=topic-7",
        "dead letters, no key matches": "/dead-letters?group=group-1&key=nothing",
        "dead letters, no error matches": "/dead-letters?error_type=Nothing",
        "replays": "/replays",
        "consumers": "/consumers",
        "retention": "/retention",
        "bridges": "/bridges",
        "audit": "/audit",
        "audit of a group": "/audit?group=group-7",
    }


def pages(base: str, messages: int, topics: int, rounds: int) -> list[Figure]:
    """Time each page some times; the first of all comes before anything was looked at."""
    figures = []
    with httpx.Client(base_url=base, timeout=60) as client:

        def get(path: str) -> float:
            begun = time.perf_counter()
            answer = client.get(path)
            seconds = time.perf_counter() - begun
            if answer.status_code != 200:
                raise RuntimeError(f"{path}: {answer.status_code}")
            if "could not be looked at" in answer.text:
                raise RuntimeError(f"{path}: there is no sample")
            return seconds

        figures.append(Figure("overview, the first page of all", TARGET, [get("/")], "s"))
        begun = time.perf_counter()
        while "The first look" in client.get("/topics").text:
            if time.perf_counter() - begun > PATIENCE:
                raise RuntimeError(f"there is no sample after {PATIENCE:g} seconds")
            time.sleep(0.1)
        figures.append(Figure("the first look after it", "", [time.perf_counter() - begun], "s"))
        for name, path in addresses(messages, topics).items():
            figures.append(Figure(name, TARGET, [get(path) for _ in range(rounds)], "s"))
    highest = max(max(figure.rounds) for figure in figures if figure.target)
    medians = [figure.median for figure in figures if figure.target]
    figures.append(Figure("the median of all pages", "", [statistics.median(medians)], "s"))
    figures.append(Figure("the slowest answer", TARGET, [highest], "s"))
    return figures
