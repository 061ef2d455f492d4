"""What a client asks for: topics, and where to begin."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from ...errors import InvalidArgument
from ...topics import check_topics
from .place import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

__all__ = ["Start", "asked_by", "start_of", "topics_of"]

Start = Place | datetime | str
#: The most names and patterns in one stream.
TOPICS = 100


def asked_by(request: Request) -> tuple[tuple[str, ...], Start]:
    """Return the topics that a request asks for, and where to begin.

    Raises:
        HTTPException: it is no GET, or asks for what is invalid.
    """
    if request.method != "GET":
        raise HTTPException(405, "only GET", {"allow": "GET"})
    asked = request.query_params
    try:
        topics = topics_of(asked.getlist("topic"))
        # The header is what a browser sends when it connects again: it is newer than the URL.
        after = request.headers.get("last-event-id") or asked.get("after")
        return topics, start_of(after, asked.get("start"), topics)
    except InvalidArgument as error:
        raise HTTPException(400, str(error)) from None


def topics_of(given: Sequence[str]) -> tuple[str, ...]:
    """Return the topics and patterns of a stream.

    Raises:
        InvalidArgument: there is none, or one is invalid.
    """
    if not given:
        raise InvalidArgument("name what to read: ?topic=orders, once for each topic or pattern")
    if len(given) > TOPICS:
        raise InvalidArgument(f"a stream has at most {TOPICS} topics: use patterns")
    return check_topics(given)


def start_of(after: str | None, start: str | None, topics: tuple[str, ...]) -> Start:
    """Return where a stream begins: after a token if there is one, else as the client asks.

    Raises:
        InvalidArgument: it is neither a token nor a start.
    """
    if after:
        return Place.of(after, topics)
    if start in {None, "", "now"}:
        return "now"
    if start in {"beginning", "latest"}:
        return str(start)
    try:
        at = datetime.fromisoformat(str(start))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidArgument(
            'start is "now", "beginning", "latest", or a time with its zone: 2027-01-31T12:00:00Z'
        )
    return at
