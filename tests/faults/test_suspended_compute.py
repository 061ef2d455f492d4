"""A database that is suspended while nothing happens, and started by the next connection.

As Neon's computes are, here by a proxy in front of a PostgreSQL that is stopped. Asserted, for
consumers with ``idle_poll`` in both halves:

- while they wait for messages nothing at all is sent to the database, and it is not connected to
  again once it is suspended, until ``idle_poll`` is over: the compute stays asleep;
- a wake-up that arrives, something due and ``stop()`` end the wait at once;
- what others publish meanwhile is handled after ``idle_poll`` at the latest, and what was published
  before is not lost;
- they listen again by themselves, and are woken at once as long as the database is awake;
- the compute is started no more often than once in ``idle_poll``.

The planted variant, a consumer without ``idle_poll``, sends and connects within moments.
DURABLE_NOTIFY_SECONDS makes the last run longer.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from durable_notify import schema
from durable_notify.embedded import Server
from durable_notify.torture.proxy import Proxy
from tests.faults.chance import seconds
from tests.support.api import AnyReader, Api, Recorder, in_thread, running
from tests.support.observe import listener_of, outstanding, send
from tests.support.postgres import needed_binaries, own_server
from tests.support.wait import wait_until

pytestmark = pytest.mark.server

Connection = psycopg.Connection[Any]

HEARTBEAT = 0.2
FOR_EVER = 3600.0
A_WHILE = 1.4
"""Seconds, seven heartbeats."""
SECONDS = seconds(4)


class Compute:
    """A server behind a proxy, started by any connection."""

    def __init__(self, server: Server, proxy: Proxy) -> None:
        self._server = server
        self._mutex = threading.Lock()
        self.proxy = proxy
        self.dsn = proxy.dsn()
        self.asleep = False
        self.starts = 0
        proxy.on_connect(self._start)

    def _start(self) -> None:
        with self._mutex:
            if self.asleep:
                self._server.start()
                self.asleep = False
                self.starts += 1

    def suspend(self) -> None:
        with self._mutex:
            self._server.stop()
            self.asleep = True

    def publish(self, payload: Any) -> None:
        """As another application: it wakes the compute, and is gone."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            send(connection, [payload])

    def outstanding(self) -> int:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return outstanding(connection)


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    bindir = needed_binaries()
    with own_server(bindir) as running_server:
        schema.migrate(running_server.dsn("template1"))
        yield running_server


@pytest.fixture
def compute(one_server: Server) -> Iterator[Compute]:
    """With a database of the test's own; the server is stopped and started by all."""
    name = f"dn_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(one_server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    with Proxy(one_server.dsn(name)) as proxy:
        compute = Compute(one_server, proxy)
        yield compute
        proxy.cut()
        if compute.asleep:
            one_server.start()


async def quiet(consumer: Any) -> None:
    """Wait until a consumer sleeps, and leaves the database alone."""

    def it_is() -> bool:
        subscription = consumer._subscription
        return (
            subscription is not None
            and subscription.suspended
            and listener_of(consumer).suspended
            and not subscription.woken.is_set()
        )

    await wait_until(it_is)


async def happens(what: Any, seconds: float = A_WHILE) -> bool:
    """Whether something is so within some time."""
    try:
        await wait_until(what, seconds)
    except AssertionError:
        return False
    return True


async def sends(proxy: Proxy) -> bool:
    """Whether anything is sent to the database within a while."""
    sent = proxy.to_server
    return await happens(lambda: proxy.to_server > sent)


# Awake, and to be left alone


@pytest.mark.parametrize("idle_poll", [FOR_EVER, None])
async def test_nothing_is_sent_while_it_waits(
    api: Api, dsn: str, conn: Connection, idle_poll: float | None
) -> None:
    """And it is woken at once all the same: the listening connection stands."""
    seen = Recorder()
    with Proxy(dsn) as proxy:
        consumer = api.consumer(
            proxy.dsn(), idle_poll_interval=idle_poll, heartbeat_interval=HEARTBEAT
        )
        async with running(consumer, seen):
            for number in (1, 2):
                if idle_poll is not None:
                    await wait_until(
                        lambda: outstanding(conn) == len(consumer._lease_manager._leases) == 0
                    )
                    await quiet(consumer)
                    assert not await sends(proxy)
                else:
                    await wait_until(
                        lambda: consumer._subscription is not None and consumer._subscription.armed
                    )
                    assert await sends(proxy)  # planted
                send(conn, [number])
                await seen.got(number)


async def test_readers_too(api: Api, dsn: str, conn: Connection) -> None:
    with Proxy(dsn) as proxy:
        options = {"idle_poll_interval": FOR_EVER, "heartbeat_interval": HEARTBEAT}
        async with AnyReader(api, proxy.dsn(), **options) as reading:
            coming = asyncio.ensure_future(reading.next())
            await quiet(reading.reader)
            assert not await sends(proxy)
            send(conn, [1])
            assert (await coming).payload == 1


async def test_a_connection_that_died_unnoticed_is_found_after_the_bound(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen = Recorder()
    with Proxy(dsn) as proxy:
        consumer = api.consumer(proxy.dsn(), idle_poll_interval=1.5, heartbeat_interval=HEARTBEAT)
        async with running(consumer, seen):
            await quiet(consumer)
            proxy.blackhole()
            proxy.forward(leave_dead=True)
            connections = proxy.connections
            send(conn, [1])
            assert not await happens(lambda: proxy.connections > connections, 0.5)
            await seen.got(1)
            await wait_until(lambda: outstanding(conn) == 0)
    assert seen.attempts == [1]


# Suspended


async def test_it_is_left_asleep(api: Api, compute: Compute) -> None:
    """Also by a consumer that stops meanwhile."""
    consumer = api.consumer(compute.dsn, idle_poll_interval=FOR_EVER, heartbeat_interval=HEARTBEAT)
    async with running(consumer, Recorder()):
        await quiet(consumer)
        connections = compute.proxy.connections
        await in_thread(compute.suspend)
        assert not await happens(lambda: compute.proxy.connections > connections)
        assert compute.asleep
    assert compute.asleep
    assert compute.proxy.connections == connections


async def test_planted_a_consumer_that_keeps_it_awake(api: Api, compute: Compute) -> None:
    consumer = api.consumer(compute.dsn, heartbeat_interval=HEARTBEAT)
    async with running(consumer, Recorder()):
        await wait_until(
            lambda: consumer._subscription is not None and consumer._subscription.armed
        )
        connections = compute.proxy.connections
        await in_thread(compute.suspend)
        await wait_until(lambda: compute.proxy.connections > connections)
        await wait_until(lambda: not compute.asleep)


async def test_published_while_no_session_listened_it_comes_within_the_bound(
    api: Api, compute: Compute
) -> None:
    seen = Recorder()
    consumer = api.consumer(compute.dsn, idle_poll_interval=A_WHILE, heartbeat_interval=HEARTBEAT)
    async with running(consumer, seen):
        for number in (1, 2):
            await quiet(consumer)
            await in_thread(compute.suspend)
            began = time.monotonic()
            await in_thread(compute.publish, number)
            await seen.got(number)
            assert time.monotonic() - began < A_WHILE + 10.0
        # It listens again: awake, it is rung for, long before the bound.
        object.__setattr__(consumer.options, "idle_poll_interval", FOR_EVER)
        await wait_until(lambda: compute.outstanding() == 0)
        await wait_until(lambda: consumer._subscription.hears)
        await quiet(consumer)
        await in_thread(compute.publish, 3)
        await seen.got(3)
        await wait_until(lambda: compute.outstanding() == 0)
    assert seen.attempts == [1, 1, 1]


async def test_what_is_due_wakes_it(api: Api, compute: Compute) -> None:
    """A retry's time is known before it sleeps."""

    async def once_more(message: Any) -> None:
        if message.attempt == 1:
            await message.retry(1.5)

    seen = Recorder(once_more)
    consumer = api.consumer(compute.dsn, idle_poll_interval=FOR_EVER, heartbeat_interval=HEARTBEAT)
    async with running(consumer, seen):
        await in_thread(compute.publish, 1)
        await seen.got(1)
        await quiet(consumer)
        await in_thread(compute.suspend)
        await seen.got(2)
        assert compute.starts == 1
        await wait_until(lambda: compute.outstanding() == 0)
    assert seen.attempts == [1, 2]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
async def test_how_often_it_is_started(api: Api, compute: Compute) -> None:
    """Several consumers, suspended whenever they have gone to sleep."""
    idle_poll = 1.0
    consumers = [
        api.consumer(
            compute.dsn, f"g{n}", idle_poll_interval=idle_poll, heartbeat_interval=HEARTBEAT
        )
        for n in range(2)
    ]
    seen = [Recorder(), Recorder()]
    async with running(consumers[0], seen[0]), running(consumers[1], seen[1]):
        began, published = time.monotonic(), 0
        while time.monotonic() - began < SECONDS:
            for consumer in consumers:
                await quiet(consumer)
            await in_thread(compute.suspend)
            await wait_until(lambda: not compute.asleep)
            if compute.starts % 3 == 1:
                published += 1
                await in_thread(compute.publish, published)
        took = time.monotonic() - began
        # Each consumer on its own, which is twice at most; and each publisher finds it asleep once.
        assert compute.starts <= 2 * (took / idle_poll + 1) + published
        for each in seen:
            await each.got(published)
        await wait_until(lambda: compute.outstanding() == 0)
    assert [m.payload for m in seen[0].messages] == list(range(1, published + 1))
