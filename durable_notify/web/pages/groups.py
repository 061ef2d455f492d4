"""Groups: how far they are, why they stand still, and their options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ...models import GroupInfo
from ..access import Access, access_of
from ..database import rows
from ..queries import BLOCKED, ONE_GROUP, RETRIES
from ..site import page, site_of
from .overview import charts_of
from .topics import window

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from ..sampler import Sampler

__all__ = ["ROUTES", "group_of"]


async def groups(request: Request) -> Response:
    """List the groups in each of their topics, those first that are behind most."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    wanted = request.query_params.get("q", "")
    seen = [
        one
        for one in site.sampler.seen.pairs
        if wanted in f"{one.group} {one.topic}" and access.sees(one.topic)
    ]
    shown, more = window(seen, request.query_params.get("from"))
    hidden = sum(each.parts for each in site.sampler.seen.groups.values())
    hidden -= len(site.sampler.seen.pairs)
    return await page(
        request, "groups.html", access=access, rows=shown, more=more, q=wanted, total=len(seen),
        hidden=hidden if access.sees_all else 0,
    )  # fmt: skip


async def group_of(connection: Any, access: Access, name: str) -> GroupInfo:
    """Return a group, if the user sees one of its topics.

    Raises:
        HTTPException: there is none.
    """
    cursor = await connection.execute(ONE_GROUP, (name,))
    found = [GroupInfo(*row) for row in await cursor.fetchall()]
    if not found or not (access.sees_all or any(access.sees(each) for each in found[0].topics)):
        raise HTTPException(404, f"There is no group {name!r}, or you may not see it.")
    return dataclasses.replace(
        found[0],
        topics=[each for each in found[0].topics if access.sees(each)],
        patterns=[each for each in found[0].patterns if access.sees(each)],
    )


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
        one for one in site.sampler.seen.pairs if one.group == name and access.sees(one.topic)
    ]
    return await page(
        request, "group.html", access=access, group=info, rows=of_group,
        blocked=[each for each in blocked if access.sees(each["topic"])],
        retries=[each for each in retries if access.sees(each["topic"])], publishers=publishers,
        # Queries may quote payloads, of any topic.
        queries=access.payloads and access.sees_all and not site.masks,
        # Sums have all topics of the group: they are for those who see all.
        charts=charts_of(site.sampler, None, name) if access.sees_all else None,
        drained=_drained(site.sampler, name) if access.sees_all else None,
    )  # fmt: skip


def _drained(sampler: Sampler, group: str) -> float | None:
    """Return in how many seconds the group has read what waits, at its rate of now; None: never."""
    total = sampler.seen.groups.get(group)
    if total is None or total.rate_out is None:
        return None
    topics = sampler.seen.topics
    coming = sum(topics[name].rate_in or 0.0 for name in sampler.seen.delivered[group])
    gained = total.rate_out - coming
    return total.lag / gained if total.lag and gained > 0 else None


ROUTES = [Route("/groups", groups), Route("/groups/{group:path}", group)]
