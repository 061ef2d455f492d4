"""Replays: running ones with their progress, and new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..access import access_of
from ..conditions import page_before
from ..database import rows
from ..queries import REPLAYS
from ..site import page, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: How many jobs a page has.
PAGE = 100


async def replays(request: Request) -> Response:
    """List replay jobs, the newest first, and offer a new one."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    given = request.query_params
    async with site.database.read() as connection:
        jobs = await rows(connection, REPLAYS, (page_before(given), PAGE))
    return await page(
        request, "replays.html", access=access,
        jobs=[each for each in jobs if access.sees(each["topic"])],
        older=jobs[-1]["job_id"] if len(jobs) == PAGE else None,
        group=given.get("group", ""), topic=given.get("topic", ""),
    )  # fmt: skip


ROUTES = [Route("/replays", replays)]
