"""Pages take no lock and no long statement; and they say whether wake-ups arrive."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest

from tests.support.observe import send
from tests.support.pgbouncer import pgbouncer
from tests.support.wait import eventually
from tests.web.conftest import Serve

Connection = psycopg.Connection[Any]
PAGES = (
    "/", "/topics", "/topics/t", "/groups", "/groups/g", "/messages?topic=t&key=none",
    "/messages/{id}/t", "/dead-letters?group=g", "/replays", "/consumers", "/retention", "/bridges",
    "/audit",
)  # fmt: skip
TABLES = (
    "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind IN ('r', 'p') AND"
)
OURS = f"{TABLES} relnamespace = 'durable_notify'::regnamespace"


def test_pages_take_no_lock(dsn: str, conn: Connection, client: httpx.Client) -> None:
    """EXCLUSIVE conflicts with every lock but that of plain reading: of rows, of writing, of DDL."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    (sent,) = send(conn, [1])
    for path in PAGES:
        assert client.get(path.format(id=sent)).status_code == 200, path
    (tables,) = conn.execute(OURS).fetchone() or ()
    with psycopg.connect(dsn) as holder:
        holder.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE".encode())
        for path in PAGES:
            assert client.get(path.format(id=sent)).status_code == 200, path


def test_a_page_that_takes_too_long_is_a_message(
    dsn: str, conn: Connection, client: httpx.Client
) -> None:
    """A table that cannot be read: the statement ends, and the page says so."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    with psycopg.connect(dsn) as holder:
        holder.execute("LOCK TABLE durable_notify.outbox, durable_notify.audit")
        for path in ("/messages?topic=t", "/audit"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert "The database did not answer in time." in answer.text
            assert 'href="/topics"' in answer.text


@pytest.mark.server
def test_consumers_that_do_not_hear(dsn: str, conn: Connection, serve: Serve) -> None:
    """Through a pooler no wake-up arrives: the page of consumers says so, and what to do."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    with (
        pgbouncer(dsn) as pooled,
        httpx.Client(base_url=serve(to=pooled)) as deaf,
        httpx.Client(base_url=serve()) as hearing,
    ):
        eventually(lambda: "listener-deaf" in deaf.get("/consumers").text, 60)
        assert '<p class="remedy">' in deaf.get("/consumers").text
        eventually(lambda: "has not looked yet" not in hearing.get("/").text, 60)
        assert "knows of no wake-up that does not arrive" in hearing.get("/consumers").text
        settings = "default_transaction_read_only", "statement_timeout", "work_mem"
        with psycopg.connect(pooled, autocommit=True) as other:  # it gets the dashboard's session
            shown = [other.execute(f"SHOW {each}").fetchone() for each in settings]  # type: ignore[arg-type]
        assert shown == [conn.execute(f"SHOW {each}").fetchone() for each in settings]  # type: ignore[arg-type]
