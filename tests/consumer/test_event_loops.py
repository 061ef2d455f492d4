"""The async half on asyncio's event loop, and on uvloop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import psycopg
import pytest
import uvloop

import durable_notify as dn

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]


def publish(dsn: str, *payloads: int) -> None:
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish_many(connection, "t", payloads)


def test_it_is_woken_and_ends_by_a_signal(
    dsn: str, runner: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    seen: list[int] = []

    async def handle(message: dn.AsyncMessage) -> None:
        async with message.transaction() as connection:
            await connection.execute("INSERT INTO effect VALUES (%s)", [message.payload])
        seen.append(message.payload)
        if len(seen) == 20:  # only a wake-up can bring more: polling is off
            await asyncio.to_thread(publish, dsn, *range(20, 30))
        if len(seen) == 30:
            os.kill(os.getpid(), signal.SIGTERM)

    async def main() -> None:
        consumer = dn.AsyncConsumer(dsn, group="g", topics=["t"], poll_interval=None)
        async with asyncio.timeout(30):
            await consumer.run(handle, concurrency=4)

    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE effect (number int)")
    publish(dsn, *range(20))
    with asyncio.Runner(loop_factory=runner) as running:
        running.run(main())
    assert sorted(seen) == list(range(30))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM effect").fetchone() == (30,)
        (line,) = dn.Admin().status(connection)
    assert (line.unread, line.leased, line.deferred) == (0, 0, 0)


def test_a_reader_follows(dsn: str, runner: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> list[int]:
        found = []
        async with (
            asyncio.timeout(30),
            dn.AsyncReader(dsn, topics=["t"], poll_interval=None) as reader,
        ):
            async for message in reader:
                found.append(message.payload)
                if len(found) == 1:
                    await asyncio.to_thread(publish, dsn, 2)
                else:
                    break
        return found

    publish(dsn, 1)
    with asyncio.Runner(loop_factory=runner) as running:
        assert running.run(main()) == [1, 2]
