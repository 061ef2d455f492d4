"""The recipes: Celery, FastStream, and servers that fork their workers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psycopg
import pytest

import durable_notify as dn
from durable_notify import testing
from tests.support.brokers import RabbitMQ, free_port
from tests.support.examples import Program, left, loaded, publish, query, started
from tests.support.wait import eventually

TABLES = """
    CREATE TABLE shipment (message_id bigint PRIMARY KEY, item text);
    CREATE TABLE confirmation (message_id bigint PRIMARY KEY, worker int);
"""


@pytest.fixture
def tables(conn: psycopg.Connection) -> None:
    conn.execute(TABLES)


@pytest.fixture
def celery_app(dsn: str, tables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    from celery import _state

    # Trap: a task becomes one of every application that is made later.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    publish(dsn, "orders", {"item": "tea"}, {"item": "milk"})
    with loaded("celery_handover", dsn) as module:
        yield module


def test_celery_has_the_task_once_the_message_is_acknowledged(celery_app: ModuleType) -> None:
    """On its broker in memory."""
    assert len(testing.drain(celery_app.handover).handled) == 2
    with celery_app.app.connection() as connection, connection.SimpleQueue("celery") as tasks:
        found = [tasks.get(timeout=5) for _ in range(2)]
        for message in found:
            message.ack()
    assert [message.headers["id"] for message in found] == ["1", "2"]
    assert [message.payload[0] for message in found] == [[{"item": "tea"}], [{"item": "milk"}]]


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.server)])
def celery_broker(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    if request.param == "memory":
        yield
        return
    with RabbitMQ() as server:
        monkeypatch.setenv("CELERY_BROKER", server.url)
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_celery(celery_broker: None, celery_app: ModuleType, dsn: str) -> None:
    """A message that is handed over twice is one shipment."""
    from celery.contrib.testing.worker import start_worker

    sent: list[str] = []

    @celery_app.app.task(name="done")
    def done() -> None:
        sent.append("done")

    with start_worker(celery_app.app, perform_ping_check=False, pool="solo", shutdown_timeout=20):
        for _ in range(2):
            assert len(testing.drain(celery_app.handover).handled) == 2
            with psycopg.connect(dsn) as connection:
                dn.Admin().replay(connection, "to-celery", "orders", after=0)
        done.apply_async()
        eventually(lambda: sent == ["done"])
    shipments = query(dsn, "SELECT message_id, item FROM shipment ORDER BY 1")
    assert shipments == [(1, "tea"), (2, "milk")]


async def test_faststream(dsn: str, conn: psycopg.Connection) -> None:
    from faststream.nats import TestNatsBroker

    with loaded("faststream_app", dsn) as module:
        with psycopg.connect(dsn) as connection, contextlib.suppress(KeyError):
            with connection.transaction():
                dn.Publisher().publish(connection, "shipments", {"order": 0})
                raise KeyError
        publish(dsn, "shipments", {"order": 1})
        async with TestNatsBroker(module.broker, connect_only=False):
            for _ in range(2):
                assert len((await testing.drain_async(module.handover)).handled) == 1
                dn.Admin().replay(conn, "to-nats", "shipments", after=0)
            module.on_shipment.mock.assert_called_with({"order": 1})
    testing.assert_published(conn, "parcels", payload={"order": 1}, count=1)


@contextlib.contextmanager
def serving(*command: str | Path, dsn: str, port: int) -> Iterator[Program]:
    """A server that answers."""

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
        return False

    with started(sys.executable, "-m", *command, dsn=dsn) as program:
        try:
            eventually(answers)
            yield program
        finally:
            if program.process.poll() is None:
                program.end()


def post(port: int, path: str, numbers: Iterable[int]) -> list[Any]:
    def one(number: int) -> Any:
        answer = httpx.post(
            f"http://127.0.0.1:{port}{path}",
            json={"customer": "ann", "item": "tea", "count": number},
        )
        return answer.raise_for_status().json()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, numbers))


def listeners(dsn: str) -> int:
    named = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'durable_notify listener'"
    )
    return int(query(dsn, named + " AND datname = current_database()")[0][0])


@pytest.mark.server
def test_gunicorn(dsn: str, conn: psycopg.Connection, tables: None) -> None:
    """Two workers of one preloaded application; one is killed, and then all are stopped."""
    port = free_port()
    command = ("gunicorn", "--config", "gunicorn_app.py", "--bind", f"127.0.0.1:{port}")

    def workers() -> set[int]:
        return {pid for (pid,) in query(dsn, "SELECT DISTINCT worker FROM confirmation")}

    def confirmed(number: int) -> Callable[[], bool]:
        return lambda: query(dsn, "SELECT count(*) FROM confirmation") == [(number,)]

    with serving(*command, "gunicorn_app:app", dsn=dsn, port=port) as program:
        eventually(lambda: listeners(dsn) == 2)
        ids = [answer["message"] for answer in post(port, "/orders", range(1, 31))]
        assert len(set(ids)) == 30
        eventually(confirmed(30))
        assert program.process.pid not in workers()
        victim = min(workers())
        os.kill(victim, signal.SIGKILL)
        query(dsn, "UPDATE durable_notify.lease SET deadline = clock_timestamp() RETURNING 1")
        sent = 30
        while victim in workers() and len(workers()) < 3:  # until its successor handles some
            sent += len(post(port, "/orders", range(1, 11)))
            eventually(confirmed(sent))
            assert sent < 1000
        assert program.end() == 0
    assert left(dsn, "confirmations") == [(0, 0, 0, 0)]


@pytest.mark.server
@pytest.mark.slow
def test_uvicorn(dsn: str, conn: psycopg.Connection) -> None:
    """Each of two processes runs the lifespan, and has a consumer."""
    port = free_port()
    command = ("uvicorn", "--workers", "2", "--port", str(port), "order_service:app")
    with serving(*command, dsn=dsn, port=port) as program:
        named = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        for group in ("stock", "accounts"):
            name = f"durable_notify consumer {group}"
            eventually(lambda: conn.execute(named, [name]).fetchone() == (2,))  # noqa: B023
        orders = [answer["id"] for answer in post(port, "/orders", [1] * 20)]
        done = "SELECT count(*) FROM customer_order WHERE reserved"
        eventually(lambda: query(dsn, done) == [(len(orders),)])
        assert program.end() in {0, -signal.SIGTERM}
    assert left(dsn, "stock") == [(0, 0, 0, 0)]
