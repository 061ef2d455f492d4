"""Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.requests import Request

from .access import stream_access
from .asked import asked_by
from .client import Client
from .hub import Behind

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .access import AuthorizeStream
    from .events import Batch
    from .hubs import Hubs

__all__ = ["ServerSentEvents"]

#: ``no-transform`` keeps proxies from compressing, and so from holding back.
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
#: How long a browser waits before it connects again, in milliseconds.
BEGIN = b"retry: 1000\n\n"


class ServerSentEvents:
    """The endpoint of EventSource."""

    def __init__(self, hubs: Hubs, authorize: AuthorizeStream, recheck: float) -> None:
        self._hubs = hubs
        self._authorize = authorize
        self._recheck = recheck

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client leaves, or has to leave."""
        request = Request(scope, receive)
        topics, start = asked_by(request)
        access = await stream_access(request, self._authorize, topics)

        async def write(batch: Batch) -> None:
            await send({"type": "http.response.body", "body": batch.sse, "more_body": True})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            async with self._hubs.cursor(topics, start, access) as cursor:
                await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await send({"type": "http.response.body", "body": BEGIN, "more_body": True})
                client = Client(
                    cursor, write, lambda: stream_access(request, self._authorize, topics),
                    self._recheck,
                )  # fmt: skip
                if await client.serve(gone()):
                    return
        except Behind:
            pass
        await _end(send)


async def _end(send: Send) -> None:
    # A client that takes nothing would hold up the end as well.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
