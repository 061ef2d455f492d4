"""Who may read which topics as a stream, and what of each message."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from ...topics import check_topics, matches
from ..masking import Masks

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from ...models import ReadMessage

__all__ = ["AuthorizeStream", "StreamAccess", "stream_access"]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamAccess:
    """What a client of the streams may read.

    Args:
        topics: names or patterns of the topics that it may ask for.
        filter: called with each message; returns whether the client receives it.
        masks: fields of payloads and headers that the client does not see, as for the dashboard.

    Raises:
        InvalidArgument: a topic or a mask is invalid.
    """

    topics: tuple[str, ...]
    filter: Callable[[ReadMessage[Any]], bool] | None = None
    masks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_topics(self.topics)
        Masks(self.masks)

    def covers(self, wanted: str) -> bool:
        """Return whether the client may read all topics of a name or pattern."""
        # Trap: to a pattern, ">" is a word like another, and "orders.*" would match "orders.>".
        return any(
            matches(wanted, allowed) and (allowed.endswith(">") or not wanted.endswith(">"))
            for allowed in self.topics
        )


#: Decides what a request may read; None: nothing. It may be async.
AuthorizeStream = Callable[
    ["HTTPConnection"], "StreamAccess | Awaitable[StreamAccess | None] | None"
]


async def stream_access(
    request: HTTPConnection, authorize: AuthorizeStream, topics: tuple[str, ...]
) -> StreamAccess:
    """Return what a request may read.

    Raises:
        HTTPException: it may not read these topics.
    """
    found = authorize(request)
    if inspect.isawaitable(found):
        found = await found
    if found is None:
        raise HTTPException(403, "You may not read this stream.")
    for topic in topics:
        if not found.covers(topic):
            raise HTTPException(403, f"You may not read {topic}.")
    return found
