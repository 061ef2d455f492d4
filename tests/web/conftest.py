"""A dashboard that is served, and a real browser."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from durable_notify.web import ACTIONS, Access, dashboard
from tests.support.missing import need_program
from tests.support.wait import eventually

# A sample takes as long as the machine is busy; at most a tenth of the time is spent on it.
expect.set_options(timeout=30_000)
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on a port of its own; the address has no slash at its end."""
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


Serve = Callable[..., str]


@pytest.fixture
def serve(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve dashboards of the test's database; returns the address of each."""
    monkeypatch.setattr("durable_notify.web.sampler.EVERY", 0.5)
    with contextlib.ExitStack() as stack:

        def start(access: Access | None = None, *, to: str = dsn, **options: Any) -> str:
            given = access or Access("ann", ACTIONS)
            app = dashboard(to, authorize=lambda _: given, **options)
            return stack.enter_context(served(app))

        yield start


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    """A client of a dashboard whose user may do everything."""
    with httpx.Client(base_url=serve()) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium.

    Trap: its driver runs an event loop in this thread. For a whole session, tests of asyncio could
    not run after it.
    """
    chromium = need_program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of its own, whose scripts must not fail."""
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin")
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    yield page
    context.close()
    assert not problems


@pytest.fixture
def role_dsn(dsn: str, conn: psycopg.Connection[Any]) -> Iterator[str]:
    """The same database, as a role that may only observe."""
    role = f"observer_{uuid.uuid4().hex[:8]}"
    conn.execute(f"CREATE ROLE {role} LOGIN")
    dn.Admin().grant(conn, role, "observe")
    yield make_conninfo(dsn, user=role)
    conn.execute(f"DROP OWNED BY {role} CASCADE")
    conn.execute(f"DROP ROLE {role}")
