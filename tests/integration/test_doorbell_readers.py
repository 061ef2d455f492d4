"""Readers and their doorbells: as consumers have it, without a group. Nothing here polls."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from durable_notify._core.topic_set import FEW
from tests.integration.test_readers import Reading
from tests.support.bells import Listener, armed, barred, count
from tests.support.halves import Half, Seen, running, soon, until
from tests.support.planting import plant
from tests.support.schedule import Stage
from tests.support.watching import LISTENER, asleep, send, sessions, terminate

Connection = psycopg.Connection[Any]
LOOKS = 3.0
"""Seconds within which whoever looks each second has found something, on a slow machine too."""


@pytest.fixture(params=["async", "sync"])
def half(request: pytest.FixtureRequest) -> Half:
    return Half(request.param)


async def rests(reading: Reading) -> asyncio.Future[Any]:
    """Have a reader wait for its next message, which is returned once there is one."""
    following = asyncio.ensure_future(reading.next())
    await asleep(reading.reader)
    return following


async def test_it_is_rung_for_while_it_waits(
    half: Half, dsn: str, conn: Connection, stage: Stage
) -> None:
    """Not before it reads, not while its caller is at work, and not once it is closed."""
    hears = Listener(stage, "t", "u")
    async with Reading(half, dsn, "t", "u") as reading:
        await until(lambda: reading.reader._subscription.hears)
        send(conn, [1])
        assert hears.heard() == []
        await reading.next()
        following = await rests(reading)
        assert armed(conn, "tu") == {"t", "u"}
        (rung,) = send(conn, [2])
        assert hears.heard() == [("durable_notify:t", str(rung))]
        assert (await following).payload == 2
        await until(lambda: armed(conn, "tu") == {"u"})
        send(conn, [3])
        assert hears.heard() == []
        assert (await reading.next()).payload == 3
        following = await rests(reading)
        send(conn, [4], "u")
        assert (await following).payload == 4
    await until(lambda: count(conn) == 0)


async def test_a_reader_and_a_consumer_on_one_topic(half: Half, dsn: str, conn: Connection) -> None:
    """One listening session, one bell, and both are woken."""
    seen, consumer = Seen(), half.consumer(dsn)
    async with running(consumer, seen), Reading(half, dsn) as reading:
        for number in (1, 2):
            following = await rests(reading)
            await asleep(consumer)
            assert count(conn) == 1
            send(conn, [number])
            assert (await following).payload == number
            await seen.got(number)


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
async def test_published_before_the_bell_was_armed(
    half: Half, dsn: str, stage: Stage, isolation: str
) -> None:
    slow, hears = stage.session(), Listener(stage, "t")
    slow.begin(isolation)
    slow.publish("late")
    async with Reading(half, dsn) as reading:
        following = await rests(reading)
        slow.commit()
        assert (await following).payload == "late"
    assert hears.heard() == []


async def test_without_the_list_it_would_be_lost(half: Half, dsn: str, stage: Stage) -> None:
    session, slow = stage.take(2)
    row = "(late.last_xid + late.distance)::text::xid8"
    plant(session, "unnotified_transactions", (f"pg_catalog.array_agg({row})", "NULL::xid8[]"))
    slow.begin()
    slow.publish("late")
    async with Reading(half, dsn) as reading:
        following = await rests(reading)
        slow.commit()
        with pytest.raises(TimeoutError):
            await soon(asyncio.shield(following), 1)
        slow.publish("another, which rings")
        await following


async def test_after_a_reconnection(half: Half, dsn: str, conn: Connection) -> None:
    async with Reading(half, dsn) as reading:
        following = await rests(reading)
        (old,) = terminate(conn, LISTENER)
        await until(lambda: set(sessions(conn, LISTENER)) - {old})
        await asleep(reading.reader)
        assert armed(conn, "t") == {"t"}
        send(conn, [1])
        assert (await following).payload == 1


async def test_a_stranger_at_the_key(half: Half, dsn: str, conn: Connection, stage: Stage) -> None:
    async with Reading(half, dsn) as reading:
        with barred(stage.session(), "t"):
            following = asyncio.ensure_future(reading.next())
            await until(lambda: reading.reader._subscription._state.doorbells.refused == {"t"})
            send(conn, [1])
            assert (await soon(following, LOOKS)).payload == 1
        following = await rests(reading)
        send(conn, [2])
        assert (await following).payload == 2


async def test_a_topic_that_never_rings(half: Half, dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.set_notify_policy('t', 'never')")
    async with Reading(half, dsn) as reading:
        following = asyncio.ensure_future(reading.next())
        await until(lambda: reading.reader._subscription._state.doorbells.refused == {"t"})
        send(conn, [1])
        assert (await soon(following, LOOKS)).payload == 1


async def test_a_new_topic_while_it_waits(half: Half, dsn: str, conn: Connection) -> None:
    async with Reading(half, dsn, "orders.*") as reading:
        for number, topic in enumerate(["orders.a", "orders.b", "orders.a"]):
            following = await rests(reading)
            send(conn, [number], topic)
            message = await following
            assert (message.topic, message.payload) == (topic, number)


async def test_of_many_topics_none_is_forgotten(half: Half, dsn: str, conn: Connection) -> None:
    topics = [f"t{n}" for n in range(FEW + 4)]
    async with Reading(half, dsn, *topics) as reading:
        for number, topic in enumerate([topics[0], topics[-1], topics[7]]):
            following = await rests(reading)
            with psycopg.connect(dsn) as slow:
                send(slow, [number], topic)
                send(conn, [number], topics[5])
                assert (await following).topic == topics[5]
                following = await rests(reading)
            message = await following
            assert (message.topic, message.payload) == (topic, number)
