"""Fixtures that every test can use: databases, connections, and servers to break."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

from durable_notify import schema
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._core.pacing import BatchSizer
from durable_notify._sync.wakeups import listener as sync_listener
from durable_notify.embedded import Server
from tests.support.api import Api
from tests.support.missing import sum_up
from tests.support.postgres import Postgres, find_postgres, needed_binaries, own_server
from tests.support.sessions import Sessions

pytest_plugins = ["pytester"]
Connection = psycopg.Connection[tuple[Any, ...]]
AsyncConnection = psycopg.AsyncConnection[tuple[Any, ...]]

# Hundreds of tests start Python: compile the package once, also if the environment says not to.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How fast the machine is says nothing about the code.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Print the line behind all that pytest prints: so it is the last one."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(terminal, TerminalReporter) or hasattr(session.config, "workerinput"):
        return
    skipped = terminal.stats.get("skipped", [])
    line = sum_up(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in skipped
        if isinstance(report.longrepr, tuple)
    )
    if "not slow" in session.config.option.markexpr:
        line += " Slow tests did not run; to run them: python3 tasks.py test --all"
    terminal.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Switch pytest-django off, which forbids Django's connections; tests of the kit start it.

    Trap: the workers of pytest-xdist do not read ``-p no:django`` from addopts.
    """
    if (plugin := config.pluginmanager.get_plugin("django")) is not None:
        config.pluginmanager.unregister(plugin)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a server of its own by a fixture."""
    for item in items:
        if {"private_server", "pooled", "healthy"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """The PostgreSQL of this run; with pytest-xdist, of this worker."""
    with find_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def template(server: Postgres) -> Iterator[str]:
    """The name of a migrated database to copy."""
    with server.database() as name:
        schema.migrate(server.dsn(name))
        if newer := os.environ.get("DURABLE_NOTIFY_TEST_SCHEMA"):
            upgrade(server.dsn(name), newer)
        yield name


def upgrade(dsn: str, checkout: str) -> None:
    """Bring a database to the schema of a newer checkout: these tests then run on that one."""
    command = [sys.executable, "-m", "durable_notify.cli", "--dsn", dsn, "migrate"]
    subprocess.run(command, cwd=checkout, env=os.environ | {"PYTHONPATH": checkout}, check=True)


@pytest.fixture(params=["async", "sync"])
def api(request: pytest.FixtureRequest) -> Api:
    """Each half of the library in turn."""
    return Api(request.param)


@pytest.fixture
def dsn(server: Postgres, template: str) -> Iterator[str]:
    """A fresh database with the schema in it."""
    with server.database(template) as name:
        yield server.dsn(name)


@pytest.fixture
def empty_dsn(server: Postgres) -> Iterator[str]:
    """A fresh database without the schema."""
    with server.database() as name:
        yield server.dsn(name)


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """An autocommit connection to `dsn`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def aconn(dsn: str) -> AsyncIterator[AsyncConnection]:
    """An asynchronous autocommit connection to `dsn`."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    """Sessions of a fresh database, to play schedules with."""
    with Sessions(dsn) as them:
        yield them


@pytest.fixture
def private_server() -> Iterator[Server]:
    """A server of the test's own, to kill and restart; its databases are not migrated."""
    bindir = needed_binaries()
    with own_server(bindir) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know within half a second that a listener is deaf."""
    for module in (async_listener, sync_listener):
        monkeypatch.setattr(module, "ANSWER", 1.0)


@pytest.fixture
def all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers claim more than they can begin, as those do that have been fast."""
    monkeypatch.setattr(BatchSizer, "to_claim", lambda *_: 10)
