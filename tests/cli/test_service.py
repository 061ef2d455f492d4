"""``consume`` as a service: a handler by name, probes for the platform, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable_notify import schema
from durable_notify.embedded import Server
from tests.support.cli import COMMAND, PATIENCE, cli_environment, fails, invoke, run
from tests.support.observe import outstanding, send
from tests.support.postgres import CHECKOUT
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]

HANDLERS = r"""
import asyncio, sys, threading

def handle(message):
    print(message.payload, flush=True)

async def ahandle(message):
    await asyncio.sleep(0)
    print("async", message.payload, flush=True)

class Service:
    async def __call__(self, message):
        print("object", message.payload, flush=True)

service = Service()
together = threading.Barrier(3)

def meets(message):
    together.wait(20)
    sys.stdout.write("met\n")
    sys.stdout.flush()

def waits(message):
    print("began", flush=True)
    sys.stdin.readline()
    print("finished", flush=True)

async def awaits(message):
    print("began", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print("finished", flush=True)

def breaks(message):
    raise KeyError("what it says")

number = 5
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(HANDLERS)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    return tmp_path


def consume(dsn: str, where: Path, handler: str, *more: str) -> subprocess.Popen[str]:
    """Run a service beside the test."""
    checkout = str(CHECKOUT)
    return subprocess.Popen(
        [*COMMAND, "consume", "t", "--group", "g", "--handler", handler, *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn, PYTHONPATH=checkout),
    )  # fmt: skip


def ended(process: subprocess.Popen[str], given: str | None = None) -> tuple[str, str]:
    out, err = process.communicate(given, timeout=PATIENCE)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.parametrize(
    ("handler", "prints"),
    [("shop:handle", "{}"), ("shop:ahandle", "async {}"), ("shop:service", "object {}")],
)
def test_handlers(dsn: str, conn: Connection, shop: Path, handler: str, prints: str) -> None:
    send(conn, [1, 2])
    out, err = ended(consume(dsn, shop, handler, "--until-empty"))
    assert out.splitlines() == [prints.format(1), prints.format(2)]
    assert not err
    assert outstanding(conn) == 0


def test_several_at_once(dsn: str, conn: Connection, shop: Path) -> None:
    """Each waits for the two others."""
    send(conn, range(3))
    out, _ = ended(consume(dsn, shop, "shop:meets", "--until-empty", "--concurrency", "3"))
    assert out.split() == ["met"] * 3


@pytest.mark.parametrize("handler", ["shop:waits", "shop:awaits"])
def test_a_stop_lets_it_finish_the_message(
    dsn: str, conn: Connection, shop: Path, handler: str
) -> None:
    send(conn, [1])
    process = consume(dsn, shop, handler)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    send(conn, [2])
    process.send_signal(signal.SIGTERM)
    out, _ = ended(process, "continue\n")
    assert out == "finished\n"
    assert outstanding(conn) == 1


def test_a_handler_that_fails(dsn: str, conn: Connection, shop: Path) -> None:
    """It is said in a line; with -v, with the traceback."""
    send(conn, [1])
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    conn.execute("SELECT durable_notify.configure('g', '{\"max_attempts\": 1}')")
    _, err = ended(consume(dsn, shop, "shop:breaks", "--until-empty", "-v"))
    assert "warning: the handler of <Message 1 of 't', attempt 1> failed" in err
    assert "KeyError: 'what it says'" in err
    query = "SELECT error ->> 'type' FROM durable_notify.dead_letter"
    assert conn.execute(query).fetchall() == [("KeyError",)]


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ("shop", "is not MODULE:FUNCTION, as in shop.orders:handle"),
        (":handle", "is not MODULE:FUNCTION"),
        ("elsewhere:handle", "there is no module 'elsewhere' in this folder"),
        ("shop.orders:handle", "module"),
        ("shop:nothing", "module 'shop' has no 'nothing'"),
        ("shop:number", "is not a function"),
    ],
)
def test_no_such_handler(
    shop: Path, monkeypatch: pytest.MonkeyPatch, handler: str, says: str
) -> None:
    """Nothing was asked of the database, which is not there."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", list(sys.path))
    status, _, err = invoke(
        "consume", "t", "--group", "g", "--handler", handler, dsn="host=/nowhere"
    )
    sys.modules.pop("shop", None)
    assert status == 2
    assert says in err


def test_a_module_that_cannot_be_imported(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    path = str(CHECKOUT)
    arguments = ("consume", "t", "--group", "g", "--handler", "broken:handle")
    done = run(*arguments, dsn="host=/nowhere", PYTHONPATH=path)
    fails(done, 1, "No module named 'nothing_of_that_name'", "python -c 'import broken'")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--concurrency", "2"], "--concurrency is for a --handler"),
        (["--handler", "json:dumps", "--max", "2"], "--max is for printing"),
        (["--handler", "json:dumps", "--concurrency", "0"], "0 is not in the range"),
        (["--health-port", "70000"], "is not in the range"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], says: str) -> None:
    status, _, err = invoke("consume", "t", "--group", "g", *options, dsn="host=/nowhere")
    assert status == 2
    assert says in err


def test_a_port_that_is_taken(dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("consume", "t", "--group", "g", "--health-port", port, dsn=dsn)
    fails(done, 1, "Address already in use", "another --health-port")


# What the platform asks


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_database_goes_and_comes_back(private_server: Server, shop: Path) -> None:
    """It lives all the time, is ready while it has a database, and keeps its metrics."""
    dsn = private_server.dsn()
    schema.migrate(dsn)
    process = consume(dsn, shop, "shop:handle", "--health-port", "0")
    try:
        assert process.stderr is not None
        base = process.stderr.readline().removeprefix("health: ").strip().removesuffix("/ready")
        assert base.startswith("http://127.0.0.1:")
        eventually(lambda: ask(f"{base}/ready")[0] == 200)
        with psycopg.connect(dsn, autocommit=True) as connection:
            send(connection, [1])
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
        handled = 'durable_notify_handled_messages_total{group="g",result="ok",topic="t"} 1.0'
        eventually(lambda: handled in ask(f"{base}/metrics")[1])
        assert "durable_notify_up 1.0" in ask(f"{base}/metrics")[1]

        private_server.stop()
        eventually(lambda: ask(f"{base}/ready")[0] == 503)
        status, body = ask(f"{base}/live")
        assert (status, json.loads(body)["live"]) == (200, True)
        status, metrics = ask(f"{base}/metrics")
        assert status == 200
        assert "durable_notify_up 0.0" in metrics
        assert handled in metrics
        assert "process_resident_memory_bytes" in metrics

        private_server.start()
        eventually(lambda: ask(f"{base}/ready")[0] == 200)
        eventually(lambda: "durable_notify_up 1.0" in ask(f"{base}/metrics")[1])
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process)


def test_printing_has_probes_too(dsn: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "consume", "t", "--group", "g", "--health-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn),
    )  # fmt: skip
    assert process.stderr is not None
    url = process.stderr.readline().removeprefix("health: ").strip()
    eventually(lambda: ask(url)[0] == 200)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == ""


def test_without_prometheus_client(dsn: str, tmp_path: Path) -> None:
    """As installed without the extra: health all the same, and a word of what to install."""
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError")
    path = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "durable_notify.cli", "consume", "t", "--group", "g", "--health-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn, PYTHONPATH=path),
    )  # fmt: skip
    assert process.stderr is not None
    url = process.stderr.readline().removeprefix("health: ").strip()
    eventually(lambda: ask(url)[0] == 200)
    status, body = ask(url.replace("/ready", "/metrics"))
    assert status == 404
    assert "durable-notify[prometheus]" in body
    process.send_signal(signal.SIGTERM)
    ended(process)
