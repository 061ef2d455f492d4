"""PgQueuer, on psycopg and on asyncpg.

What makes it fast, by its guide "Performance Tuning": a larger `batch_size` where jobs are short,
`pgq autovac` after the installation, a single connection for the consumer. Durability stays
"durable"; the other levels lose jobs in a crash. Its own benchmark has several consumers in one
process (`--dequeue`). On psycopg that makes a difference: there a consumer that waits for
notifications keeps its connection to itself. `consumers` and `batch_size` are what was fastest
here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import asyncpg
import psycopg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, PsycopgDriver
from pgqueuer.models import Job
from pgqueuer.ports.driver import Driver
from pgqueuer.queries import Queries

from benchmarks.peers.base import TOPIC, Payload, Publisher, Tally
from benchmarks.peers.clients.postgres import PostgresPeer, committed

SETTINGS = {
    "durability": "durable",
    "autovacuum": "as pgq autovac sets it",
    "max_concurrent_tasks": "none; 100 for consume_await",
}


class _Publisher(Publisher):
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._queries = Queries(driver)

    async def batch(self, payloads: list[Payload]) -> None:
        count = len(payloads)
        bodies: list[bytes | None] = [json.dumps(each).encode() for each in payloads]
        await self._queries.enqueue([TOPIC] * count, bodies, [0] * count)

    async def single(self, message: Payload) -> None:
        await self._queries.enqueue(TOPIC, json.dumps(message).encode())

    async def timed(self, message: Payload) -> tuple[int, int]:
        await self._driver.execute("BEGIN")
        await self.single(message)
        return await committed(lambda: self._driver.execute("COMMIT"))


class _Timed(Queries):
    """Notes when acknowledgements are committed."""

    tally: Tally

    async def log_jobs(self, job_status: Any) -> None:
        await super().log_jobs(job_status)
        self.tally.confirmed()


class _PgQueuer(PostgresPeer):
    #: In one process, each with a connection of its own.
    consumers: ClassVar[int]
    batch_size: ClassVar[int]

    def driver(self) -> contextlib.AbstractAsyncContextManager[Driver]:
        raise NotImplementedError

    async def prepare(self) -> None:
        async with self.driver() as driver:
            queries = Queries(driver)
            await queries.install()
            await queries.optimize_autovacuum()

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with self.driver() as driver:
            yield _Publisher(driver)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        batch_size, limit = self.batch_size, None
        if concurrency > 1:  # a limit is at least twice the batch
            limit = concurrency // self.consumers
            batch_size = limit // 2
        async with contextlib.AsyncExitStack() as stack:
            consumers = []
            for _ in range(self.consumers):
                driver = await stack.enter_async_context(self.driver())
                queries = _Timed(driver)
                queries.tally = tally
                consumers.append(PgQueuer(driver, queries=queries))

                @consumers[-1].entrypoint(TOPIC)
                async def handle(job: Job) -> None:
                    await tally.handler(json.loads(job.payload or b""))

            runs = [
                asyncio.create_task(consumer.run(batch_size=batch_size, max_concurrent_tasks=limit))
                for consumer in consumers
            ]
            finished = asyncio.create_task(tally.finished.wait())
            await asyncio.wait([finished, *runs], return_when=asyncio.FIRST_COMPLETED)
            for consumer in consumers:
                consumer.shutdown.set()
            await asyncio.gather(*runs)


class PgQueuerPsycopg(_PgQueuer):
    """On psycopg, as durable_notify is."""

    packages: ClassVar[tuple[str, ...]] = ("pgqueuer", "psycopg", "psycopg-binary")
    settings: ClassVar[dict[str, Any]] = SETTINGS | {
        "consumers in a process": 2,
        "batch_size": 100,
    }
    consumers = 2
    batch_size = 100
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 20_000,
        "publish_single": 1_200,
        "consume": 8_000,
        "consume4": 10_000,
        "consume_await": 4_000,
        "wake": 60,
    }

    @contextlib.asynccontextmanager
    async def driver(self) -> AsyncIterator[Driver]:
        async with await psycopg.AsyncConnection.connect(
            self.address, autocommit=True
        ) as connection:
            yield PsycopgDriver(connection)


class PgQueuerAsyncpg(_PgQueuer):
    """On asyncpg: by its page "Benchmarks" about 1.7 times as fast as on psycopg."""

    packages: ClassVar[tuple[str, ...]] = ("pgqueuer", "asyncpg")
    settings: ClassVar[dict[str, Any]] = SETTINGS | {
        "consumers in a process": 1,
        "batch_size": 500,
    }
    consumers = 1
    batch_size = 500
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 30_000,
        "publish_single": 1_500,
        "consume": 12_000,
        "consume4": 14_000,
        "consume_await": 6_000,
        "wake": 60,
    }

    @contextlib.asynccontextmanager
    async def driver(self) -> AsyncIterator[Driver]:
        connection = await asyncpg.connect(self.address)
        try:
            yield AsyncpgDriver(connection)
        finally:
            await connection.close()
