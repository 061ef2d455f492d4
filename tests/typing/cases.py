"""What type checkers tell users. Not run: checked by mypy and by pyright, see test_types.py.

A line with an ignore must have an error: both checkers report ignores that are not needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, assert_type

import psycopg
from sqlalchemy.ext.asyncio import AsyncSession

import durable_notify as dn
from durable_notify.integrations.fastapi import AsyncBoundPublisher, BoundPublisher, publisher_for
from durable_notify.integrations.sqlalchemy import PublishesOnFlush
from durable_notify.middleware import Handling, Publishing


@dataclasses.dataclass
class Placed:
    order_id: int


@dataclasses.dataclass
class Paid:
    amount: float


class Codec:
    def encode(self, value: Placed, /) -> bytes:
        return str(value.order_id).encode()

    def decode(self, payload: Any, /) -> Placed:
        return Placed(int(payload))


class NoCodec:
    def encode(self, value: Placed, /) -> bytes:
        return b""


MINUTE = timedelta(minutes=1)
orders = dn.Topic("orders", Placed)
payments = dn.Topic("payments.*", Paid)

assert_type(orders, dn.Topic[Placed])
assert_type(dn.Topic("orders", Codec()), dn.Topic[Placed])
assert_type(dn.Topic("images", bytes), dn.Topic[bytes])
assert_type(orders.decode({}), Placed)
dn.Topic("orders", NoCodec())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def publishing(
    connection: psycopg.AsyncConnection[Any], session: AsyncSession, plain: psycopg.Connection[Any]
) -> None:
    publisher = dn.AsyncPublisher()
    assert_type(await publisher.publish(connection, orders, Placed(1), key="a"), int)
    await publisher.publish(session, orders, dn.NewMessage(Placed(1), key="a"))
    await publisher.publish(connection, "orders", {"any": "JSON"})
    await publisher.publish(connection, "orders", dn.NewMessage([1, "a"], ttl=5))
    await publisher.publish(connection, orders, Paid(1))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await publisher.publish(connection, orders, {"order_id": 1})  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await publisher.publish(plain, orders, Placed(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await publisher.publish_many(connection, orders, [Placed(1)]), list[int])
    several: list[Placed | dn.NewMessage[Placed]] = [Placed(1), dn.NewMessage(Placed(2), ttl=5)]
    await publisher.publish_many(connection, orders, several)
    await publisher.publish_many(connection, "orders", [1, "a", dn.NewMessage({"b": 2})])
    await publisher.publish_many(connection, orders, [Paid(1)])  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_type(dn.Publisher().publish(plain, orders, Placed(1)), int)
    dn.Publisher().publish(plain, orders, Paid(1))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


by_topic = dn.AsyncConsumer("", group="g", concurrency=2)
assert_type(by_topic, dn.AsyncConsumer[Any])


@by_topic.on(orders)
async def place_later(message: dn.AsyncMessage[Placed]) -> int:
    return message.payload.order_id


@by_topic.on(dn.Topic("paid", Paid), transaction=True)
async def pay_later(message: dn.AsyncMessage[Paid], connection: Any) -> None:
    assert_type(message.payload, Paid)


@by_topic.on("mails", thread=True)
@by_topic.on("mails.*")
def mail_later(message: dn.AsyncMessage) -> None:
    assert_type(message.payload, Any)


@by_topic.on(payments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong_type(message: dn.AsyncMessage[Placed]) -> None: ...


@by_topic.on(payments, transaction=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def no_connection(message: dn.AsyncMessage[Paid]) -> None: ...


@by_topic.on(payments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def other_half(message: dn.Message[Paid]) -> None: ...


async def running() -> None:
    assert_type(await place_later(dn.AsyncMessage[Placed].__new__(dn.AsyncMessage)), int)
    async with by_topic.running() as consumer:
        assert_type(consumer, dn.AsyncConsumer[Any])
    await dn.run_async(by_topic, dn.AsyncConsumer("", group="g", topics=[orders]))
    await dn.run_async(dn.Consumer("", group="g"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    dn.run(dn.Consumer("", group="g"))


class Timing(dn.Middleware):
    def handling(self, call: Handling) -> Iterator[None]:
        assert_type(call.group, str)
        yield

    @contextmanager
    def publishing(self, call: Publishing) -> Iterator[None]:
        assert_type(call.ids, list[int])
        yield


class Awaiting(dn.Middleware):
    async def handling(self, call: Handling) -> AsyncIterator[None]:
        yield


class Returning(dn.Middleware):
    def handling(self, call: Handling) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return call.group


dn.Publisher(middleware=[Timing(), Awaiting()])
dn.AsyncConsumer("", group="g", topics=["a"], middleware=[Timing()])
dn.AsyncPublisher(middleware=[print])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def consuming(dsn: str) -> None:
    typed = dn.AsyncConsumer(dsn, group="g", topics=[orders])
    assert_type(typed, dn.AsyncConsumer[Placed])
    async for message in typed:
        assert_type(message, dn.AsyncMessage[Placed])
        assert_type(message.payload, Placed)
        assert_type(message.attempt, int)
        async with message.transaction() as connection:
            assert_type(connection, Any)
    async for batch in typed.batches(size=10):
        assert_type(batch, list[dn.AsyncMessage[Placed]])
    assert_type(dn.AsyncConsumer(dsn, group="g", topics=["orders"]), dn.AsyncConsumer[Any])
    assert_type(dn.AsyncConsumer(dsn, group="g", topics=[orders, payments]), dn.AsyncConsumer[Any])
    assert_type(dn.AsyncConsumer(dsn, group="g", topics=[orders, "b.*"]), dn.AsyncConsumer[Any])
    dn.AsyncConsumer(dsn, group="g", topics=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    group = dn.Group("g", order_by="none", retry=dn.RetryPolicy(max_attempts=3, base=MINUTE))
    assert_type(dn.AsyncConsumer(dsn, group=group, topics=[orders]), dn.AsyncConsumer[Placed])
    dn.AsyncConsumer(dsn, group="g", topics=[orders], lease=MINUTE, poll_interval=None)
    dn.AsyncConsumer(dsn, group="g", topics=[orders], max_attempts=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    dn.AsyncConsumer(dsn, group="g", topics=[orders], poll=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    dn.Group("g", order_by="id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    dn.Group("g", max_attempts=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    dn.AsyncConsumer(dsn, group="g", topics=[orders], leas=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def untyped(message: dn.Message) -> None:
    assert_type(message.payload, Any)


def place(message: dn.Message[Placed]) -> None:
    assert_type(message.payload, Placed)


def pay(message: dn.Message[Paid]) -> None:
    assert_type(message.payload.amount, float)


def handling(dsn: str) -> None:
    consumer = dn.Consumer(dsn, group="g", topics=[orders])
    consumer.run(untyped)
    consumer.run(place, concurrency=4)
    consumer.run(pay)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    anything: dn.Consumer = dn.Consumer(dsn, group="g", topics=["a"])
    anything.run(pay)


def reading(dsn: str) -> None:
    reader = dn.Reader(dsn, topics=[orders], start="latest")
    assert_type(reader, dn.Reader[Placed])
    for message in reader:
        assert_type(message, dn.models.ReadMessage[Placed])
        assert_type(message.payload, Placed)
    assert_type(dn.Reader(dsn, topics=["orders"]), dn.Reader[Any])
    dn.Reader(dsn, ["orders"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    assert_type(dn.Reader(dsn, topics=[orders, payments]), dn.Reader[Any])
    for any_message in dn.Reader(dsn, topics=[orders, "prices"]):
        assert_type(any_message.payload, Any)


def administration(connection: psycopg.Connection[Any]) -> None:
    assert_type(dn.Admin().replay(connection, "g", orders, after=0), int)
    dn.Admin().configure(connection, "g", retry=dn.RetryPolicy(max=MINUTE), rate_limit=None)
    dn.Admin().configure(connection, "g", retry_max=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    dn.errors.PayloadTooLarge()
    dn.PayloadTooLarge()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


class Recorded(PublishesOnFlush):
    pass


async def frameworks(awaited: AsyncBoundPublisher, plain: BoundPublisher, it: Recorded) -> None:
    assert_type(await awaited.publish(orders, Placed(1), key="a"), int)
    assert_type(plain.publish("orders", {"order": 1}, delay=MINUTE), int)
    assert_type(plain.publish_many(orders, [Placed(1), Placed(2)]), list[int])
    plain.publish(orders, Placed(1), colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    it.publish_on_flush(orders, Placed(1), key="a")
    it.publish_on_flush(orders, lambda: Placed(1))
    it.publish_on_flush("orders", {"order": 1})
    assert_type(publisher_for(object, dn.Publisher()), Callable[..., BoundPublisher])
    assert_type(publisher_for(object), Callable[..., AsyncBoundPublisher])
