"""PGMQ: the SQL-only installation that its Python client brings, and the client on asyncpg.

What makes it fast, by the client's documentation: `AsyncPGMQueue` for "high-throughput async
services" (clients), `send_batch` "for higher throughput" (sending messages), a connection of one's
own (transactions): the pool's would be reset after each call. Messages are read and deleted in
batches. For the wake-up `enable_notify` and its listener (notifications), without the throttle,
which would hold wake-ups back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import asyncpg
import psycopg
from pgmq import AsyncPGMQueue
from pgmq.install import get_embedded_install_sql
from pgmq.notify_listener import AsyncNotificationListener

from benchmarks.peers.base import TOPIC, Payload, Publisher, Tally, handle
from benchmarks.peers.clients.postgres import PostgresPeer, committed

READ = 1000
LOOPS = 2  # in a process: one reads while the other handles
LEASE = 60  # seconds


class _Publisher(Publisher):
    def __init__(self, queue: AsyncPGMQueue, connection: asyncpg.Connection) -> None:
        self._queue = queue
        self._connection = connection

    async def batch(self, payloads: list[Payload]) -> None:
        await self._queue.send_batch(TOPIC, payloads, conn=self._connection)

    async def single(self, message: Payload) -> None:
        await self._queue.send(TOPIC, message, conn=self._connection)

    async def timed(self, message: Payload) -> tuple[int, int]:
        transaction = self._connection.transaction()
        await transaction.start()
        await self.single(message)
        return await committed(transaction.commit)


class Pgmq(PostgresPeer):
    """A queue whose messages are deleted."""

    packages: ClassVar[tuple[str, ...]] = ("pgmq", "asyncpg")
    settings: ClassVar[dict[str, Any]] = {
        "read and deleted at once": READ,
        "loops in a process": LOOPS,
        "notify throttle": "off; NOTIFY is on for wake only",
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 120_000,
        "publish_single": 1_500,
        "consume": 50_000,
        "consume4": 50_000,
        "consume_await": 20_000,
        "wake": 60,
    }

    async def prepare(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.address) as connection:
            await connection.execute(get_embedded_install_sql())
        async with self.queue() as queue:
            await queue.create_queue(TOPIC)

    @contextlib.asynccontextmanager
    async def queue(self) -> AsyncIterator[AsyncPGMQueue]:
        async with asyncpg.create_pool(self.address, min_size=1, max_size=10) as pool:
            queue = AsyncPGMQueue(pool=pool, init_extension=False)
            await queue.init()
            queue.logger.setLevel(logging.ERROR)  # it warns of each notification, all being empty
            yield queue

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with self.queue() as queue, queue.pool.acquire() as connection:
            yield _Publisher(queue, connection)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        async with self.queue() as queue:
            woken = asyncio.Event()
            listening = asyncio.create_task(self._listen(queue, woken)) if tally.waking else None
            stopping = asyncio.create_task(tally.finished.wait())
            stopping.add_done_callback(lambda _: woken.set())
            share = max(1, concurrency // LOOPS)
            await asyncio.gather(*(self._loop(queue, tally, woken, share) for _ in range(LOOPS)))
            if listening:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, queue: AsyncPGMQueue, woken: asyncio.Event) -> None:
        async def wake(_notice: dict[str, Any]) -> None:
            woken.set()

        await queue.enable_notify(TOPIC, throttle_interval_ms=0)
        listener = AsyncNotificationListener(queue)
        listener.dsn = self.address  # the one it makes up knows no sockets
        await listener.listen(TOPIC, wake)

    async def _loop(
        self, queue: AsyncPGMQueue, tally: Tally, woken: asyncio.Event, concurrency: int
    ) -> None:
        async with queue.pool.acquire() as connection:
            while not tally.finished.is_set():
                woken.clear()
                messages = await queue.read_batch(TOPIC, LEASE, READ, conn=connection)
                if messages:
                    await handle(tally, [each.message for each in messages], concurrency)
                    ids = [each.msg_id for each in messages]
                    await queue.delete_batch(TOPIC, ids, conn=connection)
                    tally.confirmed()
                elif tally.waking and not tally.finished.is_set():
                    await woken.wait()
