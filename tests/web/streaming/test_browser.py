"""EventSource in Chromium, while servers and the database are restarted: all shown, once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import uvicorn
from playwright.sync_api import Browser
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

import durable_notify as dn
from durable_notify import schema
from durable_notify.embedded import Server
from durable_notify.web import StreamAccess, streams
from tests.support.wait import eventually

OWN = """<!doctype html><ul></ul><script>
const list = document.querySelector("ul");
const source = new EventSource("live/events?topic=orders.*");
source.addEventListener("message", (event) => {
  const item = document.createElement("li");
  item.textContent = JSON.parse(event.data).id;
  list.append(item);
});
source.addEventListener("gap", () => list.append("gap"));
source.addEventListener("reset", () => list.append("reset"));
</script>"""
OURS = """<!doctype html><ul></ul><script type="module">
import { follow } from "./live/durable-notify.js";
const list = document.querySelector("ul");
follow("live/events?topic=orders.*", {
  onMessage: (message) => {
    const item = document.createElement("li");
    item.textContent = message.id;
    list.append(item);
  },
  onGap: () => list.append("gap"),
  onReset: () => list.append("reset"),
});
</script>"""


class Site:
    """An application on a port of its own, to restart."""

    def __init__(self, dsn: str, html: str, recheck: float = 60.0) -> None:
        self.access: StreamAccess | None = StreamAccess(("orders.*",))
        self.refused = 0
        self._dsn = dsn
        self._recheck = recheck
        self._html = html
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def _authorize(self, _: Any) -> StreamAccess | None:
        self.refused += self.access is None
        return self.access

    @contextlib.contextmanager
    def served(self) -> Iterator[Any]:
        inner = streams(self._dsn, authorize=self._authorize, recheck=self._recheck)
        app = Starlette(
            routes=[Route("/", lambda _: HTMLResponse(self._html)), Mount("/live", inner)]
        )
        config = uvicorn.Config(
            app, port=self.port, log_level="critical", timeout_graceful_shutdown=0
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            eventually(lambda: server.started)
            yield inner.state.stats
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def out_of_order(dsn: str) -> list[int]:
    """Publish in three transactions, of which the first commits last."""
    publisher = dn.Publisher()
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        sent = [publisher.publish(first, "orders.eu", {})]
        sent += publisher.publish_many(second, "orders.us", [{}, {}])
        with psycopg.connect(dsn) as third:
            sent.append(publisher.publish(third, "orders.eu", {}))
        second.commit()
        first.commit()
    return sent


@pytest.mark.parametrize("html", [OWN, OURS], ids=["EventSource", "follow"])
def test_restarts(html: str, private_server: Server, browser: Browser) -> None:
    dsn = private_server.dsn()
    schema.migrate(dsn)
    site = Site(dsn, html)
    page = browser.new_page()
    sent: list[int] = []

    def all_shown() -> bool:
        page.wait_for_timeout(20)  # its driver runs only while something waits for it
        shown = page.locator("li").all_text_contents()
        assert len(shown) <= len(sent), "twice"
        return sorted(map(int, shown)) == sorted(sent)

    with site.served() as stats:
        page.goto(f"http://127.0.0.1:{site.port}/")
        eventually(lambda: stats().live == 1)
        sent += out_of_order(dsn)
        eventually(all_shown)
        with psycopg.connect(dsn) as late:
            sent.append(dn.Publisher().publish(late, "orders.late", {}))
            sent += out_of_order(dsn)
            page.wait_for_function(f"document.querySelectorAll('li').length == {len(sent) - 1}")
        eventually(all_shown)
    sent += out_of_order(dsn)  # no server
    with site.served():
        eventually(all_shown)
        private_server.stop("immediate")
        private_server.start()
        sent += out_of_order(dsn)  # the hub's connection is gone, and perhaps not yet replaced
        eventually(all_shown)
    private_server.stop("immediate")
    with site.served() as stats:  # no database
        eventually(lambda: stats().clients == 1)
        private_server.start()
        sent += out_of_order(dsn)
        eventually(all_shown)
        sent += out_of_order(dsn)
        eventually(all_shown)
    assert "gap" not in page.locator("ul").inner_text()
    assert "reset" not in page.locator("ul").inner_text()
    page.close()


def test_refused_before_the_first_message(dsn: str, browser: Browser) -> None:
    """An EventSource gives up for good, and forgets its id; follow() has it, and connects again."""
    site = Site(dsn, OURS, recheck=0.05)
    page = browser.new_page()
    with site.served() as stats:
        page.goto(f"http://127.0.0.1:{site.port}/")
        eventually(lambda: stats().live == 1)
        page.wait_for_timeout(20)
        access, site.access = site.access, None

        def refused() -> bool:
            page.wait_for_timeout(20)  # its driver runs only while something waits for it
            return site.refused >= 2  # when it was checked again, and when it connected again

        eventually(refused)
        sent = out_of_order(dsn)
        site.access = access
        page.wait_for_function(f"document.querySelectorAll('li').length == {len(sent)}")
        assert sorted(map(int, page.locator("li").all_text_contents())) == sorted(sent)
    page.close()
