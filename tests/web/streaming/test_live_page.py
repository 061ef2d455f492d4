"""The live page of the examples, in two windows of Chromium, over a restart."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.brokers import free_port
from tests.support.examples import EXAMPLES, started
from tests.support.wait import eventually


@contextmanager
def auction(dsn: str, port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}/"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORT", str(port))
        with started(sys.executable, EXAMPLES / "live_page.py", dsn=dsn) as program:

            def answers() -> bool:
                assert program.process.poll() is None, [program.line() for _ in range(10)]
                try:
                    return httpx.get(url).status_code == 200
                except httpx.TransportError:
                    return False

            eventually(answers)
            yield url


def bid(page: Page, lot: str, amount: int, name: str) -> None:
    page.get_by_label("Lot").select_option(lot)
    page.get_by_label("Bid").fill(str(amount))
    page.get_by_label("Name").fill(name)
    page.get_by_role("button").click()


@pytest.mark.slow
@pytest.mark.server
def test_all_browsers_see_each_bid(empty_dsn: str, browser: Browser) -> None:
    port = free_port()
    with auction(empty_dsn, port) as url:
        ann, bob = browser.new_page(), browser.new_page()
        ann.goto(url)
        bid(ann, "clock", 10, "Ann")
        bid(ann, "clock", 12, "Ann")
        expect(ann.locator("#clock")).to_have_text("clock12Ann")
        bob.goto(url)  # later: the latest bid of each lot comes first
        expect(bob.locator("#clock")).to_have_text("clock12Ann")
        bid(bob, "clock", 11, "Bob")
        expect(bob.locator("output")).to_have_text("There is a higher bid.")
        bid(bob, "lamp", 5, "<b>Bob</b>")
        expect(ann.locator("#lamp")).to_have_text("lamp5<b>Bob</b>")
    with auction(empty_dsn, port):  # the windows stay open
        httpx.post(f"{url}bids", json={"lot": "lamp", "bid": 6, "bidder": "Eve"})
        for page in (ann, bob):
            expect(page.locator("#lamp")).to_have_text("lamp6Eve")
            expect(page.locator("tbody tr")).to_have_count(2)
            page.close()
