"""Messages: a bounded look at a topic, and one message in every group."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ..access import Access, no_topic
from ..conditions import moment, number
from ..database import rows
from ..payloads import shown, shown_error, shown_reason
from ..queries import BROWSE, MESSAGE, STATES
from ..site import entered, page, url

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..masking import Masks

__all__ = ["ROUTES"]

#: How many messages a page has, and at how many it looks.
PAGE, LOOK = 50, 10_000
#: Ids are below it, and have so many digits at most.
LAST, DIGITS = 2**63 - 1, 19


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """What is looked for."""

    before: int | None
    until: datetime | None
    key: str | None
    headers: str | None
    path: list[str] | None
    value: str | None

    @property
    def params(self) -> tuple[Any, ...]:
        """The arguments of the query."""
        return (self.before, self.until, self.key, self.headers, self.path, self.value, PAGE, LOOK)


async def messages(request: Request) -> Response:
    """Look through a topic, from the newest message back."""
    site, access = await entered(request)
    given = request.query_params
    topic = given.get("topic", "")
    found: list[dict[str, Any]] = []
    if topic:
        if not access.sees(topic):
            raise no_topic(topic)
        if given.get("id"):
            return RedirectResponse(url(request, f"/messages/{number('id', given['id'])}/{topic}"))
        wanted = _filter(given, site.masks, access)
        async with site.database.read() as connection:
            found = await rows(connection, BROWSE, (topic, *wanted.params))
    looked_back_to = found.pop()["continue_before"] if found and found[-1]["id"] is None else None
    following = looked_back_to or (found[-1]["id"] if len(found) == PAGE else None)
    for each in found:
        each["content"] = shown(site.masks, access, each)
    return page(
        request, "messages.html", access=access, topic=topic, messages=found, given=dict(given),
        following=following, looked_back_to=looked_back_to, look=LOOK,
    )  # fmt: skip


def _filter(given: Any, masks: Masks, access: Access) -> Filter:
    def text(name: str) -> str | None:
        return given.get(name) or None

    path, value = text("path"), text("value")
    if (path or text("header")) and not access.payloads:
        raise HTTPException(403, "You may not see payloads, so you cannot search them.")
    if path and masks.hides(path):
        raise HTTPException(403, f"The field {path} is not shown here, so it cannot be searched.")
    header = text("header")
    if header and masks.hides(header):
        raise HTTPException(403, f"The header {header} is not shown, so it cannot be searched.")
    return Filter(
        number("id", text("before")), moment("until", text("until")), text("key"),
        json.dumps({header: given.get("header_value", "")}) if header else None,
        path.split(".") if path else None, _scalar(value) if path else None,
    )  # fmt: skip


def _scalar(value: str | None) -> str:
    """Return a value to compare with, as JSON: a number, true, false, null, or text.

    Objects and lists are text here: by comparing them, masked fields could be found.
    """
    try:
        decoded = json.loads(value or "")
    except ValueError:
        return json.dumps(value or "")
    return json.dumps(value) if isinstance(decoded, (dict, list)) else str(value)


async def message(request: Request) -> Response:
    """Show one message, and what it is to each group."""
    site, access = await entered(request)
    topic = request.path_params["topic"]
    if not access.sees(topic):
        raise no_topic(topic)
    wanted = _id(request.path_params["id"], topic)
    async with site.database.read() as connection:
        found = await rows(connection, MESSAGE, (topic, wanted, wanted))
        states = await rows(connection, STATES, (topic, wanted))
    if not found and not any(each["state"] != "unknown" for each in states):
        raise _missing(topic, wanted)
    content = shown(site.masks, access, found[0]) if found else None
    if request.query_params.get("raw") and content is not None:
        headers = {"content-disposition": f'attachment; filename="message-{wanted}.json"'}
        return PlainTextResponse(content.whole, headers=headers)
    for each in states:
        each["error"] = shown_error(access, each["error"])
        each["reason"] = shown_reason(access, each["reason"])
    return page(
        request, "message.html", access=access, topic=topic, id=wanted, content=content,
        message=found[0] if found else None, states=states,
    )  # fmt: skip


def _id(text: str, topic: str) -> int:
    """Return the id in an address.

    Raises:
        HTTPException: no message has it. Trap: int() of more than 4,300 digits is a ValueError.
    """
    if not text.isdecimal() or len(text) > DIGITS or int(text) >= LAST:
        raise _missing(topic, text[:DIGITS])
    return int(text)


def _missing(topic: str, wanted: object) -> HTTPException:
    return HTTPException(404, f"Topic {topic} has no message {wanted}; it may be removed.")


ROUTES = [
    Route("/messages", messages),
    Route("/messages/{id}/{topic:path}", message),
]
