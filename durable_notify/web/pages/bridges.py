"""Bridges: mirrors, captures, watched tables, and the compatibility schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..._core import sql
from ..database import rows
from ..site import entered, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]


async def bridges(request: Request) -> Response:
    """Show the bridges; the user has to see all topics."""
    site, access = await entered(request)
    found: list[dict[str, object]] = []
    if access.sees_all:
        async with site.database.read() as connection:
            found = await rows(connection, sql.BRIDGES)
    return page(request, "bridges.html", access=access, bridges=found)


ROUTES = [Route("/bridges", bridges)]
