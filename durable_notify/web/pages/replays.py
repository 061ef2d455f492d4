"""Replays: running ones with their progress, and new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ..access import access_of
from ..site import page, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]


async def replays(request: Request) -> Response:
    """List the newest replay jobs, and offer a new one."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    async with site.database.read() as connection:
        jobs = await AsyncAdmin().replay_jobs(connection, limit=100)
    given = request.query_params
    return await page(
        request, "replays.html", access=access,
        jobs=[each for each in jobs if access.sees(each.topic)],
        group=given.get("group", ""), topic=given.get("topic", ""),
    )  # fmt: skip


ROUTES = [Route("/replays", replays)]
