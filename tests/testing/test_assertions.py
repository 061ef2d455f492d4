"""assert_published(): inside the open transaction, and what its failures say."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import durable_notify as dn
from durable_notify import testing

publisher = dn.Publisher()


@dataclasses.dataclass
class Placed:
    order: int
    lines: tuple[str, ...] = ()


def failure(connection: Any, topic: str, **expected: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        testing.assert_published(connection, topic, **expected)
    return str(caught.value)


def test_a_message_that_never_expires(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO durable_notify.outbox (topic, payload, expires_at)"
            " VALUES ('orders', '1', 'infinity')"
        )
        (found,) = testing.assert_published(connection, "orders", payload=1)
        assert found.expires_at is None


def test_inside_the_open_transaction(dsn: str) -> None:
    with psycopg.connect(dsn) as connection, psycopg.connect(dsn, autocommit=True) as other:
        publisher.publish(
            connection, "orders", {"order": 1}, key="c7", headers={"by": "ann", "n": 1}
        )
        (found,) = testing.assert_published(
            connection, "orders", payload={"order": 1}, key="c7", headers={"by": "ann"}, count=1
        )
        assert (found.topic, found.key, found.payload) == ("orders", "c7", {"order": 1})
        testing.assert_not_published(other, "orders")
        testing.assert_not_published(connection, "invoices")
        testing.assert_not_published(connection, "orders", payload={"order": 2})
        connection.rollback()
        testing.assert_not_published(connection, "orders")


def test_values_are_compared_as_they_are_published(conn: psycopg.Connection) -> None:
    publisher.publish_many(
        conn, "t", [Placed(1, ("a", "b")), b"\x00\x01", None, {"at": 1.5, "x": [1]}]
    )
    testing.assert_published(conn, "t", payload=Placed(1, ("a", "b")))
    testing.assert_published(conn, "t", payload=bytearray(b"\x00\x01"))
    testing.assert_published(conn, "t", payload=None, key=None, count=1)
    testing.assert_published(conn, "t", payload={"at": pytest.approx(1.5), "x": ANY})
    testing.assert_published(conn, "t", payload={"at": ANY, "x": (1,)})
    testing.assert_published(conn, "t", count=4)
    times = testing.published(conn, "t")
    assert [message.deliver_at for message in times] == [None] * 4


def test_the_nearest_difference_is_named(conn: psycopg.Connection) -> None:
    publisher.publish(conn, "orders", {"order": 1, "lines": [{"sku": "a", "n": 2}]}, key="c7")
    publisher.publish(conn, "orders", {"else": True})
    assert failure(
        conn, "orders", payload={"order": 1, "lines": [{"sku": "a", "n": 3}]}, headers={"by": "ann"}
    ) == (
        "no message of 'orders' with payload={'order': 1, 'lines': [{'sku': 'a', 'n': 3}]}, "
        "headers={'by': 'ann'}\n"
        "the nearest is 1: payload['lines'][0]['n'] is 2, not 3; headers['by'] is missing\n"
        "published to 'orders':\n"
        "  1: payload={'lines': [{'n': 2, 'sku': 'a'}], 'order': 1}, key='c7'\n"
        "  2: payload={'else': True}"
    )
    assert "payload['lines'] is missing; payload['else'] is True, and was not expected" in failure(
        conn, "orders", payload={"lines": 1}, key=None
    )
    assert "key is 'c7', not 'c8'" in failure(conn, "orders", key="c8", payload=ANY)


def test_the_number_is_named(conn: psycopg.Connection) -> None:
    publisher.publish_many(conn, "orders", range(30))
    text = failure(conn, "orders", count=2)
    assert text.startswith(
        "30 messages of 'orders', not 2\npublished to 'orders':\n  1: payload=0\n"
    )
    assert text.endswith("\n  and 10 more")
    with pytest.raises(AssertionError, match="^1 message of 'orders' with payload=7, not none\n"):
        testing.assert_not_published(conn, "orders", payload=7)


def test_a_topic_that_may_be_meant_is_named(conn: psycopg.Connection) -> None:
    assert failure(conn, "order") == "nothing was published to 'order', nor to another topic"
    publisher.publish_many(conn, "orders", [1, 2])
    publisher.publish(conn, "invoices", 1)
    assert failure(conn, "order") == (
        "nothing was published to 'order'; to other topics: 'invoices' (1), 'orders' (2). "
        "Did you mean 'orders'?"
    )


def test_on_what_a_publisher_takes(dsn: str) -> None:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    with Session(engine) as session:
        publisher.publish(session, "t", 1)
        testing.assert_published(session, "t", payload=1)
        testing.assert_published(session.connection(), "t", payload=1)
        with session.begin_nested() as nested:
            publisher.publish(session, "t", 2)
            nested.rollback()
        testing.assert_not_published(session, "t", payload=2)
    engine.dispose()


async def test_of_asyncio(aconn: psycopg.AsyncConnection) -> None:
    await dn.AsyncPublisher().publish(aconn, "t", 1)
    await testing.assert_published_async(aconn, "t", payload=1, count=1)
    await testing.assert_not_published_async(aconn, "t", payload=2)
    with pytest.raises(AssertionError, match="the nearest is 1: payload is 1, not 2"):
        await testing.assert_published_async(aconn, "t", payload=2)
    assert [message.payload for message in await testing.published_async(aconn, "t")] == [1]
