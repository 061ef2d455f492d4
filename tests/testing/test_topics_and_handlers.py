"""The kit with topics that have a type, and with handlers by topic."""

from __future__ import annotations

import dataclasses
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import testing
from tests.support.api import Api, in_thread


@dataclasses.dataclass
class Placed:
    order: int
    tags: tuple[str, ...] = ()


ORDERS = dn.Topic("orders", Placed)


def test_what_was_published_has_the_type(conn: psycopg.Connection) -> None:
    dn.Publisher().publish(conn, ORDERS, Placed(1, ("new",)))
    (found,) = testing.assert_published(conn, ORDERS, payload=Placed(1, ("new",)))
    assert isinstance(found.payload, Placed)
    testing.assert_published(conn, ORDERS, payload={"order": 1, "tags": ["new"]})
    testing.assert_published(conn, "orders", payload=Placed(1, ("new",)))
    with pytest.raises(AssertionError, match="payload\\['order'\\] is 1, not 2"):
        testing.assert_published(conn, ORDERS, payload=Placed(2, ("new",)))


def test_a_message_has_the_type() -> None:
    message = testing.message(Placed(1, ("a",)), topic=ORDERS)
    assert message.payload == Placed(1, ("a",))
    assert message.topic == "orders"
    with pytest.raises(dn.errors.PayloadError):
        testing.message({"order": "one"}, topic=ORDERS)


async def test_handlers_by_topic(api: Api, dsn: str, conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE done (job int)")
    dn.Publisher().publish(conn, ORDERS, Placed(7))
    dn.Publisher().publish(conn, "else.a", 1)
    seen: list[Any] = []
    make = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer = make(dsn, group="g")

    @consumer.on("else.*")
    def other(message: Any) -> None:
        seen.append(message.payload)

    if api.is_async:

        @consumer.on(ORDERS, transaction=True)
        async def placed(message: Any, connection: Any) -> None:
            await connection.execute("INSERT INTO done VALUES (%s)", [message.payload.order])

        drained: Any = await testing.drain_async(consumer)  # type: ignore[arg-type]
    else:

        @consumer.on(ORDERS, transaction=True)
        def plainly_placed(message: Any, connection: Any) -> None:
            connection.execute("INSERT INTO done VALUES (%s)", [message.payload.order])

        drained = await in_thread(testing.drain, consumer)
    assert len(drained.handled) == 2
    assert seen == [1]
    assert conn.execute("SELECT job FROM done").fetchall() == [(7,)]


async def test_a_modules_consumer_is_drained_on_the_tests_database(
    api: Api, dsn: str, conn: psycopg.Connection
) -> None:
    """Whether it is new, or has run before; its own database stays its own."""
    make = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer = make("postgresql://own@127.0.0.1:1/own", group="g")
    seen: list[Any] = []

    @consumer.on("orders")
    def handle(message: Any) -> None:
        seen.append(message.payload)

    async def drain(**options: Any) -> Any:
        if api.is_async:
            return await testing.drain_async(consumer, **options)  # type: ignore[arg-type]
        return await in_thread(lambda: testing.drain(consumer, **options))  # type: ignore[arg-type]

    for number in (1, 2):
        dn.Publisher().publish(conn, "orders", number)
        assert len((await drain(dsn=dsn)).handled) == 1
    assert seen == [1, 2]
    with pytest.raises(psycopg.OperationalError):
        await drain()
