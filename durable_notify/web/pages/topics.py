"""Topics: what is published, and who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from starlette.exceptions import HTTPException
from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ...topics import matches
from ..access import access_of
from ..conditions import number
from ..site import page, site_of
from .overview import charts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["PAGE", "ROUTES", "window"]

#: How many rows a table has.
PAGE = 100

R = TypeVar("R")


async def topics(request: Request) -> Response:
    """List the topics, those first that are behind most."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    wanted = request.query_params.get("q", "")
    totals = site.sampler.seen.topics.values()
    found = [each for each in totals if wanted in each.name and access.sees(each.name)]
    shown, more = window(found, request.query_params.get("from"))
    return await page(
        request, "topics.html", access=access, topics=shown, more=more, q=wanted, total=len(found)
    )


def window(rows: Sequence[R], start: str | None) -> tuple[Sequence[R], int | None]:
    """Return a page of rows in memory, and where the next one begins."""
    first = number("from", start) or 0
    return rows[first : first + PAGE], first + PAGE if first + PAGE < len(rows) else None


async def topic(request: Request) -> Response:
    """Show a topic: its groups, its charts, and how its messages are removed."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    name = request.path_params["topic"]
    await site.sampler.ensure()
    sample = site.sampler.sample
    if not access.sees(name) or (sample is not None and name not in sample.topics):
        raise HTTPException(404, f"There is no topic {name!r}, or you may not see it.")
    async with site.database.read() as connection:
        policies = await AsyncAdmin().retention(connection)
    return await page(
        request, "topic.html", access=access, topic=name,
        total=site.sampler.seen.topics.get(name),
        rows=[one for one in site.sampler.seen.pairs if one.topic == name],
        policies=[each for each in policies if matches(name, each.pattern)],
        charts=charts_of(site.sampler, name, None),
    )  # fmt: skip


ROUTES = [Route("/topics", topics), Route("/topics/{topic:path}", topic)]
