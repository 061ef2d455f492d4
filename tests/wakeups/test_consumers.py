"""Consumers and their doorbells: armed while they rest, not while they read. Nothing here polls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._core.topic_set import FEW
from tests.support.api import Api, Recorder, running
from tests.support.injection import plant
from tests.support.observe import (
    LISTENER,
    Listener,
    armed,
    asleep,
    backends,
    count_armed,
    outstanding,
    send,
    terminate,
    unannounced,
    value,
)
from tests.support.sessions import Session, Sessions
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


class Held(Recorder):
    """A handler that finishes nothing before it is told to."""

    def __init__(self) -> None:
        self.proceed = asyncio.Event()
        super().__init__(lambda _: self.proceed.wait())


@asynccontextmanager
async def holding(consumer: Any, conn: Connection) -> AsyncIterator[Held]:
    """Within it the consumer's handler has a message of topic t, and its hands full."""
    held = Held()
    async with running(consumer, held):
        await asleep(consumer)
        send(conn, ["hold this"])
        await held.got(1)
        yield held
        held.proceed.set()


# At rest, and while it handles


async def test_at_rest_exactly_its_topics_doorbells_are_armed(
    api: Api, dsn: str, conn: Connection
) -> None:
    consumer = api.consumer(dsn, topics=["a", "b", "c.*"])
    async with running(consumer, Recorder()):
        await asleep(consumer)
        assert armed(conn, ["a", "b", "c.*", "c.x", "t", "", "c.>"]) == {"a", "b", "c.>"}
        assert count_armed(conn) == 3
    await wait_until(lambda: count_armed(conn) == 0)


async def test_while_it_works_no_publisher_need_ring(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    """Its other topics' publishers do; and those of this one once it has nothing to do."""
    hears = Listener(sessions, "t", "u")
    consumer = api.consumer(dsn, topics=["t", "u"], prefetch=1)
    async with holding(consumer, conn) as held:
        await wait_until(lambda: armed(conn, "tu") == {"u"})
        hears.heard()
        send(conn, ["not rung"], "t")
        (rung,) = send(conn, ["rung"], "u")
        assert hears.heard() == [("durable_notify:u", str(rung))]
        held.proceed.set()
        await held.got(3)
        await asleep(consumer)
        assert armed(conn, "tu") == {"t", "u"}
        (last,) = send(conn, ["rung again"], "t")
        assert hears.heard() == [("durable_notify:t", str(last))]
        await held.got(4)
    assert outstanding(conn) == 0


async def test_a_doorbell_stays_armed_while_one_consumer_of_a_process_rests(
    api: Api, dsn: str, conn: Connection
) -> None:
    busy = api.consumer(dsn, "busy", prefetch=1)
    idle, seen = api.consumer(dsn, "idle"), Recorder()
    async with running(idle, seen), holding(busy, conn):
        await seen.got(1)
        for number in (2, 3):
            await asleep(idle)
            assert (armed(conn, "t"), count_armed(conn)) == ({"t"}, 1)
            send(conn, [number])
            await seen.got(number)
    await wait_until(lambda: outstanding(conn) == 2, 5)  # what the busy one had not been given


async def test_a_doorbell_is_disarmed_once_no_consumer_of_a_process_rests(
    api: Api, dsn: str, conn: Connection
) -> None:
    one, two = (api.consumer(dsn, group, prefetch=1) for group in "gh")
    held = [Held(), Held()]
    async with running(one, held[0]), running(two, held[1]):
        for consumer in (one, two):
            await asleep(consumer)
        send(conn, ["hold this"])
        await wait_until(lambda: count_armed(conn) == 0)
        for handler in held:
            handler.proceed.set()
        await wait_until(lambda: count_armed(conn) == 1)
    await wait_until(lambda: backends(conn, LISTENER) == [])


async def test_a_second_consumer_of_a_topic_armed_already(
    api: Api, dsn: str, conn: Connection
) -> None:
    """It has nothing to wait for, and misses nothing: not even what was under way before."""
    first, second = api.consumer(dsn, "g"), api.consumer(dsn, "h")
    seen = [Recorder(), Recorder()]
    with psycopg.connect(dsn) as slow:
        send(slow, ["under way"])
        async with running(first, seen[0]):
            await asleep(first)
            async with running(second, seen[1]):
                await asleep(second)
                slow.commit()
                for handler in seen:
                    await handler.got(1)
                await asleep(second)
                send(conn, ["rung"])
                for handler in seen:
                    await handler.got(2)


async def test_closed_it_leaves_the_others_doorbells(api: Api, dsn: str, conn: Connection) -> None:
    stays, seen = api.consumer(dsn, "g", ["a", "b"]), Recorder()
    async with running(stays, seen):
        goes = api.consumer(dsn, "h", ["b", "c"])
        async with running(goes, Recorder()):
            await asleep(stays)
            await asleep(goes)
            assert armed(conn, "abc") == {"a", "b", "c"}
        await wait_until(lambda: armed(conn, "abc") == {"a", "b"})
        await asleep(stays)
        send(conn, [1], "b")
        await seen.got(1)
    await wait_until(lambda: count_armed(conn) == 0)


async def test_after_a_reconnection_the_doorbells_are_armed_again(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen, consumer = Recorder(), api.consumer(dsn, topics=["t", "u"])
    async with running(consumer, seen):
        for number in (1, 2):
            await asleep(consumer)
            (old,) = terminate(conn, LISTENER)
            await wait_until(lambda old=old: set(backends(conn, LISTENER)) - {old})
            await asleep(consumer)
            (new,) = backends(conn, LISTENER)
            assert armed(conn, "tu", new) == {"t", "u"}
            send(conn, [number], "tu"[number % 2])
            await seen.got(number)


async def test_a_delayed_message_wakes_the_sleeper_at_its_time(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        dn.Publisher().publish(conn, "t", "later", delay=0.5)
        dn.Publisher().publish(conn, "t", "at once")
        await seen.got(2)
    first, second = seen.messages
    assert (first.payload, second.payload) == ("at once", "later")
    query = "SELECT clock_timestamp() >= deliver_at FROM durable_notify.outbox WHERE id = %s"
    assert value(conn, query, second.id)


# Publishers that looked before the doorbell was armed


async def published_earlier(slow: Session, how: str) -> None:
    """Publish, and stay open."""
    slow.begin(how if how in ("repeatable read", "serializable") else "read committed")
    if how == "in a savepoint":
        slow.run("SAVEPOINT s")
    slow.publish("late")
    if how == "in a savepoint":
        slow.run("RELEASE s")
    if how == "prepared":
        slow.run("PREPARE TRANSACTION 'slow'")


def commit(slow: Session, how: str) -> None:
    slow.run("COMMIT PREPARED 'slow'" if how == "prepared" else "COMMIT")


EARLIER = ["read committed", "repeatable read", "serializable", "in a savepoint", "prepared"]


@pytest.mark.parametrize("how", EARLIER)
async def test_published_before_the_doorbell_was_armed(
    api: Api, dsn: str, sessions: Sessions, how: str
) -> None:
    """No publisher rings for it: the consumer lists those under way, and reads once they end."""
    slow, hears = sessions.session(), Listener(sessions, "t")
    await published_earlier(slow, how)
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        assert unannounced(sessions.session())
        await asyncio.sleep(0.3)  # it looks less often by now
        commit(slow, how)
        await seen.got(1)
    assert hears.heard() == []


async def test_what_was_published_while_it_worked(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    slow, consumer = sessions.session(), api.consumer(dsn, prefetch=1)
    async with holding(consumer, conn) as held:
        await wait_until(lambda: count_armed(conn) == 0)
        hears = Listener(sessions, "t")
        slow.begin()
        slow.publish("late")
        held.proceed.set()
        await wait_until(lambda: outstanding(conn) == 0)
        await asleep(consumer)
        slow.commit()
        await held.got(2)
        assert hears.heard() == []


async def test_a_retry_settled_before_the_doorbell_was_armed(
    api: Api, dsn: str, sessions: Sessions
) -> None:
    """As the handler of a consumer elsewhere does it, in a transaction of its own."""
    other, hears = sessions.session(), Listener(sessions, "t")
    other.subscribe()
    other.publish()
    batch = other.claim()
    other.begin()
    other.settle(batch[0].token, retried=batch)
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        other.commit()
        await seen.got(1)
    assert seen.attempts == [2]
    assert hears.heard() == []


async def test_one_that_rolls_back_and_one_that_stays_open(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    """While it watches one for long, it hears of others, and of that one in the end."""
    slow, given_up = sessions.take(2)
    for session in (slow, given_up):
        session.begin()
        session.publish("not rung")
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        for number in (1, 2):
            await asleep(consumer)
            send(conn, [number])
            await seen.got(number)
        given_up.rollback()
        await asleep(consumer)
        slow.commit()
        await seen.got(3)
    assert [m.payload for m in seen.messages] == [1, 2, "not rung"]


async def test_without_the_list_it_would_be_lost(api: Api, dsn: str, sessions: Sessions) -> None:
    """What the tests above are worth: planted, they fail."""
    session, slow = sessions.take(2)
    row = "(late.last_xid + late.distance)::text::xid8"
    plant(session, "unnotified_transactions", (f"pg_catalog.array_agg({row})", "NULL::xid8[]"))
    await published_earlier(slow, "read committed")
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        slow.commit()
        with pytest.raises(TimeoutError):
            await with_timeout(seen.got(1), 1)


# More topics than are claimed from at once


async def test_of_many_topics_none_is_forgotten(api: Api, dsn: str, conn: Connection) -> None:
    """Messages in random ones, some while it sleeps and some while it works, some committed late."""
    topics = [f"t{n}" for n in range(FEW + 8)]
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    rng = random.Random(seed)
    seen, consumer = Recorder(), api.consumer(dsn, topics=topics, prefetch=3)
    number = 0
    async with running(consumer, seen):
        for _ in range(15):
            if rng.random() < 0.6:
                await asleep(consumer)
            with psycopg.connect(dsn) as slow:
                for topic in rng.sample(topics, 2):
                    number += len(send(slow, range(rng.choice([1, 2])), topic))
                for topic in rng.sample(topics, 2):
                    number += len(send(conn, [0], topic))
                if rng.random() < 0.3:
                    await asleep(consumer)
            await asyncio.sleep(rng.choice([0, 0.005]))
        await seen.got(number)
        await wait_until(lambda: count_armed(conn) == len(topics))
    assert len(seen.messages) == number
    assert outstanding(conn) == 0


# Patterns


async def test_a_new_topic_while_all_consumers_sleep(api: Api, dsn: str, conn: Connection) -> None:
    consumers = [api.consumer(dsn, f"g{n}", ["orders.*", "t"]) for n in range(2)]
    seen = [Recorder(), Recorder()]
    async with running(consumers[0], seen[0]), running(consumers[1], seen[1]):
        for number, topic in enumerate(["orders.a", "orders.b", "orders.a"], 1):
            for consumer in consumers:
                await asleep(consumer)
            send(conn, [number], topic)
            for handler in seen:
                assert (await handler.got(number))[-1].topic == topic
        for consumer in consumers:
            await asleep(consumer)
        mine = ["orders.a", "orders.b", "t", "orders.>"]
        assert armed(conn, [*mine, ""]) == set(mine)


async def test_a_new_topic_published_before_the_doorbell_was_armed(
    api: Api, dsn: str, sessions: Sessions
) -> None:
    slow = sessions.session()
    slow.begin()
    slow.publish("late", topic="orders.new")
    seen, consumer = Recorder(), api.consumer(dsn, topics=["orders.*"])
    async with running(consumer, seen):
        await asleep(consumer)
        slow.commit()
        await seen.got(1)


async def test_a_new_topic_while_another_keeps_it_busy(
    api: Api, dsn: str, conn: Connection
) -> None:
    """At a rate at which a consumer does not rest but looks again, new topics are found, too."""
    more = asyncio.Event()

    async def publish_another(message: Any) -> None:
        if not more.is_set():
            send(conn, [0] * 100, "orders.busy")

    seen = Recorder(publish_another)
    consumer = api.consumer(dsn, topics=["orders.*"])
    async with running(consumer, seen):
        await asleep(consumer)
        send(conn, [0] * 100, "orders.busy")
        await seen.got(300)
        send(conn, ["new"], "orders.new")
        try:
            await wait_until(lambda: any(m.topic == "orders.new" for m in seen.messages), 3)
        finally:
            more.set()


async def test_publishers_do_not_ring_for_a_pattern_with_another_first_word(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    listener, seen = Listener(sessions, ""), Recorder()
    consumer = api.consumer(dsn, topics=["orders.*"])
    async with running(consumer, seen):
        await asleep(consumer)
        send(conn, [1], "users.new")
        send(conn, [1], "orders")
        assert listener.heard() == []
        send(conn, [1], "orders.new")
        await seen.got(1)
        assert listener.heard() == [("durable_notify", "orders.new")]


async def test_topics_of_others_do_not_wake_a_consumer_by_pattern(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Their publishers ring once, and not for each message; a new topic is found soon after."""
    seen, consumer = Recorder(), api.consumer(dsn, topics=["orders.*"])
    async with running(consumer, seen):
        await asleep(consumer)
        assert count_armed(conn) == 1
        send(conn, ["another's"], "orders.not.mine")
        await wait_until(lambda: count_armed(conn) == 0)
        send(conn, ["not rung"], "orders.new")
        await seen.got(1)
        await asleep(consumer)
        assert count_armed(conn) == 2


async def test_a_new_topic_that_never_rings(api: Api, dsn: str, conn: Connection) -> None:
    """Without a ring: it is found by polling, if that is allowed."""
    conn.execute("SELECT durable_notify.set_notify_policy('orders.new', 'never')")
    seen = Recorder()
    consumer = api.consumer(dsn, topics=["orders.*"], poll_interval=0.2)
    async with running(consumer, seen):
        await asleep(consumer)
        send(conn, ["new"], "orders.new")
        await wait_until(lambda: seen.messages, 3)
