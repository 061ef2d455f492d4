"""The examples do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import testing
from durable_notify.embedded import environment
from tests.docs.pages import CHECKOUT
from tests.support.brokers import Nats, RabbitMQ, Redis
from tests.support.cli import good
from tests.support.kafka import kafka
from tests.support.missing import install, need_package, need_program, skip_missing
from tests.support.postgres import Postgres
from tests.support.wait import eventually

EXAMPLES = CHECKOUT / "examples"


def publish(dsn: str, topic: str, *payloads: Any) -> None:
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish_many(connection, topic, payloads)


def query(dsn: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(text.encode()).fetchall()


def left(dsn: str, group: str) -> list[tuple[int | None, ...]]:
    """What a group has not handled: unread, deferred, leased, dead."""
    with psycopg.connect(dsn) as connection:
        return [
            (line.unread, line.deferred, line.leased, line.dead)
            for line in dn.Admin().status(connection)
            if line.group == group
        ]


class Program:
    """A program that runs beside the test; its lines can be waited for."""

    def __init__(self, *command: str | Path, dsn: str, cwd: Path) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"DURABLE_NOTIFY_DSN": dsn},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))

    def line(self, timeout: float = 20.0) -> str:
        return self._lines.get(timeout=timeout)

    def end(self) -> int:
        """Stop it as an operator does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextlib.contextmanager
def started(*command: str | Path, dsn: str, cwd: Path = EXAMPLES) -> Iterator[Program]:
    program = Program(*command, dsn=dsn, cwd=cwd)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


def test_worker_is_killed_and_counts_each_payment_once(dsn: str) -> None:
    payments = [{"account": f"a{n % 3}", "amount": 1} for n in range(300)]
    publish(dsn, "payments", *payments, "nonsense")
    worker = EXAMPLES / "worker.py"

    with started(sys.executable, worker, dsn=dsn) as program:
        for _ in range(20):
            program.line()
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
    # The lease of the one killed would run out in 30 seconds.
    query(dsn, "UPDATE durable_notify.lease SET deadline = clock_timestamp() RETURNING 1")

    with started(sys.executable, worker, "--until-empty", dsn=dsn) as program:
        assert program.process.wait(60) == 0
    assert query(dsn, "SELECT name, balance::int FROM account ORDER BY name") == [
        ("a0", 100),
        ("a1", 100),
        ("a2", 100),
    ]
    assert left(dsn, "accounts") == [(0, 0, 0, 1)]


def test_worker_stops_when_told(dsn: str) -> None:
    publish(dsn, "payments", {"account": "a", "amount": 1})
    with started(sys.executable, EXAMPLES / "worker.py", dsn=dsn) as program:
        program.line()
        assert program.end() == 0
    assert left(dsn, "accounts") == [(0, 0, 0, 0)]


@contextlib.contextmanager
def loaded(name: str, dsn: str) -> Iterator[ModuleType]:
    """The module of an example, which reads its DSN when it is imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DURABLE_NOTIFY_DSN", dsn)
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.fixture
def shop(dsn: str) -> Iterator[ModuleType]:
    need_package("fastapi")
    need_package("httpx")
    with loaded("fastapi_app", dsn) as module:
        yield module


async def test_fastapi(shop: ModuleType, dsn: str) -> None:
    import httpx

    transport = httpx.ASGITransport(app=shop.app)
    async with (
        shop.app.router.lifespan_context(shop.app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        created = await client.post("/orders", json={"item": "tea", "count": 2})
        assert created.status_code == 201
        order_id = created.json()["id"]
        async with asyncio.timeout(20):
            while not (order := (await client.get(f"/orders/{order_id}")).json())["confirmed"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert order == {"item": "tea", "count": 2, "confirmed": True}
        refused = await client.post("/orders", json={"item": "tea", "count": 0})
        assert refused.status_code == 422
        assert (await client.get("/ready")).json() == {"ready": True, "why": []}
        for user, status in (("ann", 403), ("ops", 200)):
            page = await client.get("/queue/dead-letters", headers={"x-user": user})
            assert page.status_code == status
        client.headers["x-user"] = "ann"
        stream = await client.get("/live/messages?topic=orders&start=beginning")
        assert [m["payload"] for m in stream.json()["messages"]] == [{"order_id": order_id}]
        async with shop.new_session() as work:
            await testing.assert_published_async(
                work, shop.orders, payload=shop.OrderPlaced(order_id=order_id), count=1
            )
    assert left(dsn, "confirmations") == [(0, 0, 0, 0)]
    assert query(dsn, "SELECT count(*) FROM durable_notify.outbox") == [(1,)]


def test_fastapi_needs_a_migrated_database(empty_dsn: str) -> None:
    need_package("fastapi")

    async def start(shop: ModuleType) -> None:
        try:
            async with shop.app.router.lifespan_context(shop.app):
                pass
        finally:
            await shop.engine.dispose()

    with loaded("fastapi_app", empty_dsn) as shop, pytest.raises(dn.errors.SchemaMissing):
        asyncio.run(start(shop))


def test_flask(dsn: str) -> None:
    need_package("flask")
    need_package("psycopg2", "psycopg2-binary")
    with loaded("flask_app", dsn) as module:
        client, commands = module.app.test_client(), module.app.test_cli_runner()
        assert commands.invoke(args=["create-table"]).exit_code == 0
        created = client.post("/orders", json={"item": "tea"})
        assert created.status_code == 201
        place = f"/orders/{created.json['id']}"
        assert client.get(place).json == {"item": "tea", "confirmed": False}
        # Neither the order nor the message of a request that fails is kept.
        assert client.post("/orders", json={"item": None}).status_code == 500
        with module.transaction() as connection:
            testing.assert_published(connection, "orders", payload={"order_id": 1}, count=1)
        consumer = dn.Consumer(dsn, group="confirmations")
        consumer.on(module.orders, transaction=module.pool)(module.confirm)
        assert len(testing.drain(consumer).handled) == 1
        assert client.get(place).json == {"item": "tea", "confirmed": True}
        assert client.get("/orders/2").status_code == 404
        assert client.post("/orders", json={"item": "milk"}).status_code == 201
        done = commands.invoke(args=["confirm-orders", "--until-empty"])
        assert done.exit_code == 0, done.output
        module.pool.closeall()
    assert query(dsn, "SELECT item FROM customer_order WHERE confirmed ORDER BY id") == [
        ("tea",), ("milk",),
    ]  # fmt: skip
    assert left(dsn, "confirmations") == [(0, 0, 0, 0)]


def test_listener_in_psql(dsn: str, server: Postgres) -> None:
    psql, environ = "psql", dict(os.environ)
    if server.bindir is not None:
        psql, environ = str(server.bindir / "psql"), environment(server.bindir)
    else:
        need_program("psql", "postgresql-client")

    def listen() -> str:
        done = subprocess.run(
            [psql, "-X", "-v", "topic=o'rders", "-f", str(EXAMPLES / "listener.sql"), dsn],
            env=environ,
            text=True,
            capture_output=True,
            check=True,
        )
        assert done.stderr == ""
        return " ".join(done.stdout.split())

    assert listen() == "0 messages handled"
    publish(dsn, "o'rders", *range(150))
    assert listen() == "100 messages handled 0.01"  # there is more, at once
    assert listen() == "50 messages handled"
    assert listen() == "0 messages handled"
    assert query(dsn, "SELECT count(*), sum(said::int) FROM audit") == [(150, 149 * 75)]
    assert left(dsn, "audit") == [(0, 0, 0, 0)]
    with psycopg.connect(dsn) as connection:
        assert dn.Admin().replay(connection, "audit", "o'rders", after=0) == 150
    assert listen() == "100 messages handled 0.01"  # there is more, at once
    assert query(dsn, "SELECT count(*) FROM audit") == [(150,)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the node example and what it needs."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "listener.mjs"):
        shutil.copy(EXAMPLES / "node" / name, folder)
    if (reason := install(folder)) is not None:
        skip_missing(f"packages for node ({reason})", "apt-get install nodejs npm")
    return folder


def test_listener_in_node(node: Path, dsn: str) -> None:
    publish(dsn, "orders", {"n": 1}, {"n": 2})
    with started("node", "listener.mjs", dsn=dsn, cwd=node) as program:
        for n in (1, 2):
            assert json.loads(program.line())["payload"] == {"n": n}
        eventually(lambda: left(dsn, "node") == [(0, 0, 0, 0)])
        began = time.monotonic()
        publish(dsn, "orders", {"n": 3})
        assert json.loads(program.line())["payload"] == {"n": 3}
        assert time.monotonic() - began < 10  # woken: it would look by itself after 30 seconds
        eventually(lambda: left(dsn, "node") == [(0, 0, 0, 0)])
        assert program.end() == 0


def test_listener_in_node_comes_back_to_what_was_held(node: Path, dsn: str) -> None:
    publish(dsn, "orders", {"n": 1})
    query(dsn, "SELECT durable_notify.subscribe('node', '{orders}')")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT durable_notify.claim('node', '{orders}', lease => '1 second')")
    with started("node", "listener.mjs", dsn=dsn, cwd=node) as program:
        assert json.loads(program.line())["attempt"] == 2
        assert program.end() == 0


RELAYED = {
    "rabbitmq": (RabbitMQ, "orders.eu.customer"),
    "redis": (Redis, "orders.eu"),
    "nats": (Nats, "shop.orders.eu"),
    "kafka": (kafka, "orders customer"),
}


@pytest.mark.parametrize("broker", RELAYED)
def test_relay(broker: str, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, place = RELAYED[broker]
    with server() as running:
        monkeypatch.setenv("DURABLE_NOTIFY_BROKER", running.url)
        with started(sys.executable, EXAMPLES / f"relay_{broker}.py", dsn=dsn) as program:
            assert program.line() == f'{place} {{"id": 1, "item": "tea"}}'
            assert program.process.wait(20) == 0
    assert left(dsn, f"to-{broker}") == [(0, 0, 0, 0)]


def test_webhook_receiver(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    from tests.support.receiver import OTHER, SECRET, serving

    monkeypatch.setenv("WEBHOOK_SECRET", f"{OTHER} {SECRET}")
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_SECRET", SECRET)
    publish(dsn, "orders.eu", {"id": 1, "item": "tea"})
    with loaded("webhook_receiver", dsn) as module, serving(module.app) as port:
        url = f"http://127.0.0.1:{port}/hooks"
        for group in ("shop", "again"):  # the second has the same id
            command = ("relay", "orders.*", "--group", group, "--to", url, "--until-empty")
            good(*command, "--allow", "127.0.0.0/8", dsn=dsn)
        orders = httpx.get(f"http://127.0.0.1:{port}/orders").json()
        assert orders == [{"id": 1, "item": "tea"}]
        assert httpx.post(url, content=b"{}").status_code == 401
