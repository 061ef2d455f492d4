"""A cache that is never invalidated by hand: prices in the memory of each process.

A trigger publishes each change of the table, whichever program makes it. At its start a process
reads the latest message of each item, and serves requests once it has them all. Then it follows
the changes from exactly there, so that no process misses one. No process asks the table again.

    pip install "durable-notify[embedded,web]"
    python examples/price_cache.py

It listens on port 8000, or on PORT. Its database is DURABLE_NOTIFY_DSN, else an embedded one. Start
several on different ports, and change a price at one of them, or in psql.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import durable_notify as dn
from durable_notify import schema
from durable_notify.bridge import Bridge
from durable_notify.embedded import shared_dsn

DSN = os.environ.get("DURABLE_NOTIFY_DSN") or shared_dsn()
TOPIC = "prices"
CHANGE = """
    INSERT INTO price VALUES (%s, %s) ON CONFLICT (item) DO UPDATE SET amount = EXCLUDED.amount
"""


class Cache:
    """The prices, as of the last message that arrived."""

    def __init__(self) -> None:
        self.prices: dict[str, float] = {}
        self._following: asyncio.Task[None] | None = None

    def apply(self, message: dn.models.ReadMessage) -> None:
        """Store what a row has become; the key of a message is the row's."""
        row = message.payload.get("new")  # a row that was deleted has none
        if row is None:
            self.prices.pop(message.key, None)
        else:
            self.prices[message.key] = row["amount"]

    async def _follow(self, token: str) -> None:
        async with dn.AsyncReader(DSN, topics=[TOPIC], start=token) as changes:
            async for message in changes:
                self.apply(message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Fill the cache, then follow the changes from where that ended."""
        latest = dn.AsyncReader(DSN, topics=[TOPIC], start="latest", until_empty=True)
        async with latest:
            async for message in latest:
                self.apply(message)
        self._following = asyncio.create_task(self._follow(latest.token))
        yield
        self._following.cancel()

    def get(self, item: str) -> float | None:
        """Return a price. Fail if changes are no longer followed, rather than show old prices."""
        if self._following is None or self._following.done():
            raise RuntimeError("the cache does not follow the changes")
        return self.prices.get(item)


def prepare() -> None:
    """Create the schema and the table, and watch the table."""
    schema.migrate(DSN)
    with psycopg.connect(DSN) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS price (item text PRIMARY KEY, amount float NOT NULL)"
        )
        if not any(bridge.target == TOPIC for bridge in Bridge().bridges(connection)):
            Bridge().watch(connection, "price", TOPIC, with_old=False)
            connection.execute("UPDATE price SET item = item")  # rows that had no message yet
            dn.Admin().set_retention(connection, TOPIC, compact=True)  # the latest of each key


cache = Cache()


@asynccontextmanager
async def running(_app: Starlette) -> AsyncIterator[None]:
    async with cache.running():
        yield


async def show(request: Request) -> Response:
    price = cache.get(request.path_params["item"])
    return JSONResponse({"price": price}, status_code=200 if price is not None else 404)


async def change(request: Request) -> Response:
    """Write to the table. Neither this nor another program that does so knows of the cache."""
    body = await request.json()
    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        await connection.execute(CHANGE, [request.path_params["item"], body["price"]])
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/prices/{item}", show),
        Route("/prices/{item}", change, methods=["PUT"]),
    ],
    lifespan=running,
)

if __name__ == "__main__":
    prepare()
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
