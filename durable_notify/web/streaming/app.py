"""Streams as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse
from starlette.routing import Route, WebSocketRoute

from ...durations import in_seconds
from .hubs import Hubs
from .longpoll import LongPoll
from .sse import ServerSentEvents
from .websocket import Socket

if TYPE_CHECKING:
    from starlette.requests import Request

    from ...durations import Seconds
    from .access import AuthorizeStream

__all__ = ["closing", "script", "streams"]

SCRIPT = Path(__file__).parent / "static" / "durable-notify.js"


def streams(
    dsn: str,
    *,
    authorize: AuthorizeStream,
    origins: Iterable[str] = (),
    max_clients: int = 2_000,
    buffer_bytes: int = 8_000_000,
    recheck: Seconds = 60.0,
) -> Starlette:
    """Return the streams, to be served or mounted.

    ``/events`` sends Server-Sent Events, ``/socket`` is a WebSocket, ``/messages`` long polling,
    and ``/durable-notify.js`` a client. All clients of the same topics share one reader.

    Args:
        dsn: a libpq connection string or URI. Its role needs the right to read the topics.
        authorize: called with each request; returns what it may read, a ``StreamAccess``, or None
            to refuse. May be async.
        origins: the websites, besides its own, whose pages may use the streams:
            ``https://www.example.com``.
        max_clients: the most clients at once. Others are refused with 503.
        buffer_bytes: how much to keep in memory for slow clients, for each set of topics. Slower
            ones are disconnected; they continue after the last message that they received.
        recheck: how often to call ``authorize`` again for clients that are connected.

    Raises:
        InvalidArgument: libpq cannot read the DSN, or a limit is too small.
    """
    allowed = tuple(origins)
    hubs = Hubs(dsn, buffer_bytes, max_clients)
    every = in_seconds("recheck", recheck)
    cors = Middleware(
        CORSMiddleware, allow_origins=allowed, allow_credentials=True,
        allow_headers=["Last-Event-ID", "Authorization"],
    )  # fmt: skip
    app = Starlette(
        routes=[
            Route("/events", ServerSentEvents(hubs, authorize, every)),
            Route("/messages", LongPoll(hubs, authorize)),
            WebSocketRoute("/socket", Socket(hubs, authorize, every, allowed)),
            Route("/durable-notify.js", script),
        ],
        middleware=[cors] if allowed else [],
        lifespan=closing(hubs),
    )
    app.state.stats = hubs.stats
    app.state.durable_notify = True  # so that the lifespan of its host ends it
    return app


def closing(hubs: Hubs) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Return what closes the hubs when the application ends."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await hubs.close()

    return lifespan


async def script(_: Request) -> FileResponse:
    """Send the client."""
    return FileResponse(SCRIPT, media_type="text/javascript")
