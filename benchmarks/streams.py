"""A server of streams with many clients: what arrives, how late, and what it costs."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg

from benchmarks.harness import Figure, Report, Worker, machine, percentile, server

INSERT = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('prices', %s)"
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'durable_notify%'"


def measure(*, clients: int = 1_000, rate: int = 100, seconds: float = 20.0) -> Report:
    """Publish at a rate while all clients follow one topic; one server process."""
    with (
        server() as running,
        psycopg.connect(running.dsn(), autocommit=True) as admin,
        Worker("serve", running.dsn(), clients=clients) as serving,
    ):
        empty = serving.tell("state")
        given = {"port": empty["port"], "clients": clients, "path": "/events?topic=prices"}
        with Worker("follow", running.dsn(), **given) as following:
            while serving.tell("state")["live"] < clients:
                time.sleep(0.1)
            before, statements = serving.tell("state"), transactions(admin)
            begun = time.monotonic()
            sent = publish(admin, rate, seconds)
            took = time.monotonic() - begun
            found = arrived(following, sent)
            after = serving.tell("state")
            # One for each message was the publisher's.
            statements = transactions(admin) - statements - sent
            connections = admin.execute(CONNECTIONS).fetchone()[0]  # type: ignore[index]
        about = machine(admin) | {"clients": clients, "rate": rate, "seconds": seconds}
    cpu = (after["cpu"] - before["cpu"]) / took
    figures = [
        Figure("of what was published, arrived", "1", [sum(found["counts"]) / (sent * clients)]),
        Figure("clients that were disconnected", "0", [after["shed"]]),
        Figure("published", "", [sent / took], "messages/s"),
        Figure("delay, median", "", [percentile(found["delays"], 50)], "ms"),
        Figure("delay, 99th percentile", "", [percentile(found["delays"], 99)], "ms"),
        Figure("cores that the server used", "", [cpu]),
        Figure("memory without clients", "", [empty["RSS"]], "MB"),
        Figure("memory at most", "", [after["HWM"]], "MB"),
        Figure("memory a client", "", [1000 * (after["HWM"] - empty["RSS"]) / clients], "kB"),
        Figure("statements on the database, a message", "", [statements / sent]),
        Figure("connections to the database", "2", [connections]),
    ]
    return Report("streams", about, figures, {})


def publish(admin: psycopg.Connection[Any], rate: int, seconds: float) -> int:
    """Publish at a steady rate; returns how many."""
    number = round(rate * seconds)
    begun = time.monotonic()
    for done in range(number):
        time.sleep(max(0.0, begun + done / rate - time.monotonic()))
        payload = {"price": done, "note": "x" * 60, "at": time.monotonic_ns()}
        admin.execute(INSERT, (json.dumps(payload),))
    return number


def arrived(following: Worker, sent: int) -> Any:
    """Return what arrived, once that is all, or after some seconds."""
    until = time.monotonic() + 10
    while True:
        found = following.tell("state")
        if min(found["counts"]) >= sent or time.monotonic() > until:
            return found
        time.sleep(0.2)


def transactions(admin: psycopg.Connection[Any]) -> int:
    """Return how many transactions this database has seen; sessions report them after a second."""
    time.sleep(1.5)
    admin.execute("SELECT")  # reports what this session did before
    query = (
        "SELECT xact_commit + xact_rollback FROM pg_stat_database"
        " WHERE datname = current_database()"
    )
    return int(admin.execute(query).fetchone()[0])  # type: ignore[index]
