"""A client receives each message once, wherever it breaks off and continues."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.models import ReadMessage
from durable_notify.web import StreamAccess
from durable_notify.web.streaming.cursor import Cursor
from durable_notify.web.streaming.hub import Hub
from durable_notify.web.streaming.hubs import Hubs
from durable_notify.web.streaming.place import Place
from tests.support.wait import with_timeout
from tests.web.streaming.conftest import Browser, Gate

Connection = psycopg.Connection[Any]


def put(connection: Connection, topic: str) -> int:
    """Publish; returns the id."""
    return dn.Publisher().publish(connection, topic, {})


async def late_commits(browser: Browser, replica: Hubs, dsn: str, conn: Connection) -> list[int]:
    """Commit late while the client is connected and while it is away; returns the order."""
    await browser.connect()
    await browser.until_live()
    with psycopg.connect(dsn) as slow:
        late = put(slow, "t")
        early = put(conn, "t")
        assert late < early
        await browser.until(1)
        await browser.connect(hubs=replica)
        await browser.until_live()
        await browser.leave()
    await browser.connect()
    while not await browser.is_quiet():
        pass
    return [early, late]


async def ahead_of_the_ring(
    browser: Browser, gate: Gate, dsn: str, conn: Connection, *, then: Hubs | None = None
) -> list[int]:
    """Have a client catch up past its hub, which is held, and continue; returns what there is."""
    await browser.connect()
    await browser.until_live()
    gate.open.clear()
    with psycopg.connect(dsn) as slow:
        sent = [put(slow, "t"), put(conn, "t"), put(conn, "t")]
    browser.token = None
    await browser.connect("beginning")
    await browser.until_live()
    assert sorted(browser.got) == sent
    if then is not None:
        for _ in range(2):
            await browser.connect(hubs=then)
            await browser.until_live()
    sent.append(put(conn, "t"))
    gate.open.set()
    while len(set(browser.got)) < len(sent) or not await browser.is_quiet():
        await browser.receive()
    return sent


async def test_late_commits(hubs: Hubs, replica: Hubs, dsn: str, conn: Connection) -> None:
    browser = Browser(hubs, ("t",))
    assert await late_commits(browser, replica, dsn, conn) == browser.got


async def test_every_place_of_a_batch_continues_exactly(
    hubs: Hubs, replica: Hubs, conn: Connection
) -> None:
    browser = Browser(hubs, ("t", "u.*"))
    await browser.connect("beginning")
    sent = [put(conn, topic) for topic in ("t", "u.a", "t", "u.b", "u.a", "t")]
    for number in range(20):
        await browser.connect("beginning", hubs=(hubs, replica)[number % 2])
        await browser.receive(1)
    await browser.connect("beginning")
    while not await browser.is_quiet():
        pass
    assert sorted(browser.got) == sent


async def test_what_a_client_has_before_the_ring_does_is_not_sent_again(
    hubs: Hubs, gate: Gate, dsn: str, conn: Connection
) -> None:
    browser = Browser(hubs, ("t",))
    sent = await ahead_of_the_ring(browser, gate, dsn, conn)
    assert sorted(browser.got) == sent
    assert browser.token is not None
    assert "~" not in browser.token


@pytest.mark.parametrize("where", ["here", "there"])
async def test_it_breaks_off_while_the_ring_is_behind(
    where: str, hubs: Hubs, replica: Hubs, gate: Gate, dsn: str, conn: Connection
) -> None:
    browser = Browser(hubs, ("t",))
    then = hubs if where == "here" else replica
    sent = await ahead_of_the_ring(browser, gate, dsn, conn, then=then)
    assert sorted(browser.got) == sent


@pytest.mark.parametrize("planted", ["no marks", "marks not in the token"])
async def test_a_ring_joined_without_marks_is_caught(
    planted: str,
    hubs: Hubs,
    gate: Gate,
    dsn: str,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if planted == "no marks":
        join = Cursor._join
        monkeypatch.setattr(
            Cursor, "_join", lambda self, n, place: join(self, n, Place(place.base))
        )
    else:
        monkeypatch.setattr(Place, "token", property(lambda self: self.base))
    browser = Browser(hubs, ("t",))
    sent = await ahead_of_the_ring(browser, gate, dsn, conn, then=hubs)
    assert sorted(browser.got) != sent


async def test_continuing_after_the_highest_id_is_caught(
    hubs: Hubs, replica: Hubs, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(hubs, ("t",))
    monkeypatch.setattr(Cursor, "_passes", lambda _, m: m.id > max(browser.got, default=0))
    early, late = await late_commits(browser, replica, dsn, conn)
    assert late < early
    assert browser.got == [early]


async def test_the_token_of_the_ring_while_catching_up_is_caught(
    hubs: Hubs, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [put(conn, "t") for _ in range(3)]
    browser = Browser(hubs, ("t",))
    token = property(lambda _: browser.cursor and browser.cursor._hub.ring.token)
    monkeypatch.setattr(ReadMessage, "token", token)
    await browser.connect("beginning")
    await browser.receive()
    await browser.receive(1)
    await browser.connect()
    while not await browser.is_quiet():
        pass
    assert browser.got == sent[:1]


async def test_a_topic_that_appears_while_a_client_catches_up(hubs: Hubs, conn: Connection) -> None:
    first = put(conn, "u.a")
    browser = Browser(hubs, ("u.*",))
    await browser.connect("beginning")
    await browser.receive()
    await browser.receive()
    assert browser.got == [first]
    second = put(conn, "u.b")  # the client's reader has looked for topics just now
    await browser.until_live()
    await browser.until(2)
    assert browser.got == [first, second]
    assert await browser.is_quiet()


async def test_clients_take_turns_at_the_database(
    hubs: Hubs, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_notify.web.streaming.cursor.TURN", 0.0)
    monkeypatch.setattr("durable_notify.web.streaming.cursor.BATCH", 3)
    sent = [put(conn, "t") for _ in range(10)]
    hubs._catching_up = asyncio.Semaphore(1)
    slow, fast = Browser(hubs, ("t",)), Browser(hubs, ("t",))
    await slow.connect("beginning")
    await slow.receive()
    await slow.receive()
    assert slow.got == sent[:3]
    await fast.connect("beginning")
    await with_timeout(asyncio.gather(fast.until_live(), slow.until_live()))
    assert fast.got == slow.got == sent


async def test_clients_with_the_same_token_read_the_database_once(
    hubs: Hubs, replica: Hubs, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Browser(hubs, ("t",))
    await first.connect()
    await first.until_live()
    token = first.token
    sent = [put(conn, "t") for _ in range(5)]
    opened: list[Any] = []
    reader = Hub.reader
    monkeypatch.setattr(Hub, "reader", lambda *a, **b: (opened.append(a), reader(*a, **b))[1])
    access = StreamAccess(("t",), lambda m: m.id != sent[1])
    for number in range(10):
        browser = Browser(replica, ("t",), access)
        browser.token = token
        await browser.connect()
        await browser.until_live()
        if number == 5:
            sent.append(put(conn, "t"))
        await browser.until(len(sent) - 1)
        assert browser.got == [sent[0], *sent[2:]]
        assert await browser.is_quiet()
        await browser.leave()
    assert len(opened) == 3  # the hub's own, and two for the first client


async def test_a_ring_that_is_far_behind(
    hubs: Hubs, gate: Gate, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_notify.web.streaming.cursor.MAX_AHEAD", 2)
    browser = Browser(hubs, ("t",))
    await browser.connect()
    await browser.until_live()
    gate.open.clear()
    sent = [put(conn, "t") for _ in range(10)]
    browser.token = None
    await browser.connect("beginning")
    await browser.until(10)
    waiting = asyncio.create_task(browser.until_live())
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.open.set()
    await with_timeout(waiting)
    sent.append(put(conn, "t"))
    while not await browser.is_quiet():
        pass
    assert browser.got == sent
