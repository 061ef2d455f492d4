"""Groups: how far they are, why they stand still, and their options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.routing import Route

from ..._async.admin.admin import AsyncAdmin
from ...models import GroupInfo
from ..access import Access
from ..database import rows, rows_in_time
from ..lists import listing
from ..payloads import shown_error
from ..queries import BLOCKED, BLOCKING_SESSIONS, RETRIES, SESSIONS
from ..sample import Total, session_names
from ..site import entered, page
from .overview import charts_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from ..lists import Value
    from ..sampler import Sampler

__all__ = ["ROUTES"]


async def groups(request: Request) -> Response:
    """List the groups, those first that lag most."""
    site, access = await entered(request)
    sampler = site.sampler
    await sampler.ensure()
    given = request.query_params
    wanted = given.get("q", "")
    found = [each for each in _totals(sampler, access) if wanted in each.name]
    numbers: dict[str, Value] = {
        "topics": lambda each: each.parts, "behind": lambda each: each.behind,
        "lag": lambda each: each.lag, "oldest": lambda each: each.oldest,
        "delivered": lambda each: each.rate_out, "dead": lambda each: each.dead,
        "connections": lambda each: sampler.seen.connections(each.name),
    }  # fmt: skip
    shown = listing(found, numbers, given)
    return page(
        request, "groups.html", access=access, listing=shown, q=wanted,
        connections={each.name: sampler.seen.connections(each.name) for each in shown.rows},
        drained={each.name: _drained(sampler, each.name) for each in shown.rows}
        if access.sees_all else {},
    )  # fmt: skip


def _totals(sampler: Sampler, access: Access) -> Iterable[Total]:
    """Return the groups that a user sees, over the topics that the user sees."""
    sample = sampler.seen
    if access.sees_all:
        return sample.groups.values()
    found: dict[str, Total] = {}
    for one in sample.pairs:
        if one.group is None or not access.sees(one.topic):
            continue
        total = found.setdefault(one.group, Total(one.group, 0, True, None, 0, 0, 0))
        total.lag += one.lag or 0
        # Of many pairs, some are not kept.
        total.exact &= bool(one.exact) and sample.is_whole
        ages = (total.oldest, one.oldest_unsettled_seconds)
        total.oldest = max((age for age in ages if age is not None), default=None)
        total.dead += one.dead_letters or 0
        total.parts += 1
        total.behind += bool(one.lag)
        if one.rate_out is not None:
            total.rate_out = (total.rate_out or 0.0) + one.rate_out
    return found.values()


async def _group_of(connection: Any, access: Access, name: str) -> GroupInfo:
    """Return a group, if the user sees one of its topics.

    Raises:
        HTTPException: there is none.
    """
    found = await AsyncAdmin().groups(connection, name)
    if not found or not (access.sees_all or any(access.sees(each) for each in found[0].topics)):
        raise HTTPException(404, f"There is no group {name!r}, or you may not see it.")
    return dataclasses.replace(
        found[0],
        topics=[each for each in found[0].topics if access.sees(each)],
        patterns=[each for each in found[0].patterns if access.sees(each)],
    )


async def group(request: Request) -> Response:
    """Show a group: its topics, what it waits for, its retries and its options."""
    site, access = await entered(request)
    name = request.path_params["group"]
    await site.sampler.ensure()
    async with site.database.read() as connection:
        info = await _group_of(connection, access, name)
        blocked = await rows_in_time(connection, BLOCKED, (name, None, 100))
        retries = await rows_in_time(connection, RETRIES, (name, None, 50))
        sessions = await rows(connection, SESSIONS, (session_names(name),))
        blocking = await _blocking(connection, sessions)
        publishers = (
            await AsyncAdmin().blocking_publishers(connection, name)
            if info.order_by == "strict"
            else []
        )
    of_group = [
        one for one in site.sampler.seen.pairs if one.group == name and access.sees(one.topic)
    ]
    span = request.query_params.get("span", "")
    return page(
        request, "group.html", access=access, group=info, rows=of_group,
        blocked=_seen(access, blocked), retries=_seen(access, retries),
        sessions=sessions, blocking=blocking, publishers=publishers,
        # Queries may quote payloads, of any topic.
        queries=access.payloads and access.sees_all and not site.masks,
        # Sums have all topics of the group: they are for those who see all.
        charts=charts_of(site.sampler, None, name, span) if access.sees_all else None, span=span,
        drained=_drained(site.sampler, name) if access.sees_all else None,
    )  # fmt: skip


def _seen(access: Access, found: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Return the rows of topics that the user sees, and of their errors what the user sees."""
    if found is None:
        return None
    return [
        {**each, "error": shown_error(access, each["error"])}
        for each in found
        if access.sees(each["topic"])
    ]


async def _blocking(connection: Any, sessions: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the sessions that hold a lock for which some sessions wait, by process."""
    wanted = {pid for each in sessions for pid in each["waits_for"] or ()}
    if not wanted:
        return {}
    found = await rows(connection, BLOCKING_SESSIONS, (sorted(wanted),))
    return {each["pid"]: each for each in found}


def _drained(sampler: Sampler, group: str) -> float | None:
    """Return in how many seconds the group has read what waits, at its rate of now; None: never."""
    total = sampler.seen.groups.get(group)
    if total is None or total.rate_out is None:
        return None
    topics = sampler.seen.topics
    coming = sum(topics[name].rate_in or 0.0 for name in sampler.seen.delivered[group])
    gained = total.rate_out - coming
    return total.lag / gained if total.lag and gained > 0 else None


ROUTES = [Route("/groups", groups), Route("/groups/{group:path}", group)]
