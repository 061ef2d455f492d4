"""What stays while a page is fetched again, and what it says if it cannot be."""

from __future__ import annotations

from typing import Any

import psycopg
from playwright.sync_api import Browser, Page, expect

from tests.support.observe import send
from tests.web.conftest import Serve
from tests.web.test_scale import DIE

Connection = psycopg.Connection[Any]
TRACE = """UPDATE durable_notify.dead_letter
              SET error = error || '{"traceback": "line 1"}', payload = '{"n": 1}'"""


def test_what_is_open_stays_open(conn: Connection, serve: Serve, page: Page) -> None:
    """A dead letter that comes in front shifts neither a traceback nor what the user writes."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    sent = send(conn, range(3))
    conn.execute(DIE, ["ValueError", "g", sent[:2]])
    conn.execute(TRACE)
    page.goto(f"{serve()}/dead-letters?group=g")
    one = page.get_by_role("article", name=f"Message {sent[1]}")
    one.get_by_text("Traceback", exact=True).click()
    one.get_by_text("Edit and publish again").click()
    one.locator("textarea[name=payload]").fill('{"n": 2}')
    conn.execute(DIE, ["ValueError", "g", sent[2:]])
    expect(page.get_by_role("article")).to_have_count(3)
    expect(one.get_by_text("line 1")).to_be_visible()
    expect(one.locator("textarea[name=payload]")).to_have_value('{"n": 2}')
    expect(page.locator("details[open]")).to_have_count(2)


def test_a_page_that_is_gone_says_so(conn: Connection, serve: Serve, browser: Browser) -> None:
    """It is not blank: what it showed stays, with its time."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    page = browser.new_page()
    page.goto(f"{serve()}/groups/g")
    conn.execute("SELECT durable_notify.rename_group('g', 'h')")
    send(conn, range(3))
    expect(page.get_by_role("alert")).to_contain_text("This page now answers 404. What you see is")
    expect(page.get_by_role("heading", name="Keys that wait")).to_be_visible()
    conn.execute("SELECT durable_notify.rename_group('h', 'g')")
    send(conn, range(3))
    expect(page.get_by_role("alert")).to_have_count(0)
    page.close()


def test_a_dashboard_that_is_gone(conn: Connection, serve: Serve, browser: Browser) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    page = browser.new_page()
    address = f"{serve()}/groups/g"
    page.goto(address)
    page.route(address, lambda route: route.abort())
    send(conn, range(3))
    expect(page.get_by_role("alert")).to_contain_text("The dashboard cannot be reached.")
    page.unroute(address)
    send(conn, range(3))
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("row", name="g t")).to_contain_text("6")
    page.close()


def test_a_local_time_has_its_zone(conn: Connection, serve: Serve, page: Page) -> None:
    (sent,) = send(conn, [1])
    page.goto(f"{serve()}/messages/{sent}/t")
    at = page.locator("dl time")
    expect(at).to_have_text(at.get_attribute("datetime") or "")
    page.get_by_role("button", name="UTC").click()
    expect(at).to_contain_text("CE")  # CET or CEST: the tab is in Berlin
