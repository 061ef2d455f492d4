"""Groups: how far they are, why they stand still, and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ..access import Access, access_of
from ..database import rows
from ..queries import BLOCKED, RETRIES
from ..site import page, site_of
from .overview import charts_of
from .topics import window

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from ...models import GroupInfo
    from ..sampler import Sampler

__all__ = ["ROUTES", "group_of"]


async def groups(request: Request) -> Response:
    """List the groups in each of their topics, those first that are behind most."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    found = site.sampler.snapshot.groups if site.sampler.snapshot else []
    wanted = request.query_params.get("q", "")
    seen = [
        one
        for one in found
        if one.group is not None and access.sees(one.topic) and wanted in f"{one.group} {one.topic}"
    ]
    seen.sort(key=lambda each: (-(each.lag or 0), each.group or "", each.topic))
    shown, more = window(seen, request.query_params.get("from"))
    return await page(
        request, "groups.html", access=access, rows=shown, more=more, q=wanted, total=len(seen)
    )


async def group_of(connection: Any, access: Access, name: str) -> GroupInfo:
    """Return a group, if the user sees one of its topics.

    Raises:
        HTTPException: there is none.
    """
    found = [each for each in await AsyncAdmin().groups(connection) if each.name == name]
    if not found or not (
        access.topics == (">",) or any(access.sees(topic) for topic in found[0].topics)
    ):
        raise HTTPException(404, f"There is no group {name!r}, or you may not see it.")
    return found[0]


async def group(request: Request) -> Response:
    """Show a group: its topics, what it waits for, its retries and its options."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    name = request.path_params["group"]
    await site.sampler.ensure()
    async with site.database.read() as connection:
        info = await group_of(connection, access, name)
        blocked = await rows(connection, BLOCKED, (name, None, 100))
        retries = await rows(connection, RETRIES, (name, None, 50))
        publishers = (
            await AsyncAdmin().blocking_publishers(connection, name)
            if info.order_by == "strict"
            else []
        )
    of_group = [
        one
        for one in (site.sampler.snapshot.groups if site.sampler.snapshot else [])
        if one.group == name and access.sees(one.topic)
    ]
    return await page(
        request, "group.html", access=access, group=info, rows=of_group,
        blocked=[each for each in blocked if access.sees(each["topic"])],
        retries=[each for each in retries if access.sees(each["topic"])], publishers=publishers,
        charts=charts_of(site.sampler, None, name), drained=_drained(site.sampler, name),
    )  # fmt: skip


def _drained(sampler: Sampler, group: str) -> float | None:
    """Return in how many seconds the group has read what waits, at its rate of now; None: never."""
    series = sampler.series.get((None, group))
    if series is None or not series.recent:
        return None
    last = series.recent[-1]
    topics = (
        {one.topic: one for one in sampler.snapshot.groups if one.group == group}
        if (sampler.snapshot)
        else {}
    )
    coming = sum(one.rate_in or 0.0 for one in topics.values())
    gained = (last.rate_out or 0.0) - coming
    return last.lag / gained if last.lag and gained > 0 else None


ROUTES = [Route("/groups", groups), Route("/groups/{group:path}", group)]
