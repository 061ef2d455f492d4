"""faststream-outbox, processing its rows in place, on SQLAlchemy and asyncpg.

What makes it fast, by its pages "Performance" and "Subscriber": `publish_batch`; one worker with a
`terminal_flush_batch_size` and a `fetch_batch_size` of 100 in its benchmark, of more here;
`outbox_autovacuum_ddl`; asyncpg, with which it listens. A worker is a connection; for handlers
that wait, 20 were faster here than 100. FastStream's logging of each message is off
(`logger=None`), and so is its checking of arguments (`apply_types=False`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from faststream_outbox import OutboxBroker, make_outbox_table, outbox_autovacuum_ddl
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from benchmarks.peers.base import TOPIC, Payload, Publisher, Tally
from benchmarks.peers.clients.postgres import PostgresPeer, committed

FETCH = 500
FLUSH = 500
WORKERS = 20
METADATA = MetaData()
TABLE = make_outbox_table(METADATA, table_name="outbox")


class _Publisher(Publisher):
    def __init__(self, broker: OutboxBroker, connection: AsyncConnection) -> None:
        self._broker = broker
        self._connection = connection

    async def batch(self, payloads: list[Payload]) -> None:
        async with self._connection.begin():
            await self._broker.publish_batch(*payloads, queue=TOPIC, session=self._connection)

    async def single(self, message: Payload) -> None:
        async with self._connection.begin():
            await self._broker.publish(message, queue=TOPIC, session=self._connection)

    async def timed(self, message: Payload) -> tuple[int, int]:
        transaction = await self._connection.begin()
        await self._broker.publish(message, queue=TOPIC, session=self._connection)
        return await committed(transaction.commit)


class FaststreamOutbox(PostgresPeer):
    """An outbox that is its own queue."""

    packages: ClassVar[tuple[str, ...]] = (
        "faststream-outbox", "faststream", "sqlalchemy", "asyncpg"
    )  # fmt: skip
    settings: ClassVar[dict[str, Any]] = {
        "max_workers": f"1; {WORKERS} for consume_await",
        "fetch_batch_size": FETCH,
        "terminal_flush_batch_size": FLUSH,
        "autovacuum": "as outbox_autovacuum_ddl sets it",
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 20_000,
        "publish_single": 1_200,
        "consume": 8_000,
        "consume4": 8_000,
        "consume_await": 3_000,
        "wake": 60,
    }

    @contextlib.asynccontextmanager
    async def engine(self, connections: int = 5) -> AsyncIterator[AsyncEngine]:
        address = self.address.replace("postgresql://", "postgresql+asyncpg://")
        engine = create_async_engine(address, pool_size=connections)
        try:
            yield engine
        finally:
            await engine.dispose()

    async def prepare(self) -> None:
        async with self.engine() as engine, engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
            await connection.execute(text(outbox_autovacuum_ddl("outbox")))

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with self.engine() as engine, engine.connect() as connection:
            yield _Publisher(
                OutboxBroker(engine, outbox_table=TABLE, logger=None, apply_types=False), connection
            )

    async def consume(self, tally: Tally, concurrency: int) -> None:
        workers = min(concurrency, WORKERS)
        async with self.engine(workers + 1) as engine:
            broker = OutboxBroker(engine, outbox_table=TABLE, logger=None, apply_types=False)
            subscriber = broker.subscriber(
                TOPIC,
                max_workers=workers,
                fetch_batch_size=FETCH,
                terminal_flush_batch_size=FLUSH // workers,
            )

            @subscriber
            async def handle(body: Payload) -> None:
                await tally.handler(body)

            await broker.start()
            await tally.finished.wait()
            await broker.stop()  # returns once what is handled is deleted
            tally.confirmed()
