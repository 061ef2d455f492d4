"""One stream a browser, which says that something has changed, and not what."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, StreamingResponse

from .access import access_of
from .site import site_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from .sampler import Sampler

__all__ = ["events"]

#: How long to be silent at most, in seconds: proxies cut what is silent for longer.
BEAT = 15.0
#: The most streams. Beyond them, pages look at intervals: app.js does that by itself.
STREAMS = 500

_open = 0


class _Stream(StreamingResponse):
    """A stream that counts as open until it ends, also if its client was gone before it began."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        global _open  # noqa: PLW0603 - streams of the process
        try:
            await super().__call__(scope, receive, send)
        finally:
            _open -= 1


async def events(request: Request) -> Response:
    """Stream a number whenever the sampler has looked."""
    global _open  # noqa: PLW0603 - streams of the process
    site = site_of(request)
    await access_of(request, site.authorize)
    if _open >= STREAMS:
        return PlainTextResponse("too many streams\n", 503, {"retry-after": "60"})
    _open += 1
    return _Stream(
        _stream(site.sampler), media_type="text/event-stream",
        headers={"x-accel-buffering": "no"},
    )  # fmt: skip


async def _stream(sampler: Sampler) -> AsyncIterator[str]:
    async with aclosing(sampler.changes()) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=BEAT)
                if not done:
                    yield ": alive\n\n"
                    continue
                yield f"event: changed\ndata: {waiting.result()}\n\n"
                waiting = asyncio.ensure_future(anext(changes))
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
