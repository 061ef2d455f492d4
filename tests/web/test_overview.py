"""The overview, as a browser shows it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support.observe import send
from tests.web.conftest import Serve

Connection = psycopg.Connection[Any]


def test_it_is_live(conn: Connection, serve: Serve, page: Page) -> None:
    """What changes appears without a reload; a paused page stays as it is."""
    conn.execute("SELECT durable_notify.subscribe('billing', '{t}')")
    page.goto(serve())
    expect(page.get_by_text("No group is behind.")).to_be_visible()
    send(conn, range(3))
    row = page.get_by_role("row", name="billing")
    expect(row).to_contain_text("3", timeout=20_000)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_before_the_first_look_it_claims_nothing(dsn: str, serve: Serve, page: Page) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("LOCK durable_notify.consumer_group, durable_notify.outbox")
        page.goto(serve())
        expect(page.get_by_text("It was not looked at yet.")).to_be_visible()
        expect(page.get_by_text("No group is behind.")).to_have_count(0)
        expect(page.get_by_text("Groups: 0.")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(conn: Connection, serve: Serve, page: Page, scheme: Any) -> None:
    conn.execute("SELECT durable_notify.subscribe('billing', '{t}')")
    send(conn, range(3))
    page.emulate_media(color_scheme=scheme)
    page.goto(serve())
    expect(page.get_by_role("row", name="billing")).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
