"""A live page: an auction that all browsers see, by streams.

Each browser first receives the latest bid of each lot, and then each bid as it commits. It
continues after the last bid that it has, over restarts of this program and of the database.

    pip install "durable-notify[embedded,web]"
    python examples/live_page.py

Open http://127.0.0.1:8000 in two windows, and bid. It listens on port 8000, or on PORT. Its
database is DURABLE_NOTIFY_DSN, else an embedded one.
"""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

import durable_notify as dn
from durable_notify import schema
from durable_notify.embedded import shared_dsn
from durable_notify.web import StreamAccess, streams

DSN = os.environ.get("DURABLE_NOTIFY_DSN") or shared_dsn()
PAGE = Path(__file__).with_name("live_page.html")
TABLE = "CREATE TABLE IF NOT EXISTS lot (name text PRIMARY KEY, bid int NOT NULL, bidder text)"
LOTS = "INSERT INTO lot VALUES ('clock', 0), ('mirror', 0), ('lamp', 0) ON CONFLICT DO NOTHING"
BID = "UPDATE lot SET bid = %(bid)s, bidder = %(bidder)s WHERE name = %(lot)s AND bid < %(bid)s"

publisher = dn.AsyncPublisher()


def prepare() -> None:
    schema.migrate(DSN)
    with psycopg.connect(DSN) as connection:
        connection.execute(TABLE)
        connection.execute(LOTS)


def reader(_request: Request) -> StreamAccess:
    """Let all see the bids. Ask for your own session or token here."""
    return StreamAccess(topics=("bids",))


async def page(_request: Request) -> Response:
    return FileResponse(PAGE)


async def bid(request: Request) -> Response:
    """Store a bid that is higher, and publish it, in one transaction."""
    body = await request.json()
    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        if (await connection.execute(BID, body)).rowcount == 0:
            return PlainTextResponse("There is a higher bid.", 409)
        said = {"bid": body["bid"], "bidder": body["bidder"]}
        await publisher.publish(connection, "bids", said, key=body["lot"])
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/bids", bid, methods=["POST"]),
        Mount("/live", streams(DSN, authorize=reader)),
    ]
)

if __name__ == "__main__":
    prepare()
    # Open streams would hold up a stop; browsers continue when it has started again.
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(app, port=port, timeout_graceful_shutdown=1)
