"""Consumers: their messages, in what state and how often, and how they end. Nothing here polls."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.programs.consumer import consumer_process
from tests.support.api import Api, Recorder, collect, maybe_await, running
from tests.support.observe import (
    LISTENER,
    asleep,
    backends,
    dead_letters,
    leased,
    outstanding,
    send,
    value,
)
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


# Iterating and running


async def test_iterate_and_acknowledge(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(5))
    got = []
    async with api.consumer(dsn, until_empty=True) as consumer:
        async for message in consumer:
            got.append((message.id, message.payload))
            await message.ack()
    assert got == list(zip(ids, range(5), strict=True))
    assert outstanding(conn) == 0


async def test_what_a_message_has(api: Api, dsn: str, conn: Connection) -> None:
    before = dt.datetime.now(dt.UTC)
    publisher = dn.Publisher()
    first = publisher.publish(conn, "t", {"a": [1]}, key="k", headers={"h": {"x": None}})
    second = publisher.publish(conn, "t", None)
    async with api.consumer(dsn) as consumer:
        message, bare = await collect(consumer, 2)
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
    api: Api, dsn: str, conn: Connection, payload: Any
) -> None:
    send(conn, [payload])
    async with api.consumer(dsn) as consumer:
        (message,) = await collect(consumer, 1)
        assert message.payload == payload
        assert type(message.payload) is type(payload)


async def test_run_with_a_plain_function(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(3))
    got: list[int] = []
    consumer = api.consumer(dsn, until_empty=True)
    await with_timeout(consumer.run(lambda message: got.append(message.payload)))
    assert got == [0, 1, 2]
    assert outstanding(conn) == 0


async def test_run_handles_several_at_once_and_no_more(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(12))
    running_now = most = 0
    four = asyncio.Event()
    proceed = asyncio.Event()

    async def handle(_: Any) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        if running_now == 4:
            four.set()
        await proceed.wait()
        running_now -= 1

    async with running(api.consumer(dsn, until_empty=True), handle, concurrency=4) as task:
        await with_timeout(four.wait())
        proceed.set()
        await with_timeout(task)
    assert most == 4
    assert outstanding(conn) == 0


async def test_consumers_of_a_group_share(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(300))
    seen = Recorder(lambda _: asyncio.sleep(0.001))
    consumers = [
        api.consumer(dsn, until_empty=True, owner=f"c{n}", batch_size=20) for n in range(3)
    ]
    await with_timeout(asyncio.gather(*(c.run(seen, concurrency=2) for c in consumers)))
    assert sorted(seen.ids) == ids
    assert set(seen.attempts) == {1}
    assert outstanding(conn) == 0


async def test_every_group_gets_everything(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(50))
    seen = {name: Recorder() for name in ("billing", "mail", "Gruppe ü")}
    consumers = [api.consumer(dsn, name, until_empty=True).run(seen[name]) for name in seen]
    await with_timeout(asyncio.gather(*consumers))
    assert {name: handler.ids for name, handler in seen.items()} == dict.fromkeys(seen, ids)


async def test_two_topics_one_group(api: Api, dsn: str, conn: Connection) -> None:
    seen = Recorder()
    consumer = api.consumer(dsn, topics=["orders", "mail/" + "x" * 200])
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


async def test_a_new_group_starts_at_the_beginning(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(3))
    async with api.consumer(dsn) as consumer:
        assert [m.id for m in await collect(consumer, 3)] == ids


async def test_start_now(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, ["old"])
    with psycopg.connect(dsn) as slow:
        in_flight = send(slow, ["in flight"])
        async with api.consumer(dsn, start="now") as consumer:
            new = send(conn, ["new"])
            assert [m.id for m in await collect(consumer, 1)] == new
            slow.commit()
            assert [m.id for m in await collect(consumer, 1)] == in_flight


async def test_start_at_a_time(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, ["old"])
    since = value(conn, "SELECT clock_timestamp()").astimezone(dt.timezone(dt.timedelta(hours=5)))
    new = send(conn, ["new", "newer"])
    async with api.consumer(dsn, start=since) as consumer:
        assert [m.id for m in await collect(consumer, 2)] == new


async def test_a_group_that_exists_continues_at_its_position(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, [1])
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    second = send(conn, [2])
    await with_timeout(api.consumer(dsn, until_empty=True, start="now").run(seen))
    assert seen.ids[1:] == second


# Wake-ups


async def test_a_consumer_that_was_there_first_is_woken(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen):
        for number in range(1, 4):
            await asleep(consumer)
            send(conn, [number])
            await seen.got(number)


async def test_woken_by_a_plain_insert_and_by_a_transaction_that_takes_its_time(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen = Recorder()
    insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')"
    consumer = api.consumer(dsn)
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


async def test_woken_by_a_replay(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(3))
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen), api.connect(dsn, autocommit=True) as other:
        await seen.got(3)
        await wait_until(lambda: outstanding(conn) == 0)
        await asleep(consumer)
        assert await maybe_await(api.Admin().replay(other, "g", "t", after=ids[0])) == 2
        await seen.got(5)
    assert seen.ids == ids + ids[1:]


async def test_woken_by_what_another_consumer_gives_back(
    api: Api, dsn: str, conn: Connection
) -> None:
    ids = send(conn, range(3))
    seen = Recorder()
    async with api.consumer(dsn, lease=600) as first:
        await collect(first, 3)
        assert leased(conn) == 3
        second = api.consumer(dsn)
        async with running(second, seen):
            await asleep(second)
            await first.close()
            await seen.got(3)
    assert seen.ids == ids
    assert seen.attempts == [1, 1, 1]


async def test_all_consumers_of_a_process_share_one_listening_connection(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen = [Recorder() for _ in range(5)]
    consumers = [api.consumer(dsn, f"g{n}", topics=["all", f"t{n}"]) for n in range(5)]
    tasks = [asyncio.ensure_future(c.run(s)) for c, s in zip(consumers, seen, strict=True)]
    for consumer in consumers:
        await asleep(consumer)
    assert len(backends(conn, LISTENER)) == 1
    send(conn, ["all"], "all")
    for n in range(5):
        send(conn, [n], f"t{n}")
    for n in range(5):
        assert {m.payload for m in await seen[n].got(2)} == {"all", n}
    for consumer in consumers[:-1]:
        consumer.stop()
    await with_timeout(asyncio.gather(*tasks[:-1]))
    assert len(backends(conn, LISTENER)) == 1
    await asleep(consumers[-1])
    send(conn, ["last"], "all")
    await seen[4].got(3)
    consumers[-1].stop()
    await with_timeout(tasks[-1])
    await wait_until(lambda: backends(conn, LISTENER) == [])


# How much a consumer holds


async def test_prefetch_bounds_what_is_held(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(100))
    async with api.consumer(dsn, prefetch=7, batch_size=5) as consumer:
        await collect(consumer, 7)
        await wait_until(lambda: consumer.health().state == "full")
        assert leased(conn) == 7


async def test_one_message_held_does_not_stop_the_others(
    api: Api, dsn: str, conn: Connection
) -> None:
    """All of a batch but one are settled: there is room again, though the lease is not over."""
    send(conn, range(6))
    async with api.consumer(dsn, prefetch=3) as consumer:
        first, *others = await collect(consumer, 3)
        for message in others:
            await message.ack()
        more = await collect(consumer, 2)
        assert [m.payload for m in more] == [3, 4]
        await first.ack()


async def test_until_empty_waits_for_others_and_for_retries(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(2))
    retried = asyncio.Event()

    async def retry_each_once(message: Any) -> None:
        if message.attempt == 1:
            await message.retry(0.3)
            retried.set()

    seen = Recorder(retry_each_once)
    consumer = api.consumer(dsn, until_empty=True)
    await with_timeout(consumer.run(seen))
    assert retried.is_set()
    assert sorted(seen.attempts) == [1, 1, 2, 2]
    assert outstanding(conn) == 0


async def test_until_empty_of_nothing(api: Api, dsn: str) -> None:
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen), 5)
    assert seen.ids == []


# Handlers that fail


async def test_a_handler_that_raises_gets_it_again_and_at_last_it_is_a_dead_letter(
    api: Api, dsn: str, conn: Connection
) -> None:
    bad, good = send(conn, ["bad", "good"])

    def fail(message: Any) -> None:
        if message.payload == "bad":
            raise ZeroDivisionError(f"at attempt {message.attempt}")

    seen = Recorder(fail)
    options = {"retry": dn.RetryPolicy(max_attempts=3, base=0.01), "until_empty": True}
    await with_timeout(api.consumer(dsn, **options).run(seen))
    assert [m.attempt for m in seen.messages if m.id == bad] == [1, 2, 3]
    assert [m.attempt for m in seen.messages if m.id == good] == [1]
    ((dead, attempt, reason),) = dead_letters(conn)
    assert (dead, attempt) == (bad, 3)
    assert "ZeroDivisionError: at attempt 3" in reason


@pytest.mark.parametrize("text", ["a NUL \x00 within", "a lone surrogate \ud800 within"])
async def test_a_handler_that_raises_what_postgresql_cannot_store(
    api: Api, dsn: str, conn: Connection, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest-xdist cannot pass on what is logged here.
    monkeypatch.setattr(logging.getLogger("durable_notify"), "disabled", True)
    send(conn, range(3))

    def fail(message: Any) -> None:
        if message.payload == 1:
            raise ValueError(text)

    options = {"retry": dn.RetryPolicy(max_attempts=1), "until_empty": True}
    seen = Recorder(fail)
    await with_timeout(api.consumer(dsn, **options).run(seen))
    ((_, _, reason),) = dead_letters(conn)
    assert "within" in reason
    assert outstanding(conn) == 0


async def test_a_handler_that_was_cancelled_from_within(dsn: str, conn: Connection) -> None:
    """That is a failed message: the consumer itself was not cancelled."""
    send(conn, range(2))

    async def cancelled(message: Any) -> None:
        if message.payload == 0:
            raise asyncio.CancelledError

    seen = Recorder(cancelled)
    api = Api("async")
    await with_timeout(
        api.consumer(dsn, retry=dn.RetryPolicy(max_attempts=1), until_empty=True).run(seen)
    )
    assert len(dead_letters(conn)) == 1


async def test_a_run_that_is_cancelled_gives_all_back(dsn: str, conn: Connection) -> None:
    send(conn, range(5))
    begun = asyncio.Event()

    async def handle(_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(Api("async").consumer(dsn, lease=600).run(handle))
    await with_timeout(begun.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await with_timeout(task)
    assert leased(conn) == 0
    seen = Recorder()
    await with_timeout(Api("async").consumer(dsn, until_empty=True).run(seen))
    assert seen.attempts == [1] * 5


async def test_a_loop_that_ends_under_a_consumer(dsn: str, conn: Connection) -> None:
    """``asyncio.run()`` cancels every task there is: it ends, and leases are given back."""
    send(conn, range(5))
    with consumer_process(Api("async"), dsn, "is cut short", "--lease", "600") as process:
        process.handled(1)
        assert process.ended() == 7
    assert leased(conn) == 0
    assert outstanding(conn) == 5
