"""Time every page of the dashboard over a large database: 1,000 topics read by 300 groups."""

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

from benchmarks.harness import Figure, Report, machine, server
from benchmarks.scale_status import STOP, SUBSCRIBE, publish

#: What a page may take, in seconds.
TARGET = "<= 0.5"
DEAD = """
    INSERT INTO durable_notify.dead_letter
        (subscription_id, message_id, topic, key, payload, published_at, attempt, reason, error)
    SELECT s.id, o.id, o.topic, o.key, o.payload, o.created_at, 5, 'attempts',
           jsonb_build_object('type', 'Error' || o.id %% 20, 'message', repeat('x', 200))
      FROM (SELECT * FROM durable_notify.outbox ORDER BY id LIMIT %s) AS o
      JOIN durable_notify.subscription s ON s.topic = o.topic
      JOIN durable_notify.consumer_group g ON g.id = s.group_id AND g.name = 'group-1'"""


def measure(
    *, groups: int = 300, topics: int = 1_000, messages: int = 2_000_000, dead: int = 100_000,
    rounds: int = 10,
) -> Report:  # fmt: skip
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        fill(connection, groups, topics, messages, dead)
        with served(postgres.dsn()) as base:
            figures = pages(base, messages, rounds)
        about = machine(connection) | {
            "groups": groups, "topics": topics, "messages": messages, "dead_letters": dead,
        }  # fmt: skip
    return Report("web", about, figures, {})


def fill(
    connection: psycopg.Connection[object], groups: int, topics: int, messages: int, dead: int
) -> None:
    """Make groups that have stopped anywhere in every topic, and dead letters of one."""
    connection.execute(SUBSCRIBE, (groups, topics))
    publish(connection, topics, messages)
    connection.execute(STOP, (messages, messages))
    connection.execute(DEAD, (dead,))
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


def pages(base: str, messages: int, rounds: int) -> list[Figure]:
    """Time each page some times; the first of all comes before anything was looked at."""
    wanted = {
        "topics": "/topics",
        "topics, page 5": "/topics?from=400",
        "topics that match": "/topics?q=topic-77",
        "a topic": "/topics/topic-7",
        "groups": "/groups",
        "groups that match": "/groups?q=group-77",
        "a group": "/groups/group-7",
        "messages": "/messages?topic=topic-7",
        "messages, no key matches": "/messages?topic=topic-7&key=nothing",
        "messages, no payload matches": "/messages?topic=topic-7&path=customer&value=nothing",
        "messages, no header matches": "/messages?topic=topic-7&header=a&header_value=nothing",
        "a message": f"/messages/{messages - messages % 1000 + 7 - 1000}/topic-8",
        "dead letters": "/dead-letters",
        "dead letters of a group": "/dead-letters?group=group-1",
        "dead letters of a topic": "/dead-letters?topic=topic-7",
        "dead letters, none matches": "/dead-letters?group=group-1&key=nothing",
        "replays": "/replays",
        "consumers": "/consumers",
        "retention": "/retention",
        "bridges": "/bridges",
        "audit": "/audit",
    }
    figures = []
    with httpx.Client(base_url=base, timeout=60) as client:

        def get(path: str) -> float:
            begun = time.perf_counter()
            answer = client.get(path)
            seconds = time.perf_counter() - begun
            if answer.status_code != 200:
                print(f"web: {path}: {answer.status_code}", file=sys.stderr)
            return seconds

        figures.append(Figure("overview, the first page of all", TARGET, [get("/")], "s"))
        begun = time.perf_counter()
        while "The first look" in client.get("/topics").text:
            time.sleep(0.1)
        figures.append(Figure("the first look after it", "", [time.perf_counter() - begun], "s"))
        for name, path in {"overview": "/", **wanted}.items():
            figures.append(Figure(name, TARGET, [get(path) for _ in range(rounds)], "s"))
    highest = max(max(figure.rounds) for figure in figures if figure.target)
    medians = [figure.median for figure in figures if figure.target]
    figures.append(Figure("the median of all pages", "", [statistics.median(medians)], "s"))
    figures.append(Figure("the slowest answer", TARGET, [highest], "s"))
    return figures
