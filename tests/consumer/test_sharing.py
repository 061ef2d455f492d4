"""Consumers share a burst by their free handlers; of a backlog they claim large batches."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._core.pacing import BatchSizer
from tests.support.api import Api, running
from tests.support.observe import asleep, outstanding, send
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


class Blocked:
    """A handler that finishes nothing before it is told to."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.free = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        self.got.append(message.id)
        await self.free.wait()


@pytest.mark.parametrize("before", ["cold", "warm"])
@pytest.mark.parametrize(("consumers", "concurrency"), [(2, 4), (3, 3), (2, 1)])
async def test_a_burst(
    api: Api, dsn: str, conn: Connection, before: str, consumers: int, concurrency: int
) -> None:
    """All begin at once, on every free handler; no consumer holds what another could begin."""
    handlers = [Blocked() for _ in range(consumers)]
    async with AsyncExitStack() as stack:
        started = [api.consumer(dsn) for _ in handlers]
        for one, handler in zip(started, handlers, strict=True):
            await stack.enter_async_context(running(one, handler, concurrency=concurrency))
        for one in started:
            await asleep(one)
        if before == "warm":
            for handler in handlers:
                handler.free.set()
            send(conn, range(300))
            await wait_until(lambda: outstanding(conn) == 0)
            for one in started:
                await asleep(one)
            for handler in handlers:
                handler.free.clear()
                handler.got.clear()
        places = consumers * concurrency
        send(conn, range(places))
        await wait_until(lambda: sum(len(handler.got) for handler in handlers) == places)
        assert [len(handler.got) for handler in handlers] == [concurrency] * consumers
        for handler in handlers:
            handler.free.set()
    assert outstanding(conn) == 0


async def test_one_that_is_partly_busy(api: Api, dsn: str, conn: Connection) -> None:
    """It claims one message for each free handler, and the other consumer the rest."""
    first, second = Blocked(), Blocked()
    one, other = api.consumer(dsn), api.consumer(dsn)
    async with running(one, first, concurrency=4):
        await asleep(one)
        send(conn, range(3))
        await wait_until(lambda: len(first.got) == 3)
        async with running(other, second, concurrency=4):
            await asleep(other)
            send(conn, range(5))
            await wait_until(lambda: len(first.got) + len(second.got) == 8)
            assert (len(first.got), len(second.got)) == (4, 4)
            first.free.set()
            second.free.set()


async def test_one_key_of_many_messages_takes_one_handler(
    api: Api, dsn: str, conn: Connection
) -> None:
    """The others get messages of other keys."""
    handler = Blocked()
    rows = [dn.NewMessage(n, key="hot") for n in range(30)]
    hot = dn.Publisher().publish_many(conn, "t", rows)
    others = send(conn, range(3))
    async with running(api.consumer(dsn), handler, concurrency=4):
        await wait_until(lambda: len(handler.got) == 4)
        assert sorted(handler.got) == [hot[0], *others]
        handler.free.set()
        await wait_until(lambda: outstanding(conn) == 0)


async def test_a_backlog(api: Api, dsn: str, conn: Connection) -> None:
    """Batches grow while it lasts: a few claims for thousands of messages."""
    send(conn, range(5000))
    sizes: list[int] = []
    consumer = api.consumer(dsn, until_empty=True, on_event=lambda e: claimed(e, sizes))
    await with_timeout(consumer.run(nothing, concurrency=2), 60)
    assert sum(sizes) == 5000
    assert max(sizes) > 100


async def nothing(_message: Any) -> None: ...


def claimed(event: Any, sizes: list[int]) -> None:
    if event.name == "claimed":
        sizes.append(event.messages)


async def test_as_it_was(dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: ten messages at once, whatever can be begun."""
    monkeypatch.setattr(BatchSizer, "to_claim", lambda *_: 10)
    api = Api("async")
    handlers = [Blocked(), Blocked()]
    one, other = api.consumer(dsn), api.consumer(dsn)
    async with running(one, handlers[0], concurrency=4):
        await asleep(one)
        async with running(other, handlers[1], concurrency=4):
            await asleep(other)
            send(conn, range(8))
            await wait_until(lambda: any(len(handler.got) == 4 for handler in handlers))
            await wait_until(lambda: one._lease_manager.held + other._lease_manager.held == 8)
            assert 8 in (one._lease_manager.held, other._lease_manager.held)
            for handler in handlers:
                handler.free.set()


async def test_one_on_its_way_to_a_handler(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer claims no second message for the handler that a thread has just taken one for."""
    consumer = api.consumer(dsn, until_empty=True)
    wanted = []

    handle = consumer._dispatcher._handle

    def taken(*args: Any) -> Any:
        wanted.append(consumer._fetcher.wanted)
        return handle(*args)

    monkeypatch.setattr(consumer._dispatcher, "_handle", taken)
    send(conn, [1])
    await with_timeout(consumer.run(lambda _: None))
    assert wanted == [0]
