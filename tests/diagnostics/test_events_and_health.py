"""Events and health of consumers and publishers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import events
from durable_notify._core import health
from durable_notify._core.emitter import EventEmitter
from tests.support.api import Api, Recorder, collect, maybe_await, running
from tests.support.observe import LISTENER, WORKERS, asleep, dead_letters, send, terminate
from tests.support.wait import eventually, wait_until, with_timeout

Connection = psycopg.Connection[Any]
QUICK = {"heartbeat_interval": 0.5, "lease": 5.0}


class Told:
    """A subscriber that keeps its events."""

    def __init__(self) -> None:
        self.all: deque[events.Event] = deque()

    def __call__(self, event: events.Event) -> None:
        self.all.append(event)

    def of(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in list(self.all) if isinstance(event, kind)]

    def has(self, *kinds: type[events.Event]) -> Callable[[], bool]:
        return lambda: all(self.of(kind) for kind in kinds)


async def test_from_publishing_to_settling(api: Api, dsn: str, conn: Connection) -> None:
    told, handler = Told(), Recorder()
    async with running(api.consumer(dsn, on_event=[told]), handler) as _:
        async with api.connect(dsn) as connection:
            ids = await maybe_await(
                api.Publisher(on_event=told).publish_many(connection, "t", [1, "two"])
            )
            assert told.of(events.Published)[0].messages == 2
            await maybe_await(connection.commit())
        await handler.got(2)
        await wait_until(lambda: sum(event.acked for event in told.of(events.Settled)) == 2)
        await wait_until(told.has(events.ListenVerified))
    claimed = told.of(events.Claimed)
    assert {(event.group, event.topic) for event in claimed} == {("g", "t")}
    assert sum(event.messages for event in claimed) == 2
    assert sum(event.bytes for event in claimed) == len('1"two"')
    handled = told.of(events.Handled)
    assert [event.message_id for event in handled] == ids
    assert {(event.attempt, event.batch, event.error) for event in handled} == {(1, 1, None)}
    assert {(event.retried, event.rejected) for event in told.of(events.Settled)} == {(0, 0)}
    for kind in (events.Published, events.Claimed, events.Handled, events.Settled):
        assert all(0 < event.seconds < 60 for event in told.of(kind)), kind
    assert not told.of(events.LostLease)


async def test_batches(dsn: str, conn: Connection) -> None:
    ids, told = send(conn, range(4)), Told()
    consumer = dn.AsyncConsumer(dsn, group="g", topics=["t"], until_empty=True, on_event=told)
    await consumer.run_batches(lambda _batch: None, size=4, max_wait=0)
    assert [event.message_id for event in told.of(events.Handled)] == ids
    assert sum(1 / event.batch for event in told.of(events.Handled)) == pytest.approx(
        len({(event.seconds) for event in told.of(events.Handled)})
    )


async def test_retries_and_dead_letters(api: Api, dsn: str, conn: Connection) -> None:
    (fails,) = send(conn, [0])
    (rejected,) = send(conn, [1])
    told = Told()

    async def handler(message: Any) -> None:
        if message.id == rejected:
            await message.reject("no good", error=ValueError("it says why"))
        raise KeyError(message.id)

    consumer = api.consumer(
        dsn,
        on_event=told,
        retry=dn.RetryPolicy(max_attempts=2, base=0.01),
        order_by="none",
        until_empty=True,
    )
    await consumer.run(handler)
    assert {letter[0] for letter in dead_letters(conn)} == {fails, rejected}
    (retried,) = told.of(events.Retried)
    assert (retried.message_id, retried.attempt, retried.delay) == (fails, 1, None)
    assert retried.error == "KeyError"
    dead = {event.message_id: event for event in told.of(events.DeadLettered)}
    assert (dead[fails].attempt, dead[fails].error) == (2, "KeyError")
    assert (dead[rejected].attempt, dead[rejected].error) == (1, "ValueError")
    assert len(told.of(events.DeadLettered)) == 2
    assert {event.error for event in told.of(events.Handled)} == {"KeyError"}
    settled = told.of(events.Settled)
    assert sum(event.retried for event in settled) == 2
    assert sum(event.rejected for event in settled) == 1


async def test_in_the_handlers_transaction(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [0])
    told = Told()
    async with api.consumer(dsn, on_event=told, until_empty=True) as consumer:
        (message,) = await collect(consumer, 1)
        async with api.connect(dsn) as connection:
            await message.ack(connection)
            assert not told.of(events.Settled)
            await maybe_await(connection.commit())
        assert [_ async for _ in consumer] == []
    (settled,) = told.of(events.Settled)
    assert (settled.acked, settled.in_transaction, settled.seconds) == (1, True, 0.0)


async def test_a_lost_lease(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [0])
    told = Told()
    async with api.consumer(dsn, on_event=told) as consumer:
        (message,) = await collect(consumer, 1)
        conn.execute("DELETE FROM durable_notify.lease")
        with pytest.raises(dn.LeaseLost):
            await message.ack()
        (lost,) = told.of(events.LostLease)
        assert (lost.group, lost.topic, lost.messages) == ("g", "t", 1)


async def test_rung_or_polling(api: Api, dsn: str, conn: Connection) -> None:
    told = Told()
    handler = Recorder()
    consumer = api.consumer(dsn, on_event=told, topics=["t", "u"])
    async with running(consumer, handler):
        await wait_until(lambda: consumer._subscription is not None)
        await asleep(consumer)
        told.all.clear()
        send(conn, [0], "u")
        await handler.got(1)
        assert told.of(events.Notified) == [events.Notified(group="g", topics=("u",))]
        assert not told.of(events.Polled)
    polling = api.consumer(dsn, on_event=told, poll_interval=0.05)
    async with running(polling, handler):
        await wait_until(told.has(events.Polled))


async def test_connections_that_go_and_come(api: Api, dsn: str, conn: Connection) -> None:
    # What ALTER DATABASE refuses for the one it is run in.
    allowed = "UPDATE pg_database SET datallowconn = %s WHERE datname = current_database()"
    told = Told()
    consumer = api.consumer(dsn, on_event=told, poll_interval=0.05, **QUICK)
    async with running(consumer, Recorder()):
        await wait_until(lambda: consumer.health().ready)
        conn.execute(allowed, [False])
        try:
            terminate(conn, LISTENER)
            terminate(conn, WORKERS)
            await wait_until(told.has(events.Disconnected, events.ClaimFailed))
            health = consumer.health()
            assert health.live
            assert not health.ready
            assert any("claiming fails" in reason for reason in health.why)
        finally:
            conn.execute(allowed, [True])
        told_before = len(told.of(events.ListenVerified))
        await wait_until(told.has(events.Reconnected, events.ClaimRecovered))
        await wait_until(lambda: len(told.of(events.ListenVerified)) > told_before)
        await wait_until(lambda: consumer.health().ready)
        assert consumer.health().why == ()
    failing = told.of(events.ClaimFailed)
    assert [event.failures for event in failing][:1] == [1]
    assert all(
        event.error.startswith("durable_notify") or "psycopg" in event.error for event in failing
    )
    for kind in (events.Reconnected, events.ClaimRecovered):
        assert all(0 < event.seconds < 60 for event in told.of(kind))


async def test_deaf(api: Api, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings that do not arrive, as through a pooler: the probe's channel is another one."""
    from durable_notify._async.wakeups import listener as async_listener
    from durable_notify._sync.wakeups import listener as sync_listener

    for module in (async_listener, sync_listener):
        monkeypatch.setattr(
            module, "_identified", lambda _statement, _name: "LISTEN no_session_rings"
        )
    told = Told()
    consumer = api.consumer(dsn, on_event=told, poll_interval=1.0, **QUICK)
    async with running(consumer, Recorder()):
        await wait_until(told.has(events.ListenFailed))
        assert consumer.health().ready  # it polls
    monkeypatch.undo()


async def test_deaf_without_a_poll_is_not_ready(dsn: str) -> None:
    tracker = health.HealthTracker(1.0)
    tracker.beat(0.0)
    known: dict[str, Any] = {"held": 0, "group": "g", "state": "fetching"}
    assert tracker.health(1.0, hears=True, deaf=False, polls=False, **known).ready
    assert tracker.health(1.0, hears=False, deaf=True, polls=True, **known).ready
    deaf = tracker.health(1.0, hears=False, deaf=True, polls=False, **known)
    assert (deaf.live, deaf.ready) == (True, False)
    assert deaf.why == ("wake-ups do not arrive, and it does not poll",)


# Subscribers


async def test_a_subscriber_that_fails_disturbs_nothing(
    api: Api, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_event: events.Event) -> None:
        raise RuntimeError("no room for metrics")

    told, handler = Told(), Recorder()
    ids = send(conn, range(20))
    with caplog.at_level(logging.WARNING, "durable_notify"):
        await api.consumer(dsn, on_event=[fails, told], until_empty=True).run(handler)
    assert sorted(handler.ids) == ids
    assert len(told.of(events.Handled)) == 20
    said = [record for record in caplog.records if "on_event" in record.getMessage()]
    assert 1 <= len(said) <= 3  # the consumer, its settler and its listener, once each


@pytest.mark.parametrize("wrong", [5, "print", [5], {"a": 1}])
def test_not_a_subscriber(wrong: Any) -> None:
    with pytest.raises(dn.InvalidArgument, match="on_event must be a function or a list"):
        dn.Publisher(on_event=wrong)
    with pytest.raises(dn.InvalidArgument, match="on_event must be a function or a list"):
        dn.Consumer("", group="g", topics=["t"], on_event=wrong)


def test_an_async_subscriber_is_refused() -> None:
    async def told(_event: events.Event) -> None:
        pass

    with pytest.raises(dn.InvalidArgument, match="async"):
        dn.Publisher(on_event=told)


def test_without_subscribers() -> None:
    assert not EventEmitter(None)
    assert not EventEmitter([])
    assert EventEmitter(print)


async def test_events_have_no_secrets(api: Api, dsn: str, conn: Connection) -> None:
    """Neither payloads, keys and headers, nor what exceptions say of them."""
    secret = "s3cr3t"
    publish = dn.Publisher().publish
    for payload in (secret, f"fails {secret}"):
        publish(conn, "t", payload, key=secret, headers={"h": secret})

    async def handler(message: Any) -> None:
        if message.payload != secret:
            await message.reject(secret, error=ValueError(secret))
            raise ValueError(secret)

    told = Told()
    await api.consumer(dsn, on_event=told, until_empty=True).run(handler)
    assert told.of(events.DeadLettered)
    assert "ValueError" in repr(told.all)
    assert secret not in repr(told.all)


async def test_a_reader_tells_what_it_hears(dsn: str, conn: Connection) -> None:
    told = Told()
    async with dn.AsyncReader(dsn, topics=["t"], poll_interval=None, on_event=told) as reader:
        coming = asyncio.ensure_future(anext(reader))
        await asleep(reader)
        send(conn, [1])
        await with_timeout(coming)
    assert told.of(events.Notified) == [events.Notified(group="", topics=("t",))]
    assert told.of(events.ListenVerified)


# Health


async def test_before_and_after(api: Api, dsn: str) -> None:
    consumer = api.consumer(dsn)
    health = consumer.health()
    assert (health.live, health.ready) == (True, False)
    assert health.why[0] == "it has not started"
    async with consumer:
        await wait_until(lambda: consumer.health().ready)
    assert not consumer.health().ready
    assert "it is stopping" in consumer.health().why


async def test_what_it_does(api: Api, dsn: str, conn: Connection) -> None:
    """Seen from outside, and from a handler that has all that there is room for."""
    consumer = api.consumer(dsn, prefetch=1)
    assert consumer.health().state == "new"

    async def handler(_message: Any) -> None:
        await wait_until(lambda: consumer.health().state == "full")
        consumer.stop()
        assert consumer.health().state == "stopping"

    async with running(consumer, handler) as run:
        await wait_until(lambda: consumer.health().state == "sleeping")
        send(conn, [0])
        await with_timeout(run)
    assert consumer.health().state == "stopping"


async def test_without_wake_ups_it_polls(api: Api, dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.set_notify_policy('t', 'never')")
    async with api.consumer(dsn, poll_interval=30.0) as consumer:
        await wait_until(lambda: consumer.health().state == "polling")
        await wait_until(lambda: consumer.health().hears)
        assert consumer.health().state in {"polling", "fetching"}


async def test_a_blocked_event_loop_does_not_live(dsn: str, conn: Connection) -> None:
    """Seen from another thread, as a probe is answered."""
    send(conn, [0])
    consumer = dn.AsyncConsumer(dsn, group="g", topics=["t"], heartbeat_interval=0.1)
    seen: list[dn.models.Health] = []

    def blocks(_message: Any) -> None:
        prober = threading.Thread(target=probe)
        prober.start()
        prober.join()

    def probe() -> None:
        eventually(lambda: not consumer.health().live)
        seen.append(consumer.health())

    async with running(consumer, Recorder(blocks)) as _:
        await wait_until(lambda: seen)
    assert not seen[0].ready
    assert "no sign of life" in seen[0].why[0]


async def test_one_that_ended_does_not_live(dsn: str, conn: Connection) -> None:
    consumer = dn.AsyncConsumer(dsn, group="g", topics=["t"], poll_interval=0.05)
    async with consumer:
        conn.execute("ALTER FUNCTION durable_notify.claim RENAME TO gone")
        with pytest.raises(dn.errors.SchemaTooOld):
            await with_timeout(anext(consumer))
        health = consumer.health()
        assert not health.live
        assert "it has ended: durable_notify.errors.SchemaTooOld" in health.why


def test_an_idle_consumer_lives(dsn: str) -> None:
    """Nothing to do, no poll: signs of life come all the same."""
    with dn.Consumer(
        dsn, group="g", topics=["t"], poll_interval=None, heartbeat_interval=0.1
    ) as consumer:
        beats = set()
        eventually(lambda: bool(beats.add(consumer._health._beat_at) or len(beats) > 12))
        assert consumer.health().live
