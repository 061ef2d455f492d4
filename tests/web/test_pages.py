"""Every page: accessible, at phone width, by keyboard; large payloads; what the commands are."""

from __future__ import annotations

import html
import re
import shlex
from typing import Any

import click
import httpx
import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

import durable_notify as dn
from durable_notify.cli import cli
from tests.support.observe import send
from tests.web.conftest import Serve

Connection = psycopg.Connection[Any]


@pytest.fixture
def furnished(dsn: str, conn: Connection) -> int:
    """Something on every page; a message that one group holds back for a retry."""
    retry = dn.RetryPolicy(max_attempts=2, base=3600, max=3600)
    for name in ("billing", "packing"):
        conn.execute("SELECT durable_notify.subscribe(%s, '{orders}')", [name])
        dn.Admin().configure(conn, name, retry=retry)
    first = dn.Publisher().publish(conn, "orders", {"n": 12345678901234567890}, key="a")
    dn.Publisher().publish(conn, "orders", {"n": 2.50}, key="a")
    query = "SELECT token FROM durable_notify.claim('billing', '{orders}', 9, '1 hour', 'me')"
    token = conn.execute(query).fetchall()[0][0]
    error = ['{"type": "KeyError", "message": "x"}']
    settle = "SELECT durable_notify.settle(%s, {} => ARRAY[%s::int8], {}_errors => %s)"
    conn.execute(settle.format("retried", "retry"), [token, first, error])
    query = "SELECT token FROM durable_notify.claim('packing', '{orders}', 1, '1 hour', 'me')"
    token = conn.execute(query).fetchall()[0][0]
    conn.execute(settle.format("rejected", "reject"), [token, first, error])
    conn.execute("SELECT durable_notify.start_replay('packing', 'orders')")
    conn.execute("SELECT durable_notify.set_retention('orders', max_age => '30 days')")
    return first


ADDRESSES = (
    "/", "/topics", "/topics/orders", "/groups", "/groups/billing", "/groups/packing",
    "/messages?topic=orders", "/messages/{id}/orders", "/dead-letters?group=packing", "/replays",
    "/consumers", "/retention", "/bridges", "/audit", "/nothing",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(furnished: int, serve: Serve, page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    base = serve()
    for address in ADDRESSES:
        if address == "/nothing":
            continue  # a browser logs the status of its page as an error
        page.goto(base + address.format(id=furnished))
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, (address, found.generate_report())


def test_at_phone_width(furnished: int, serve: Serve, page: Page) -> None:
    """No page scrolls sideways: only its tables do."""
    page.set_viewport_size({"width": 360, "height": 700})
    base = serve()
    for address in ADDRESSES[:-1]:
        page.goto(base + address.format(id=furnished))
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, address


def test_by_keyboard(furnished: int, serve: Serve, page: Page) -> None:
    """The skip link, the search, a button: no mouse."""
    page.goto(f"{serve()}/topics")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    expect(page.get_by_label("Name contains")).to_be_focused()
    page.keyboard.type("nothing")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Topics: 0.")).to_be_visible()
    assert "?q=nothing" in page.url


def test_times_and_numbers_are_exact(furnished: int, serve: Serve, page: Page) -> None:
    page.goto(f"{serve()}/messages/{furnished}/orders")
    expect(page.locator("#payload")).to_have_text('{"n": 12345678901234567890}')
    at = page.locator("time").first
    exact = at.get_attribute("datetime")
    assert exact is not None
    assert exact.endswith("Z")
    page.get_by_role("button", name="UTC").click()
    expect(page.locator("#zone-name")).to_have_text("Europe/Berlin")
    expect(at).to_have_attribute("title", exact)
    expect(at).not_to_have_text(exact)


def test_a_pause_holds_the_page_still(
    conn: Connection, furnished: int, serve: Serve, page: Page
) -> None:
    page.goto(f"{serve()}/topics")
    page.get_by_role("button", name="Pause").click()
    with page.expect_response("**/topics"):
        send(conn, range(5), topic="orders")
        page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("row", name="orders")).to_contain_text("13")


def test_what_a_group_waits_for(furnished: int, client: httpx.Client) -> None:
    text = client.get("/groups/billing").text
    assert f"message {furnished}</a>: retry" in text
    assert "1 of 2" in text


def test_a_large_payload_is_cut(conn: Connection, client: httpx.Client) -> None:
    text = "".join(f"{number:x}" for number in range(60_000))
    number = dn.Publisher().publish(conn, "t", {"text": text})
    assert text[:1000] not in client.get("/messages?topic=t").text
    shown = client.get(f"/messages/{number}/t").text
    assert "Only its beginning is shown." in shown
    assert text[:1000] in shown
    assert len(shown) < 120_000
    raw = client.get(f"/messages/{number}/t?raw=1")
    assert raw.json() == {"text": text}
    assert raw.headers["content-type"].startswith("text/plain")


def commands(client: httpx.Client, furnished: int) -> list[str]:
    """The command lines that the pages show."""
    import re

    found = []
    for address in ADDRESSES:
        page = client.get(address.format(id=furnished)).text
        found += re.findall(r"<code>(durable-notify [^<]*)</code>", page)
    for name, data in (
        ("redrive", {"group": "packing", "error_type": "KeyError", "key": "a b"}),
        ("discard", {"group": "packing", "ids": str(furnished)}),
        ("retry-now", {"group": "billing", "everything": "yes"}),
        ("replay", {"group": "billing", "topic": "orders", "key": "a", "rate_limit": "5"}),
        ("seek", {"group": "billing", "topic": "orders", "to": "after", "after": "0"}),
        ("seek", {"group": "billing", "topic": "orders", "to": "now"}),
        ("cancel-replay", {"job": "1"}),
        ("pause", {"group": "billing"}),
        ("resume", {"group": "billing"}),
        (
            "configure",
            {"group": "billing", "max_attempts": "7", "rate_limit": "5", "retry_delays": "5,300.5"},
        ),
        ("publish", {"topic": "orders", "payload": '{"a": 1}', "key": "k", "origin": "1"}),
    ):
        answer = client.post(f"/actions/{name}", data=data)
        assert answer.status_code == 200, (name, answer.text)
        found += re.findall(r"<code>(durable-notify [^<]*)</code>", answer.text)
    return [html.unescape(each) for each in dict.fromkeys(found)]


def test_the_commands_are_commands(furnished: int, client: httpx.Client) -> None:
    """The command line can read each: its command, its options, their values."""
    shown = commands(client, furnished)
    assert len(shown) > 20
    for command in shown:
        if command == "durable-notify publish TOPIC PAYLOAD":
            continue
        name, *arguments = shlex.split(command)
        current: click.Command = cli
        context = click.Context(cli, info_name=name)
        while isinstance(current, click.Group):
            found, inner, arguments = current.resolve_command(context, arguments)
            assert inner is not None, command
            current = inner
            context = (
                current.make_context(found, list(arguments), parent=context)
                if not isinstance(current, click.Group)
                else click.Context(current, info_name=found, parent=context)
            )


def test_an_edited_dead_letter_is_a_new_message(
    dsn: str, conn: Connection, furnished: int, client: httpx.Client
) -> None:
    """It names where it came from, and every digit is as written."""
    data = {
        "topic": "orders", "origin": str(furnished), "key": "a", "payload": '{"n": 1.50}',
        "headers": '{"source": "shop"}', "confirmed": "yes",
    }  # fmt: skip
    assert "Published to orders as message" in client.post("/actions/publish", data=data).text
    query = "SELECT payload::text, headers FROM durable_notify.outbox ORDER BY id DESC LIMIT 1"
    assert conn.execute(query).fetchone() == (
        '{"n": 1.50}', {"source": "shop", "resent-from": str(furnished)},
    )  # fmt: skip


def test_a_redrive_means_what_was_shown(
    conn: Connection, furnished: int, client: httpx.Client
) -> None:
    """What is given up after the question was asked is not redriven."""

    asked = client.post("/actions/redrive", data={"group": "packing"}).text
    assert "Send 1 message to packing again" in asked
    conn.execute(
        "INSERT INTO durable_notify.dead_letter (subscription_id, message_id, topic, published_at,"
        " attempt, reason) SELECT subscription_id, message_id + 1, topic, published_at, 1, 'x'"
        " FROM durable_notify.dead_letter"
    )
    fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', asked))
    done = client.post("/actions/redrive", data={**fields, "why": "tried"}).text
    assert "1 message sent to packing again." in done
    rest = conn.execute("SELECT message_id FROM durable_notify.dead_letter").fetchall()
    assert rest == [(furnished + 1,)]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("redrive", {}, "group is missing"),
        ("redrive", {"group": "missing"}, "there is no consumer group"),
        (
            "seek",
            {"group": "billing", "topic": "orders", "to": "since", "since": "noon"},
            "is not a time",
        ),
        (
            "seek",
            {"group": "billing", "topic": "orders", "to": "since", "since": "2026-01-01"},
            "no time zone",
        ),
        (
            "replay",
            {"group": "billing", "topic": "orders", "path": "$["},
            "path is not an SQL/JSON path",
        ),
        ("replay", {"group": "billing", "topic": "orders", "rate_limit": "x"}, "is a number"),
        ("configure", {"group": "billing", "max_attempts": "x"}, "max_attempts is a number"),
        ("configure", {"group": "billing", "retry_delays": "5,x"}, "is a list of seconds"),
        ("configure", {"group": "billing", "max_attempts": "0"}, "max_attempts"),
        ("configure", {"group": "billing"}, "Nothing would change"),
        ("publish", {"topic": "orders", "payload": "{"}, "This is not JSON"),
        ("nothing", {}, "There is no action"),
    ],
)
def test_what_is_wrong_is_a_message(
    furnished: int, client: httpx.Client, name: str, data: dict[str, str], says: str
) -> None:
    """Never a blank page, never a traceback."""
    answer = client.post(f"/actions/{name}", data={**data, "confirmed": "yes"})
    assert 400 <= answer.status_code < 500
    assert says in answer.text.replace("&#39;", "'")


def test_a_database_that_is_gone(serve: Serve) -> None:
    with httpx.Client(base_url=serve(to="host=/nowhere dbname=x")) as client:
        answer = client.get("/")
        assert answer.status_code == 200
        assert "The database could not be looked at" in answer.text
        assert client.get("/retention").status_code == 503


def test_what_consumers_hold_and_how_far_a_replay_is(
    conn: Connection, furnished: int, client: httpx.Client
) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{orders}')")
    conn.execute("SELECT token FROM durable_notify.claim('g', '{orders}', 9, '1 hour', 'host:7')")
    row = re.search(r"<tr><td>host:7</td>.*?</tr>", client.get("/consumers").text)
    assert row is not None
    assert '<td class="n">2</td>' in row[0]  # the messages of its lease: one of each key
    query = "SELECT total FROM durable_notify.replay_jobs()"
    (total,) = conn.execute(query).fetchone() or ()
    assert total > 0
    assert f"</progress> 0 of {total}</td>" in client.get("/replays").text


#: What each action does, in the database of `furnished`.
DONE = {
    ("seek", "billing"): ({"topic": "orders", "to": "after", "after": "0"}, "2 are redelivered"),
    ("retry-now", "billing"): ({"everything": "yes"}, "1 message redelivered to billing now"),
    ("drop-retries", "billing"): ({"everything": "yes"}, "1 message of billing became dead"),
    ("discard", "packing"): ({"key": "a"}, "1 message of packing discarded"),
    ("cancel-replay", ""): ({"job": "1"}, "Replay 1 is cancelled"),
    ("pause", "billing"): ({}, "billing is paused"),
    ("resume", "billing"): ({}, "billing is resumed"),
    ("configure", "billing"): (
        {"order_by": "none", "exclusive": "yes", "max_attempts": "7", "retry_delays": "5,60.5",
         "rate_limit": "2.5"}, "billing has its new options",
    ),
}  # fmt: skip
STATE = """
    SELECT (SELECT string_agg(reason, ' ') FROM durable_notify.deferred WHERE due_at > now() + '1 min'),
           (SELECT count(*) FROM durable_notify.dead_letter),
           (SELECT state FROM durable_notify.replay_jobs()),
           (SELECT paused_at IS NOT NULL FROM durable_notify.groups('billing')),
           (SELECT unread FROM durable_notify.status() WHERE group_name = 'billing'),
           (SELECT (order_by, exclusive, max_attempts, retry_delays, rate_limit)::text
              FROM durable_notify.groups('billing'))"""


@pytest.mark.parametrize(("name", "group"), DONE)
def test_what_an_action_does(
    conn: Connection, furnished: int, client: httpx.Client, name: str, group: str
) -> None:
    """Nothing before it is confirmed; then what it says."""
    data, says = DONE[name, group]
    data = {**data, **({"group": group} if group else {})}
    before = conn.execute(STATE).fetchone()
    asked = client.post(f"/actions/{name}", data=data)
    assert asked.status_code == 200
    assert conn.execute(STATE).fetchone() == before
    fields = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', asked.text)
    done = client.post(f"/actions/{name}", data=dict(fields)).text
    assert says in done
    assert (conn.execute(STATE).fetchone() == before) is (name == "resume")


def test_axe_finds_nothing_in_a_question_and_an_error(
    furnished: int, serve: Serve, browser: Browser
) -> None:
    """In a tab of its own: a browser logs the status of an error's page as an error."""
    page = browser.new_page()
    base = serve()
    page.goto(f"{base}/groups/billing")
    page.get_by_role("button", name="Pause...").click()
    for title in ("Pause", "Pause", "That did not work"):
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        found = Axe().run(page)
        assert found.violations_count == 0, (title, found.generate_report())
        if page.get_by_label("Why").count():
            page.get_by_role("button", name="Pause", exact=True).last.click()
            expect(page.get_by_text("billing is paused")).to_be_visible()
        else:
            page.goto(f"{base}/nothing")
    page.close()
