"""Settling: what ack, retry and reject do, when, and when they are refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from tests.support.api import Api, Recorder, collect, maybe_await, running
from tests.support.observe import (
    WORKERS,
    asleep,
    dead_letters,
    leased,
    outstanding,
    send,
    terminate,
    value,
)
from tests.support.sessions import LONG_GONE
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


def steal(conn: Connection) -> list[int]:
    """Reclaim all leases, as a claim does once they have run out."""
    group = "FROM durable_notify.consumer_group WHERE name = 'g'"
    conn.execute(f"SELECT pg_advisory_lock(1685024361, id) {group}".encode())
    with conn.transaction():
        conn.execute("DELETE FROM durable_notify.lease_deadline")
        conn.execute(LONG_GONE.encode())
    query = "SELECT id FROM durable_notify.claim('g', '{t}', 1000, '1 hour', 'thief')"
    stolen = [message_id for (message_id,) in conn.execute(query)]
    conn.execute("SELECT pg_advisory_unlock_all()")
    return stolen


# Durable on return


async def test_ack_is_durable_on_return(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(3))
    async with api.consumer(dsn) as consumer:
        for number, message in enumerate(await collect(consumer, 3)):
            assert leased(conn) == 3 - number
            await message.ack()
            assert leased(conn) == 2 - number, "ack() returned before it was in the database"
            assert message.is_settled


async def test_many_acks_at_once_go_together(api: Api, dsn: str, conn: Connection) -> None:
    """Each returns when it is durable; while one is sent, the others collect."""
    send(conn, range(100))
    async with api.consumer(dsn, batch_size=100) as consumer:
        messages = await collect(consumer, 100)
        await asyncio.gather(*(message.ack() for message in messages))
        assert leased(conn) == 0
    assert outstanding(conn) == 0


async def test_retry_and_reject_are_durable_on_return(api: Api, dsn: str, conn: Connection) -> None:
    first, second = send(conn, [1, 2])
    async with api.consumer(dsn) as consumer:
        one, two = await collect(consumer, 2)
        await one.retry(600, error="not yet")
        query = "SELECT message_id, attempt, error FROM durable_notify.deferred"
        assert conn.execute(query).fetchall() == [(first, 2, {"type": "", "message": "not yet"})]
        await two.reject("no good")
        assert dead_letters(conn) == [(second, 1, "no good")]
        assert one.is_settled
        assert two.is_settled


async def test_an_ack_without_a_waiter_is_sent_before_long(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(5))
    last = asyncio.Event()

    async def handle(message: Any) -> None:
        if message.payload == 4:
            await last.wait()

    async with running(api.consumer(dsn), handle):
        await wait_until(lambda: leased(conn) == 1)  # though the lease is not over
        last.set()
        await wait_until(lambda: outstanding(conn) == 0)


# Retry


@pytest.mark.parametrize("delay", [0, 0.2, dt.timedelta(milliseconds=200)])
async def test_a_retry_is_redelivered_after_its_delay(
    api: Api, dsn: str, conn: Connection, delay: Any
) -> None:
    send(conn, [1])
    async with api.consumer(dsn) as consumer:
        (message,) = await collect(consumer, 1)
        began = time.monotonic()
        await message.retry(delay)
        (again,) = await collect(consumer, 1)
        least = delay.total_seconds() if isinstance(delay, dt.timedelta) else delay
        assert time.monotonic() - began >= least
        assert (again.id, again.attempt) == (message.id, 2)


async def test_retry_wakes_a_consumer_that_sleeps(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    seen = Recorder()
    async with api.consumer(dsn) as consumer:
        (message,) = await collect(consumer, 1)
        other = api.consumer(dsn)
        async with running(other, seen):
            await asleep(other)
            consumer.stop()
            await message.retry(0.1)
            await seen.got(1)
    assert seen.attempts == [2]


async def test_too_many_retries_are_a_dead_letter(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    seen = Recorder(lambda message: message.retry(0, error="again"))
    await with_timeout(
        api.consumer(dsn, retry=dn.RetryPolicy(max_attempts=2), until_empty=True).run(seen)
    )
    assert seen.attempts == [1, 2]
    ((_, attempt, reason),) = dead_letters(conn)
    assert attempt == 2
    assert "again" in reason


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e12])
async def test_delays_that_cannot_be(api: Api, dsn: str, conn: Connection, delay: float) -> None:
    send(conn, [1])
    async with api.consumer(dsn) as consumer:
        (message,) = await collect(consumer, 1)
        with pytest.raises(dn.InvalidArgument):
            await message.retry(delay)
        with pytest.raises(dn.InvalidArgument):
            await message.extend(delay)
        await message.ack()


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "%s", "x" * 100_000])
async def test_reasons_of_any_kind(api: Api, dsn: str, conn: Connection, text: str) -> None:
    send(conn, range(3))
    async with api.consumer(dsn, retry=dn.RetryPolicy(max_attempts=1)) as consumer:
        one, two, three = await collect(consumer, 3)
        await with_timeout(asyncio.gather(one.reject(text), two.retry(0, text), three.ack()), 5)
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
    api: Api, dsn: str, conn: Connection, first: str, messages: int
) -> None:
    send(conn, range(messages))
    async with api.consumer(dsn) as consumer:
        message, *_ = await collect(consumer, messages)
        await settle_by(message, first)
        async with api.connect(dsn) as connection:
            for again in (
                message.ack(), message.retry(), message.reject(), message.extend(5),
                message.ack(connection),
            ):  # fmt: skip
                with pytest.raises(dn.errors.AlreadySettled, match=f"message {message.id}"):
                    await with_timeout(again)


@pytest.mark.parametrize("messages", [1, 2], ids=["the whole lease", "a part"])
@pytest.mark.parametrize("commits", [True, False])
async def test_settling_again_what_a_transaction_settled(
    api: Api, dsn: str, conn: Connection, messages: int, commits: bool
) -> None:
    """The database knows whether it has committed."""
    send(conn, range(messages))
    async with api.consumer(dsn) as consumer, api.connect(dsn) as connection:
        message, *_ = await collect(consumer, messages)
        await message.ack(connection)
        await maybe_await(connection.commit() if commits else connection.rollback())
        if commits:
            with pytest.raises(dn.errors.AlreadySettled):
                await with_timeout(message.ack())
            with pytest.raises(dn.errors.AlreadySettled):
                await with_timeout(message.ack(connection))
        else:
            await message.ack()
    assert outstanding(conn) == messages - 1


async def test_one_settled_twice_does_not_fail_the_others(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Their outcomes are sent in one statement."""
    send(conn, range(4))
    async with api.consumer(dsn) as consumer, api.connect(dsn, autocommit=True) as connection:
        twice, *others, last = await collect(consumer, 4)
        await twice.ack(connection)
        results = await with_timeout(
            asyncio.gather(*(m.ack() for m in (twice, *others)), return_exceptions=True)
        )
        assert [type(result) for result in results] == [
            dn.errors.AlreadySettled,
            type(None),
            type(None),
        ]
        assert leased(conn) == 1
        await last.ack()
    assert outstanding(conn) == 0


@pytest.mark.parametrize("manner", ["ack", "retry", "reject"])
async def test_after_the_lease_was_taken_over(
    api: Api, dsn: str, conn: Connection, manner: str
) -> None:
    send(conn, [1, 2])
    async with api.consumer(dsn) as consumer:
        message, other = await collect(consumer, 2)
        stolen = steal(conn)
        assert stolen == [message.id, other.id]
        with pytest.raises(dn.LeaseLost, match="another consumer"):
            await settle_by(message, manner)
        with pytest.raises(dn.LeaseLost):
            await other.ack()
    assert leased(conn) == 2, "it was another's lease"


async def test_in_a_transaction_after_the_lease_was_taken_over(
    api: Api, dsn: str, conn: Connection
) -> None:
    conn.execute("CREATE TABLE mine (n int)")
    send(conn, [1, 2])
    async with api.consumer(dsn) as consumer, api.connect(dsn) as connection:
        message, other = await collect(consumer, 2)
        await maybe_await(connection.execute("INSERT INTO mine VALUES (1)"))
        steal(conn)
        with pytest.raises(dn.LeaseLost):
            await message.ack(connection)
        with pytest.raises(errors.InFailedSqlTransaction):
            await maybe_await(connection.execute("SELECT 1"))
        await maybe_await(connection.rollback())
        with pytest.raises(dn.LeaseLost):
            await other.extend(60)
    assert value(conn, "SELECT count(*) FROM mine") == 0


async def test_late_is_not_superseded(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with api.consumer(dsn, lease=600) as consumer:
        (message,) = await collect(consumer, 1)
        await asleep(consumer)
        conn.execute(LONG_GONE.encode())
        await message.ack()
    assert outstanding(conn) == 0


async def test_after_the_consumer_was_closed(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with api.consumer(dsn) as consumer:
        (message,) = await collect(consumer, 1)
    async with api.connect(dsn) as connection:
        for attempt in (
            message.ack(), message.retry(), message.reject(), message.extend(5),
            message.ack(connection),
        ):  # fmt: skip
            with pytest.raises(dn.errors.ConsumerClosed, match="redelivered"):
                await attempt
    assert outstanding(conn) == 1


# Leases


async def test_a_handler_may_take_longer_than_the_lease(
    api: Api, dsn: str, conn: Connection
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

    one, two = Recorder(slow), Recorder(slow)
    consumers = [api.consumer(dsn, lease=0.5, owner=n) for n in ("one", "two")]
    async with running(consumers[0], one), running(consumers[1], two):
        await wait_until(lambda: one.messages or two.messages)
        await wait_until(lambda: outstanding(conn) == 0)
    assert ran_out == 0
    assert one.attempts + two.attempts == [1]


async def test_leases_of_messages_still_in_the_queue_are_kept_alive(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(10))
    seen = Recorder(lambda _: asyncio.sleep(0.15))
    await with_timeout(api.consumer(dsn, lease=0.5, until_empty=True).run(seen))
    assert seen.attempts == [1] * 10


async def test_extend(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with api.consumer(dsn, lease=5) as consumer:
        (message,) = await collect(consumer, 1)
        await message.extend(3600)
        assert value(conn, "SELECT durable_notify.next_due('g', '{t}')") > 3500
        await message.ack()


async def test_a_lost_lease_is_noticed_and_its_messages_are_not_delivered(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(3))
    async with api.consumer(dsn, lease=0.6) as consumer:
        (first,) = await collect(consumer, 1)
        steal(conn)
        await wait_until(lambda: first._lease.lost)
        new = send(conn, ["new"])
        assert [m.id for m in await collect(consumer, 1)] == new


# The database away meanwhile


async def test_connections_cut_while_claiming_and_settling(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Again and again, wherever they are: nothing is lost, and no handler sees an error."""
    ids = send(conn, range(200))

    async def handle(message: Any) -> None:
        await asyncio.sleep(0.01)
        await message.ack()

    seen = Recorder(handle)
    async with running(api.consumer(dsn, lease=2, batch_size=10), seen, concurrency=4):
        for _ in range(6):
            await seen.got(len(seen.ids) + 5)
            assert terminate(conn, WORKERS)
        await wait_until(lambda: outstanding(conn) == 0)
    assert set(seen.ids) == set(ids)


async def test_a_stop_while_connections_are_cut_gives_back_all_the_same(
    api: Api, dsn: str, conn: Connection
) -> None:
    """As after a restart of the server: the first connections tried are dead."""
    send(conn, range(3))
    async with api.consumer(dsn, lease=600) as consumer:
        await collect(consumer, 2)
        await asleep(consumer)
        terminate(conn, WORKERS)
    assert leased(conn) == 0
    assert outstanding(conn) == 3


async def test_an_ack_that_arrived_although_the_connection_broke(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again, and finds its own work done: that is no error."""
    send(conn, range(3))
    async with api.consumer(dsn) as consumer:
        messages = await collect(consumer, 3)
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

        monkeypatch.setattr(store, "settle", acut if api.is_async else sync_cut)
        await with_timeout(messages[0].ack())
        await with_timeout(asyncio.gather(messages[1].ack(), messages[2].ack()))
        assert broken == [1, 1]
    assert outstanding(conn) == 0
