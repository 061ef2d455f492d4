"""Topics: what is published, and who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..._async.admin.admin import AsyncAdmin
from ...topics import matches
from ..access import no_topic
from ..lists import listing
from ..site import entered, page
from .overview import charts_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from ..lists import Value

__all__ = ["ROUTES"]


async def topics(request: Request) -> Response:
    """List the topics, those first that lag most."""
    site, access = await entered(request)
    await site.sampler.ensure()
    given = request.query_params
    wanted = given.get("q", "")
    storage = site.sampler.storage or {}
    totals = site.sampler.seen.topics.values()
    found = [each for each in totals if wanted in each.name and access.sees(each.name)]
    numbers: dict[str, Value] = {
        "last_id": lambda each: each.last_id, "groups": lambda each: each.parts,
        "lag": lambda each: each.lag, "oldest": lambda each: each.oldest,
        "published": lambda each: each.rate_in, "dead": lambda each: each.dead,
        "asleep": lambda each: each.asleep,
        "size": lambda each: storage[each.name].bytes if each.name in storage else None,
    }  # fmt: skip
    return page(
        request, "topics.html", access=access, listing=listing(found, numbers, given), q=wanted,
        storage=storage,
    )  # fmt: skip


async def topic(request: Request) -> Response:
    """Show a topic: its groups, its charts, and how its messages are removed."""
    site, access = await entered(request)
    name = request.path_params["topic"]
    await site.sampler.ensure()
    sample = site.sampler.sample
    if not access.sees(name) or (sample is not None and name not in sample.topics):
        raise no_topic(name)
    async with site.database.read() as connection:
        policies = await AsyncAdmin().retention(connection)
    span = request.query_params.get("span", "")
    return page(
        request, "topic.html", access=access, topic=name,
        total=site.sampler.seen.topics.get(name), storage=(site.sampler.storage or {}).get(name),
        rows=[one for one in site.sampler.seen.pairs if one.topic == name],
        # The first that matches applies.
        policy=next((each for each in policies if matches(name, each.pattern)), None),
        charts=charts_of(site.sampler, name, None, span), span=span,
    )  # fmt: skip


ROUTES = [Route("/topics", topics), Route("/topics/{topic:path}", topic)]
