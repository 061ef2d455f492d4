"""durable_notify, with its defaults: docs/consuming.md names none that would be faster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import psycopg

import durable_notify as dn
from benchmarks.peers.base import TOPIC, Payload, Publisher, Tally
from benchmarks.peers.clients.postgres import PostgresPeer, committed
from durable_notify import schema


class _Publisher(Publisher):
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._publisher = dn.AsyncPublisher()

    async def batch(self, payloads: list[Payload]) -> None:
        await self._publisher.publish_many(self._connection, TOPIC, payloads)

    async def single(self, message: Payload) -> None:
        await self._publisher.publish(self._connection, TOPIC, message)

    async def timed(self, message: Payload) -> tuple[int, int]:
        await self._connection.execute("BEGIN")
        await self.single(message)
        return await committed(lambda: self._connection.execute("COMMIT"))


class DurableNotify(PostgresPeer):
    """Of this checkout."""

    packages: ClassVar[tuple[str, ...]] = ("durable-notify", "psycopg", "psycopg-binary")
    settings: ClassVar[dict[str, Any]] = {"options": "defaults"}
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 60_000,
        "publish_single": 1_500,
        "consume": 60_000,
        "consume4": 60_000,
        "consume_await": 20_000,
        "wake": 60,
    }

    async def prepare(self) -> None:
        await asyncio.to_thread(schema.migrate, self.address)

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with await psycopg.AsyncConnection.connect(
            self.address, autocommit=True
        ) as connection:
            yield _Publisher(connection)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        consumer = dn.AsyncConsumer(self.address, group="bench", topics=[TOPIC])

        async def handle(message: dn.AsyncMessage) -> None:
            await tally.handler(message.payload)

        async def stop() -> None:
            await tally.finished.wait()
            consumer.stop()

        stopping = asyncio.create_task(stop())
        # Returns once all acknowledgements are committed and all connections closed.
        await consumer.run(handle, concurrency=concurrency)
        tally.confirmed()
        await stopping
