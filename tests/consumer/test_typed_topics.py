"""Typed topics: models go in and come out, and what is no such model becomes a dead letter."""

from __future__ import annotations

import zlib
from typing import Any

import psycopg
import pydantic
import pytest

import durable_notify as dn
from tests.support.api import AnyReader, Api, Recorder, maybe_await


class Placed(pydantic.BaseModel):
    order_id: int


class Paid(pydantic.BaseModel):
    amount: float


class Zipped:
    def encode(self, value: str) -> bytes:
        return zlib.compress(value.encode())

    def decode(self, payload: Any) -> str:
        return zlib.decompress(payload).decode()


ORDERS = dn.Topic("orders", Placed)
PAYMENTS = dn.Topic("payments.*", Paid)


async def handled(api: Api, dsn: str, topics: Any, **options: Any) -> list[Any]:
    """The payloads that a consumer's handler receives, until nothing is left; by their ids."""
    recorder = Recorder()
    consumer = api.consumer(dsn, topics=topics, until_empty=True, **options)
    await consumer.run(recorder)
    return [message.payload for message in sorted(recorder.messages, key=lambda one: one.id)]


async def test_models_go_in_and_come_out(api: Api, dsn: str, conn: psycopg.Connection) -> None:
    publisher = api.Publisher()
    async with api.connect(dsn, autocommit=True) as connection:
        await maybe_await(publisher.publish(connection, ORDERS, Placed(order_id=1), key="a"))
        await maybe_await(
            publisher.publish(connection, ORDERS, dn.NewMessage(Placed(order_id=2), key="b"))
        )
        several = [Placed(order_id=3), dn.NewMessage(Placed(order_id=4))]
        assert await maybe_await(publisher.publish_many(connection, ORDERS, several)) == [3, 4]
        await maybe_await(publisher.publish(connection, "payments.card", {"amount": 5}))
        await maybe_await(publisher.publish(connection, "other", {"amount": "text"}))
    assert conn.execute("SELECT payload FROM durable_notify.outbox LIMIT 1").fetchone() == (
        {"order_id": 1},
    )
    found = await handled(api, dsn, (ORDERS, PAYMENTS, "other"))
    assert found == [*(Placed(order_id=n) for n in range(1, 5)), Paid(amount=5), {"amount": "text"}]


async def test_nothing_of_another_type_is_written(
    api: Api, dsn: str, conn: psycopg.Connection
) -> None:
    publisher = api.Publisher()
    async with api.connect(dsn, autocommit=True) as connection:
        for payload in ({"order_id": 1}, dn.NewMessage(Paid(amount=1)), None):
            with pytest.raises(dn.errors.PayloadError, match="the payload is not Placed"):
                await maybe_await(publisher.publish(connection, ORDERS, payload))
        with pytest.raises(dn.errors.PayloadError, match="the payload is not Placed") as raised:
            several = [Placed(order_id=1), Paid(amount=1)]
            await maybe_await(publisher.publish_many(connection, ORDERS, several))
        assert raised.value.__notes__ == ["message 1 of the list; none was published"]
        with pytest.raises(dn.InvalidArgument, match=r"'payments.\*' has '\*'"):
            await maybe_await(publisher.publish(connection, PAYMENTS, Paid(amount=1)))
    assert conn.execute("SELECT count(*) FROM durable_notify.outbox").fetchone() == (0,)


async def test_what_does_not_validate_becomes_a_dead_letter(
    api: Api, dsn: str, conn: psycopg.Connection
) -> None:
    for payload in ({"order_id": 1}, {"order_id": "secret"}, {"order_id": 2}, [], b"bytes"):
        dn.Publisher().publish(conn, "orders", payload)
    assert await handled(api, dsn, [ORDERS]) == [Placed(order_id=1), Placed(order_id=2)]
    letters = dn.Admin().dead_letters(conn, "g")
    assert [letter.id for letter in letters] == [2, 4, 5]
    assert [letter.attempt for letter in letters] == [1, 1, 1]
    text = "the payload is not Placed: order_id: Input should be a valid integer"
    assert letters[0].reason.startswith(text)
    assert letters[0].payload == {"order_id": "secret"}
    assert letters[0].error is not None
    assert letters[0].error["type"] == "durable_notify.errors.PayloadError"
    assert letters[0].error["message"] == letters[0].reason
    assert "secret" not in str(letters[0].error)
    # The payload was repaired, or the type; then the letter can be read.
    with pytest.raises(dn.errors.PayloadError, match="order_id"):
        ORDERS.decode(letters[0].payload)


async def test_a_codec_of_ones_own(api: Api, dsn: str, conn: psycopg.Connection) -> None:
    notes = dn.Topic("notes", Zipped())
    dn.Publisher().publish(conn, notes, "hello")
    dn.Publisher().publish(conn, "notes", b"hello")
    assert await handled(api, dsn, [notes]) == ["hello"]
    [letter] = dn.Admin().dead_letters(conn, "g")
    assert letter.reason.startswith("the codec of topic 'notes' failed: error: Error -3")


async def test_the_topic_itself_decides_before_a_pattern(
    api: Api, dsn: str, conn: psycopg.Connection
) -> None:
    every = dn.Topic(">", Paid)
    dn.Publisher().publish(conn, "orders", {"order_id": 1})
    dn.Publisher().publish(conn, "plain", {"amount": 1})
    dn.Publisher().publish(conn, "other", {"amount": 1})
    found = await handled(api, dsn, [every, "plain", ORDERS])
    assert found == [Placed(order_id=1), {"amount": 1}, Paid(amount=1)]


def test_two_types_of_one_topic_are_refused(api: Api, dsn: str) -> None:
    with pytest.raises(dn.InvalidArgument, match="there are two types of topic 'orders'"):
        api.consumer(dsn, topics=[ORDERS, dn.Topic("orders", Paid)])
    with pytest.raises(dn.InvalidArgument, match=r"topics is a list: write \[<Topic 'orders' of"):
        api.consumer(dsn, topics=ORDERS)
    api.consumer(dsn, topics=[ORDERS, "orders", ORDERS])


async def test_readers_hand_out_models(api: Api, dsn: str, conn: psycopg.Connection) -> None:
    for payload in ({"order_id": 1}, {"order_id": "one"}, {"order_id": 2}):
        dn.Publisher().publish(conn, "orders", payload)
    async with AnyReader(api, dsn, ORDERS, until_empty=True) as reading:
        first, second, third = await reading.rest()
    assert (first.payload, third.payload) == (Placed(order_id=1), Placed(order_id=2))
    with pytest.raises(dn.errors.PayloadError, match="the payload is not Placed: order_id"):
        _ = second.payload
    async with AnyReader(api, dsn, ORDERS, start=second.token, until_empty=True) as reading:
        assert [message.id for message in await reading.rest()] == [third.id]


async def test_administration_takes_topics(api: Api, dsn: str, conn: psycopg.Connection) -> None:
    dn.Publisher().publish(conn, ORDERS, Placed(order_id=1))
    assert len(await handled(api, dsn, [ORDERS])) == 1
    async with api.connect(dsn, autocommit=True) as connection:
        assert await maybe_await(api.Admin().replay(connection, "g", ORDERS, after=0)) == 1
