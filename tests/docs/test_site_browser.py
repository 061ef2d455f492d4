"""The built site in a real browser: what readers see, on a screen and on a phone."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from durable_notify._core.posix import lock_file
from tests.support.browser import browser, page
from tests.support.missing import skip_missing
from tests.support.postgres import CHECKOUT
from tools.docs.build import SITE, navigation

__all__ = ["browser", "page"]
pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

SHOWN = (
    "index.html", "tour.html", "consuming.html", "how-it-works.html", "comparison.html",
    "command-line.html", "api/consuming.html", "sql/publish.html",
    "repository/migrations/schema/claim/claim.sql.html",
)  # fmt: skip


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Build the site once in this run, whichever worker is the first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers share
    with (folder / "site").open("ab+") as once:
        lock_file(once, wait=True)
        if once.seek(0, os.SEEK_END):
            return
        command = [sys.executable, "tasks.py", "docs", "--build"]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if "NOT DONE" in done.stderr:
            skip_missing("packages of the site", "pip install zensical")
        assert done.returncode == 0, done.stdout + done.stderr
        once.write(b"built")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, and prints nothing."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(built: None) -> Iterator[str]:
    """The address of the site, which ends with a slash."""
    handler = functools.partial(Handler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def asked(page: Page) -> list[tuple[str, int]]:
    """What the browser has asked for, and the status of each answer."""
    answers: list[tuple[str, int]] = []
    page.on("response", lambda answer: answers.append((answer.url, answer.status)))
    page.on("requestfailed", lambda request: answers.append((request.url, 0)))
    return answers


def open_page(page: Page, address: str) -> None:
    page.goto(address, wait_until="networkidle")  # else the next page ends what this one loads
    expect(page.get_by_role("heading", level=1).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_pages_fit_and_load_from_here(
    site: str, page: Page, asked: list[tuple[str, int]], scheme: Any, width: int
) -> None:
    """The fixture `page` fails on an error in the console."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for name in SHOWN:
        open_page(page, site + name)
        shown = page.locator("body").get_attribute("data-md-color-scheme")
        assert shown == {"light": "default", "dark": "slate"}[scheme]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert [answer for answer in asked if not answer[0].startswith(site)] == []
    assert [answer for answer in asked if answer[1] not in {200, 304}] == []


def test_home_leads_to_a_how_to(site: str, page: Page) -> None:
    open_page(page, site)
    page.get_by_role("link", name="How-to").first.click()
    page.get_by_role("link", name="Consuming").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Consuming")
    assert page.url == f"{site}consuming.html"
    expect(page.locator("code .k").first).to_be_visible()  # its examples are colored


def test_search_finds_a_function(site: str, page: Page) -> None:
    open_page(page, site)
    page.get_by_role("button", name="Search").click()
    page.keyboard.type("start_replay")
    found = page.get_by_role("option", name=re.compile("^start_replay"))
    found.filter(has_text="durable_notify.start_replay(").click()
    expect(page.locator("#start_replay")).to_be_in_viewport()
    assert page.url.startswith(f"{site}sql/replay.html")


def test_the_reference_of_a_class(site: str, page: Page) -> None:
    open_page(page, f"{site}api/consuming.html")
    one = page.locator(".doc-class", has=page.locator("#durable_notify\\.Consumer"))
    expect(one.locator("code").filter(has_text="group: str | Group").first).to_be_visible()
    expect(one.get_by_text("as a member of a group").first).to_be_visible()
    expect(one.locator("#durable_notify\\.Consumer\\.run")).to_be_visible()
    one.get_by_role("link", name="Group", exact=True).first.click()
    expect(page.locator("#durable_notify\\.Group")).to_be_in_viewport()


def test_the_reference_of_sql_leads_to_its_source(site: str, page: Page) -> None:
    open_page(page, f"{site}sql/publish.html")
    expect(page.get_by_text("payload jsonb").first).to_be_visible()
    for word in ("Returns:", "May call it:"):
        expect(page.get_by_text(word).first).to_be_visible()
    page.get_by_role("link", name="migrations/schema/publish/publish.sql").click()
    expect(page.get_by_text("CREATE FUNCTION durable_notify.publish(").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_drawings_are_drawn(site: str, page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    open_page(page, f"{site}how-it-works.html")
    drawings = page.locator("article img[src$='.svg']")
    assert drawings.count() == 4
    for drawing in drawings.all():
        drawing.scroll_into_view_if_needed()
        expect(drawing).to_have_js_property("complete", value=True)
        assert drawing.evaluate("image => image.naturalWidth") >= 640


def test_readers_of_markdown_are_served(site: str) -> None:
    index = httpx.get(f"{site}llms.txt").text
    links = re.findall(r"\]\(([^)]+)\)", index)
    assert links == list(dict.fromkeys(name for _, name in navigation()))
    with httpx.Client(base_url=site) as client:
        for link in links:
            answer = client.get(link)
            assert answer.status_code == 200, link
            assert answer.headers["content-type"] == "text/markdown", link
            assert re.search("^# ", answer.text, re.MULTILINE), link
        assert "# Consuming" in client.get("consuming.md").text
        whole = client.get("llms-full.txt").text
    assert "async with AsyncConsumer(" in whole
    assert "## start_replay" in whole
