"""Noticing that the server stops: uvicorn waits for open responses, and tells none of them."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

__all__ = ["until_server_stops"]

#: How often to look, in seconds.
LOOK = 0.25


async def until_server_stops() -> None:
    """Return once uvicorn was told to stop; never for another server, which tells its responses.

    Trap: it has no other sign than the flag that its handler of signals sets. A mounted application
    is not told of the end either.
    """
    while (server := _uvicorn()) is not None:
        if server.should_exit:
            return
        await asyncio.sleep(LOOK)
    await asyncio.Event().wait()


def _uvicorn() -> Any:
    handlers = (signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))
    owners = (getattr(handler, "__self__", None) for handler in handlers)
    return next((owner for owner in owners if hasattr(owner, "should_exit")), None)
