"""Topics: what is published, and who reads it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

from starlette.exceptions import HTTPException
from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ...topics import matches
from ..access import access_of
from ..site import page, site_of
from .overview import charts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from ...diagnostics.status import GroupStatus

__all__ = ["PAGE", "ROUTES", "window"]

#: How many rows a table has.
PAGE = 100

R = TypeVar("R")


@dataclasses.dataclass(slots=True)
class Topic:
    """A topic, over all its groups."""

    name: str
    last_id: int
    groups: int = 0
    lag: int = 0
    exact: bool = True
    oldest: float | None = None
    rate_in: float | None = None
    asleep: int = 0
    dead: int = 0


async def topics(request: Request) -> Response:
    """List the topics, those first that are behind most."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    groups = site.sampler.snapshot.groups if site.sampler.snapshot else []
    wanted = request.query_params.get("q", "")
    found = _summed(one for one in groups if access.sees(one.topic) and wanted in one.topic)
    shown, more = window(
        sorted(found, key=lambda each: (-each.lag, each.name)), request.query_params.get("from")
    )
    return await page(
        request, "topics.html", access=access, topics=shown, more=more, q=wanted, total=len(found)
    )


def window(rows: Sequence[R], start: str | None) -> tuple[Sequence[R], int | None]:
    """Return a page of rows in memory, and where the next one begins."""
    first = int(start) if start and start.isdecimal() else 0
    return rows[first : first + PAGE], first + PAGE if first + PAGE < len(rows) else None


def _summed(groups: Iterable[GroupStatus]) -> list[Topic]:
    found: dict[str, Topic] = {}
    for one in groups:
        topic = found.setdefault(one.topic, Topic(one.topic, one.last_id))
        topic.rate_in, topic.asleep = one.rate_in, max(topic.asleep, one.asleep)
        if one.group is None:
            continue
        topic.groups += 1
        topic.lag += one.lag or 0
        topic.exact = topic.exact and one.exact is not False
        topic.dead += one.dead_letters or 0
        ages = [age for age in (topic.oldest, one.oldest_unsettled_seconds) if age is not None]
        topic.oldest = max(ages, default=None)
    return list(found.values())


async def topic(request: Request) -> Response:
    """Show a topic: its groups, its charts, and how its messages are removed."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    name = request.path_params["topic"]
    await site.sampler.ensure()
    groups = site.sampler.snapshot.groups if site.sampler.snapshot else []
    rows = [one for one in groups if one.topic == name]
    if not rows or not access.sees(name):
        raise HTTPException(404, f"There is no topic {name!r}, or you may not see it.")
    async with site.database.read() as connection:
        policies = await AsyncAdmin().retention(connection)
    return await page(
        request, "topic.html", access=access, topic=name, rows=rows,
        policies=[each for each in policies if matches(name, each.pattern)],
        charts=charts_of(site.sampler, name, None),
    )  # fmt: skip


ROUTES = [Route("/topics", topics), Route("/topics/{topic:path}", topic)]
