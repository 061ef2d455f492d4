"""Long polling: for clients that have nothing but requests."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .access import stream_access
from .asked import asked_by
from .hub import Behind, Ended
from .place import Place

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .access import AuthorizeStream
    from .cursor import Cursor
    from .events import Event
    from .hubs import Hubs

__all__ = ["LongPoll"]

#: The longest wait, in seconds: proxies end requests that take longer.
LONGEST = 50.0


class LongPoll:
    """The endpoint of long polling."""

    def __init__(self, hubs: Hubs, authorize: AuthorizeStream) -> None:
        self._hubs = hubs
        self._authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what there is, or else with what comes before the wait is over."""
        request = Request(scope, receive)
        topics, start = asked_by(request)
        wait = _seconds(request.query_params.get("wait", "0"))
        access = await stream_access(request, self._authorize, topics)
        try:
            async with self._hubs.cursor(topics, start, access) as cursor:
                body = await _answer(cursor, wait if isinstance(start, Place) else 0.0)
        except (Behind, Ended):
            raise HTTPException(503, "try again", {"retry-after": "1"}) from None
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        await Response(body, 200, headers, "application/json")(scope, receive, send)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST:
        raise HTTPException(400, f"wait is a number of seconds, at most {LONGEST:g}")
    return seconds


async def _answer(cursor: Cursor, wait: float) -> str:
    """Return the next messages as JSON, and where to continue."""
    found: dict[str, list[Event]] = {"message": [], "gap": [], "reset": [], "place": []}
    after = cursor.place
    now = asyncio.get_running_loop().time()
    async with aclosing(cursor.batches()) as batches:
        while not (found["message"] or found["reset"]) or after is None:
            # While it catches up there is an answer soon, whatever the client waits for.
            until = now + (wait if cursor.is_live else LONGEST)
            try:
                async with asyncio.timeout_at(until):
                    batch = await anext(batches)
            except TimeoutError:
                break
            after = cursor.place
            for event in batch:
                found[event.name].append(event)
    if cursor.is_live:
        after = cursor.place  # also past what it may not see
    if after is None:
        raise HTTPException(503, "the database does not answer", {"retry-after": "5"})
    token = json.dumps(after.token)
    parts = [f'"{name}":{found[name][0].data}' for name in ("gap", "reset") if found[name]]
    messages = ",".join(event.data for event in found["message"])
    return "{" + ",".join([*parts, f'"after":{token}', f'"messages":[{messages}]']) + "}"
