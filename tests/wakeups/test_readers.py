"""Readers and their doorbells, which work as those of consumers. Nothing here polls."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from durable_notify._core.topic_set import FEW
from tests.support.api import AnyReader, Api, Recorder, running
from tests.support.injection import plant
from tests.support.observe import (
    LISTENER,
    Listener,
    armed,
    asleep,
    backends,
    barred,
    count_armed,
    send,
    terminate,
)
from tests.support.sessions import Sessions
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]
LOOKS = 3.0
"""Seconds within which a poll each second has found something, on a slow machine too."""


async def rests(reading: AnyReader) -> asyncio.Future[Any]:
    """Have a reader wait for its next message, which is returned once there is one."""
    following = asyncio.ensure_future(reading.next())
    await asleep(reading.reader)
    return following


async def test_it_is_rung_for_while_it_waits(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    """Not before it reads, not while its caller works, and not once it is closed."""
    hears = Listener(sessions, "t", "u")
    async with AnyReader(api, dsn, "t", "u") as reading:
        await wait_until(lambda: reading.reader._subscription.hears)
        send(conn, [1])
        assert hears.heard() == []
        await reading.next()
        following = await rests(reading)
        assert armed(conn, "tu") == {"t", "u"}
        (rung,) = send(conn, [2])
        assert hears.heard() == [("durable_notify:t", str(rung))]
        assert (await following).payload == 2
        await wait_until(lambda: armed(conn, "tu") == {"u"})
        send(conn, [3])
        assert hears.heard() == []
        assert (await reading.next()).payload == 3
        following = await rests(reading)
        send(conn, [4], "u")
        assert (await following).payload == 4
    await wait_until(lambda: count_armed(conn) == 0)


async def test_a_reader_and_a_consumer_on_one_topic(api: Api, dsn: str, conn: Connection) -> None:
    """One listening session, one doorbell, and both are woken."""
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen), AnyReader(api, dsn) as reading:
        for number in (1, 2):
            following = await rests(reading)
            await asleep(consumer)
            assert count_armed(conn) == 1
            send(conn, [number])
            assert (await following).payload == number
            await seen.got(number)


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
async def test_published_before_the_doorbell_was_armed(
    api: Api, dsn: str, sessions: Sessions, isolation: str
) -> None:
    slow, hears = sessions.session(), Listener(sessions, "t")
    slow.begin(isolation)
    slow.publish("late")
    async with AnyReader(api, dsn) as reading:
        following = await rests(reading)
        slow.commit()
        assert (await following).payload == "late"
    assert hears.heard() == []


async def test_without_the_list_it_would_be_lost(api: Api, dsn: str, sessions: Sessions) -> None:
    session, slow = sessions.take(2)
    row = "(late.last_xid + late.distance)::text::xid8"
    plant(session, "unnotified_transactions", (f"pg_catalog.array_agg({row})", "NULL::xid8[]"))
    slow.begin()
    slow.publish("late")
    async with AnyReader(api, dsn) as reading:
        following = await rests(reading)
        slow.commit()
        with pytest.raises(TimeoutError):
            await with_timeout(asyncio.shield(following), 1)
        slow.publish("another, which rings")
        await following


async def test_after_a_reconnection(api: Api, dsn: str, conn: Connection) -> None:
    async with AnyReader(api, dsn) as reading:
        following = await rests(reading)
        (old,) = terminate(conn, LISTENER)
        await wait_until(lambda: set(backends(conn, LISTENER)) - {old})
        await asleep(reading.reader)
        assert armed(conn, "t") == {"t"}
        send(conn, [1])
        assert (await following).payload == 1


async def test_a_stranger_at_the_key(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    async with AnyReader(api, dsn) as reading:
        with barred(sessions.session(), "t"):
            following = asyncio.ensure_future(reading.next())
            await wait_until(lambda: reading.reader._subscription._state.doorbells.refused == {"t"})
            send(conn, [1])
            assert (await with_timeout(following, LOOKS)).payload == 1
        following = await rests(reading)
        send(conn, [2])
        assert (await following).payload == 2


async def test_a_topic_that_never_rings(api: Api, dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.set_notify_policy('t', 'never')")
    async with AnyReader(api, dsn) as reading:
        following = asyncio.ensure_future(reading.next())
        await wait_until(lambda: reading.reader._subscription._state.doorbells.refused == {"t"})
        send(conn, [1])
        assert (await with_timeout(following, LOOKS)).payload == 1


async def test_a_new_topic_while_it_waits(api: Api, dsn: str, conn: Connection) -> None:
    async with AnyReader(api, dsn, "orders.*") as reading:
        for number, topic in enumerate(["orders.a", "orders.b", "orders.a"]):
            following = await rests(reading)
            send(conn, [number], topic)
            message = await following
            assert (message.topic, message.payload) == (topic, number)


async def test_of_many_topics_none_is_forgotten(api: Api, dsn: str, conn: Connection) -> None:
    topics = [f"t{n}" for n in range(FEW + 4)]
    async with AnyReader(api, dsn, *topics) as reading:
        for number, topic in enumerate([topics[0], topics[-1], topics[7]]):
            following = await rests(reading)
            with psycopg.connect(dsn) as slow:
                send(slow, [number], topic)
                send(conn, [number], topics[5])
                assert (await following).topic == topics[5]
                following = await rests(reading)
            message = await following
            assert (message.topic, message.payload) == (topic, number)
