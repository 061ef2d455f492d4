"""How consumers end: closed, stopped, by a signal, killed."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.programs.consumer import consumer_process
from tests.support.api import Api, Recorder, collect, running
from tests.support.observe import asleep, backends, idle, leased, outstanding, send
from tests.support.wait import eventually, with_timeout

Connection = psycopg.Connection[Any]


async def test_close_gives_back_what_is_not_settled_at_once_and_uncounted(
    api: Api, dsn: str, conn: Connection
) -> None:
    ids = send(conn, range(5))
    async with api.consumer(dsn, lease=600) as consumer:
        first, *_ = await collect(consumer, 3)
        await first.ack()
    assert leased(conn) == 0
    async with api.consumer(dsn) as consumer:
        again = await collect(consumer, 4)
    assert [m.id for m in again] == ids[1:]
    assert {m.attempt for m in again} == {1}


async def test_stop_lets_handlers_finish(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(5))
    finish = asyncio.Event()
    finished = []

    async def handle(message: Any) -> None:
        await finish.wait()
        finished.append(message.id)

    seen = Recorder(handle)
    consumer = api.consumer(dsn, lease=600)
    async with running(consumer, seen, concurrency=2) as task:
        await seen.got(2)
        consumer.stop()
        finish.set()
        await with_timeout(task)
    assert sorted(finished) == sorted(seen.ids)
    assert len(finished) == 2
    assert leased(conn) == 0
    assert outstanding(conn) == 3


async def test_stop_ends_an_iteration(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(5))
    got = []
    async with api.consumer(dsn) as consumer:
        async for message in consumer:
            got.append(message)
            consumer.stop()
    assert len(got) == 1


async def test_stop_before_run(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    consumer = api.consumer(dsn)
    consumer.stop()
    seen = Recorder()
    await with_timeout(consumer.run(seen))
    assert seen.ids == []
    assert outstanding(conn) == 1


async def test_closing_twice_and_without_a_start(api: Api, dsn: str) -> None:
    consumer = api.consumer(dsn)
    await consumer.close()
    consumer = api.consumer(dsn)
    await consumer.start()
    await consumer.close()
    await consumer.close()
    assert [message async for message in consumer] == []


async def test_iterating_over_a_consumer_that_was_not_started(api: Api, dsn: str) -> None:
    with pytest.raises(dn.errors.ConsumerClosed, match="not started"):
        await with_timeout(anext(api.consumer(dsn)), 5)


async def test_a_consumer_starts_once(api: Api, dsn: str) -> None:
    async with api.consumer(dsn) as consumer:
        with pytest.raises(dn.errors.ConsumerClosed, match="make a new one"):
            await consumer.start()
    with pytest.raises(dn.errors.ConsumerClosed, match="make a new one"):
        await consumer.start()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_gracefully(
    api: Api, dsn: str, conn: Connection, sign: signal.Signals
) -> None:
    """A running handler finishes, its acknowledgement is sent, the rest is released."""
    ids = send(conn, range(10))
    with consumer_process(api, dsn, "waits", "--lease", "600") as process:
        (first,) = process.handled(1)
        assert first == {"id": ids[0], "attempt": 1}
        process.signal(sign)
        process.stopping()
        # The handler waits for a line: it runs when the signal comes.
        process.say("continue")
        assert process.ended() == 0
        assert process.handled_in_all == [first]
    assert leased(conn) == 0
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert seen.ids == ids[1:]
    assert set(seen.attempts) == {1}


async def test_a_signal_ends_an_idle_consumer(api: Api, dsn: str, conn: Connection) -> None:
    with consumer_process(api, dsn, "acks") as process:
        await idle(conn)
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    eventually(lambda: backends(conn, "durable_notify%") == [])


async def test_sigkill_in_mid_batch(api: Api, dsn: str, conn: Connection) -> None:
    """What the dead one had not settled comes to another, with the attempt counted."""
    ids = send(conn, range(10))
    seen = Recorder()
    with consumer_process(api, dsn, "acks some", "--lease", "1") as process:
        handled = process.handled(3)
        assert [m["id"] for m in handled] == ids[:3]
        second = api.consumer(dsn)
        async with running(second, seen):
            await asleep(second)
            process.signal(signal.SIGKILL)
            await seen.got(8)
    assert sorted(seen.ids) == ids[2:]
    attempts = dict(zip(seen.ids, seen.attempts, strict=True))
    assert attempts[ids[2]] == 2
    assert set(attempts.values()) <= {1, 2}  # how many it had claimed beyond, it decides itself
    assert outstanding(conn) == 0


async def test_an_application_keeps_its_own_signal_handlers(dsn: str) -> None:
    def own(*_: object) -> None: ...

    previous = signal.signal(signal.SIGTERM, own)
    try:
        await with_timeout(Api("async").consumer(dsn, until_empty=True).run(print))
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_signal_handlers_are_put_back(dsn: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    dn.Consumer(dsn, group="g", topics=["t"], until_empty=True).run(print)
    asyncio.run(dn.AsyncConsumer(dsn, group="g", topics=["t"], until_empty=True).run(print))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_payloads_stay_out_of_the_logs(
    api: Api, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "durable_notify")
    send(conn, [dn.NewMessage("s3cret", headers={"token": "s3cret"})])

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    await with_timeout(
        api.consumer(dsn, until_empty=True, retry=dn.RetryPolicy(max_attempts=1)).run(
            Recorder(fail)
        )
    )
    assert "the handler of" in caplog.text
    assert "s3cret" not in caplog.text
