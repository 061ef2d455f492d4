"""Retention: how long messages are kept, what topics take, and what was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..._async.admin.admin import AsyncAdmin
from ..conditions import page_after, page_before
from ..database import rows
from ..queries import LOSSES
from ..site import entered, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: How many losses a page has, and how many topics, the largest first.
MAX_ROWS = 100


async def retention(request: Request) -> Response:
    """Show how long messages are kept, what topics take, what holds removal back, what was lost."""
    site, access = await entered(request)
    await site.sampler.ensure()
    sampler = site.sampler
    async with site.database.read() as connection:
        policies = await AsyncAdmin().retention(connection)
        losses = await rows(connection, LOSSES, (page_before(request.query_params), MAX_ROWS))
    blockers, storage = sampler.blockers, sampler.storage
    sizes = [each for each in (storage or {}).values() if access.sees(each.topic)]
    return page(
        request, "retention.html", access=access,
        policies=[each for each in policies if access.sees(each.pattern)],
        # Within a user's topics the default applies too.
        default=next((each for each in policies if each.pattern == ">"), None),
        sizes=None if storage is None else sizes[:MAX_ROWS], measured=len(sizes),
        total=sum(each.bytes for each in sizes),
        blockers=None if blockers is None else [one for one in blockers if access.sees(one.topic)],
        losses=[each for each in losses if access.sees(each["topic"])],
        older=page_after(losses, MAX_ROWS),
    )  # fmt: skip


ROUTES = [Route("/retention", retention)]
