"""Pages of large installations: bounded, continued by key, and never wrong."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import psycopg
import pytest

import durable_notify as dn
from durable_notify.web import Access
from durable_notify.web.lists import listing
from durable_notify.web.sample import Total
from tests.support.observe import send
from tests.support.wait import eventually
from tests.web.conftest import Serve

Connection = psycopg.Connection[Any]

DIE = """
    INSERT INTO durable_notify.dead_letter
        (subscription_id, message_id, topic, key, published_at, attempt, reason, error, dead_at)
    SELECT s.id, o.id, o.topic, o.key, o.created_at, 1, 'attempts', jsonb_build_object('type', %s::text),
           '2026-01-01'::timestamptz + o.id * interval '1 second' + g.id * interval '1 ms'
      FROM durable_notify.outbox o, durable_notify.subscription s
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE g.name = %s AND o.topic = 't' AND o.id = ANY (%s)"""


@pytest.fixture
def dead(conn: Connection) -> list[int]:
    """Of twelve messages, one dead letter of the group few, the oldest, and eleven of many."""
    for group in ("few", "many"):
        conn.execute("SELECT durable_notify.subscribe(%s, '{t}')", [group])
    sent = send(conn, range(12))
    conn.execute(DIE, ["KeyError", "few", sent[:1]])
    conn.execute(DIE, ["ValueError", "many", sent[1:]])
    conn.execute(DIE, ["KeyError", "many", sent[:1]])
    return sent


def test_a_look_at_dead_letters_is_bounded(conn: Connection, dead: list[int]) -> None:
    """What matches is found once, however little is looked at; a group with few, at once."""
    query = "SELECT group_name, message_id, dead_at FROM durable_notify.dead_letters({})"
    few = conn.execute(query.format("'few', max_messages => 5, max_scanned => 3")).fetchall()
    assert [row[:2] for row in few] == [("few", dead[0])]
    for chosen, wanted in (("'many'", 12), ("'many', error_type => 'KeyError'", 1)):
        found: list[int] = []
        looks, after = 0, (None, None)
        while after is not None:
            rows = conn.execute(
                query.format(f"{chosen}, max_messages => 2, max_scanned => 3, before_at => %s,"
                             " before_id => %s"), after,
            ).fetchall()  # fmt: skip
            looks += 1
            letters = [row for row in rows if row[0] is not None]
            found += [row[1] for row in letters]
            last = next((row for row in rows if row[0] is None), None)
            if last is None and len(letters) == 2:
                last = min(letters, key=lambda row: row[2])
            after = None if last is None else (last[2], last[1])
        assert sorted(found, reverse=True) == found or wanted == 12
        assert len(found) == len(set(found)) == wanted
        assert looks > 3


def test_the_page_says_how_far_it_looked(
    conn: Connection, dead: list[int], client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_notify.web.pages.dead_letters.LOOK", 4)
    address = "/dead-letters?error_type=KeyError"
    looks = []
    while address:
        text = client.get(address).text
        looks.append(text.count("<article"))
        more = re.search(r'href="([^"]*)">Older dead letters', text)
        assert ("It looked at 4 dead letters" in text) is (more is not None)
        address = unescape(more[1]) if more else ""
    assert looks == [0, 0, 1, 1]


def test_lists_continue_by_key() -> None:
    """A row that comes in front of others shifts none of them out of sight."""
    rows = [Total(f"t{number:03}", number // 2, True, None, 0, 0, 0) for number in range(250)]
    numbers = {"lag": lambda row: row.lag, "oldest": lambda row: row.oldest}
    for sort in ("lag", "name", "oldest"):
        seen: list[str] = []
        given = {"sort": sort}
        while True:
            page = listing([*rows, *(Total(f"a{n}", 10**6, True, 1.0, 0, 0, 0)
                                     for n in range(len(seen)))], numbers, given)  # fmt: skip
            seen += [row.name for row in page.rows]
            if page.after is None:
                break
            assert len(seen) < 1000
            given = {"sort": sort, "after": page.after}
        assert [name for name in seen if name[0] == "t"] == [
            row.name for row in sorted(rows, key=lambda r: (-r.lag if sort == "lag" else 0, r.name))
        ]


def test_what_takes_too_long_leaves_the_rest(
    conn: Connection, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    slow = "SELECT pg_sleep(20)::text FROM (SELECT %s::text, %s::text, %s::int) AS x"
    monkeypatch.setattr("durable_notify.web.pages.groups.BLOCKED", slow)
    answer = client.get("/groups/g")
    assert answer.status_code == 200
    assert "Too many keys wait to list them here in time." in answer.text
    assert "No message waits for a retry." in answer.text
    assert "Max attempts" in answer.text


def test_a_redrive_of_many_is_in_batches(
    conn: Connection, dead: list[int], client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's lock is held for a batch at a time; what is left is confirmed again."""
    monkeypatch.setattr("durable_notify.web.actions.BATCH", 5)
    monkeypatch.setattr("durable_notify.web.actions.PATIENCE", -1.0)
    data = {"group": "many", "confirmed": "yes", "why": "fixed"}
    answer = client.post("/actions/redrive", data=data).text
    assert "0 messages sent to many again." in answer
    assert "12 are left" in answer
    monkeypatch.setattr("durable_notify.web.actions.PATIENCE", 15.0)
    form = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', answer))
    assert form["why"] == "fixed"
    answer = client.post("/actions/redrive", data=form).text
    assert "12 messages sent to many again." in answer
    assert "are left" not in answer
    query = "SELECT details -> 'ids', why FROM durable_notify.audit ORDER BY id"
    batches = conn.execute(query).fetchall()
    assert [sorted(ids) for ids, _ in batches] == [dead[:5], dead[5:10], dead[10:]]
    assert {why for _, why in batches} == {"fixed"}


def test_older_entries(
    conn: Connection, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit, the replays and the losses continue by id."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    monkeypatch.setattr("durable_notify.web.pages.audit.PAGE", 2)
    monkeypatch.setattr("durable_notify.web.pages.retention.MAX_ROWS", 2)
    monkeypatch.setattr("durable_notify.web.pages.replays.PAGE", 2)
    for number in range(5):
        conn.execute(
            "INSERT INTO durable_notify.audit (action, group_name, why) VALUES ('x', 'g', %s)",
            [f"row-{number}"],
        )
        conn.execute(
            "INSERT INTO durable_notify.lost_message"
            " (group_name, topic, first_id, last_id, messages, reason)"
            " VALUES ('g', 't', 1, 2, 2, %s)",
            [f"row-{number}"],
        )
        conn.execute(
            "INSERT INTO durable_notify.replay_job (subscription_id, state, s0, h0, p, after_id,"
            " upto_id, total, last_id, why)"
            " SELECT id, 'done', '3:3:', 0, 0, 0, 0, 0, 0, %s FROM durable_notify.subscription",
            [f"row-{number}"],
        )
    for first in ("/audit?group=g", "/retention", "/replays"):
        address, pages = first, []
        while address:
            text = client.get(address).text
            pages.append(re.findall(r"row-\d", text))
            more = re.search(r'href="([^"]*)">Older', text)
            address = unescape(more[1]) if more else ""
        assert pages == [["row-4", "row-3"], ["row-2", "row-1"], ["row-0"]]


@pytest.mark.parametrize("topic", ["a%20b", "a+b&c", "a?b#c", "a/b"])
def test_any_topic_has_an_address(conn: Connection, client: httpx.Client, topic: str) -> None:
    (number,) = send(conn, [1], topic=topic)
    text = client.get("/messages", params={"topic": topic}).text
    link = re.search(rf'href="([^"]*)">{number}</a>', text)
    assert link is not None
    assert client.get(unescape(link[1])).status_code == 200
    answer = client.get("/messages", params={"topic": topic, "id": str(number)})
    assert answer.status_code == 307
    assert client.get(answer.headers["location"]).status_code == 200


def test_a_search_continues(
    conn: Connection, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a field of the payload, as by all other filters: it is kept in the address."""
    monkeypatch.setattr("durable_notify.web.pages.messages.LOOK", 3)
    sent = send(conn, [{"n": number} for number in range(8)])
    address = "/messages?topic=t&path=n&value=1&key="
    looks = 0
    while True:
        text = client.get(address).text
        looks += 1
        if f">{sent[1]}</a>" in text:
            break
        assert "It looked at 3 messages" in text
        more = re.search(r'href="([^"]*)">Older messages', text)
        assert more is not None
        address = unescape(more[1])
        assert "path=n" in address
    assert looks == 3


def test_the_last_day(client: httpx.Client) -> None:
    for address in ("/", "/?span=day"):
        text = client.get(address).text
        assert ('<h2 id="charts">The last day</h2>' in text) is ("day" in address)


def test_sizes_and_the_default_policy(conn: Connection, serve: Serve) -> None:
    send(conn, range(3))
    with httpx.Client(base_url=serve()) as client:
        client.get("/retention")
        eventually(lambda: "It was not measured yet" not in client.get("/retention").text)
        text = client.get("/retention").text
        assert re.search(r"By default: removed once every group has settled, after 30 d", text)
        row = re.search(r'<tr><td><a href="/topics/t">.*?</tr>', text)
        assert row is not None
        assert "~3" in row[0]
        assert "the default" in row[0]
        assert "KiB" in row[0]
        assert "KiB" in client.get("/topics").text
        assert "KiB" in client.get("/topics/t").text


def test_a_role_that_observes_sees_every_page(
    conn: Connection, serve: Serve, role_dsn: str
) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    (number,) = send(conn, [{"password": "secret"}])
    conn.execute("SELECT durable_notify.set_mirror('t', 'channel')")
    with httpx.Client(base_url=serve(to=role_dsn)) as client:
        for path in (
            "/", "/topics", "/topics/t", "/groups", "/groups/g", "/dead-letters", "/replays",
            "/consumers", "/retention", "/bridges", "/audit",
        ):  # fmt: skip
            assert client.get(path).status_code == 200, path
        assert "mirror" in client.get("/bridges").text
        assert client.get(f"/messages/{number}/t").status_code == 403


def test_who_is_connected_and_for_whom_it_waits(
    dsn: str, conn: Connection, client: httpx.Client
) -> None:
    """A handler that waits for a lock: the page names the process that holds it, and its query."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    conn.execute("CREATE TABLE stock (n int)")
    with (
        psycopg.connect(dsn, application_name="migration") as holder,
        psycopg.connect(dsn, application_name="durable_notify handler g") as handler,
    ):
        holder.execute("LOCK TABLE stock")
        pid = handler.info.backend_pid
        handler.pgconn.send_query(b"INSERT INTO stock VALUES (4711)")
        query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        eventually(lambda: conn.execute(query, [pid]).fetchone() == (True,))
        text = client.get("/groups/g").text
        assert f"<td>{pid}</td>" in text
        assert "INSERT INTO stock VALUES (4711)" in text
        assert f"process {holder.info.backend_pid} (migration, idle in transaction" in text
        assert "LOCK TABLE stock" in text
        holder.rollback()
        handler.pgconn.get_result()
        handler.pgconn.get_result()


def test_topics_of_others_are_not_counted(conn: Connection, serve: Serve) -> None:
    """A group's row is of the topics that the user sees."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t,private}')")
    send(conn, range(3))
    send(conn, range(5), topic="private")
    for access, lag in ((Access("ann"), 8), (Access("bob", topics=("t",)), 3)):
        with httpx.Client(base_url=serve(access)) as client:
            eventually(lambda c=client: "Not known yet" not in c.get("/groups").text)
            row = re.search(r'<tr><td><a href="/groups/g">.*?</tr>', client.get("/groups").text)
            assert row is not None
            assert f'<td class="n">{lag}</td>' in row[0]


def test_a_retry_is_dropped(conn: Connection, client: httpx.Client) -> None:
    """A message that blocks its key becomes a dead letter, with the reason."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(max_attempts=5, base=3600, max=3600))
    (number,) = send(conn, [1])
    query = "SELECT token FROM durable_notify.claim('g', '{t}', 1)"
    token = conn.execute(query).fetchall()[0][0]
    error = ['{"type": "ValueError", "message": "no amount"}']
    settle = "SELECT durable_notify.settle(%s, retried => %s::int8[], retry_errors => %s)"
    conn.execute(settle, [token, [number], error])
    text = client.get("/groups/g").text
    assert "<strong>ValueError</strong>: no amount" in text
    data = {"group": "g", "topic": "t", "ids": str(number)}
    asked = client.post("/actions/drop-retries", data=data).text
    assert "Make dead letters of 1 message of g" in asked
    assert "durable-notify retries drop --group g --topic t --id" in asked
    data |= {"confirmed": "yes", "why": "poison"}
    done = client.post("/actions/drop-retries", data=data).text
    assert "1 message of g became dead letters" in done
    assert f'/messages/{number}/t"' in client.get("/dead-letters?group=g").text
    assert "poison" in client.get("/audit").text
