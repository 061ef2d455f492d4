"""The way in from real brokers: acknowledged after commit, published once, brokers killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from durable_notify.brokers import nats
from durable_notify.brokers.ingest import AsyncIngest
from durable_notify.errors import InvalidArgument
from tests.support.broker_io import INLETS, Given, carrying, ingest_of, nothing_left
from tests.support.wait import wait_until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=list(INLETS))
def broker(request: pytest.FixtureRequest) -> Iterator[Any]:
    with INLETS[request.param][0]() as server:
        yield server


@pytest.fixture
async def inlet(broker: Any, request: pytest.FixtureRequest) -> Any:
    made = INLETS[request.node.callspec.params["broker"]][1](broker)
    await made.make()
    return made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have NATS redeliver soon what was not acknowledged."""
    monkeypatch.setattr(nats, "ACK_WAIT", 1)


def published(dsn: str) -> list[tuple[Any, ...]]:
    query = """
        SELECT payload::text, data, key, headers FROM durable_notify.outbox WHERE topic = 'in'
        ORDER BY id"""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def count(dsn: str) -> int:
    return len(published(dsn))


async def test_what_is_carried(dsn: str, inlet: Any) -> None:
    await inlet.fill(
        Given(b'{"n": 12345678901234567890.10}', "k", {"traceparent": "00-1"}, "application/json"),
        Given(b"\xff\x00", "k", {"ce_id": "e1"}, "image/png"),
        Given(b"not json", "k"),
        Given(b'"\\u0000"', "k", {}, "application/json"),  # PostgreSQL's JSON has no NUL
        Given(b"1e999999", "k", {}, "application/json"),  # nor such numbers
        Given(b"5", "x" * 2000),  # and no key is as long
        Given(b"6", "k"),
    )
    async with carrying(ingest_of(dsn, inlet)) as ingest:
        await wait_until(lambda: ingest.published == 7, 60)
        await wait_until(lambda: nothing_left(inlet), 60)
    assert ingest.refused == 0
    rows = published(dsn)
    of_k = [row for row in rows if row[2] == "k"]
    assert [row[0] for row in of_k] == ['{"n": 12345678901234567890.10}', *[None] * 4, "6"]
    assert [row[1] for row in of_k] == [
        None, b"\xff\x00", b"not json", b'"\\u0000"', b"1e999999", None,
    ]  # fmt: skip
    assert of_k[0][3]["traceparent"] == "00-1"
    assert of_k[1][3] == {"ce_id": "e1", "content-type": "image/png"}
    (long,) = [row for row in rows if row[2] is None]
    assert long[0] == "5"
    assert "the key has 2000 bytes" in long[3]["ingest-error"]


async def test_it_dies_between_commit_and_acknowledgement(
    dsn: str, inlet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await inlet.fill(*(Given(str(n).encode(), "k") for n in range(50)))

    async def die(_: Any) -> None:
        raise ZeroDivisionError

    ingest = ingest_of(dsn, inlet)
    monkeypatch.setattr(ingest._source, "ack", die)
    with pytest.raises(ZeroDivisionError):
        await ingest.run()
    assert 0 < count(dsn) <= 50
    async with carrying(ingest_of(dsn, inlet)):
        await wait_until(lambda: count(dsn) == 50, 60)  # what is on its way is not left, either
        await wait_until(lambda: nothing_left(inlet), 60)
    assert [row[0] for row in published(dsn)] == [str(n) for n in range(50)]


async def test_nothing_is_acknowledged_that_is_not_committed(dsn: str, inlet: Any) -> None:
    await inlet.fill(*(Given(str(n).encode(), "k") for n in range(20)))
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("LOCK TABLE durable_notify.outbox IN EXCLUSIVE MODE")
        async with carrying(ingest_of(dsn, inlet)):
            await wait_until(lambda: waits(dsn), 60)
    # It was stopped before it could commit.
    assert count(dsn) == 0
    assert await inlet.left() == 20


async def test_it_stops_though_the_client_loses_its_cancellation(
    dsn: str, inlet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python 3.11's wait_for() does, if the answer arrives at the same moment."""
    acknowledging = asyncio.Event()

    async def lose(_: Any) -> None:
        acknowledging.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    await inlet.fill(Given(b"1"))
    ingest = ingest_of(dsn, inlet)
    monkeypatch.setattr(ingest._source, "ack", lose)
    async with carrying(ingest):
        await acknowledging.wait()
    assert count(dsn) == 1


async def waits(dsn: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation')"
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute(query)).fetchone()
        return bool(row and row[0])


async def test_the_broker_is_killed_and_started_again(dsn: str, broker: Any, inlet: Any) -> None:
    await inlet.fill(*(Given(str(n).encode(), "k") for n in range(300)))
    async with carrying(ingest_of(dsn, inlet, batch_size=10)) as ingest:
        await wait_until(lambda: ingest.published >= 50, 60)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await inlet.fill(*(Given(str(n).encode(), "k") for n in range(300, 350)))
        await wait_until(
            lambda: {row[0] for row in published(dsn)} == {str(n) for n in range(350)}, 60
        )
        await wait_until(lambda: nothing_left(inlet), 60)
    assert [row[0] for row in published(dsn)] == [str(n) for n in range(350)]


async def test_a_queue_that_is_not_there(dsn: str, inlet: Any) -> None:
    ingest = AsyncIngest(dsn, broker_url=inlet.url, queue="nowhere", topic="in")
    with pytest.raises(InvalidArgument, match="nowhere"):
        await ingest.run()


def test_what_cannot_work() -> None:
    for source in ("redis://h", "http://h", "amqp:///"):
        with pytest.raises(InvalidArgument):
            AsyncIngest("", broker_url=source, queue="p", topic="t")
    for options in (
        {"topic": ""},
        {"queue": ""},
        {"group": ""},
        {"batch_size": 0},
        {"dedup_window": 0},
    ):
        with pytest.raises(InvalidArgument):
            AsyncIngest("", **{"broker_url": "nats://h", "queue": "p", "topic": "t", **options})  # type: ignore[arg-type]
