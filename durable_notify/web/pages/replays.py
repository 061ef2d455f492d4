"""Replays: running ones with their progress, and new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..conditions import page_after, page_before
from ..database import rows
from ..queries import REPLAYS
from ..site import entered, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: How many jobs a page has.
PAGE = 100


async def replays(request: Request) -> Response:
    """List replay jobs, the newest first, and offer a new one."""
    site, access = await entered(request)
    given = request.query_params
    async with site.database.read() as connection:
        jobs = await rows(connection, REPLAYS, (page_before(given), PAGE))
    return page(
        request, "replays.html", access=access,
        jobs=[each for each in jobs if access.sees(each["topic"])],
        older=page_after(jobs, PAGE, "job_id"),
        group=given.get("group", ""), topic=given.get("topic", ""),
    )  # fmt: skip


ROUTES = [Route("/replays", replays)]
