"""The one look at the database for all browsers, and what survives when it fails."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

import durable_notify as dn
from durable_notify.web import ACTIONS, Access, sampler
from durable_notify.web.sample import take_sample
from tests.support.observe import send
from tests.web.conftest import Serve

Connection = psycopg.Connection[Any]


def test_sums_and_rates(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are exact, also of pairs that are not kept."""
    monkeypatch.setattr("durable_notify.web.sample.PAIRS", 1)
    monkeypatch.setattr("durable_notify.web.sample.OF_TOPIC", 1)
    monkeypatch.setattr("durable_notify.web.sample.OF_GROUP", 1)
    for group in ("a", "b"):
        conn.execute("SELECT durable_notify.subscribe(%s, '{t,u}')", [group])
    send(conn, range(3))
    send(conn, range(2), topic="u")
    first = take_sample(conn, None)
    assert [first.topics[name].lag for name in ("t", "u")] == [6, 4]
    assert [first.groups[name].lag for name in ("a", "b")] == [5, 5]
    assert len(first.pairs) < 4
    conn.execute("SELECT token FROM durable_notify.claim('a', '{t}', 10)")
    second = take_sample(conn, first)
    seconds = (second.at - first.at).total_seconds()
    assert second.groups["a"].rate_out == pytest.approx(3 / seconds)
    assert second.topics["t"].rate_out == pytest.approx(3 / seconds)
    assert second.groups["b"].rate_out == 0


def test_a_fault_does_not_hang_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is shown, and the sampler looks again."""

    def fail(*_: object) -> None:
        raise KeyError("unexpected")

    async def look() -> str | None:
        one = sampler.Sampler("dbname=nothing")
        monkeypatch.setattr(one, "_look", fail)
        monkeypatch.setattr(one, "_examine", fail)
        await asyncio.wait_for(one.ensure(), 5)
        await asyncio.wait_for(one.ensure(), 5)
        await one.close()
        return one.error

    assert asyncio.run(look()) == "KeyError; see the log."


def test_hidden_fields_cannot_be_asked_for(conn: Connection, serve: Serve) -> None:
    """How many messages a replay would redeliver tells what is in them."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    data = {"group": "g", "topic": "t", "path": '$ ? (@.password starts with "a")'}
    blind = serve(Access("bob", ACTIONS, payloads=False))
    masked = serve(masks=["password"])
    for base in (blind, masked):
        assert httpx.post(f"{base}/actions/replay", data=data).status_code == 403
    assert httpx.post(f"{serve()}/actions/replay", data=data).status_code == 200


def test_other_topics_are_not_named(conn: Connection, serve: Serve) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t,private}')")
    conn.execute("SELECT durable_notify.set_retention('private', max_age => '1 day')")
    base = serve(Access("bob", topics=("t",)))
    for path in ("/", "/groups", "/groups/g", "/topics", "/retention", "/consumers"):
        answer = httpx.get(base + path)
        assert answer.status_code == 200
        assert "private" not in answer.text, path


@pytest.mark.parametrize(
    ("access", "masks", "is_shown"),
    [
        (Access("ann"), (), True),
        (Access("bob", topics=("t",)), (), False),
        (Access("bob", payloads=False), (), False),
        (Access("bob"), ("password",), False),
    ],
)
def test_queries_of_publishers_quote_payloads(
    dsn: str, conn: Connection, serve: Serve, access: Access, masks: tuple[str, ...], is_shown: bool
) -> None:
    """Who a strict group waits for is shown to all; what it runs, to who sees all payloads."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    dn.Admin().configure(conn, "g", order_by="strict")
    with psycopg.connect(dsn) as publisher:
        publisher.execute("SELECT durable_notify.publish('private', '{\"password\": \"secret\"}')")
        text = httpx.get(f"{serve(access, masks=masks)}/groups/g").text
        assert f"process {publisher.info.backend_pid}" in text
        assert ("secret" in text) is is_shown


@pytest.mark.parametrize(
    "path",
    [
        f"/messages?topic=t&before={'9' * 5000}", "/topics?after=x",
        "/topics?sort=x", "/groups?sort=x", f"/audit?before={'9' * 5000}", "/replays?before=x",
        "/messages?topic=%00", "/dead-letters?group=missing",
    ],
)  # fmt: skip
def test_odd_addresses_are_refused(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 400


def test_an_id_that_no_message_has(client: httpx.Client) -> None:
    for number in ("0", "9" * 19, "9" * 5000, str(2**63 - 1), "x"):
        assert client.get(f"/messages/{number}/t").status_code == 404, number[:30]
