"""Settling in the handler's own transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from tests.support.api import Api, Recorder, collect, entered, maybe_await, running
from tests.support.observe import dead_letters, leased, outstanding, send, value
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


@asynccontextmanager
async def transaction_of(api: Api, dsn: str, kind: str) -> AsyncIterator[Any]:
    """Something to give `ack`, in a transaction that commits at the end of the block."""
    if kind == "psycopg":
        async with api.connect(dsn) as connection, entered(connection.transaction()):
            yield connection
    elif kind == "alchemy connection":
        async with api.engine(dsn) as engine, entered(engine.begin()) as connection:
            yield connection
    else:
        async with api.engine(dsn) as engine, entered(api.session(engine)) as session:
            async with entered(session.begin()):
                yield session


KINDS = ["psycopg", "alchemy connection", "alchemy session"]


@pytest.fixture
def mine(conn: Connection) -> Connection:
    conn.execute("CREATE TABLE mine (n int PRIMARY KEY)")
    return conn


async def write(connection: Any, number: int) -> None:
    """Do what a handler does."""
    statement: Any = f"INSERT INTO mine VALUES ({number})"
    if "sqlalchemy" in type(connection).__module__:
        import sqlalchemy as sa

        statement = sa.text(statement)
    await maybe_await(connection.execute(statement))


@pytest.mark.parametrize("kind", KINDS)
async def test_committed_together(api: Api, dsn: str, mine: Connection, kind: str) -> None:
    send(mine, [1, 2])

    async def handle(message: Any) -> None:
        async with transaction_of(api, dsn, kind) as connection:
            await write(connection, message.payload)
            await message.ack(connection)
            assert leased(mine) > 0

    seen = Recorder(handle)
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert seen.attempts == [1, 1]
    assert value(mine, "SELECT count(*) FROM mine") == 2
    assert outstanding(mine) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_rolled_back_together(api: Api, dsn: str, mine: Connection, kind: str) -> None:
    """The handler raises within its transaction, once; the message is redelivered."""
    send(mine, [1, 2])

    async def handle(message: Any) -> None:
        async with transaction_of(api, dsn, kind) as connection:
            await write(connection, message.payload)
            await message.ack(connection)
            if message.attempt == 1:
                raise ZeroDivisionError

    seen = Recorder(handle)
    await with_timeout(
        api.consumer(dsn, until_empty=True, retry=dn.RetryPolicy(base=0.01)).run(seen)
    )
    assert sorted(seen.attempts) == [1, 1, 2, 2]
    assert value(mine, "SELECT count(*) FROM mine") == 2


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_rolled_back_in_silence(
    api: Api, dsn: str, mine: Connection, concurrency: int
) -> None:
    """The handler returns as if all were well; the message is redelivered nevertheless."""
    send(mine, range(8))

    async def handle(message: Any) -> None:
        async with api.connect(dsn) as connection:
            await write(connection, message.payload)
            await message.ack(connection)
            await maybe_await(
                connection.rollback() if message.attempt == 1 else connection.commit()
            )

    seen = Recorder(handle)
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen, concurrency=concurrency))
    assert sorted(seen.attempts) == [1] * 8 + [2] * 8
    assert value(mine, "SELECT count(*) FROM mine") == 8


async def test_rolled_back_while_iterating(api: Api, dsn: str, mine: Connection) -> None:
    send(mine, [1, 2])
    attempts = []
    async with api.consumer(dsn, until_empty=True, lease=600) as consumer:
        async with api.connect(dsn) as connection:
            async for message in consumer:
                attempts.append(message.attempt)
                await write(connection, message.payload)
                await message.ack(connection)
                await maybe_await(
                    connection.commit() if message.attempt > 1 else connection.rollback()
                )
    assert sorted(attempts) == [1, 1, 2, 2]
    assert outstanding(mine) == 0


async def test_several_rolled_back_together_while_iterating(
    api: Api, dsn: str, mine: Connection
) -> None:
    """Batches of three in one transaction each; the first rolls back."""
    send(mine, range(3))
    async with api.consumer(dsn, lease=600) as consumer, api.connect(dsn) as connection:
        for message in await collect(consumer, 3):
            await message.ack(connection)
        await maybe_await(connection.rollback())
        again = await collect(consumer, 3)
        assert [m.attempt for m in again] == [2, 2, 2]
        for message in again:
            await message.ack(connection)
        await maybe_await(connection.commit())
    assert outstanding(mine) == 0


async def test_several_committed_together_make_room(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(9))
    got = []
    async with api.consumer(dsn, lease=600, prefetch=3) as consumer:
        async with api.connect(dsn) as connection:
            for _ in range(3):
                for message in await collect(consumer, 3):
                    got.append(message.payload)
                    await message.ack(connection)
                await maybe_await(connection.commit())
    assert got == list(range(9))
    assert outstanding(conn) == 0


async def test_rolled_back_and_then_closed(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with api.consumer(dsn, lease=600) as consumer, api.connect(dsn) as connection:
        (message,) = await collect(consumer, 1)
        await message.ack(connection)
        await maybe_await(connection.rollback())
    assert leased(conn) == 0
    assert outstanding(conn) == 1


async def test_a_transaction_longer_than_the_lease(api: Api, dsn: str, conn: Connection) -> None:
    """It settles, and commits late; meanwhile no consumer gets the message or waits for it."""
    send(conn, [1])
    seen = Recorder()
    async with api.consumer(dsn, lease=0.5) as consumer, api.connect(dsn) as connection:
        (message,) = await collect(consumer, 1)
        await message.ack(connection)
        consumer.stop()
        other = api.consumer(dsn, lease=0.5)
        async with running(other, seen):
            over = "SELECT bool_and(deadline < clock_timestamp()) FROM durable_notify.leases()"
            await wait_until(lambda: value(conn, over))  # without effect
            second = send(conn, [2])
            await seen.got(1)
            await maybe_await(connection.commit())
    assert seen.ids == second
    assert outstanding(conn) == 0


async def test_a_serialization_failure_retried_by_the_handler(
    api: Api, dsn: str, mine: Connection
) -> None:
    """A second attempt of the same transaction acknowledges again."""
    mine.execute("INSERT INTO mine VALUES (100)")
    send(mine, [1])
    failures = 0

    async def handle(message: Any) -> None:
        nonlocal failures
        async with api.connect(dsn) as connection:
            await maybe_await(
                connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            )
            while True:
                try:
                    async with entered(connection.transaction()):
                        await maybe_await(connection.execute("SELECT * FROM mine"))
                        if not failures:
                            mine.execute("UPDATE mine SET n = n + 1")
                        await message.ack(connection)
                        await maybe_await(connection.execute("UPDATE mine SET n = n + 1"))
                except errors.SerializationFailure:
                    failures += 1
                else:
                    return

    seen = Recorder(handle)
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert failures == 1
    assert seen.attempts == [1]
    assert value(mine, "SELECT n FROM mine") == 102


async def test_exactly_once_in_effect(api: Api, dsn: str, mine: Connection) -> None:
    """Handlers that fail before, within and after; a second consumer; each effect once."""
    send(mine, range(60))

    async def handle(message: Any) -> None:
        mood = (message.payload + message.attempt) % 4
        async with api.connect(dsn) as connection:
            await write(connection, message.payload)
            if mood == 0:
                raise ZeroDivisionError("before")
            await message.ack(connection)
            if mood == 1:
                raise ZeroDivisionError("within")
            await maybe_await(connection.commit())
            if mood == 2:
                raise ZeroDivisionError("after")

    consumers = [
        api.consumer(dsn, until_empty=True, retry=dn.RetryPolicy(base=0.01), owner=n)
        for n in ("one", "two")
    ]
    seen = Recorder(handle)
    await with_timeout(
        asyncio.gather(*(consumer.run(seen, concurrency=3) for consumer in consumers)), 40
    )
    assert value(mine, "SELECT array_agg(n ORDER BY n) FROM mine") == list(range(60))
    assert outstanding(mine) == 0
    assert dead_letters(mine) == []


async def test_through_what_is_no_connection(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with api.consumer(dsn) as consumer:
        (message,) = await collect(consumer, 1)
        with pytest.raises(dn.errors.UnsupportedConnection):
            await message.ack("postgresql://")
        await message.ack()
    assert outstanding(conn) == 0
