"""LISTEN/NOTIFY and a SELECT, written by hand with psycopg: what durability costs beside it.

The publisher inserts a row and notifies with its id, in one transaction; the listener is told the
id and fetches the row. psycopg's documentation (advanced/async, "Asynchronous notifications") has
`notifies()` on a connection in autocommit mode of its own, and so has the listener here; another
connection fetches. It has no backlog, no acknowledgement and no sharing: there is nothing to
measure of consuming but the wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import psycopg

from benchmarks.peers.base import TOPIC, Payload, Publisher, Tally
from benchmarks.peers.clients.postgres import PostgresPeer, committed

TABLE = "CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb)"
PUBLISH = (
    "WITH new AS (INSERT INTO message (payload) SELECT unnest(%s::text[])::jsonb RETURNING id)"
    f" SELECT count(pg_notify('{TOPIC}', id::text)) FROM new"
)
FETCH = "SELECT payload FROM message WHERE id = %s"


class _Publisher(Publisher):
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def batch(self, payloads: list[Payload]) -> None:
        await self._connection.execute(PUBLISH, ([json.dumps(each) for each in payloads],))

    async def single(self, message: Payload) -> None:
        await self.batch([message])

    async def timed(self, message: Payload) -> tuple[int, int]:
        await self._connection.execute("BEGIN")
        await self.single(message)
        return await committed(lambda: self._connection.execute("COMMIT"))


class BareNotify(PostgresPeer):
    """The baseline."""

    packages: ClassVar[tuple[str, ...]] = ("psycopg", "psycopg-binary")
    settings: ClassVar[dict[str, Any]] = {"connections": "one listens, one fetches"}
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 30_000,
        "publish_single": 1_500,
        "wake": 60,
    }

    async def prepare(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.address) as connection:
            await connection.execute(TABLE)

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with await psycopg.AsyncConnection.connect(
            self.address, autocommit=True
        ) as connection:
            yield _Publisher(connection)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        del concurrency
        connect = psycopg.AsyncConnection.connect
        async with (
            await connect(self.address, autocommit=True) as listener,
            await connect(self.address, autocommit=True) as fetcher,
        ):
            await listener.execute(f"LISTEN {TOPIC}")

            async def listen() -> None:
                async for notify in listener.notifies():
                    cursor = await fetcher.execute(FETCH, (int(notify.payload),), prepare=True)
                    async for (message,) in cursor:
                        await tally.handler(message)

            listening = asyncio.create_task(listen())
            await tally.finished.wait()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
