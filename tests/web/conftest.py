"""A dashboard that is served."""

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
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from durable_notify.web import ACTIONS, Access, dashboard
from tests.support.browser import browser, page
from tests.support.wait import eventually

__all__ = ["browser", "page"]


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


@pytest.fixture
def role_dsn(dsn: str, conn: psycopg.Connection[Any]) -> Iterator[str]:
    """The same database, as a role that may only observe."""
    role = f"observer_{uuid.uuid4().hex[:8]}"
    conn.execute(f"CREATE ROLE {role} LOGIN")
    dn.Admin().grant(conn, role, "observe")
    yield make_conninfo(dsn, user=role)
    conn.execute(f"DROP OWNED BY {role} CASCADE")
    conn.execute(f"DROP ROLE {role}")
