"""An operator's day, in a browser: a poison message, why the lag grows, the fix, the replay."""

from __future__ import annotations

import os
import re
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
from playwright.sync_api import Page, expect

import durable_notify as dn
from tests.support.postgres import CHECKOUT
from tests.support.wait import eventually
from tests.web.conftest import Serve

Connection = psycopg.Connection[Any]


PICTURES = CHECKOUT / "docs" / "images"


def picture(page: Page, name: str) -> None:
    """Make a screenshot of the documentation: if DURABLE_NOTIFY_SCREENSHOTS is set."""
    if os.environ.get("DURABLE_NOTIFY_SCREENSHOTS"):
        page.screenshot(path=PICTURES / f"dashboard-{name}.png")


def handle_all(dsn: str, *, poison: bool) -> list[int]:
    """Consume what there is; the order numbers that were billed."""
    billed: list[int] = []

    def bill(message: dn.Message) -> None:
        if poison and message.payload["amount"] is None:
            raise ValueError("an order without an amount")
        billed.append(message.payload["order"])

    retry = dn.RetryPolicy(max_attempts=3, base=3600, max=3600)
    group = dn.Group("billing", retry=retry)
    consumer = dn.Consumer(dsn, group=group, topics=["orders"], until_empty=not poison)
    thread = threading.Thread(target=consumer.run, args=(bill,))
    thread.start()
    if poison:  # until_empty would wait for its retry
        with psycopg.connect(dsn, autocommit=True) as connection:
            eventually(lambda: connection.execute(IDLE).fetchall() == [(True,)])
        consumer.stop()
    thread.join(30)
    assert not thread.is_alive()
    return billed


#: Whether nothing can be delivered now: what waits, waits for a retry, or for its key.
IDLE = """
    SELECT unread = 0 AND leased = 0 AND deferred = CASE WHEN retrying > 0 THEN retrying + parked ELSE 0 END
      FROM durable_notify.status()"""


def publish(conn: Connection, order: int, amount: int | None, customer: int) -> int:
    payload = {"order": order, "amount": amount}
    return dn.Publisher().publish(conn, "orders", payload, key=f"customer-{customer}")


def lag_grows(dsn: str, page: Page) -> None:
    """The lag grows, and the page says so by itself."""
    expect(page.get_by_role("row", name="billing")).to_contain_text("4")
    expect(page.locator(".chart").first).to_be_visible(timeout=30_000)
    picture(page, "overview")
    assert sorted(handle_all(dsn, poison=True)) == [1, 2]


def the_group_says_why(page: Page, poisoned: int) -> None:
    """The page of the group says why two messages are left: one failed, and one waits for it."""
    row = page.get_by_role("row", name="billing")
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    row.get_by_role("link", name="billing").click()
    row = page.get_by_role("region", name="Table of keys").get_by_role("row", name="customer-3")
    expect(row).to_contain_text(f"message {poisoned}: retry")
    expect(row).to_contain_text("ValueError: an order without an amount")
    picture(page, "group")


def give_up(dsn: str, page: Page) -> None:
    """It is given up, with a reason, and the next one is delivered."""
    page.get_by_role("button", name="Make a dead letter...").click()
    expect(page.locator(".command code")).to_contain_text("retries drop --group billing")
    page.get_by_label("Why").fill("no amount")
    page.get_by_role("button", name="Make dead letters").click()
    expect(page.get_by_text("1 message of billing became dead letters.")).to_be_visible()
    assert handle_all(dsn, poison=True) == [4]
    page.get_by_role("link", name="Overview").first.click()
    expect(page.get_by_text("No group is behind.")).to_be_visible(timeout=20_000)


def dead_letter_shows_the_error(page: Page) -> None:
    """The dead letter shows the error."""
    page.get_by_role("link", name="Dead letters").click()
    page.get_by_role("link", name="billing").click()
    expect(page.get_by_text("an order without an amount").first).to_be_visible()
    picture(page, "dead-letters")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.get_by_text("raise ValueError")).to_be_visible()


def redrive_what_matches(dsn: str, page: Page) -> None:
    """The handler is fixed; exactly what matches is redriven, with a reason."""
    page.get_by_role("button", name="Redrive all that match...").click()
    expect(page.locator("main").get_by_role("status")).to_contain_text(
        "Send 1 message to billing again"
    )
    expect(page.locator(".command code")).to_contain_text("dead-letters redrive --group billing")
    page.get_by_label("Why").fill("fixed in 1.2")
    picture(page, "redrive")
    page.get_by_role("button", name="Redrive").click()
    expect(page.get_by_text("1 message sent to billing again.")).to_be_visible()
    assert handle_all(dsn, poison=False) == [3]


def replay_today(dsn: str, page: Page) -> None:
    """Everything of today is replayed: counted first."""
    page.get_by_role("link", name="Replays").click()
    form = page.locator("form[action$='/actions/replay']")
    form.get_by_label("Group").fill("billing")
    form.get_by_label("Topic").fill("orders")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    form.get_by_label("Published since").fill(midnight.isoformat())
    form.get_by_role("button").click()
    expect(page.get_by_text("Redeliver 4 messages of orders to billing")).to_be_visible()
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text(re.compile(r"Replay \d+ has begun"))).to_be_visible()
    assert sorted(handle_all(dsn, poison=False)) == [1, 2, 3, 4]


def audit_names_the_user(page: Page) -> None:
    """The audit log names the user of the page."""
    page.get_by_role("link", name="Audit").click()
    row = page.get_by_role("row", name="redrive")
    expect(row).to_contain_text("durable_notify web ann")
    expect(row).to_contain_text("fixed in 1.2")


def one_message_in_every_group(page: Page, poisoned: int) -> None:
    """One message in every group."""
    page.get_by_role("link", name="Messages").click()
    page.get_by_label("Topic").fill("orders")
    page.get_by_label("Field of the payload").fill("order")
    page.get_by_label("is", exact=True).first.fill("3")
    page.get_by_role("button", name="Look").click()
    page.get_by_role("link", name=str(poisoned), exact=True).click()
    expect(page.get_by_role("row", name="billing")).to_contain_text("settled")
    picture(page, "message")


def test_the_day(dsn: str, conn: Connection, serve: Serve, page: Page) -> None:
    conn.execute("SELECT durable_notify.subscribe('billing', '{orders}')")
    for order in (1, 2):
        publish(conn, order, 10, order)
    poisoned = publish(conn, 3, None, 3)
    publish(conn, 4, 10, 3)
    page.set_viewport_size({"width": 1100, "height": 750})
    page.goto(serve())
    lag_grows(dsn, page)
    the_group_says_why(page, poisoned)
    give_up(dsn, page)
    dead_letter_shows_the_error(page)
    redrive_what_matches(dsn, page)
    replay_today(dsn, page)
    audit_names_the_user(page)
    one_message_in_every_group(page, poisoned)
