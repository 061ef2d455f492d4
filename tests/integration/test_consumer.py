"""Consumers: what they get, in what state, how often, and how they end. Nothing here polls."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import signal
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.consumers import consumer_process
from tests.support.halves import Half, Seen, go, running, soon, take, until
from tests.support.waiting import eventually
from tests.support.watching import (
    LISTENER,
    asleep,
    dead_letters,
    idle,
    leased,
    outstanding,
    send,
    sessions,
    value,
)

Connection = psycopg.Connection[Any]


@pytest.fixture(params=["async", "sync"])
def half(request: pytest.FixtureRequest) -> Half:
    return Half(request.param)


# Iterating and running


async def test_iterate_and_acknowledge(half: Half, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(5))
    got = []
    async with half.consumer(dsn, until_empty=True) as consumer:
        async for message in consumer:
            got.append((message.id, message.payload))
            await message.ack()
    assert got == list(zip(ids, range(5), strict=True))
    assert outstanding(conn) == 0


async def test_what_a_message_has(half: Half, dsn: str, conn: Connection) -> None:
    before = dt.datetime.now(dt.UTC)
    publisher = dn.Publisher()
    first = publisher.publish(conn, "t", {"a": [1]}, key="k", headers={"h": {"x": None}})
    second = publisher.publish(conn, "t", None)
    async with half.consumer(dsn) as consumer:
        message, bare = await take(consumer, 2)
        assert (message.id, message.topic, message.key) == (first, "t", "k")
        assert (message.payload, message.headers) == ({"a": [1]}, {"h": {"x": None}})
        assert message.attempt == 1
        assert message.published_at.tzinfo is not None
        assert before < message.published_at < dt.datetime.now(dt.UTC)
        assert (bare.id, bare.key, bare.payload, bare.headers) == (second, None, None, {})
        assert "secret" not in repr(message)
        assert repr(message).endswith(f"Message {first} of 't', attempt 1>")


@pytest.mark.parametrize(
    "payload",
    [
        None, True, False, 0, -(2**70), 1.5, 1e-300, "", "ü😀\u2028\x7f\x01", "\\u0000", [], {}, [[], {}],
        {"": {"a": [None, True, 1, "x"]}}, b"", b"\x00\xff", "x" * 1_000_000,
    ],
)  # fmt: skip
async def test_payloads_come_back_as_they_went(
    half: Half, dsn: str, conn: Connection, payload: Any
) -> None:
    send(conn, [payload])
    async with half.consumer(dsn) as consumer:
        (message,) = await take(consumer, 1)
        assert message.payload == payload
        assert type(message.payload) is type(payload)


async def test_run_with_a_plain_function(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, range(3))
    got: list[int] = []
    consumer = half.consumer(dsn, until_empty=True)
    await soon(consumer.run(lambda message: got.append(message.payload)))
    assert got == [0, 1, 2]
    assert outstanding(conn) == 0


async def test_run_handles_several_at_once_and_no_more(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, range(12))
    at_work = most = 0
    four = asyncio.Event()
    go_on = asyncio.Event()

    async def handle(_: Any) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == 4:
            four.set()
        await go_on.wait()
        at_work -= 1

    async with running(half.consumer(dsn, until_empty=True), handle, concurrency=4) as task:
        await soon(four.wait())
        go_on.set()
        await soon(task)
    assert most == 4
    assert outstanding(conn) == 0


async def test_consumers_of_a_group_share(half: Half, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(300))
    seen = Seen(lambda _: asyncio.sleep(0.001))
    consumers = [
        half.consumer(dsn, until_empty=True, owner=f"c{n}", batch_size=20) for n in range(3)
    ]
    await soon(asyncio.gather(*(c.run(seen, concurrency=2) for c in consumers)))
    assert sorted(seen.ids) == ids
    assert set(seen.attempts) == {1}
    assert outstanding(conn) == 0


async def test_every_group_gets_everything(half: Half, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(50))
    seen = {name: Seen() for name in ("billing", "mail", "Gruppe ü")}
    consumers = [half.consumer(dsn, name, until_empty=True).run(seen[name]) for name in seen]
    await soon(asyncio.gather(*consumers))
    assert {name: handler.ids for name, handler in seen.items()} == dict.fromkeys(seen, ids)


async def test_two_topics_one_group(half: Half, dsn: str, conn: Connection) -> None:
    seen = Seen()
    consumer = half.consumer(dsn, topics=["orders", "mail/" + "x" * 200])
    async with running(consumer, seen):
        await asleep(consumer)
        first = send(conn, [1], "orders")
        await seen.got(1)
        await asleep(consumer)
        second = send(conn, [2], "mail/" + "x" * 200)
        await seen.got(2)
        send(conn, [3], "another")
    assert seen.ids == first + second
    assert [m.topic[:6] for m in seen.messages] == ["orders", "mail/x"]


# Where a group starts


async def test_a_new_group_starts_at_the_beginning(half: Half, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(3))
    async with half.consumer(dsn) as consumer:
        assert [m.id for m in await take(consumer, 3)] == ids


async def test_start_now(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, ["old"])
    with psycopg.connect(dsn) as slow:
        in_flight = send(slow, ["in flight"])
        async with half.consumer(dsn, start="now") as consumer:
            new = send(conn, ["new"])
            assert [m.id for m in await take(consumer, 1)] == new
            slow.commit()
            assert [m.id for m in await take(consumer, 1)] == in_flight


async def test_start_at_a_time(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, ["old"])
    since = value(conn, "SELECT clock_timestamp()").astimezone(dt.timezone(dt.timedelta(hours=5)))
    new = send(conn, ["new", "newer"])
    async with half.consumer(dsn, start=since) as consumer:
        assert [m.id for m in await take(consumer, 2)] == new


async def test_a_group_that_exists_goes_on_where_it_was(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, [1])
    seen = Seen()
    await soon(half.consumer(dsn, until_empty=True).run(seen))
    second = send(conn, [2])
    await soon(half.consumer(dsn, until_empty=True, start="now").run(seen))
    assert seen.ids[1:] == second


# Wake-ups


async def test_a_consumer_that_was_there_first_is_woken(
    half: Half, dsn: str, conn: Connection
) -> None:
    seen = Seen()
    consumer = half.consumer(dsn)
    async with running(consumer, seen):
        for number in range(1, 4):
            await asleep(consumer)
            send(conn, [number])
            await seen.got(number)


async def test_woken_by_a_plain_insert_and_by_a_transaction_that_takes_its_time(
    half: Half, dsn: str, conn: Connection
) -> None:
    seen = Seen()
    insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')"
    consumer = half.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        with psycopg.connect(dsn) as slow:
            slow.execute(insert)
            conn.execute(insert)
            await seen.got(1)
            await asleep(consumer)
            slow.commit()
            await seen.got(2)
    assert seen.ids == [2, 1]


async def test_woken_by_a_replay(half: Half, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(3))
    seen = Seen()
    consumer = half.consumer(dsn)
    async with running(consumer, seen), half.connect(dsn, autocommit=True) as other:
        await seen.got(3)
        await until(lambda: outstanding(conn) == 0)
        await asleep(consumer)
        assert await go(half.Admin().replay(other, "g", "t", after=ids[0])) == 2
        await seen.got(5)
    assert seen.ids == ids + ids[1:]


async def test_woken_by_what_another_consumer_gives_back(
    half: Half, dsn: str, conn: Connection
) -> None:
    ids = send(conn, range(3))
    seen = Seen()
    async with half.consumer(dsn, lease=600) as first:
        await take(first, 3)
        assert leased(conn) == 3
        second = half.consumer(dsn)
        async with running(second, seen):
            await asleep(second)
            await first.close()
            await seen.got(3)
    assert seen.ids == ids
    assert seen.attempts == [1, 1, 1]


async def test_all_consumers_of_a_process_share_one_listening_connection(
    half: Half, dsn: str, conn: Connection
) -> None:
    seen = [Seen() for _ in range(5)]
    consumers = [half.consumer(dsn, f"g{n}", topics=["all", f"t{n}"]) for n in range(5)]
    tasks = [asyncio.ensure_future(c.run(s)) for c, s in zip(consumers, seen, strict=True)]
    for consumer in consumers:
        await asleep(consumer)
    assert len(sessions(conn, LISTENER)) == 1
    send(conn, ["all"], "all")
    for n in range(5):
        send(conn, [n], f"t{n}")
    for n in range(5):
        assert {m.payload for m in await seen[n].got(2)} == {"all", n}
    for consumer in consumers[:-1]:
        consumer.stop()
    await soon(asyncio.gather(*tasks[:-1]))
    assert len(sessions(conn, LISTENER)) == 1
    await asleep(consumers[-1])
    send(conn, ["last"], "all")
    await seen[4].got(3)
    consumers[-1].stop()
    await soon(tasks[-1])
    await until(lambda: sessions(conn, LISTENER) == [])


# How much a consumer holds


async def test_prefetch_bounds_what_is_held(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, range(100))
    async with half.consumer(dsn, prefetch=7, batch_size=5) as consumer:
        await take(consumer, 7)
        await asyncio.sleep(0.2)  # nothing to wait for: it must not claim
        assert leased(conn) == 7


async def test_one_message_held_does_not_stop_the_others(
    half: Half, dsn: str, conn: Connection
) -> None:
    """All of a batch but one are settled: there is room again, though the lease is not over."""
    send(conn, range(6))
    async with half.consumer(dsn, prefetch=3) as consumer:
        first, *others = await take(consumer, 3)
        for message in others:
            await message.ack()
        more = await take(consumer, 2)
        assert [m.payload for m in more] == [3, 4]
        await first.ack()


async def test_until_empty_waits_for_others_and_for_retries(
    half: Half, dsn: str, conn: Connection
) -> None:
    send(conn, range(2))
    retried = asyncio.Event()

    async def retry_each_once(message: Any) -> None:
        if message.attempt == 1:
            await message.retry(0.3)
            retried.set()

    seen = Seen(retry_each_once)
    consumer = half.consumer(dsn, until_empty=True)
    await soon(consumer.run(seen))
    assert retried.is_set()
    assert sorted(seen.attempts) == [1, 1, 2, 2]
    assert outstanding(conn) == 0


async def test_until_empty_of_nothing(half: Half, dsn: str) -> None:
    seen = Seen()
    await soon(half.consumer(dsn, until_empty=True).run(seen), 5)
    assert seen.ids == []


# Handlers that fail


async def test_a_handler_that_raises_gets_it_again_and_at_last_it_is_a_dead_letter(
    half: Half, dsn: str, conn: Connection
) -> None:
    bad, good = send(conn, ["bad", "good"])

    def fail(message: Any) -> None:
        if message.payload == "bad":
            raise ZeroDivisionError(f"at attempt {message.attempt}")

    seen = Seen(fail)
    options = {"max_attempts": 3, "retry_base": 0.01, "until_empty": True}
    await soon(half.consumer(dsn, **options).run(seen))
    assert [m.attempt for m in seen.messages if m.id == bad] == [1, 2, 3]
    assert [m.attempt for m in seen.messages if m.id == good] == [1]
    ((dead, attempt, reason),) = dead_letters(conn)
    assert (dead, attempt) == (bad, 3)
    assert "ZeroDivisionError: at attempt 3" in reason


@pytest.mark.parametrize("text", ["a NUL \x00 within", "a lone surrogate \ud800 within"])
async def test_a_handler_that_raises_what_postgresql_cannot_store(
    half: Half, dsn: str, conn: Connection, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest-xdist cannot pass on what is logged here.
    monkeypatch.setattr(logging.getLogger("durable_notify"), "disabled", True)
    send(conn, range(3))

    def fail(message: Any) -> None:
        if message.payload == 1:
            raise ValueError(text)

    options = {"max_attempts": 1, "until_empty": True}
    seen = Seen(fail)
    await soon(half.consumer(dsn, **options).run(seen))
    ((_, _, reason),) = dead_letters(conn)
    assert "within" in reason
    assert outstanding(conn) == 0


async def test_a_handler_that_was_cancelled_from_within(dsn: str, conn: Connection) -> None:
    """Its own affair: nobody has cancelled the consumer."""
    send(conn, range(2))

    async def cancelled(message: Any) -> None:
        if message.payload == 0:
            raise asyncio.CancelledError

    seen = Seen(cancelled)
    half = Half("async")
    await soon(half.consumer(dsn, max_attempts=1, until_empty=True).run(seen))
    assert len(dead_letters(conn)) == 1


async def test_a_run_that_is_cancelled_gives_all_back(dsn: str, conn: Connection) -> None:
    send(conn, range(5))
    at_work = asyncio.Event()

    async def handle(_: Any) -> None:
        at_work.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(Half("async").consumer(dsn, lease=600).run(handle))
    await soon(at_work.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert leased(conn) == 0
    seen = Seen()
    await soon(Half("async").consumer(dsn, until_empty=True).run(seen))
    assert seen.attempts == [1] * 5


async def test_a_loop_that_ends_under_a_consumer(dsn: str, conn: Connection) -> None:
    """``asyncio.run()`` cancels every task there is: it ends, and leases are given back."""
    send(conn, range(5))
    with consumer_process(Half("async"), dsn, "is cut short", "--lease", "600") as process:
        process.handled(1)
        assert process.ended() == 7
    assert leased(conn) == 0
    assert outstanding(conn) == 5


# Ending


async def test_close_gives_back_what_is_not_settled_at_once_and_uncounted(
    half: Half, dsn: str, conn: Connection
) -> None:
    ids = send(conn, range(5))
    async with half.consumer(dsn, lease=600) as consumer:
        first, *_ = await take(consumer, 3)
        await first.ack()
    assert leased(conn) == 0
    async with half.consumer(dsn) as consumer:
        again = await take(consumer, 4)
    assert [m.id for m in again] == ids[1:]
    assert {m.attempt for m in again} == {1}


async def test_stop_lets_handlers_finish(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, range(5))
    finish = asyncio.Event()
    finished = []

    async def handle(message: Any) -> None:
        await finish.wait()
        finished.append(message.id)

    seen = Seen(handle)
    consumer = half.consumer(dsn, lease=600)
    async with running(consumer, seen, concurrency=2) as task:
        await seen.got(2)
        consumer.stop()
        finish.set()
        await soon(task)
    assert sorted(finished) == sorted(seen.ids)
    assert len(finished) == 2
    assert leased(conn) == 0
    assert outstanding(conn) == 3


async def test_stop_ends_an_iteration(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, range(5))
    got = []
    async with half.consumer(dsn) as consumer:
        async for message in consumer:
            got.append(message)
            consumer.stop()
    assert len(got) == 1


async def test_stop_before_run(half: Half, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    consumer = half.consumer(dsn)
    consumer.stop()
    seen = Seen()
    await soon(consumer.run(seen))
    assert seen.ids == []
    assert outstanding(conn) == 1


async def test_closing_twice_and_without_a_start(half: Half, dsn: str) -> None:
    consumer = half.consumer(dsn)
    await consumer.close()
    consumer = half.consumer(dsn)
    await consumer.start()
    await consumer.close()
    await consumer.close()
    assert [message async for message in consumer] == []


async def test_iterating_over_a_consumer_that_was_not_started(half: Half, dsn: str) -> None:
    with pytest.raises(dn.ConsumerClosed, match="not started"):
        await soon(anext(half.consumer(dsn)), 5)


async def test_a_consumer_starts_once(half: Half, dsn: str) -> None:
    async with half.consumer(dsn) as consumer:
        with pytest.raises(dn.ConsumerClosed, match="make a new one"):
            await consumer.start()
    with pytest.raises(dn.ConsumerClosed, match="make a new one"):
        await consumer.start()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_gracefully(
    half: Half, dsn: str, conn: Connection, sign: signal.Signals
) -> None:
    """A handler at work finishes, its acknowledgement goes out, the rest is given back."""
    ids = send(conn, range(10))
    with consumer_process(half, dsn, "waits", "--lease", "600") as process:
        (first,) = process.handled(1)
        assert first == {"id": ids[0], "attempt": 1}
        process.signal(sign)
        process.stopping()
        # The handler waits for a line: it is at work when the signal comes.
        process.say("go on")
        assert process.ended() == 0
        assert process.handled_in_all == [first]
    assert leased(conn) == 0
    seen = Seen()
    await soon(half.consumer(dsn, until_empty=True).run(seen))
    assert seen.ids == ids[1:]
    assert set(seen.attempts) == {1}


async def test_a_signal_ends_an_idle_consumer(half: Half, dsn: str, conn: Connection) -> None:
    with consumer_process(half, dsn, "acks") as process:
        await idle(conn)
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    eventually(lambda: sessions(conn, "durable_notify%") == [])


async def test_sigkill_in_mid_batch(half: Half, dsn: str, conn: Connection) -> None:
    """What the dead one had not settled comes to another, with the attempt counted."""
    ids = send(conn, range(10))
    seen = Seen()
    with consumer_process(half, dsn, "acks some", "--lease", "1") as process:
        handled = process.handled(3)
        assert [m["id"] for m in handled] == ids[:3]
        second = half.consumer(dsn)
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
        await soon(Half("async").consumer(dsn, until_empty=True).run(print))
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_signal_handlers_are_put_back(dsn: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    dn.Consumer(dsn, group="g", topics=["t"], until_empty=True).run(print)
    asyncio.run(dn.AsyncConsumer(dsn, group="g", topics=["t"], until_empty=True).run(print))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_payloads_stay_out_of_the_logs(
    half: Half, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "durable_notify")
    send(conn, [dn.NewMessage("s3cret", headers={"token": "s3cret"})])

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    await soon(half.consumer(dsn, until_empty=True, max_attempts=1).run(Seen(fail)))
    assert "the handler of" in caplog.text
    assert "s3cret" not in caplog.text
