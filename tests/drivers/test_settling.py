"""Acknowledging in the program's own transaction, whatever the driver."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.drivers.kits import Kit, every, of_django, only
from tests.drivers.test_publishing import payloads, publish
from tests.support.api import entered, in_thread, maybe_await
from tests.support.observe import value

Connection = psycopg.Connection[Any]
Fail = type("Fail", (Exception,), {})


def left(conn: Connection, group: str) -> int:
    """How many messages a group has not settled."""
    return sum(
        line.unread + line.deferred + line.leased + line.dead
        for line in dn.Admin().status(conn)
        if line.group == group
    )


@every
async def test_ack_commits_with_the_transaction(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn) as opened:
        async with kit.message(dsn, topic, topic) as message:
            async with opened.transaction():
                assert await opened.call(message.once)
                await opened.call(message.ack)
                await publish(kit, opened, f"{topic}.next", "and on")
        assert left(conn, topic) == 0
        async with kit.message(dsn, topic, topic) as message:
            assert message is None
        async with kit.message(dsn, f"{topic}.next", topic) as message:
            assert message.payload == "and on"


async def test_ack_rolls_back_with_the_transaction(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn) as opened:
        async with kit.message(dsn, topic, topic) as message:
            async with opened.transaction(undo=True):
                assert await opened.call(message.once)
                await opened.call(message.ack)
        async with kit.message(dsn, topic, topic) as message:
            assert message.payload == 1
            async with opened.transaction():
                assert await opened.call(message.once)
                await opened.call(message.ack)
    assert left(conn, topic) == 0


async def test_once(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn) as opened, kit.message(dsn, topic, topic) as message:
        async with opened.transaction(undo=True):
            assert await opened.call(message.once) is True
        async with opened.transaction():
            assert await opened.call(message.once) is True
        async with opened.transaction():
            assert await opened.call(message.once) is False


async def test_in_autocommit_mode_it_is_durable_on_return(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn, autocommit=True) as opened:
        async with kit.message(dsn, topic, topic) as message:
            await opened.call(message.ack)
            assert left(conn, topic) == 0


async def test_a_lost_lease(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS effects (topic text)")
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn) as opened, kit.message(dsn, topic, topic) as message:
        conn.execute("DELETE FROM durable_notify.lease")
        async with opened.transaction(undo=True):
            await opened.execute(f"INSERT INTO effects VALUES ('{topic}')")
            with pytest.raises(dn.LeaseLost) as caught:
                await opened.call(message.ack)
            assert isinstance(caught.value.__cause__, kit.error)
    assert value(conn, "SELECT count(*) FROM effects WHERE topic = %s", topic) == 0


@only(lambda kit: kit.source)
async def test_transaction(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    """A handler that fails at first, with a transaction of a source of the driver's connections."""
    ids = dn.Publisher().publish_many(conn, topic, range(3))
    async with kit.source(dsn) as source:

        async def ahandle(message: Any) -> None:
            async with message.transaction(source) as given:
                await dn.AsyncPublisher().publish(given, f"{topic}.done", message.id)
                if message.attempt == 1:
                    raise Fail

        def handle(message: Any) -> None:
            with message.transaction(source) as given:
                dn.Publisher().publish(given, f"{topic}.done", message.id)
                if message.attempt == 1:
                    raise Fail
            close_django(given)

        group = dn.Group(topic, retry=dn.RetryPolicy(base=0.001))
        options: Any = {"until_empty": True, "maintenance": False}
        half: Any = dn.AsyncConsumer if kit.is_async else dn.Consumer
        consumer = half(dsn, group=group, topics=[topic], **options)
        if kit.is_async:
            await asyncio.wait_for(consumer.run(ahandle), 60)
        else:
            await asyncio.wait_for(in_thread(consumer.run, handle), 60)
    query = "SELECT payload FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    assert sorted(row[0] for row in conn.execute(query, [f"{topic}.done"])) == ids
    assert left(conn, topic) == 0


@only(lambda kit: {"connection", "session"} & set(kit.name.split("-")))
async def test_a_transaction_of_a_connection_or_session(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    """The body receives it, not the transaction."""
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn) as opened, kit.message(dsn, topic, topic) as message:
        for fails in (True, False):
            with contextlib.suppress(Fail):
                async with entered(message.transaction(opened.given)) as given:
                    assert given is opened.given
                    await publish(kit, opened, f"{topic}.done", fails)
                    if fails:
                        raise Fail
    assert payloads(conn, f"{topic}.done") == [False]
    assert left(conn, topic) == 0


async def test_a_transaction_of_djangos_connection_of_another_thread(
    dsn: str, conn: Connection, topic: str
) -> None:
    """The handler's thread has one of its own."""
    ids = dn.Publisher().publish_many(conn, topic, range(2))
    with of_django(dsn) as connection:

        def handle(message: Any) -> None:
            with message.transaction(connection) as given:
                assert given is not connection
                dn.Publisher().publish(given, f"{topic}.done", message.id)
            given.close()

        group = dn.Group(topic, retry=dn.RetryPolicy(max_attempts=1))
        consumer = dn.Consumer(
            dsn, group=group, topics=[topic], until_empty=True, maintenance=False
        )
        await asyncio.wait_for(in_thread(consumer.run, handle), 60)
    assert sorted(payloads(conn, f"{topic}.done")) == ids
    assert left(conn, topic) == 0


def close_django(given: Any) -> None:
    """Each thread of a consumer has a connection of Django's of its own."""
    if hasattr(given, "vendor"):
        given.close()


@only(lambda kit: kit.name in {"psycopg", "asyncpg"})
async def test_what_is_no_source(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    dn.Publisher().publish(conn, topic, 1)
    async with kit.message(dsn, topic, topic) as message:
        with pytest.raises(
            dn.InvalidArgument, match="psycopg2 or asyncpg, or Django's connection, not str"
        ):
            async with entered(message.transaction(dsn)):
                pass


@only(lambda kit: kit.ends)
async def test_commits_of_sessions(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    """Without a block: commit() and rollback() decide."""
    dn.Publisher().publish(conn, topic, 1)
    async with kit.connect(dsn) as opened, kit.message(dsn, topic, topic) as message:
        await opened.call(message.once)
        await maybe_await(opened.given.rollback())
        assert await opened.call(message.once)
        await opened.call(message.ack)
        await maybe_await(opened.given.commit())
        assert not await opened.call(message.once)
        await maybe_await(opened.given.rollback())
    assert left(conn, topic) == 0
