"""The page that asks before something is done, and the one that says what was done."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import Route

from ..._async.admin.admin import AsyncAdmin
from ..access import Access
from ..actions import ACTIONS_BY_NAME
from ..plans import Plan
from ..site import entered, page

if TYPE_CHECKING:
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: The largest form, in bytes: an edited payload.
LARGEST = 2 * 1024 * 1024


async def act(request: Request) -> Response:
    """Say what would be done; once that is confirmed, do it."""
    site, access = await entered(request)
    name = request.path_params["name"]
    action = ACTIONS_BY_NAME.get(name)
    if action is None:
        raise HTTPException(404, f"There is no action {name!r}.")
    if not access.may(action.right):
        raise HTTPException(403, f"You may not do this: it needs the right {action.right}.")
    form = await _form(request)
    if form.get("path") and (site.masks or not access.payloads):
        # How many messages match would tell what is in them.
        raise HTTPException(403, "Payloads are hidden here: no condition may ask for a field.")
    confirmed = form.get("confirmed") == "yes"
    async with site.database.read(milliseconds=10_000) as connection:
        plan = await action.plan(connection, form)
        await _check_topics(connection, access, plan, form)
    done = None
    if confirmed:
        why = form.get("why", "").strip() or None
        done = await plan.do(partial(site.database.write, access.user), why)
        site.sampler.touch()
    return page(
        request,
        "action.html",
        access=access,
        name=name,
        action=action,
        plan=plan,
        done=done,
        why=form.get("why", ""),
    )


async def _form(request: Request) -> dict[str, str]:
    if int(request.headers.get("content-length") or LARGEST + 1) > LARGEST:
        raise HTTPException(413, "This form is too large.")
    async with request.form(max_files=0, max_fields=50, max_part_size=LARGEST) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


async def _check_topics(connection: Any, access: Access, plan: Plan, form: dict[str, str]) -> None:
    """Refuse what touches topics that the user does not see."""
    if access.sees_all:
        return
    if plan.topic is not None:
        topics = [plan.topic]
    else:
        found = await AsyncAdmin().groups(connection, form.get("group", ""))
        topics = [topic for each in found for topic in (*each.topics, *each.patterns)]
    if not topics or not all(access.sees(topic) for topic in topics):
        raise HTTPException(403, "This is also about topics that you may not see.")


ROUTES = [Route("/actions/{name}", act, methods=["POST"])]
