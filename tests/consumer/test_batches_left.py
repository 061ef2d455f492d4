"""Loops over batches that are left early, or cancelled: what they were given is not stuck."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.observe import outstanding, send
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


async def test_a_loop_that_is_left_by_break(dsn: str, conn: Connection) -> None:
    """The next loop gets batches, although the first never came back for more."""
    ids = send(conn, range(6))
    got = []
    async with dn.AsyncConsumer(dsn, group="g", topics=["t"], poll_interval=None) as consumer:
        for _ in range(3):
            batches = consumer.batches(size=2)
            batch = await with_timeout(anext(batches))
            got += [message.id for message in batch]
            for message in batch:
                await message.ack()
    assert got == ids
    assert outstanding(conn) == 0


def test_a_loop_that_is_left_by_break_in_a_thread(dsn: str, conn: Connection) -> None:
    ids = send(conn, range(6))
    got = []
    with dn.Consumer(dsn, group="g", topics=["t"], poll_interval=None) as consumer:
        for _ in range(3):
            for batch in consumer.batches(size=2):
                got += [message.id for message in batch]
                for message in batch:
                    message.ack()
                break
    assert got == ids
    assert outstanding(conn) == 0


async def test_a_batch_whose_caller_is_cancelled(dsn: str, conn: Connection) -> None:
    """The next batch begins with what had been collected, and claiming continues."""
    async with dn.AsyncConsumer(dsn, group="g", topics=["t"], poll_interval=None) as consumer:
        ids: list[int] = []
        for _ in range(4):  # more than the batch holds: were they counted for ever, it would stop
            ids += send(conn, range(2))
            waiting = asyncio.ensure_future(anext(consumer.batches(size=5, max_wait=60)))
            await wait_until(lambda: consumer._buffer._queue.size() == 0 and consumer.health().held)
            await wait_until(lambda: consumer.health().state == "sleeping")
            waiting.cancel()
            await asyncio.wait([waiting])
            batch = await with_timeout(anext(consumer.batches(size=2)))
            assert [message.id for message in batch] == ids[-2:]
            for message in batch:
                await message.ack()
    assert outstanding(conn) == 0
