"""Settling: what acknowledging, retrying and rejecting do, when, and what refuses them."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from tests.support.halves import Half, Seen, go, running, soon, take, until, within
from tests.support.schedule import LONG_GONE
from tests.support.watching import (
    WORKERS,
    asleep,
    dead_letters,
    leased,
    outstanding,
    send,
    terminate,
    value,
)

Connection = psycopg.Connection[Any]


@pytest.fixture(params=["async", "sync"])
def half(request: pytest.FixtureRequest) -> Half:
    return Half(request.param)


def steal(conn: Connection, group: str = "g") -> list[int]:
    """Take over whatever leases there are, as a claim does once they have run out."""
    lock = "FROM durable_notify.consumer_group WHERE name = %s"
    conn.execute(f"SELECT pg_advisory_lock(1685024361, id) {lock}".encode(), [group])
    with conn.transaction():
        conn.execute("DELETE FROM durable_notify.lease_deadline")
        conn.execute(LONG_GONE.encode())
    query = "SELECT id FROM durable_notify.claim(%s, '{t}', 1000, '1 hour', 'thief')"
    stolen = [message_id for (message_id,) in conn.execute(query, [group])]
    conn.execute("SELECT pg_advisory_unlock_all()")
    return stolen


# Durable on return


async def test_ack_is_durable_on_return(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, range(3))
    async with half.consumer(dsn) as consumer:
        for number, message in enumerate(await take(consumer, 3)):
            assert leased(conn) == 3 - number
            await message.ack()
            assert leased(conn) == 2 - number, "ack() returned before it was in the database"
            assert message.is_settled


async def test_many_acks_at_once_go_together(half: Half, dsn: str, conn: Connection) -> None:
    """Each returns when it is durable; while one is sent, the others collect."""
    send(conn, range(100))
    async with half.consumer(dsn, batch_size=100) as consumer:
        messages = await take(consumer, 100)
        await asyncio.gather(*(message.ack() for message in messages))
        assert leased(conn) == 0
    assert outstanding(conn) == 0


async def test_retry_and_reject_are_durable_on_return(
    half: Half, dsn: str, conn: Connection
) -> None:
    first, second = send(conn, [1, 2])
    async with half.consumer(dsn) as consumer:
        one, two = await take(consumer, 2)
        await one.retry(600, error="not yet")
        query = "SELECT message_id, attempt, error FROM durable_notify.deferred"
        assert conn.execute(query).fetchall() == [(first, 2, {"type": "", "message": "not yet"})]
        await two.reject("no good")
        assert dead_letters(conn) == [(second, 1, "no good")]
        assert one.is_settled
        assert two.is_settled


async def test_what_nobody_waits_for_goes_before_long(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, range(5))
    last = asyncio.Event()

    async def handle(message: Any) -> None:
        if message.payload == 4:
            await last.wait()

    async with running(half.consumer(dsn), handle):
        await until(lambda: leased(conn) == 1)  # though the lease is not over
        last.set()
        await until(lambda: outstanding(conn) == 0)


# Retry


@pytest.mark.parametrize("delay", [0, 0.2, dt.timedelta(milliseconds=200)])
async def test_retry_comes_again_after_its_delay(
    half: Half, dsn: str, conn: Connection, delay: Any
) -> None:
    send(conn, [1])
    async with half.consumer(dsn) as consumer:
        (message,) = await take(consumer, 1)
        began = time.monotonic()
        await message.retry(delay)
        (again,) = await take(consumer, 1)
        least = delay.total_seconds() if isinstance(delay, dt.timedelta) else delay
        assert time.monotonic() - began >= least
        assert (again.id, again.attempt) == (message.id, 2)


async def test_retry_wakes_a_consumer_that_sleeps(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    seen = Seen()
    async with half.consumer(dsn) as consumer:
        (message,) = await take(consumer, 1)
        other = half.consumer(dsn)
        async with running(other, seen):
            await asleep(other)
            consumer.stop()
            await message.retry(0.1)
            await seen.got(1)
    assert seen.attempts == [2]


async def test_too_many_retries_are_a_dead_letter(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    seen = Seen(lambda message: message.retry(0, error="again"))
    await soon(half.consumer(dsn, max_attempts=2, until_empty=True).run(seen))
    assert seen.attempts == [1, 2]
    ((_, attempt, reason),) = dead_letters(conn)
    assert attempt == 2
    assert "again" in reason


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e12])
async def test_delays_that_cannot_be(half: Half, dsn: str, conn: Connection, delay: float) -> None:
    send(conn, [1])
    async with half.consumer(dsn) as consumer:
        (message,) = await take(consumer, 1)
        with pytest.raises(dn.InvalidArgument):
            await message.retry(delay)
        with pytest.raises(dn.InvalidArgument):
            await message.extend(delay)
        await message.ack()


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "%s", "x" * 100_000])
async def test_reasons_of_any_kind(half: Half, dsn: str, conn: Connection, text: str) -> None:
    send(conn, range(3))
    async with half.consumer(dsn, max_attempts=1) as consumer:
        one, two, three = await take(consumer, 3)
        await soon(asyncio.gather(one.reject(text), two.retry(0, text), three.ack()), 5)
    assert len(dead_letters(conn)) == 2
    assert outstanding(conn) == 0


# Settled before, superseded, closed


async def settle_by(message: Any, manner: str) -> None:
    await {
        "ack": message.ack,
        "retry": lambda: message.retry(600),
        "reject": lambda: message.reject("no"),
    }[manner]()


@pytest.mark.parametrize("first", ["ack", "retry", "reject"])
@pytest.mark.parametrize("messages", [1, 2], ids=["the whole lease", "a part"])
async def test_settling_twice(
    half: Half, dsn: str, conn: Connection, first: str, messages: int
) -> None:
    send(conn, range(messages))
    async with half.consumer(dsn) as consumer:
        message, *_ = await take(consumer, messages)
        await settle_by(message, first)
        async with half.connect(dsn) as connection:
            for again in (
                message.ack(), message.retry(), message.reject(), message.extend(5),
                message.ack(connection),
            ):  # fmt: skip
                with pytest.raises(dn.AlreadySettled, match=f"message {message.id}"):
                    await soon(again)


@pytest.mark.parametrize("messages", [1, 2], ids=["the whole lease", "a part"])
@pytest.mark.parametrize("commits", [True, False])
async def test_settling_again_what_a_transaction_settled(
    half: Half, dsn: str, conn: Connection, messages: int, commits: bool
) -> None:
    """Whether it has committed the database knows."""
    send(conn, range(messages))
    async with half.consumer(dsn) as consumer, half.connect(dsn) as connection:
        message, *_ = await take(consumer, messages)
        await message.ack(connection)
        await go(connection.commit() if commits else connection.rollback())
        if commits:
            with pytest.raises(dn.AlreadySettled):
                await soon(message.ack())
            with pytest.raises(dn.AlreadySettled):
                await soon(message.ack(connection))
        else:
            await message.ack()
    assert outstanding(conn) == messages - 1


async def test_one_settled_twice_does_not_fail_the_others(
    half: Half, dsn: str, conn: Connection
) -> None:
    """Their outcomes are sent in one statement."""
    send(conn, range(4))
    async with half.consumer(dsn) as consumer, half.connect(dsn, autocommit=True) as connection:
        twice, *others, last = await take(consumer, 4)
        await twice.ack(connection)
        results = await soon(
            asyncio.gather(*(m.ack() for m in (twice, *others)), return_exceptions=True)
        )
        assert [type(result) for result in results] == [dn.AlreadySettled, type(None), type(None)]
        assert leased(conn) == 1
        await last.ack()
    assert outstanding(conn) == 0


@pytest.mark.parametrize("manner", ["ack", "retry", "reject"])
async def test_after_the_lease_was_taken_over(
    half: Half, dsn: str, conn: Connection, manner: str
) -> None:
    send(conn, [1, 2])
    async with half.consumer(dsn) as consumer:
        message, other = await take(consumer, 2)
        stolen = steal(conn)
        assert stolen == [message.id, other.id]
        with pytest.raises(dn.LeaseLost, match="another consumer"):
            await settle_by(message, manner)
        with pytest.raises(dn.LeaseLost):
            await other.ack()
    assert leased(conn) == 2, "it was another's lease"


async def test_in_a_transaction_after_the_lease_was_taken_over(
    half: Half, dsn: str, conn: Connection
) -> None:
    conn.execute("CREATE TABLE mine (n int)")
    send(conn, [1, 2])
    async with half.consumer(dsn) as consumer, half.connect(dsn) as connection:
        message, other = await take(consumer, 2)
        await go(connection.execute("INSERT INTO mine VALUES (1)"))
        steal(conn)
        with pytest.raises(dn.LeaseLost):
            await message.ack(connection)
        with pytest.raises(errors.InFailedSqlTransaction):
            await go(connection.execute("SELECT 1"))
        await go(connection.rollback())
        with pytest.raises(dn.LeaseLost):
            await other.extend(60)
    assert value(conn, "SELECT count(*) FROM mine") == 0


async def test_late_is_not_superseded(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with half.consumer(dsn, lease=600) as consumer:
        (message,) = await take(consumer, 1)
        await asleep(consumer)
        conn.execute(LONG_GONE.encode())
        await message.ack()
    assert outstanding(conn) == 0


async def test_after_the_consumer_was_closed(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with half.consumer(dsn) as consumer:
        (message,) = await take(consumer, 1)
    async with half.connect(dsn) as connection:
        for attempt in (
            message.ack(), message.retry(), message.reject(), message.extend(5),
            message.ack(connection),
        ):  # fmt: skip
            with pytest.raises(dn.ConsumerClosed, match="come again"):
                await attempt
    assert outstanding(conn) == 1


# Leases


async def test_a_handler_may_take_longer_than_the_lease(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, [1])
    ran_out = 0

    async def slow(message: Any) -> None:
        nonlocal ran_out
        until_when = time.monotonic() + 1.5
        while time.monotonic() < until_when:
            ran_out += value(conn, "SELECT durable_notify.next_due('g', '{t}') = 0")
            await asyncio.sleep(0.05)
        await message.ack()

    one, two = Seen(slow), Seen(slow)
    consumers = [half.consumer(dsn, lease=0.5, owner=n) for n in ("one", "two")]
    async with running(consumers[0], one), running(consumers[1], two):
        await until(lambda: one.messages or two.messages)
        await until(lambda: outstanding(conn) == 0)
    assert ran_out == 0
    assert one.attempts + two.attempts == [1]


async def test_leases_of_messages_still_in_the_queue_are_kept_alive(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, range(10))
    seen = Seen(lambda _: asyncio.sleep(0.15))
    await soon(half.consumer(dsn, lease=0.5, until_empty=True).run(seen))
    assert seen.attempts == [1] * 10


async def test_extend(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with half.consumer(dsn, lease=5) as consumer:
        (message,) = await take(consumer, 1)
        await message.extend(3600)
        assert value(conn, "SELECT durable_notify.next_due('g', '{t}')") > 3500
        await message.ack()


async def test_a_lost_lease_is_noticed_and_its_messages_are_not_handed_out(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, range(3))
    async with half.consumer(dsn, lease=0.6) as consumer:
        (first,) = await take(consumer, 1)
        steal(conn)
        await until(lambda: first._lease.lost)
        new = send(conn, ["new"])
        assert [m.id for m in await take(consumer, 1)] == new


# In the handler's own transaction


@asynccontextmanager
async def transaction_of(half: Half, dsn: str, kind: str) -> AsyncIterator[Any]:
    """Something to give `ack`, in a transaction that commits at the end of the block."""
    if kind == "psycopg":
        async with half.connect(dsn) as connection, within(connection.transaction()):
            yield connection
    elif kind == "alchemy connection":
        async with half.engine(dsn) as engine, within(engine.begin()) as connection:
            yield connection
    else:
        async with half.engine(dsn) as engine, within(half.session(engine)) as session:
            async with within(session.begin()):
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
    await go(connection.execute(statement))


@pytest.mark.parametrize("kind", KINDS)
async def test_committed_together(half: Half, dsn: str, mine: Connection, kind: str) -> None:
    send(mine, [1, 2])

    async def handle(message: Any) -> None:
        async with transaction_of(half, dsn, kind) as connection:
            await write(connection, message.payload)
            await message.ack(connection)
            assert leased(mine) > 0

    seen = Seen(handle)
    await soon(half.consumer(dsn, until_empty=True).run(seen))
    assert seen.attempts == [1, 1]
    assert value(mine, "SELECT count(*) FROM mine") == 2
    assert outstanding(mine) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_rolled_back_together(half: Half, dsn: str, mine: Connection, kind: str) -> None:
    """The handler raises within its transaction: once; the message comes again."""
    send(mine, [1, 2])

    async def handle(message: Any) -> None:
        async with transaction_of(half, dsn, kind) as connection:
            await write(connection, message.payload)
            await message.ack(connection)
            if message.attempt == 1:
                raise ZeroDivisionError

    seen = Seen(handle)
    await soon(half.consumer(dsn, until_empty=True, retry_base=0.01).run(seen))
    assert sorted(seen.attempts) == [1, 1, 2, 2]
    assert value(mine, "SELECT count(*) FROM mine") == 2


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_rolled_back_in_silence(
    half: Half, dsn: str, mine: Connection, concurrency: int
) -> None:
    """The handler returns as if all were well: the message comes again all the same."""
    send(mine, range(8))

    async def handle(message: Any) -> None:
        async with half.connect(dsn) as connection:
            await write(connection, message.payload)
            await message.ack(connection)
            await go(connection.rollback() if message.attempt == 1 else connection.commit())

    seen = Seen(handle)
    await soon(half.consumer(dsn, until_empty=True).run(seen, concurrency=concurrency))
    assert sorted(seen.attempts) == [1] * 8 + [2] * 8
    assert value(mine, "SELECT count(*) FROM mine") == 8


async def test_rolled_back_while_iterating(half: Half, dsn: str, mine: Connection) -> None:
    send(mine, [1, 2])
    attempts = []
    async with half.consumer(dsn, until_empty=True, lease=600) as consumer:
        async with half.connect(dsn) as connection:
            async for message in consumer:
                attempts.append(message.attempt)
                await write(connection, message.payload)
                await message.ack(connection)
                await go(connection.commit() if message.attempt > 1 else connection.rollback())
    assert sorted(attempts) == [1, 1, 2, 2]
    assert outstanding(mine) == 0


async def test_several_rolled_back_together_while_iterating(
    half: Half, dsn: str, mine: Connection
) -> None:
    """Batches of three in one transaction each; the first rolls back."""
    send(mine, range(3))
    async with half.consumer(dsn, lease=600) as consumer, half.connect(dsn) as connection:
        for message in await take(consumer, 3):
            await message.ack(connection)
        await go(connection.rollback())
        again = await take(consumer, 3)
        assert [m.attempt for m in again] == [2, 2, 2]
        for message in again:
            await message.ack(connection)
        await go(connection.commit())
    assert outstanding(mine) == 0


async def test_several_committed_together_make_room(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, range(9))
    got = []
    async with half.consumer(dsn, lease=600, prefetch=3) as consumer:
        async with half.connect(dsn) as connection:
            for _ in range(3):
                for message in await take(consumer, 3):
                    got.append(message.payload)
                    await message.ack(connection)
                await go(connection.commit())
    assert got == list(range(9))
    assert outstanding(conn) == 0


async def test_rolled_back_and_then_closed(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with half.consumer(dsn, lease=600) as consumer, half.connect(dsn) as connection:
        (message,) = await take(consumer, 1)
        await message.ack(connection)
        await go(connection.rollback())
    assert leased(conn) == 0
    assert outstanding(conn) == 1


async def test_a_transaction_longer_than_the_lease(half: Half, dsn: str, conn: Connection) -> None:
    """It settles, and commits late; meanwhile nobody gets the message or waits for it."""
    send(conn, [1])
    seen = Seen()
    async with half.consumer(dsn, lease=0.5) as consumer, half.connect(dsn) as connection:
        (message,) = await take(consumer, 1)
        await message.ack(connection)
        consumer.stop()
        other = half.consumer(dsn, lease=0.5)
        async with running(other, seen):
            await asyncio.sleep(1.2)  # the lease has run out, and nobody cares
            second = send(conn, [2])
            await seen.got(1)
            await go(connection.commit())
    assert seen.ids == second
    assert outstanding(conn) == 0


async def test_a_serialization_failure_retried_by_the_handler(
    half: Half, dsn: str, mine: Connection
) -> None:
    """A second attempt of the same transaction acknowledges again."""
    mine.execute("INSERT INTO mine VALUES (100)")
    send(mine, [1])
    failures = 0

    async def handle(message: Any) -> None:
        nonlocal failures
        async with half.connect(dsn) as connection:
            await go(connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ))
            while True:
                try:
                    async with within(connection.transaction()):
                        await go(connection.execute("SELECT * FROM mine"))
                        if not failures:
                            mine.execute("UPDATE mine SET n = n + 1")
                        await message.ack(connection)
                        await go(connection.execute("UPDATE mine SET n = n + 1"))
                except errors.SerializationFailure:
                    failures += 1
                else:
                    return

    seen = Seen(handle)
    await soon(half.consumer(dsn, until_empty=True).run(seen))
    assert failures == 1
    assert seen.attempts == [1]
    assert value(mine, "SELECT n FROM mine") == 102


async def test_exactly_once_in_effect(half: Half, dsn: str, mine: Connection) -> None:
    """Handlers that fail before, within and after; a second consumer; each effect once."""
    send(mine, range(60))

    async def handle(message: Any) -> None:
        mood = (message.payload + message.attempt) % 4
        async with half.connect(dsn) as connection:
            await write(connection, message.payload)
            if mood == 0:
                raise ZeroDivisionError("before")
            await message.ack(connection)
            if mood == 1:
                raise ZeroDivisionError("within")
            await go(connection.commit())
            if mood == 2:
                raise ZeroDivisionError("after")

    consumers = [
        half.consumer(dsn, until_empty=True, retry_base=0.01, owner=n) for n in ("one", "two")
    ]
    seen = Seen(handle)
    await soon(asyncio.gather(*(consumer.run(seen, concurrency=3) for consumer in consumers)), 40)
    assert value(mine, "SELECT array_agg(n ORDER BY n) FROM mine") == list(range(60))
    assert outstanding(mine) == 0
    assert dead_letters(mine) == []


async def test_through_what_is_no_connection(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with half.consumer(dsn) as consumer:
        (message,) = await take(consumer, 1)
        with pytest.raises(dn.UnsupportedConnection):
            await message.ack("postgresql://")
        await message.ack()
    assert outstanding(conn) == 0


# The database away meanwhile


async def test_connections_cut_while_claiming_and_settling(
    half: Half, dsn: str, conn: Connection
) -> None:
    """Again and again, wherever they are: nothing is lost, and nobody is told of it."""
    ids = send(conn, range(200))

    async def handle(message: Any) -> None:
        await asyncio.sleep(0.01)
        await message.ack()

    seen = Seen(handle)
    async with running(half.consumer(dsn, lease=2, batch_size=10), seen, concurrency=4):
        for _ in range(6):
            await seen.got(len(seen.ids) + 5)
            assert terminate(conn, WORKERS)
        await until(lambda: outstanding(conn) == 0)
    assert set(seen.ids) == set(ids)


async def test_a_stop_while_connections_are_cut_gives_back_all_the_same(
    half: Half, dsn: str, conn: Connection
) -> None:
    """As after a restart of the server: the first connections tried are dead."""
    send(conn, range(3))
    async with half.consumer(dsn, lease=600) as consumer:
        await take(consumer, 2)
        await asleep(consumer)
        terminate(conn, WORKERS)
    assert leased(conn) == 0
    assert outstanding(conn) == 3


async def test_an_ack_that_arrived_although_the_connection_broke(
    half: Half, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again, and finds its own work done: that is no error."""
    send(conn, range(3))
    async with half.consumer(dsn) as consumer:
        messages = await take(consumer, 3)
        store = consumer._queries
        settle = store.settle
        broken = []

        def cut(error: Exception | None = None) -> None:
            if len(broken) < 2:
                broken.append(1)
                raise psycopg.OperationalError("the connection was cut") from error

        async def acut(token: int, outcomes: Any) -> None:
            await settle(token, outcomes)
            cut()

        def sync_cut(token: int, outcomes: Any) -> None:
            settle(token, outcomes)
            cut()

        monkeypatch.setattr(store, "settle", acut if half.is_async else sync_cut)
        await soon(messages[0].ack())
        await soon(asyncio.gather(messages[1].ack(), messages[2].ack()))
        assert broken == [1, 1]
    assert outstanding(conn) == 0
