"""Relays to real brokers: what is carried, what is refused, and brokers killed in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.brokers.cloudevents import from_event
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.errors import BrokerUnavailable, InvalidArgument
from durable_notify.payloads import NewMessage
from tests.support.api import with_group
from tests.support.broker_io import OUTLETS, Arrived, all_arrive, carrying
from tests.support.cli import end, start
from tests.support.wait import wait_until

pytestmark = pytest.mark.server

EXACT = "12345678901234567890.10"
KEYS = 7


@pytest.fixture(scope="module", params=list(OUTLETS))
def broker(request: pytest.FixtureRequest) -> Iterator[Any]:
    with OUTLETS[request.param][0]() as server:
        yield server


@pytest.fixture
async def outlet(broker: Any, request: pytest.FixtureRequest) -> Any:
    made = OUTLETS[request.node.callspec.params["broker"]][1](broker)
    await made.make()
    return made


def publish(dsn: str, topic: str, *messages: Any) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return dn.Publisher().publish_many(connection, topic, messages)


def numbered(numbers: Any) -> list[NewMessage]:
    return [NewMessage(n, key=f"k{n % KEYS}") for n in numbers]


def dead_letters(dsn: str) -> dict[int, str]:
    with psycopg.connect(dsn) as connection:
        return {one.id: one.reason for one in dn.Admin().dead_letters(connection, "relay")}


def outstanding(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return sum(
            (line.unread or 0) + (line.deferred or 0) + (line.leased or 0)
            for line in dn.Admin().status(connection)
            if line.group == "relay"
        )


def relay_to(dsn: str, outlet: Any, **options: Any) -> AsyncRelay:
    options = {"topics": ["orders.*", "nowhere"], "until_empty": True} | options
    options = with_group({"group": "relay"} | options)
    return AsyncRelay(dsn, broker_url=outlet.url, routes=outlet.routes, **options)


def in_order(found: list[Arrived]) -> None:
    """Of each key, every number for the first time after all before it."""
    last: dict[str | None, int] = {}
    seen: set[int] = set()
    for one in found:
        if one.payload not in seen:
            assert one.payload > last.get(one.key, -1), one
            last[one.key] = one.payload
            seen.add(one.payload)


async def test_what_is_carried(dsn: str, outlet: Any) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    event = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "made", "data": {"a": 1}}
    (first, *_) = publish(
        dsn, "orders.eu",
        NewMessage({"n": 1}, key="ä b", headers={"traceparent": trace, "n": {"a": [1]}}),
        b"\x00\xff",
        from_event(event),
        "line\nbreak ä",
    )  # fmt: skip
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "SELECT durable_notify.publish('orders.us', %s::jsonb)", [f'{{"exact": {EXACT}}}']
        )
    relay = relay_to(dsn, outlet)
    await relay.run()
    assert (relay.sent, relay.rejected) == (5, 0)
    found = {one.body: one for one in await outlet.arrived()}
    one = found[b'{"n": 1}']
    assert one.key == "ä b"
    assert one.headers["traceparent"] == trace
    assert json.loads(one.headers["n"]) == {"a": [1]}
    assert one.headers["durable-notify-topic"] == "orders.eu"
    assert one.id.startswith(f"{first}-")
    assert one.content_type == "application/json"
    assert found[b"\x00\xff"].content_type == "application/octet-stream"
    made = found[b'{"a": 1}']
    assert {n: made.headers[outlet.cloudevents + n] for n in ("id", "source", "type")} == {
        "id": "e1", "source": "/shop", "type": "made",
    }  # fmt: skip
    assert '"line\\nbreak ä"'.encode() in found
    assert f'{{"exact": {EXACT}}}'.encode() in found  # no digit is lost


async def test_cloudevents(dsn: str, outlet: Any) -> None:
    (message_id, _) = publish(dsn, "orders.eu", {"n": 1}, b"\x00")
    await relay_to(dsn, outlet, cloudevents=True).run()
    plain, data = sorted(await outlet.arrived(), key=lambda one: one.id)
    assert plain.content_type == "application/cloudevents+json"
    assert plain.payload["data"] == {"n": 1}
    assert (plain.payload["id"], plain.payload["type"]) == (str(message_id), "orders.eu")
    assert data.payload["data_base64"] == "AA=="


async def test_one_that_is_refused_stops_no_other(dsn: str, outlet: Any) -> None:
    before = publish(dsn, "orders.eu", *numbered(range(20)))
    (large,) = publish(dsn, "orders.eu", NewMessage("x" * 1_500_000, key="k1"))
    (lost,) = publish(dsn, "nowhere", NewMessage(0, key="k1"))
    publish(dsn, "orders.eu", *numbered(range(20, 40)))
    relay = relay_to(dsn, outlet)
    await relay.run()
    found = await outlet.arrived()
    assert {one.payload for one in found} == set(range(40))
    in_order(found)
    reasons = dead_letters(dsn)
    assert set(reasons) == {large, lost} - set(before)
    assert outlet.too_large in reasons[large]
    assert outlet.nowhere in reasons[lost]


@pytest.mark.slow
async def test_the_broker_is_killed_and_started_again(dsn: str, broker: Any, outlet: Any) -> None:
    relay = relay_to(dsn, outlet, until_empty=False, batch_size=20, poll_interval=None)
    async with carrying(relay):
        publish(dsn, "orders.eu", *numbered(range(300)))
        async with asyncio.timeout(30):
            while relay.sent < 100:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await asyncio.to_thread(broker.kill)
        publish(dsn, "orders.eu", *numbered(range(300, 400)))
        await asyncio.to_thread(broker.start)
        publish(dsn, "orders.eu", *numbered(range(400, 450)))
        found = await all_arrive(outlet, set(range(450)))
        await wait_until(lambda: outstanding(dsn) == 0)
    in_order(found)
    if outlet.deduplicates:
        assert len(found) == 450
    assert dead_letters(dsn) == {}
    with psycopg.connect(dsn) as connection:  # no attempt was counted, none given up
        query = "SELECT count(*) FROM durable_notify.deferred"
        assert connection.execute(query).fetchone() == (0,)


@pytest.mark.slow
async def test_the_relay_is_killed(dsn: str, outlet: Any) -> None:
    publish(dsn, "orders.eu", *numbered(range(1000)))
    with psycopg.connect(dsn) as connection:  # so that there is time to kill it
        connection.execute("SELECT durable_notify.subscribe('relay', '{orders.eu}')")
        connection.execute("SELECT durable_notify.configure('relay', '{\"rate_limit\": 300}')")
    maps = [
        f"--map={topic}={','.join(f'{field}:{value}' for field, value in fields.items())}"
        for topic, fields in outlet.routes.items()
    ]
    arguments = [
        "relay",
        "orders.*",
        "nowhere",
        "--to",
        outlet.url,
        "--group",
        "relay",
        "--batch",
        "20",
        *maps,
    ]
    process = start(*arguments, dsn=dsn)
    try:
        await wait_until(lambda: 0 < outstanding(dsn) < 950)
    finally:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        print(said.decode())  # where it failed
    assert outstanding(dsn) > 0  # or nothing was tried out
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE durable_notify.lease SET deadline = clock_timestamp()")
        connection.execute("SELECT durable_notify.configure('relay', '{\"rate_limit\": null}')")
    process = start(*arguments, "--until-empty", dsn=dsn)
    _, said = await asyncio.to_thread(end, process)
    assert process.returncode == 0, said
    found = await outlet.arrived()
    assert {one.payload for one in found} == set(range(1000))
    in_order(found)
    if outlet.deduplicates:
        assert len(found) == 1000


async def test_a_broker_that_is_not_there(
    dsn: str, outlet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from durable_notify.brokers import kafka
    from tests.support.brokers import free_port

    publish(dsn, "orders.eu", 1)
    outlet.url = outlet.url.replace(outlet.url.rsplit(":", 1)[1].split("/")[0], str(free_port()))
    monkeypatch.setattr(kafka, "PATIENCE", 1.0)
    with pytest.raises(BrokerUnavailable):
        await relay_to(dsn, outlet).run()
    with psycopg.connect(dsn) as connection:
        assert all(line.group is None for line in dn.Admin().status(connection))


@pytest.mark.parametrize("url", ["ftp://h", "orders", "", "amqp://h:x", "amqp:///", "redis://h:x"])
def test_urls_that_cannot_work(url: str) -> None:
    with pytest.raises(InvalidArgument):
        AsyncRelay("", broker_url=url, group="g", topics=["t"])
