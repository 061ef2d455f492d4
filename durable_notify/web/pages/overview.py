"""The overview: what is wrong first, then how much waits."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from starlette.routing import Route

from ..charts import Chart, chart
from ..sample import EMPTY
from ..site import entered, page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from ..sampler import Sampler

__all__ = ["ROUTES", "charts_of"]

#: How many of the groups that are behind most to show.
MAX_GROUPS = 10


async def overview(request: Request) -> Response:
    """Show the findings of the doctor, and the groups that are behind."""
    site, access = await entered(request)
    sampler = site.sampler
    await sampler.ensure()
    seen = sampler.seen  # once: a look may end meanwhile
    topics = [each for each in seen.topics.values() if access.sees(each.name)]
    pairs = (one for one in seen.pairs if one.lag and access.sees(one.topic))
    behind = sum(each.behind for each in topics)
    span = request.query_params.get("span", "")
    if access.sees_all:
        groups = len(seen.groups)
    else:
        groups = len({one.group for one in seen.pairs if access.sees(one.topic)})
    return page(
        request, "overview.html", access=access, behind=list(islice(pairs, MAX_GROUPS)),
        # A finding may name topics, and sums have all of them: they are for those who see all.
        findings=sampler.findings if access.sees_all else [],
        charts=charts_of(sampler, None, None, span) if access.sees_all else None, span=span,
        more=max(0, behind - MAX_GROUPS), topics=len(topics), groups=groups,
        looked=seen is not EMPTY,
    )  # fmt: skip


def charts_of(sampler: Sampler, topic: str | None, group: str | None, span: str) -> Sequence[Chart]:
    """Return the charts of a topic, a group, or all: its lag, its age and its rates.

    Args:
        sampler: has the points.
        topic: the topic; None: all.
        group: the group; None: all.
        span: ``"day"``: the last day; anything else: the last hour.
    """
    series = sampler.series.get((topic, group))
    points = list(series.day if span == "day" else series.recent) if series else []
    times = [point.at for point in points]
    drawn = (
        chart("Lag: messages that are not settled", times, [("lag", [p.lag for p in points])]),
        chart("Age of the oldest of them, seconds", times, [("age", [p.oldest for p in points])]),
        chart(
            "Messages a second", times,
            [
                ("published", [p.rate_in for p in points]),
                ("delivered", [p.rate_out for p in points]),
            ],
        ),
    )  # fmt: skip
    return [each for each in drawn if each is not None]


ROUTES = [Route("/", overview)]
