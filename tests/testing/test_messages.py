"""message(): a message to call a handler with, without a database."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import durable_notify as dn
from durable_notify import testing

HERE: Any = object()  # a connection that is not used


@dataclasses.dataclass
class Placed:
    order: int


def test_it_is_what_a_consumer_delivers() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    message = testing.message(
        Placed(1), topic="orders", key="c7", headers={"by": "ann"}, id=9, attempt=3, published_at=at
    )
    assert isinstance(message, dn.Message)
    assert (message.topic, message.key, message.payload) == ("orders", "c7", {"order": 1})
    assert (message.headers, message.id, message.attempt) == ({"by": "ann"}, 9, 3)
    assert message.published_at == at
    assert testing.message(b"\x00").payload == b"\x00"
    assert testing.message((1, 2)).payload == [1, 2]
    with pytest.raises(dn.errors.PayloadError):
        testing.message(object())


def test_how_it_is_settled_is_recorded() -> None:
    message = testing.message(1)
    assert message.outcome is None
    assert not message.is_settled
    message.extend(60)
    message.ack()
    assert message.outcome == dn.Ack()
    assert message.is_settled
    with pytest.raises(dn.errors.AlreadySettled):
        message.retry()
    message = testing.message(1)
    message.retry(60)
    assert message.outcome == dn.Retry(60)
    message = testing.message(1)
    message.reject("no customer", "why")
    assert isinstance(message.outcome, dn.Reject)
    assert message.outcome.reason == "no customer"


def test_of_asyncio() -> None:
    async def handle(message: dn.AsyncMessage) -> None:
        if message.attempt > 2:
            await message.reject("too often")
        else:
            await message.ack()

    message = testing.message_async(1)
    assert isinstance(message, dn.AsyncMessage)
    asyncio.run(handle(message))
    assert message.outcome == dn.Ack()
    message = testing.message_async(1, attempt=3)
    asyncio.run(handle(message))
    assert message.outcome == dn.Reject("too often")


def test_in_a_transaction_of_the_handlers_own() -> None:
    message = testing.message(1)
    assert message.once(HERE)
    assert not message.once(HERE)
    message.ack(HERE)
    assert message.outcome == dn.Ack()


def test_transaction_lends_the_connection_of_the_test(dsn: str) -> None:
    def handle(message: dn.Message, *, fail: bool = False) -> None:
        with message.transaction() as connection:
            connection.execute("INSERT INTO done VALUES (1)")
            if fail:
                raise RuntimeError

    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE done (job int)")
        message = testing.message(1, connection=connection)
        with pytest.raises(RuntimeError):
            handle(message, fail=True)
        assert message.outcome is None
        assert connection.execute("SELECT count(*) FROM done").fetchone() == (0,)
        message = testing.message(1, connection=connection)
        handle(message)
        assert message.outcome == dn.Ack()
        assert connection.execute("SELECT count(*) FROM done").fetchone() == (1,)
        connection.rollback()  # nothing was committed
        assert connection.execute("SELECT to_regclass('done')").fetchone() == (None,)


def test_transaction_of_sqlalchemy(dsn: str) -> None:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    with Session(engine) as session:
        message = testing.message(1, connection=session)
        with message.transaction() as given:
            given.execute(sa.text("SELECT 1"))
        assert given is session
        assert message.outcome == dn.Ack()
        message = testing.message(1)
        with message.transaction(engine) as connection:
            connection.execute(sa.text("SELECT 1"))
        assert message.outcome == dn.Ack()
    engine.dispose()


async def test_transaction_of_asyncio(aconn: psycopg.AsyncConnection) -> None:
    message = testing.message_async(1, connection=aconn)
    async with message.transaction() as given:
        await given.execute("SELECT 1")
    assert given is aconn
    assert message.outcome == dn.Ack()


def test_transaction_without_a_connection() -> None:
    with pytest.raises(dn.InvalidArgument, match="no database: give testing.message\\(\\) a conn"):
        with testing.message(1).transaction():
            pass


def test_what_was_published_can_be_handled_before_the_commit(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish(connection, "orders", {"n": 1}, key="k", headers={"h": [1]})
        (published,) = testing.published(connection, "orders")
        message = testing.message(published)
        assert (message.id, message.topic, message.key) == (published.id, "orders", "k")
        assert (message.payload, message.headers) == ({"n": 1}, {"h": [1]})
        assert message.published_at == published.published_at
