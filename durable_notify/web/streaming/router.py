"""Streams as a router of FastAPI, with its dependencies and its OpenAPI document.

app.include_router(stream_router(dsn, authorize=authorize), prefix="/live")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.websockets import WebSocket

from ...durations import in_seconds
from .app import closing, script
from .hubs import Hubs
from .longpoll import LongPoll
from .sse import ServerSentEvents
from .websocket import Socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from ...durations import Seconds
    from .access import AuthorizeStream
    from .hubs import StreamStats

__all__ = ["StreamRouter", "stream_router"]


class StreamRouter(APIRouter):
    """The routes of the streams, for ``include_router``.

    Attributes:
        stats: returns what the streams do now, and have done.
    """

    stats: Callable[[], StreamStats]


def stream_router(
    dsn: str,
    *,
    authorize: AuthorizeStream,
    origins: Iterable[str] = (),
    max_clients: int = 2_000,
    buffer_bytes: int = 8_000_000,
    recheck: Seconds = 60.0,
) -> StreamRouter:
    """Return what ``streams`` serves as a router, with the same arguments.

    FastAPI answers errors, and its ``CORSMiddleware`` those websites that are not the
    application's own: ``origins`` are only for WebSockets here.

    Trap: FastAPI closes a dependency with ``yield`` when the response ends, and a stream does not
    end. Do not lend a database session to these routes.

    Raises:
        InvalidArgument: libpq cannot read the DSN, or a limit is too small.
    """
    hubs = Hubs(dsn, buffer_bytes, max_clients)
    every = in_seconds("recheck", recheck)
    events = ServerSentEvents(hubs, authorize, every)
    messages = LongPoll(hubs, authorize)
    socket = Socket(hubs, authorize, every, tuple(origins))

    async def stream_events(request: Request) -> Response:  # noqa: ARG001 - FastAPI's form
        """Receive messages as Server-Sent Events."""
        return _Served(events)

    async def poll_messages(request: Request) -> Response:  # noqa: ARG001
        """Receive the next messages as JSON, or wait for them."""
        return _Served(messages)

    async def client_script(request: Request) -> FileResponse:
        """Receive the client for browsers."""
        return await script(request)

    async def stream_socket(websocket: WebSocket) -> None:
        await socket(websocket.scope, websocket.receive, websocket.send)

    router = StreamRouter(lifespan=closing(hubs))
    router.stats = hubs.stats
    for path, endpoint, about in (
        ("/events", stream_events, _PARAMETERS), ("/messages", poll_messages, [*_PARAMETERS, _WAIT])
    ):  # fmt: skip
        router.get(path, openapi_extra={"parameters": about}, response_class=Response)(endpoint)
    router.add_api_route("/durable-notify.js", client_script, include_in_schema=False)
    router.add_api_websocket_route("/socket", stream_socket)
    return router


class _Served(Response):
    """A response that an ASGI application sends."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _parameter(name: str, about: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name, "in": "query", "required": name == "topic", "description": about,
        "schema": {"type": "string", **schema},
    }  # fmt: skip


_PARAMETERS = [
    _parameter("topic", "A topic or a pattern.", type="array", items={"type": "string"}),
    _parameter("start", "Where to begin: now, beginning, latest, or a time with its zone."),
    _parameter("after", "The id of the last event."),
]
_WAIT = _parameter("wait", "How many seconds to wait if there is nothing.", type="number")
