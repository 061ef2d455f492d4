"""Dead letters: with filters, errors, and what to do about exactly those that match."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from starlette.routing import Route

from ..access import no_topic
from ..conditions import Conditions, moment, number
from ..database import rows
from ..payloads import shown, shown_error, shown_reason
from ..queries import DEAD_LETTERS, DEAD_TYPES
from ..site import entered, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: How many dead letters a page has, and at how many it looks.
PAGE, LOOK = 50, 20_000


async def dead_letters(request: Request) -> Response:
    """List dead letters, the newest first."""
    site, access = await entered(request)
    given = request.query_params
    wanted = Conditions.of(given)
    if wanted.topic and not access.sees(wanted.topic):
        raise no_topic(wanted.topic)
    last = (number("last_id", given.get("last_id")), moment("last_at", given.get("last_at")))
    async with site.database.read() as connection:
        types = await rows(connection, DEAD_TYPES, (wanted.group, wanted.topic, LOOK))
        params = (*wanted.params, PAGE, last[1], last[0], LOOK)
        found = await rows(connection, DEAD_LETTERS, params)
    following = _following(found[-1]) if found else None
    looked_back_to = found.pop()["dead_at"] if found and found[-1]["group_name"] is None else None
    if looked_back_to is None and len(found) < PAGE:
        following = None
    found = [each for each in found if access.sees(each["topic"])]
    for each in found:
        each["content"] = shown(site.masks, access, each)
        each["error"] = shown_error(access, each["error"])
        each["reason"] = shown_reason(access, each["reason"])
    return page(
        request, "dead_letters.html", access=access, letters=found, wanted=wanted,
        following=following, looked_back_to=looked_back_to, look=LOOK,
        types=types if access.sees_all or wanted.topic else [], given=wanted.form,
        masked=bool(site.masks),
    )  # fmt: skip


def _following(row: dict[str, object]) -> dict[str, object]:
    at = row["dead_at"]
    assert isinstance(at, datetime)  # noqa: S101 - a column
    return {"last_id": row["message_id"], "last_at": at.isoformat()}


ROUTES = [Route("/dead-letters", dead_letters)]
