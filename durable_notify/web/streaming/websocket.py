"""The same events over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...errors import InvalidArgument
from .access import stream_access
from .asked import Start, start_of, topics_of
from .client import Client
from .hub import Behind

if TYPE_CHECKING:
    from collections.abc import Collection

    from .access import AuthorizeStream
    from .events import Batch
    from .hubs import Hubs

__all__ = ["Socket"]

#: How long a client may take to say what it wants, in seconds.
FIRST = 10.0
#: Codes of RFC 6455: its first message is invalid, or asks for too much; try again later.
INVALID, LATER = 1008, 1013


class Socket:
    """The endpoint of WebSocket."""

    def __init__(
        self, hubs: Hubs, authorize: AuthorizeStream, recheck: float, origins: Collection[str]
    ) -> None:
        self._hubs = hubs
        self._authorize = authorize
        self._recheck = recheck
        self._origins = origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Receive what the client wants, and send until it leaves, or has to leave."""
        socket = WebSocket(scope, receive, send)
        if not self._is_from_here(socket):
            raise HTTPException(403, "This page may not use the streams.")
        await stream_access(socket, self._authorize, ())
        await socket.accept()
        try:
            async with asyncio.timeout(FIRST):
                topics, start = _asked(await socket.receive_text())
            await self._serve(socket, topics, start)
        except WebSocketDisconnect:
            return
        except TimeoutError:
            await socket.close(INVALID, "the first message says what to read")
        except InvalidArgument as error:
            await socket.close(INVALID, str(error)[:120])
        except Behind:
            await socket.close(LATER, "too slow: continue after the last id")
        except HTTPException as error:
            code = LATER if error.status_code == 503 else INVALID  # noqa: PLR2004 - HTTP's own
            await socket.close(code, error.detail[:120])

    def _is_from_here(self, socket: WebSocket) -> bool:
        # Trap: a browser sends its cookies with a WebSocket of any website.
        origin = socket.headers.get("origin")
        return (
            origin is None
            or origin in self._origins
            or urlsplit(origin).netloc == socket.headers.get("host")
        )

    async def _serve(self, socket: WebSocket, topics: tuple[str, ...], start: Start) -> None:
        access = await stream_access(socket, self._authorize, topics)

        async def write(batch: Batch) -> None:
            for event in batch:
                await socket.send_text(event.frame)

        async def gone() -> None:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass

        async with self._hubs.cursor(topics, start, access) as cursor:
            client = Client(
                cursor, write, lambda: stream_access(socket, self._authorize, topics),
                self._recheck,
            )  # fmt: skip
            if not await client.serve(gone()):
                await socket.close(LATER, "the stream has ended")


def _asked(text: str) -> tuple[tuple[str, ...], Start]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not isinstance(given.get("topics"), list):
        raise InvalidArgument(
            'the first message says what to read: {"topics": ["orders"], "after": null}'
        )
    for name in ("after", "start"):
        if not isinstance(given.get(name), str | None):
            raise InvalidArgument(f"{name} is text")
    topics = topics_of(given["topics"])
    return topics, start_of(given.get("after"), given.get("start"), topics)
