"""Endpoints as rows: one process serves them all, and follows their changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.types.json import Jsonb

import durable_notify as dn
from durable_notify.brokers import endpoints
from durable_notify.brokers.broker import Sent
from durable_notify.brokers.endpoints import AsyncWebhookRelays, send_test_to
from durable_notify.brokers.filters import contains
from tests.support.broker_io import carrying
from tests.support.cli import fails, good, run, start
from tests.support.receiver import Answer, Receiver, receiving
from tests.support.wait import eventually, wait_until

KEY = "k" * 32
HERE = ("127.0.0.0/8",)
Connection = psycopg.Connection[Any]
webhooks = dn.Webhooks()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_KEY", KEY)
    monkeypatch.setattr(endpoints, "LOOK", 1000.0)  # only what is told counts
    monkeypatch.setattr(endpoints, "POLL", 1000.0)


@pytest_asyncio.fixture
async def fleet(dsn: str) -> AsyncIterator[AsyncWebhookRelays]:
    """A process that serves all endpoints."""
    relays = AsyncWebhookRelays(dsn, allow=HERE, connections=2)
    async with carrying(relays):
        yield relays


@pytest.fixture
def other() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def publish(conn: Connection, payload: Any, topic: str = "orders.eu", **options: Any) -> None:
    dn.Publisher().publish(conn, topic, payload, **options)


def bodies(receiver: Receiver) -> list[str]:
    return [request.body.decode() for request in receiver.requests]


async def test_created_changed_rotated_deleted(
    fleet: AsyncWebhookRelays, conn: Connection, receiver: Receiver, other: Receiver
) -> None:
    made = webhooks.create(
        conn, "shop", url=receiver.url, topics=["orders.*"], headers={"x-shop": "7"},
        header_prefix="svix-",
    )  # fmt: skip
    first = webhooks.secret(made)
    publish(conn, 1)
    await wait_until(lambda: bodies(receiver) == ["1"])
    (request,) = receiver.requests
    request.verify(first)
    assert request.headers["x-shop"] == "7"
    for name in ("id", "timestamp", "signature"):
        assert request.headers[f"svix-{name}"] == request.headers[f"webhook-{name}"]
    second = webhooks.rotate_secret(conn, "shop")
    version = webhooks.endpoint(conn, "shop").changed_at
    await wait_until(lambda: running(fleet, "shop", version))
    publish(conn, 2)
    await wait_until(lambda: len(receiver.requests) == 2)
    receiver.requests[1].verify(first)
    receiver.requests[1].verify(second)
    webhooks.change(conn, "shop", url=other.url, topics=["prices"])
    version = webhooks.endpoint(conn, "shop").changed_at
    await wait_until(lambda: running(fleet, "shop", version))
    publish(conn, 3)
    publish(conn, 4, "prices")
    await wait_until(lambda: bodies(other) == ["4"])
    webhooks.pause(conn, "shop")
    await wait_until(lambda: fleet.serving == [])
    publish(conn, 5, "prices")
    webhooks.resume(conn, "shop")
    await wait_until(lambda: bodies(other) == ["4", "5"])
    webhooks.delete(conn, "shop")
    await wait_until(lambda: fleet.serving == [])
    assert len(receiver.requests) == 2


def running(fleet: AsyncWebhookRelays, name: str, version: Any) -> bool:
    """Whether the fleet serves this version of an endpoint."""
    found = fleet._relays.get(name)
    return found is not None and found.version == (version, False)


async def test_the_past_a_filter_and_a_replay(
    fleet: AsyncWebhookRelays, conn: Connection, receiver: Receiver, other: Receiver
) -> None:
    for shop in (7, 8, 7):
        publish(conn, {"shop": shop}, key=f"k{shop}")
    webhooks.create(
        conn, "seven", url=receiver.url, topics=["orders.*"], start="beginning",
        filter={"payload": {"shop": 7}},
    )  # fmt: skip
    webhooks.create(conn, "all", url=other.url, topics=["orders.*"], start="beginning")
    await wait_until(lambda: (len(receiver.requests), len(other.requests)) == (2, 3))
    dn.Admin().start_replay(conn, "seven", "orders.eu", keys="k7")
    await wait_until(lambda: len(receiver.requests) == 4)
    assert set(bodies(receiver)) == {'{"shop": 7}'}
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert ids[:2] == ids[2:]
    assert len(other.requests) == 3


async def test_one_that_fails_disturbs_no_other_and_is_paused(
    fleet: AsyncWebhookRelays, conn: Connection, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "AGAIN", 0.01)
    with receiving(lambda _: Answer(500)) as broken:
        webhooks.create(conn, "broken", url=broken.url, topics=["orders.*"])
        webhooks.create(conn, "down", url="http://127.0.0.1:1/", topics=["orders.*"])
        webhooks.create(conn, "private", url="http://10.1.2.3/", topics=["orders.*"])
        webhooks.create(conn, "unreadable", url=other.url, topics=["t"], secrets=["env:NONE"])
        webhooks.create(conn, "good", url=other.url, topics=["orders.*"])
        for number in range(20):
            publish(conn, number)
        await wait_until(lambda: len(other.requests) == 20)

        def failing() -> set[str]:
            return {each.name for each in webhooks.endpoints(conn) if each.failing_since}

        await wait_until(lambda: failing() == {"broken", "down", "private", "unreadable"})
        assert webhooks.endpoint(conn, "broken").failure == "127.0.0.1 answered 500"
        conn.execute(
            "UPDATE durable_notify.webhook SET failing_since = now() - interval '6 days'"
            " WHERE failing_since IS NOT NULL"
        )
        # The next attempt finds that it has failed for too long.
        dn.Admin().retry_now(conn, "broken", everything=True)
        await wait_until(lambda: webhooks.endpoint(conn, "broken").paused_at is not None)
    (entry, *_) = dn.Admin().audit(conn, "broken")
    assert (entry.action, (entry.why or "")[-12:]) == ("pause", "answered 500")


async def test_it_works_again(
    fleet: AsyncWebhookRelays, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = [500]
    with receiving(lambda _: Answer(status[0])) as flaky:
        webhooks.create(
            conn,
            "shop",
            url=flaky.url,
            topics=["t"],
            retry=dn.RetryPolicy(max_attempts=10_000, base=0.01, max=0.01),
        )
        publish(conn, 1, "t")
        await wait_until(lambda: webhooks.endpoint(conn, "shop").failing_since is not None)
        status[0] = 204
        await wait_until(lambda: webhooks.endpoint(conn, "shop").failing_since is None)


async def test_gone(fleet: AsyncWebhookRelays, conn: Connection, other: Receiver) -> None:
    with receiving(lambda _: Answer(410)) as gone:
        webhooks.create(conn, "gone", url=gone.url, topics=["t"])
        webhooks.create(conn, "good", url=other.url, topics=["t"])
        publish(conn, 1, "t")
        await wait_until(lambda: webhooks.endpoint(conn, "gone").paused_at is not None)
        await wait_until(lambda: fleet.serving == ["good"])
    assert dn.Admin().audit(conn, "gone")[0].why == "127.0.0.1 answered 410"
    webhooks.change(conn, "gone", url=other.url)
    webhooks.resume(conn, "gone")
    await wait_until(lambda: bodies(other) == ["1", "1"])  # nothing was lost


async def test_connections_do_not_grow_with_endpoints(
    fleet: AsyncWebhookRelays, conn: Connection, receiver: Receiver
) -> None:
    names = [f"shop-{number}" for number in range(40)]
    with conn.transaction():
        for name in names:
            webhooks.create(conn, name, url=f"{receiver.url}{name}", topics=["orders.*"])
    publish(conn, 1)
    await wait_until(lambda: len(receiver.requests) == 40)
    assert {request.path.removeprefix("/hook") for request in receiver.requests} == set(names)
    names = conn.execute(
        "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'durable_notify%'"
        " AND datname = current_database()"
    ).fetchall()
    assert len(names) <= 2 + 1 + 1 + 1, names  # claiming, settling, leases, listening


async def test_a_test_send(dsn: str, conn: Connection, receiver: Receiver) -> None:
    made = webhooks.create(conn, "shop", url=receiver.url, topics=["t"])
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        assert isinstance(await send_test_to(connection, "shop", allow=HERE), Sent)
    (request,) = receiver.requests
    request.verify(webhooks.secret(made))
    assert b"durable_notify.test" in request.body


async def test_a_database_that_restarts(
    private_server: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = private_server.dsn()
    dn.schema.migrate(dsn)
    async with carrying(AsyncWebhookRelays(dsn, allow=HERE, connections=2)):
        with psycopg.connect(dsn, autocommit=True) as conn:
            webhooks.create(conn, "shop", url=receiver.url, topics=["t"])
            publish(conn, 1, "t")
            await wait_until(lambda: bodies(receiver) == ["1"])
        private_server.restart("immediate")
        with psycopg.connect(dsn, autocommit=True) as conn:
            publish(conn, 2, "t")
            webhooks.create(conn, "more", url=receiver.url, topics=["t"], start="beginning")
            # 1 once more, for the other endpoint; at least: what was not settled is sent again.
            await wait_until(
                lambda: len(receiver.requests) >= 4 and bodies(receiver).count("2") >= 2
            )


def test_command_line(dsn: str, conn: Connection, receiver: Receiver) -> None:
    def command(*words: str) -> str:
        return good("webhook", *words, dsn=dsn).strip()

    publish(conn, {"n": 1}, "t")
    first = command(
        "create", "shop", receiver.url, "t", "u", "--start", "1h", "--filter", '{"payload": {}}',
        "--header", "x-shop=7", "--pause-after", "1d",
    )  # fmt: skip
    assert command("secret", "shop") == first
    assert command("test", "shop", "--allow", HERE[0]) == "the endpoint accepted it"
    receiver.requests[0].verify(first)
    assert "No endpoints" not in command("list")
    (row,) = json.loads(command("list", "--json"))
    assert (row["name"], row["host"], row["topics"]) == ("shop", "127.0.0.1", ["t", "u"])
    assert not {"url", "salt"} & row.keys()
    assert "headers" not in row["options"]
    command("change", "shop", "--topic", "t", "--timeout", "5")
    second = command("rotate", "shop")
    assert second != first
    command("pause", "shop")
    assert "paused for" in command("list")
    command("resume", "shop")
    serving = start("webhook", "serve", "--allow", HERE[0], dsn=dsn)
    try:
        eventually(lambda: len(receiver.requests) == 2)
        receiver.requests[1].verify(second)
        receiver.requests[1].verify(first)
    finally:
        serving.terminate()
        _, errors = serving.communicate(timeout=20)
    assert (serving.returncode, errors.decode().strip()) == (0, "ended: 1 sent")
    command("delete", "shop", "--yes")
    fails(run("webhook", "secret", "shop", dsn=dsn), 1, "there is no endpoint")
    fails(run("webhook", "create", "a", "nowhere", "t", dsn=dsn), 2, "https://HOST/PATH")
    env = {"DURABLE_NOTIFY_WEBHOOK_KEY": "short"}
    fails(run("webhook", "create", "a", receiver.url, "t", dsn=dsn, **env), 2, "fewer than 32")
    assert webhooks.endpoints(conn) == []


JSON = [
    None, True, False, 0, 1, 1.5, "a", "", [], [1], [1, 2], ["a", [1]], {}, {"a": 1}, {"a": [1, 2]},
    {"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, [{"a": 1, "b": 2}], [{"a": 1}], [[1, 2]], [[1]], 1.0,
]  # fmt: skip


def test_filters_are_those_of_the_database(conn: Connection) -> None:
    rows = conn.execute(
        "SELECT a.v, b.v, a.v @> b.v FROM unnest(%s::jsonb[]) a (v), unnest(%s::jsonb[]) b (v)",
        [list(map(Jsonb, JSON)), list(map(Jsonb, JSON))],
    ).fetchall()
    assert len(rows) == len(JSON) ** 2
    for whole, part, found in rows:
        assert contains(whole, part) is found, (whole, part)
