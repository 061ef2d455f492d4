"""One stream a browser, which says that something has changed, and not what."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, StreamingResponse

from .site import entered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from .sampler import Sampler

__all__ = ["events"]

#: How long to be silent at most, in seconds: proxies cut what is silent for longer.
BEAT = 15.0
#: The most streams, of all users and of one, so that no user takes them all. Beyond them, pages
#: look at intervals: app.js does that by itself.
STREAMS, OF_USER = 500, 100

#: How many streams each user of each dashboard has open; within this process.
_open: Counter[tuple[int, str]] = Counter()


class _Stream(StreamingResponse):
    """A stream that counts as open until it ends, also if its client was gone before it began."""

    def __init__(self, sampler: Sampler, of: tuple[int, str]) -> None:
        headers = {"x-accel-buffering": "no"}
        super().__init__(_stream(sampler), media_type="text/event-stream", headers=headers)
        self._of = of
        _open[of] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _open[self._of] -= 1
            if not _open[self._of]:
                del _open[self._of]


async def events(request: Request) -> Response:
    """Stream a number whenever the sampler has looked."""
    site, access = await entered(request)
    of = (id(site), access.user)
    if _open.total() >= STREAMS or _open[of] >= OF_USER:
        return PlainTextResponse("too many streams\n", 503, {"retry-after": "60"})
    return _Stream(site.sampler, of)


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
