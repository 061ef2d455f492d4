"""Half-open and slow networks, and connections cut in the midst of a message, by a proxy.

Asserted, for the listening connection, for those that claim and settle, and for publishers, in
each direction and in both halves:

- a connection that goes dead in silence is found within two heartbeats, and replaced: what is
  published meanwhile is handled, what was handled is settled, and no process is restarted;
- a slow network is not taken for a dead one;
- a publisher that was cut at any byte has published once, or not at all, and once where it tries
  again under its ``dedup_key``;
- under faults of all kinds at random nothing committed is lost, and transactional handlers have
  their effect once.

The proxy's side keeps confirming what it cannot deliver, as a NAT or a pooler does: neither end
learns of it by TCP. Nothing here polls. DURABLE_NOTIFY_SEED repeats a run's decisions,
DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._async.database import connection as async_links
from durable_notify._sync.database import connection as sync_links
from durable_notify.torture.proxy import Direction, Proxy
from tests.faults.auditor import audit_handled
from tests.faults.chance import SEED, seconds
from tests.support.api import Api, Recorder, maybe_await, record_in_transaction, running
from tests.support.observe import asleep, beat, listener_of, outstanding, send
from tests.support.wait import wait_until

Connection = psycopg.Connection[Any]

HEARTBEAT = 0.5
LEASE = 4
"""Seconds: on a machine so slow that a claim counts as dead, its messages are redelivered in time."""
SECONDS = seconds(4)
DIRECTIONS: list[Direction] = ["both", "to_server", "to_client"]


@pytest.fixture(params=DIRECTIONS)
def direction(request: pytest.FixtureRequest) -> Direction:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as running_proxy:
        yield running_proxy


def go_dead(proxy: Proxy, direction: Direction) -> None:
    """Leave all connections half-open for ever; new ones work."""
    proxy.blackhole(direction)
    proxy.forward(leave_dead=True)


class Watch:
    """How long something has taken."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def within_heartbeats(self, number: int) -> None:
        """Fail where it took longer; a slow machine has seconds for what it does itself."""
        assert time.monotonic() - self._began < number * HEARTBEAT + 5.0


# A connection that is half-open


async def test_the_listening_connection(
    api: Api, dsn: str, conn: Connection, proxy: Proxy, direction: Direction
) -> None:
    seen = Recorder()
    consumer = api.consumer(dsn, listen_dsn=proxy.dsn(), heartbeat_interval=HEARTBEAT, lease=LEASE)
    async with running(consumer, seen):
        await asleep(consumer)
        go_dead(proxy, direction)
        watch = Watch()
        send(conn, [1])
        await seen.got(1)
        watch.within_heartbeats(2)
        await asleep(consumer)
        send(conn, [2])
        await seen.got(2)
    assert seen.attempts[:2] == [1, 1]


async def test_the_claiming_connection(
    api: Api, dsn: str, conn: Connection, proxy: Proxy, direction: Direction
) -> None:
    """Found at its next use, here at once. A claim whose answer was lost is redelivered."""
    seen = Recorder()
    consumer = api.consumer(proxy.dsn(), listen_dsn=dsn, heartbeat_interval=HEARTBEAT, lease=1)
    async with running(consumer, seen):
        await asleep(consumer)
        go_dead(proxy, direction)
        watch = Watch()
        send(conn, [1])
        await seen.got(1)
        watch.within_heartbeats(2 + 2)  # and the lease, where the claim had arrived
        await wait_until(lambda: outstanding(conn) == 0)
    assert len(seen.ids) == 1


async def test_idle_connections(
    api: Api, dsn: str, conn: Connection, proxy: Proxy, direction: Direction
) -> None:
    """Found without being used, so that the next message does not wait for it."""
    seen = Recorder()
    consumer = api.consumer(proxy.dsn(), listen_dsn=dsn, heartbeat_interval=HEARTBEAT, lease=LEASE)
    async with running(consumer, seen):
        send(conn, [0])
        await seen.got(1)
        await wait_until(lambda: outstanding(conn) == 0)
        await asleep(consumer)
        go_dead(proxy, direction)
        watch = Watch()
        await wait_until(
            lambda: all(link._connection is None for link in consumer._queries._connections)
        )
        watch.within_heartbeats(2)
        send(conn, [1])
        await seen.got(2)
        await wait_until(lambda: outstanding(conn) == 0)
    assert seen.attempts[:2] == [1, 1]


async def test_the_settling_connection(
    api: Api, dsn: str, conn: Connection, proxy: Proxy, direction: Direction
) -> None:
    """The acknowledgement goes over another one, also where the first one had arrived."""
    told = asyncio.Event()

    async def handle(message: Any) -> None:
        if message.payload:
            await told.wait()
            await message.ack()

    seen = Recorder(handle)
    consumer = api.consumer(proxy.dsn(), listen_dsn=dsn, heartbeat_interval=HEARTBEAT, lease=LEASE)
    async with running(consumer, seen):
        send(conn, [0])
        await wait_until(lambda: outstanding(conn) == 0 and seen.ids)
        send(conn, [1])
        await seen.got(2)
        go_dead(proxy, direction)
        watch = Watch()
        told.set()
        await wait_until(lambda: outstanding(conn) == 0)
        watch.within_heartbeats(2)
        send(conn, [2])
        await seen.got(3)
        await wait_until(lambda: outstanding(conn) == 0)
    assert seen.attempts[:2] == [1, 1]


async def test_the_lease_is_kept_though_its_connection_is_dead(
    api: Api, dsn: str, conn: Connection, proxy: Proxy
) -> None:
    """There is time to try again on another before it runs out."""
    done = asyncio.Event()

    async def handle(message: Any) -> None:
        await done.wait()

    seen, other = Recorder(handle), Recorder()
    # A heartbeat so long that only the lease's own can help.
    consumer = api.consumer(proxy.dsn(), listen_dsn=dsn, lease=2)
    async with running(consumer, seen):
        send(conn, [1])
        await seen.got(1)
        await wait_until(lambda: consumer._queries._keeping._connection is not None)
        go_dead(proxy, "both")
        until_then = time.monotonic() + 4
        async with running(api.consumer(dsn, lease=2), other):
            await wait_until(lambda: time.monotonic() > until_then)
            done.set()
            await wait_until(lambda: outstanding(conn) == 0)
        proxy.cut()  # what claims would be waited for until its own heartbeats are over
    assert seen.attempts == [1]
    assert other.ids == []


@pytest.mark.parametrize("connection", ["listening", "claiming"])
async def test_planted_no_connection_is_checked(
    api: Api,
    dsn: str,
    conn: Connection,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    connection: str,
) -> None:
    """Without heartbeats, or bounds of statements, a half-open connection is never noticed."""
    dsns = [dsn, proxy.dsn()]
    if connection == "listening":
        beat(monkeypatch, 3600.0)
    else:
        dsns.reverse()
        for own in (async_links.AsyncTimeoutConnection, sync_links.TimeoutConnection):
            monkeypatch.setattr(own, "wait", super(own, own).wait)
    seen = Recorder()
    consumer = api.consumer(dsns[0], listen_dsn=dsns[1], heartbeat_interval=HEARTBEAT, lease=LEASE)
    async with running(consumer, seen):
        await asleep(consumer)
        go_dead(proxy, "both")
        send(conn, [1])
        with pytest.raises(AssertionError):
            await wait_until(lambda: seen.ids, HEARTBEAT * 4)
        proxy.cut()
        await seen.got(1)


# Slow, and cut


async def test_a_slow_network_is_not_a_dead_one(
    api: Api, conn: Connection, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "durable_notify")
    seen = Recorder()
    consumer = api.consumer(proxy.dsn(), heartbeat_interval=2.0)
    async with running(consumer, seen):
        await asleep(consumer)
        proxy.delay(0.1)
        for number in range(1, 4):
            send(conn, [number])
            await seen.got(number)
        listener = listener_of(consumer)
        checked = listener._checked_at
        await wait_until(lambda: listener._checked_at > checked)
        assert listener.reconnects == 0
        proxy.delay(0.0)
    assert "lost" not in caplog.text
    assert seen.attempts[:2] == [1, 1]


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_consumers_cut_in_the_midst_of_a_message(
    api: Api, dsn: str, conn: Connection, proxy: Proxy, direction: Direction
) -> None:
    """Whichever of its connections is, and whatever it says just then."""
    seen = Recorder()
    consumer = api.consumer(proxy.dsn(), heartbeat_interval=HEARTBEAT, lease=1)
    async with running(consumer, seen):
        for number, after_bytes in enumerate((1, 30, 120, 400), 1):
            await asleep(consumer)
            proxy.cut(after_bytes, direction)
            send(conn, [number])
            await wait_until(lambda number=number: number in {m.payload for m in seen.messages})
            await wait_until(lambda: outstanding(conn) == 0)
    handled = [m.payload for m in seen.messages]
    assert set(handled) == {1, 2, 3, 4}


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_publishers_cut_at_any_byte(
    api: Api, conn: Connection, proxy: Proxy, direction: Direction
) -> None:
    publisher = api.Publisher()

    async def publish(number: int, cut: int | None = None) -> int:
        """Publish, once more where it is not known to be published; how many bytes went through."""
        for attempt in range(2):
            with contextlib.suppress(psycopg.OperationalError):
                async with api.connect(proxy.dsn(), autocommit=True) as connection:
                    if cut is not None and attempt == 0:
                        proxy.cut(cut, direction)
                    before = getattr(proxy, direction)
                    await maybe_await(
                        publisher.publish(connection, "t", number, dedup_key=str(number))
                    )
                    return int(getattr(proxy, direction) - before)
        raise AssertionError("it was cut only once")

    length = await publish(0)
    for number, cut in enumerate(range(1, length + 20, max(1, length // 12)), 1):
        await publish(number, cut)
    rows = conn.execute("SELECT payload::int, count(*) FROM durable_notify.outbox GROUP BY 1")
    assert dict(rows.fetchall()) == dict.fromkeys(range(number + 1), 1)


# Everything at random


@contextlib.contextmanager
def publishing(dsn: str, ending: threading.Event) -> Iterator[list[int]]:
    """Publish numbers for ever, each until it is known to be; yields how many are so far."""
    done = [0]

    def work() -> None:
        publisher = dn.Publisher()
        while not ending.is_set():
            with contextlib.suppress(psycopg.OperationalError, psycopg.InterfaceError):
                with sync_links.connect(dsn, "publisher", HEARTBEAT) as connection:
                    connection.answer = 2 * HEARTBEAT  # else it would wait for ever
                    while not ending.is_set():
                        number, key = done[0], f"{done[0]} of {dsn}"
                        publisher.publish(connection, "t", number, dedup_key=key)
                        done[0] += 1
                        time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        ending.set()
        thread.join()


async def one_fault(proxy: Proxy, rng: random.Random) -> None:
    """Do something to the network for a moment; what it has killed stays dead, sometimes."""
    what = rng.randrange(5)
    if what == 0:
        proxy.blackhole(rng.choice(DIRECTIONS))
    elif what == 1:
        proxy.delay(rng.uniform(0.0, 0.1))
    elif what == 2:
        proxy.cut()
    elif what == 3:
        proxy.cut(rng.randrange(1, 800), rng.choice(DIRECTIONS))
    else:
        proxy.refuse()
    await asyncio.sleep(rng.uniform(0.05, 1.0))
    proxy.forward(leave_dead=rng.random() < 0.5)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
async def test_everything_at_random(api: Api, dsn: str, conn: Connection, proxy: Proxy) -> None:
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    rng = random.Random(SEED)
    conn.execute("CREATE TABLE handled (number int)")
    record = "INSERT INTO handled VALUES (%s)"

    async def handle(message: Any) -> None:
        await record_in_transaction(message, record)

    options = {
        "heartbeat_interval": HEARTBEAT,
        "lease": 2,
        "retry": dn.RetryPolicy(max_attempts=1000, base=0.1, max=1),
    }
    one, two = (api.consumer(proxy.dsn(), **options) for _ in range(2))
    ending = threading.Event()
    async with running(one, handle, concurrency=3), running(two, handle, concurrency=3):
        for consumer in (one, two):
            await asleep(consumer)  # a start fails where it finds no server
        with publishing(proxy.dsn(), ending) as published:
            began = time.monotonic()
            while time.monotonic() - began < SECONDS:
                await one_fault(proxy, rng)
                await asyncio.sleep(rng.uniform(0.1, 0.4))
            ending.set()
        # A statement of a handler's own is not bounded: half-open, it waits until TCP or what is
        # in between gives the connection up (docs/consuming.md, "Connections, and poolers").
        proxy.cut()
        await wait_until(lambda: outstanding(conn) == 0, 60)
    rows = conn.execute("SELECT number, count(*) FROM handled GROUP BY 1").fetchall()
    print(f"{published[0]} published, over {proxy.connections} connections")
    # One more may have been under way at the end: whether it was published is unknown.
    outbox = conn.execute("SELECT payload::int FROM durable_notify.outbox").fetchall()
    assert sorted(number for (number,) in outbox) in (
        list(range(published[0])),
        list(range(published[0] + 1)),
    )
    assert {number for number, _ in rows} == {number for (number,) in outbox}, "lost"
    assert all(times == 1 for _, times in rows), "twice in effect"
    ids = [i for (i,) in conn.execute("SELECT id FROM durable_notify.outbox")]
    audit_handled(dsn, {"g": ids})
