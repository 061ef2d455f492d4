"""The audit: who has changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..conditions import page_after, page_before
from ..database import rows
from ..queries import AUDIT
from ..site import entered, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: How many entries a page has.
PAGE = 100


async def audit(request: Request) -> Response:
    """Show who has changed what."""
    site, access = await entered(request)
    group = request.query_params.get("group") or None
    async with site.database.read() as connection:
        entries = await rows(connection, AUDIT, (page_before(request.query_params), PAGE, group))
    seen = [
        each
        for each in entries
        if access.sees_all or (each["topic"] is not None and access.sees(each["topic"]))
    ]
    return page(
        request, "audit.html", access=access, entries=seen, group=group or "",
        older=page_after(entries, PAGE),
    )  # fmt: skip


ROUTES = [Route("/audit", audit)]
