"""``run``: the consumers of a program, with several groups in one process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli.test_service import ask
from tests.support.cli import COMMAND, PATIENCE, cli_environment, invoke
from tests.support.observe import outstanding, send
from tests.support.postgres import CHECKOUT
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]

PROGRAM = """
import os
import durable_notify as dn

dsn = os.environ.get("SHOP_DSN", "host=/nowhere")

billing = dn.Consumer(dsn, group="billing")
packing = dn.Consumer(dsn, group="packing")
mailing = dn.AsyncConsumer(dsn, group="mailing")
idle = dn.Consumer(dsn, group="idle", topics=["t"])
consumers = [billing, packing]
both = [billing, mailing]
nothing = []

@billing.on("t")
def bill(message):
    print("bill", message.payload, flush=True)

@packing.on("t")
def pack(message):
    print("pack", message.payload, flush=True)

@mailing.on("t")
async def mail(message):
    print("mail", message.payload, flush=True)

def made():
    return (mailing,)

def fails():
    broken = dn.Consumer(dsn, group="broken")

    @broken.on("t")
    def exit(message):
        raise SystemExit("broken")

    return [billing, broken]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    return tmp_path


@contextmanager
def running(dsn: str, where: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the test; end it as a platform does."""
    process = subprocess.Popen(
        [*COMMAND, "run", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where,
        env=cli_environment(SHOP_DSN=dsn, PYTHONPATH=str(CHECKOUT)),
    )  # fmt: skip
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()


def test_several_groups_in_one_process(dsn: str, conn: Connection, shop: Path) -> None:
    """Each group gets each message; they share a listening connection; both are measured."""
    send(conn, [1, 2])
    with running(dsn, shop, "shop:consumers", "--health-port", "0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = sorted(process.stdout.readline() for _ in range(4))
        assert lines == ["bill 1\n", "bill 2\n", "pack 1\n", "pack 2\n"]
        url = process.stderr.readline().removeprefix("health: ").strip()
        assert ask(url)[0] == 200
        for group in ("billing", "packing"):
            handled = f'handled_messages_total{{group="{group}",result="ok",topic="t"}} 2.0'
            eventually(lambda handled=handled: handled in ask(url.replace("ready", "metrics"))[1])
        listeners = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        listeners += " AND application_name = 'durable_notify listener'"
        assert conn.execute(listeners).fetchone() == (1,)
    assert outstanding(conn) == 0


def test_a_function_that_returns_async_consumers(dsn: str, conn: Connection, shop: Path) -> None:
    send(conn, [1])
    with running(dsn, shop, "shop:made") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mail 1\n"


def test_one_that_fails_ends_all(dsn: str, conn: Connection, shop: Path) -> None:
    """Its error is raised; a service manager sees the status, and starts the program again."""
    send(conn, [1])
    process = subprocess.run(
        [*COMMAND, "run", "shop:fails"],
        capture_output=True, text=True, cwd=shop, timeout=PATIENCE, check=False,
        env=cli_environment(SHOP_DSN=dsn, PYTHONPATH=str(CHECKOUT)),
    )  # fmt: skip
    assert process.returncode == 1
    assert "broken" in process.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shop", "is not MODULE:NAME, as in shop.orders:consumers"),
        ("shop:gone", "module 'shop' has no 'gone'"),
        ("shop:nothing", "is not a consumer, a list of consumers"),
        ("shop:dsn", "is not a consumer, a list of consumers"),
        ("shop:both", "has both Consumers and AsyncConsumers"),
        ("shop:idle", "there is no handler: give one to run(), or use on()"),
    ],
)
def test_what_cannot_run(shop: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    """Nothing was asked of the database, which is not there."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", list(sys.path))
    status, _, err = invoke("run", name)
    sys.modules.pop("shop", None)
    assert status == 2
    assert says in err


def test_it_starts_again_after_a_change(dsn: str, conn: Connection, shop: Path) -> None:
    """The old program has ended when the new one begins."""
    program = PROGRAM + '\nprint("imported", flush=True)\n'
    (shop / "shop.py").write_text(program)
    with running(dsn, shop, "shop:billing", "--reload") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
        send(conn, [1])
        assert process.stdout.readline() == "bill 1\n"
        (shop / "shop.py").write_text(program.replace('"bill"', '"charge"'))
        assert process.stdout.readline() == "imported\n"
        send(conn, [2])
        assert process.stdout.readline() == "charge 2\n"


def test_reload_needs_watchfiles(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    status, _, err = invoke("run", "shop:billing", "--reload")
    assert status == 1
    assert "durable-notify[reload]" in err
