"""Consumers beside an application, and several in one process."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.api import Api, Recorder, in_thread
from tests.support.observe import leased, outstanding, send
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


class Threaded:
    """A context manager of the synchronous half, entered and left in threads."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return await in_thread(self._manager.__enter__)

    async def __aexit__(self, *error: object) -> Any:
        return await in_thread(self._manager.__exit__, *error)


def consumer_of(api: Api, dsn: str, group: str = "g", **options: Any) -> Any:
    make = dn.AsyncConsumer if api.is_async else dn.Consumer
    return make(dsn, group=group, poll_interval=None, **options)


def running(api: Api, consumer: Any, *args: Any, **options: Any) -> AbstractAsyncContextManager:
    manager = consumer.running(*args, **options)
    return manager if api.is_async else Threaded(manager)


def fit(api: Api, recorder: Recorder) -> Callable[[Any], Any]:
    """A recorder as a handler of this half."""
    if api.is_async:
        return recorder
    loop = asyncio.get_running_loop()
    return lambda message: asyncio.run_coroutine_threadsafe(recorder(message), loop).result()


async def together(api: Api, *consumers: Any) -> None:
    if api.is_async:
        await with_timeout(dn.run_async(*consumers))
    else:
        await with_timeout(in_thread(lambda: dn.run(*consumers)))


async def test_it_runs_beside_the_body_and_drains_at_its_end(
    api: Api, dsn: str, conn: Connection
) -> None:
    consumer, recorder = consumer_of(api, dsn, topics=["t"]), Recorder()
    async with running(api, consumer, fit(api, recorder), concurrency=2) as entered_as:
        assert entered_as is consumer
        assert consumer.health().live
        assert consumer.health().group == "g"
        send(conn, range(3))
        await recorder.got(3)
    assert outstanding(conn) == 0
    assert leased(conn) == 0
    assert consumer.health().state == "stopping"


async def test_handlers_by_topic_run_beside_the_body(api: Api, dsn: str, conn: Connection) -> None:
    consumer, recorder = consumer_of(api, dsn), Recorder()
    consumer.on("t")(fit(api, recorder))
    async with running(api, consumer):
        send(conn, range(3))
        await recorder.got(3)
    assert outstanding(conn) == 0


async def test_a_handler_that_runs_at_the_end_is_waited_for(
    api: Api, dsn: str, conn: Connection
) -> None:
    began, free, ended = asyncio.Event(), asyncio.Event(), []

    async def slow(_: Any) -> None:
        began.set()
        await free.wait()
        ended.append(True)

    consumer = consumer_of(api, dsn, topics=["t"])
    send(conn, [1])
    manager = running(api, consumer, fit(api, Recorder(slow)))
    await manager.__aenter__()
    await with_timeout(began.wait())
    leaving = asyncio.ensure_future(manager.__aexit__(None, None, None))
    await wait_until(lambda: consumer.health().state == "stopping")
    assert not leaving.done()
    free.set()
    await with_timeout(leaving)
    assert ended
    assert outstanding(conn) == 0


async def test_what_cannot_start_fails_before_the_body(
    api: Api, dsn: str, conn: Connection
) -> None:
    with pytest.raises(dn.InvalidArgument, match="there is no handler"):
        async with running(api, consumer_of(api, dsn, topics=["t"])):
            pytest.fail("the body ran")
    conn.execute("DROP SCHEMA durable_notify CASCADE")
    with pytest.raises(dn.errors.SchemaMissing):
        async with running(api, consumer_of(api, dsn, topics=["t"]), print):
            pytest.fail("the body ran")


async def test_what_ends_it_is_raised_at_the_end(api: Api, dsn: str, conn: Connection) -> None:
    def fatal(_: Any) -> None:
        raise SystemExit(3)

    consumer = consumer_of(api, dsn, topics=["t"])
    send(conn, [1])
    with pytest.raises(SystemExit):
        async with running(api, consumer, fatal):
            await wait_until(lambda: not consumer.health().live)


async def test_the_bodys_error_is_raised(api: Api, dsn: str, conn: Connection) -> None:
    consumer, recorder = consumer_of(api, dsn, topics=["t"]), Recorder()
    send(conn, [1])
    with pytest.raises(ZeroDivisionError):
        async with running(api, consumer, fit(api, recorder)):
            await recorder.got(1)
            raise ZeroDivisionError
    assert outstanding(conn) == 0


async def test_a_consumer_with_handlers_runs_again(api: Api, dsn: str, conn: Connection) -> None:
    """It may be defined in a module, and an application that is tested starts often."""
    consumer, recorder = consumer_of(api, dsn), Recorder()
    consumer.on("t")(fit(api, recorder))
    for number in (1, 2):
        async with running(api, consumer):
            send(conn, [number])
            await recorder.got(number)
            with pytest.raises(dn.errors.ConsumerClosed, match="runs already"):
                await together(api, consumer)
    with pytest.raises(dn.errors.ConsumerClosed, match="was closed"):
        await recorder.messages[0].ack()
    consumer.options = dataclasses.replace(consumer.options, until_empty=True)
    send(conn, [3])
    await together(api, consumer)
    assert outstanding(conn) == 0


# Several


async def test_several_consumers_run_together(api: Api, dsn: str, conn: Connection) -> None:
    """Each with its concurrency; one that has nothing left does not end the others."""
    recorders = {name: Recorder() for name in ("one", "two", "three")}
    consumers = [
        consumer_of(api, dsn, name, until_empty=name == "one", concurrency=number)
        for number, name in enumerate(recorders, 1)
    ]
    for consumer, recorder in zip(consumers, recorders.values(), strict=True):
        consumer.on("t")(fit(api, recorder))
    send(conn, range(3))
    task = asyncio.ensure_future(together(api, *consumers))
    for recorder in recorders.values():
        await recorder.got(3)
    await wait_until(lambda: consumers[0]._closed)
    send(conn, range(2))
    for name in ("two", "three"):
        await recorders[name].got(5)
    assert len(recorders["one"].messages) == 3
    for consumer in consumers[1:]:
        consumer.stop()
    await with_timeout(task)
    assert outstanding(conn) == 2  # of the group that has ended before


async def test_one_that_fails_stops_the_others(api: Api, dsn: str, conn: Connection) -> None:
    def fatal(_: Any) -> None:
        raise SystemExit(3)

    good, bad = consumer_of(api, dsn, "good"), consumer_of(api, dsn, "bad")
    good.on("t")(fit(api, Recorder()))
    bad.on("t")(fatal)
    send(conn, [1])
    with pytest.raises(SystemExit):
        await together(api, good, bad)
    assert leased(conn) == 0


async def test_none_starts_if_one_cannot(api: Api, dsn: str, conn: Connection) -> None:
    good = consumer_of(api, dsn, "good")
    good.on("t")(fit(api, recorder := Recorder()))
    send(conn, [1])
    with pytest.raises(dn.InvalidArgument, match="there is no handler"):
        await together(api, good, consumer_of(api, dsn, "bad", topics=["t"]))
    other = Api("sync" if api.is_async else "async")
    with pytest.raises(dn.InvalidArgument, match=r"dn.run\(\) takes Consumers, and dn.run_async"):
        await together(api, good, consumer_of(other, dsn))
    with pytest.raises(dn.InvalidArgument, match="give each consumer once, and at least one"):
        await together(api, good, good)
    with pytest.raises(dn.InvalidArgument, match="give each consumer once, and at least one"):
        await together(api)
    nowhere = consumer_of(api, "postgresql:///?host=/nowhere", "bad")
    nowhere.on("t")(print)
    for _ in range(2):  # they may be tried again
        with pytest.raises(psycopg.OperationalError):
            await together(api, good, nowhere)
    assert not recorder.messages
    assert good._closed


async def test_cancelling_ends_all(dsn: str, conn: Connection) -> None:
    api, began = Api("async"), asyncio.Event()

    async def handle(_: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    one, two = consumer_of(api, dsn, "one"), consumer_of(api, dsn, "two")
    one.on("t")(handle)
    two.on("t")(handle)
    send(conn, [1])
    task = asyncio.ensure_future(dn.run_async(one, two))
    await with_timeout(began.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await with_timeout(task)
    assert leased(conn) == 0
