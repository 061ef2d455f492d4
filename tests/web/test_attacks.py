"""What an attacker tries: scripts in messages, other websites, other names, rights of others."""

from __future__ import annotations

import asyncio
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount

import durable_notify as dn
from durable_notify.web import ACTIONS, Access, dashboard
from durable_notify.web.actions import ACTIONS_BY_NAME
from durable_notify.web.standalone import Door
from tests.web.conftest import Serve, served

Connection = psycopg.Connection[Any]

SCRIPT = "<script>window.hurt=1</script><img/src=x/onerror=window.hurt=1>"
#: A topic has no white space and no ">".
TOPIC = "t.\"'&<img/src=x/onerror=window.hurt=1//"
QUOTED = quote(TOPIC, safe="")
PAGES = (
    "/", "/topics", "/groups", "/messages", "/dead-letters", "/replays", "/consumers", "/retention",
    "/bridges", "/audit",
)  # fmt: skip


def poison(conn: Connection, dsn: str) -> int:
    """A message that is hostile everywhere, and that a group has given up."""
    group = dn.Group(SCRIPT[:60], retry=dn.RetryPolicy(max_attempts=1))
    conn.execute("SELECT durable_notify.subscribe(%s, %s)", [group.name, [TOPIC]])
    found = dn.Publisher().publish(
        conn, TOPIC, {SCRIPT: SCRIPT, "password": "secret"}, key=SCRIPT, headers={SCRIPT: SCRIPT}
    )

    def fail(_: dn.Message) -> None:
        raise ValueError(f"private {SCRIPT}")

    dn.Consumer(dsn, group=group, topics=[TOPIC], until_empty=True).run(fail)
    return found


def test_no_script_of_a_message_runs(dsn: str, conn: Connection, serve: Serve, page: Page) -> None:
    """On any page, with our own scripts."""
    number = poison(conn, dsn)
    base = serve()
    wanted = (
        *PAGES, f"/topics/{QUOTED}", f"/messages?topic={QUOTED}", f"/messages/{number}/{QUOTED}",
        f"/messages?topic={QUOTED}&key=%3Cscript%3E", "/dead-letters?error_type=%3Cscript%3E",
        "/topics?q=%22%3E%3Cscript%3Ewindow.hurt=1%3C/script%3E",
    )  # fmt: skip
    for path in wanted:
        page.goto(f"{base}{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.evaluate("window.hurt") is None, path
        assert page.locator("img").count() == 0, path
    expect(page.get_by_role("heading", level=1)).to_have_text("Topics")


def test_the_policy_forbids_scripts(client: httpx.Client) -> None:
    """Planted: were a value not escaped, the browser would still refuse it."""
    for path in (*PAGES, "/nothing", "/static/app.js", "/healthz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({}, 200),  # no browser
    ],
)
def test_other_websites_change_nothing(
    conn: Connection, client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    data = {"group": "g", "confirmed": "yes"}
    assert client.post("/actions/pause", data=data, headers=headers).status_code == status
    query = "SELECT paused_at IS NOT NULL FROM durable_notify.consumer_group"
    assert conn.execute(query).fetchone() == (status == 200,)


def test_nothing_acts_on_get(conn: Connection, client: httpx.Client) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    for name in ACTIONS_BY_NAME:
        answer = client.get(f"/actions/{name}", params={"group": "g", "confirmed": "yes"})
        assert answer.status_code == 405
    assert conn.execute("SELECT count(*) FROM durable_notify.audit").fetchone() == (0,)
    query = "SELECT paused_at FROM durable_notify.consumer_group"
    assert conn.execute(query).fetchone() == (None,)


def test_other_names_are_refused(dsn: str) -> None:
    """DNS rebinding: a website's name that resolves to this machine."""
    app = dashboard(dsn, authorize=lambda _: Access("me"), hosts=["127.0.0.1", "::1"])
    with served(app) as base, httpx.Client(base_url=base) as client:
        port = base.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", "127.0.0.1", f"[::1]:{port}"):
            assert client.get("/healthz", headers={"host": host}).status_code == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::2]"):
            assert client.get("/healthz", headers={"host": host}).status_code == 421, host


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"]
)
def test_only_the_assets_are_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_who_only_looks_changes_nothing(conn: Connection, serve: Serve) -> None:
    """By none of the write endpoints; and the page shows no button for it."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    before = conn.execute("SELECT count(*) FROM durable_notify.audit").fetchone()
    with httpx.Client(base_url=serve(Access("eve"))) as client:
        for name in ACTIONS_BY_NAME:
            data = {
                "group": "g", "topic": "t", "to": "now", "payload": "1", "job": "1",
                "max_attempts": "3", "confirmed": "yes",
            }  # fmt: skip
            answer = client.post(f"/actions/{name}", data=data)
            assert answer.status_code == 403, name
            assert "You may not do this" in answer.text
        assert '<form class="act"' not in client.get("/groups/g").text
    assert conn.execute("SELECT count(*) FROM durable_notify.audit").fetchone() == before


def test_each_right_allows_its_own_actions(conn: Connection, serve: Serve) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    assert {action.right for action in ACTIONS_BY_NAME.values()} == ACTIONS
    with httpx.Client(base_url=serve(Access("eve", {"pause"}))) as client:
        for name, action in ACTIONS_BY_NAME.items():
            status = client.post(f"/actions/{name}", data={"group": "g"}).status_code
            assert (status == 403) is (action.right != "pause"), name


def test_topics_that_are_not_seen(dsn: str, conn: Connection, serve: Serve) -> None:
    """Not in a list, not by an address, not by an action, not by a group."""
    conn.execute("SELECT durable_notify.subscribe('g', '{mine,theirs}')")
    conn.execute("SELECT durable_notify.subscribe('other', '{theirs}')")
    for topic in ("mine", "theirs"):
        number = dn.Publisher().publish(conn, topic, {"whose": topic})
    with httpx.Client(base_url=serve(Access("eve", ACTIONS, topics=("mine",)))) as client:
        for path in PAGES:
            assert "theirs" not in client.get(path).text, path
        for path in (
            "/topics/theirs", "/messages?topic=theirs", f"/messages/{number}/theirs",
            "/groups/other", "/dead-letters?topic=theirs",
        ):  # fmt: skip
            assert client.get(path).status_code == 404, path
        for name, data in (
            ("pause", {"group": "g"}),
            ("seek", {"group": "g", "topic": "theirs", "to": "now"}),
            ("replay", {"group": "g", "topic": "theirs"}),
            ("redrive", {"group": "g"}),
            ("publish", {"topic": "theirs", "payload": "1"}),
        ):
            answer = client.post(f"/actions/{name}", data={**data, "confirmed": "yes"})
            assert answer.status_code == 403, name
    assert conn.execute("SELECT count(*) FROM durable_notify.outbox").fetchone() == (2,)


def test_payloads_that_are_not_seen(dsn: str, conn: Connection, serve: Serve) -> None:
    number = poison(conn, dsn)
    with httpx.Client(base_url=serve(Access("eve", payloads=False))) as client:
        for path in (
            f"/messages?topic={QUOTED}", f"/messages/{number}/{QUOTED}",
            f"/messages/{number}/{QUOTED}?raw=1", "/dead-letters",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "secret" not in answer.text, path
            assert "private" not in answer.text, path
        for more in ("path=password&value=secret", "header=a&header_value=b"):
            assert client.get(f"/messages?topic={QUOTED}&{more}").status_code == 403


def test_reasons_may_quote_payloads(conn: Connection, serve: Serve, role_dsn: str) -> None:
    """What follows the colon of a reason is for who sees payloads; by the role's rights too."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    number = dn.Publisher().publish(conn, "t", 1)
    query = "SELECT token FROM durable_notify.claim('g', '{t}', 1)"
    token = conn.execute(query).fetchall()[0][0]
    settle = (
        "SELECT durable_notify.settle(%s, rejected => %s::int8[],"
        " reject_reasons => '{invalid: private}')"
    )
    conn.execute(settle, [token, [number]])
    blind = Access("eve", payloads=False)
    for base, is_shown in ((serve(), True), (serve(blind), False), (serve(to=role_dsn), False)):
        text = httpx.get(f"{base}/dead-letters").text
        assert "invalid" in text
        assert ("private" in text) is is_shown
        assert "private" not in httpx.get(f"{base}/messages/{number}/t").text or is_shown


def test_masked_fields_are_nowhere(dsn: str, conn: Connection, serve: Serve) -> None:
    """Not shown, not found, not downloaded, not published again."""
    number = poison(conn, dsn)
    with httpx.Client(base_url=serve(masks=["password", "card.number"])) as client:
        for path in (
            f"/messages?topic={QUOTED}", f"/messages/{number}/{QUOTED}",
            f"/messages/{number}/{QUOTED}?raw=1", "/dead-letters",
        ):  # fmt: skip
            text = client.get(path).text
            assert "secret" not in text, path
            assert "•••" in text, path
        for field in ("password", "PASSWORD", "password.0", "card.number", "card.number.x"):
            answer = client.get(f"/messages?topic={QUOTED}&path={field}&value=secret")
            assert answer.status_code == 403, field
        whole = {"path": "card", "value": '{"number": 5}', "topic": TOPIC}
        assert "No message was found" in client.get("/messages", params=whole).text


def test_the_role_decides_in_the_end(
    dsn: str, conn: Connection, serve: Serve, role_dsn: str
) -> None:
    """A user with all rights cannot do what the dashboard's role may not do."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    dn.Publisher().publish(conn, "t", {"password": "secret"})
    with httpx.Client(base_url=serve(to=role_dsn)) as client:
        assert client.get("/groups/g").status_code == 200
        answer = client.post("/actions/pause", data={"group": "g", "confirmed": "yes"})
        assert answer.status_code == 403
        answer = client.get("/messages?topic=t")
        assert answer.status_code == 403
        assert "secret" not in answer.text
        poison(conn, dsn)
        answer = client.get("/dead-letters")
        assert "ValueError" in answer.text
        assert "secret" not in answer.text
        assert "private" not in answer.text
    query = "SELECT paused_at FROM durable_notify.consumer_group"
    assert conn.execute(query).fetchall() == [(None,), (None,)]


def test_the_one_time_address(dsn: str) -> None:
    door = Door(write=True)
    app = dashboard(dsn, authorize=door.authorize, routes=door.routes)
    token = door.token
    with served(app) as base:
        with httpx.Client(base_url=base) as client:
            assert client.post("/actions/pause", data={"group": "g"}).status_code == 403
            assert client.get("/login", params={"token": "wrong"}).status_code == 403
            answer = client.get("/login", params={"token": token})
            assert answer.status_code == 303
            cookie = answer.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert client.post("/actions/pause", data={"group": "g"}).status_code == 200
        with httpx.Client(base_url=base) as other:
            assert other.get("/login", params={"token": token}).status_code == 403
            assert other.post("/actions/pause", data={"group": "g"}).status_code == 403


def test_a_password(dsn: str) -> None:
    door = Door(write=True, password="correct horse")
    app = dashboard(dsn, authorize=door.authorize, routes=door.routes)
    with served(app) as base:
        for auth in (None, ("ann", "wrong"), ("", "correct horse")):
            answer = httpx.get(base, auth=auth)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert httpx.get(base, auth=("ann", "correct horse")).status_code == 200
        assert httpx.get(f"{base}/events").status_code == 401


def test_a_header_of_a_proxy(dsn: str) -> None:
    door = Door(header="x-user")
    with served(dashboard(dsn, authorize=door.authorize)) as base:
        assert httpx.get(base).status_code == 403
        assert "bob" in httpx.get(base, headers={"x-user": "bob"}).text


def test_a_thousand_tabs_are_one_look(dsn: str, conn: Connection) -> None:
    """Streams cost the database nothing; beyond a limit, tabs look at intervals.

    No user takes the streams of the others: the last tab is of another user.
    """
    app = dashboard(dsn, authorize=lambda request: Access(request.headers.get("x-user", "me")))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))

    async def open_tabs(base: str) -> tuple[int, int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=30) as client:

            async def tab(number: int) -> httpx.Response:
                user = {"x-user": str(number % 8)} if number < 800 else {}
                request = client.build_request("GET", "/events", headers=user)
                return await client.send(request, stream=True)

            answers = await asyncio.gather(*(tab(number) for number in range(800, 1000)))
            ours = [answer.status_code for answer in answers]
            assert (ours.count(200), ours.count(503)) == (100, 100)
            answers += await asyncio.gather(*(tab(number) for number in range(800)))
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            query += " AND application_name LIKE 'durable_notify web%'"
            used = conn.execute(query).fetchone()
            assert used is not None
            assert used[0] <= 5
            assert (await client.get("/")).status_code == 200
            for answer in answers:
                await answer.aclose()
            codes = [answer.status_code for answer in answers]
            return codes.count(200), codes.count(503)

    with served(app) as base:
        # In a thread: the browser's driver has a running loop in this one.
        with ThreadPoolExecutor() as executor:
            served_, refused = executor.submit(asyncio.run, open_tabs(base)).result()
    assert served_ == 500
    assert refused == 500


def test_under_a_prefix(dsn: str, conn: Connection) -> None:
    """Mounted: every address of a page stays below the prefix."""
    inner = dashboard(dsn, authorize=lambda _: Access("me", ACTIONS))
    app = Starlette(routes=[Mount("/a b/queue", inner)])
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    with served(app) as base, httpx.Client(base_url=f"{base}/a%20b/queue") as client:
        for path in (*PAGES, "/groups/g"):
            text = client.get(path).text
            assert 'href="/a%20b/queue/topics"' in text, path
            assert 'href="/topics"' not in text
            assert 'src="/a%20b/queue/static/app.js"' in text
        assert client.get("/static/app.js").status_code == 200
        answer = client.post("/actions/pause", data={"group": "g"})
        assert 'action="/a%20b/queue/actions/pause"' in answer.text
