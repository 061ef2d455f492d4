"""Consumers, retention, bridges and the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ..._core import sql
from ..access import access_of
from ..conditions import page_before
from ..database import rows
from ..queries import AUDIT, LEASES, LOSSES
from ..site import page, site_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from ..sampler import Sampler

__all__ = ["ROUTES"]

#: How many entries of the audit log and losses a page has, and how many topics, the largest first.
MOST = 100
#: Findings of the doctor about wake-ups that do not arrive.
DEAF = frozenset({"listener-deaf", "listener-stuck", "pooler", "queue-crowded"})


async def consumers(request: Request) -> Response:
    """Show who is connected, what consumers hold, and which topics have consumers that sleep."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    async with site.database.read() as connection:
        leases = await rows(connection, LEASES)
    topics = site.sampler.seen.topics.values()
    asleep = [(each.name, each.asleep) for each in topics if each.asleep and access.sees(each.name)]
    asleep.sort(key=lambda each: (-each[1], each[0]))
    findings = site.sampler.findings or [] if access.sees_all else []
    return await page(
        request, "consumers.html", access=access, asleep=asleep[:MOST], sleeping=len(asleep),
        connected=_connected(site.sampler) if access.sees_all else None,
        deaf=[each for each in findings if each.name in DEAF],
        leases=[each for each in leases if access.sees(each["topic"])],
    )  # fmt: skip


def _connected(sampler: Sampler) -> tuple[list[tuple[str, int]], list[str]]:
    """Return the groups with connections, and how many; and those without, which lag."""
    groups = sampler.seen.groups.values()
    counts = {each.name: sampler.seen.connections(each.name) for each in groups}
    some = sorted(((name, count) for name, count in counts.items() if count),
                  key=lambda each: (-each[1], each[0]))  # fmt: skip
    none = [each.name for each in groups if not counts[each.name] and each.lag]
    return some, sorted(none)


async def retention(request: Request) -> Response:
    """Show how long messages are kept, what topics take, what holds removal back, what was lost."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    sampler = site.sampler
    async with site.database.read() as connection:
        policies = await AsyncAdmin().retention(connection)
        losses = await rows(connection, LOSSES, (page_before(request.query_params), MOST))
    blockers, storage = sampler.blockers, sampler.storage
    sizes = [each for each in (storage or {}).values() if access.sees(each.topic)]
    return await page(
        request, "retention.html", access=access,
        policies=[each for each in policies if access.sees(each.pattern)],
        # Within a user's topics the default applies too.
        default=next((each for each in policies if each.pattern == ">"), None),
        sizes=None if storage is None else sizes[:MOST], measured=len(sizes),
        total=sum(each.bytes for each in sizes),
        blockers=None if blockers is None else [one for one in blockers if access.sees(one.topic)],
        losses=[each for each in losses if access.sees(each["topic"])], older=_older(losses),
    )  # fmt: skip


async def audit(request: Request) -> Response:
    """Show who has changed what."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    group = request.query_params.get("group") or None
    async with site.database.read() as connection:
        entries = await rows(connection, AUDIT, (page_before(request.query_params), MOST, group))
    seen = [
        each
        for each in entries
        if access.sees_all or (each["topic"] is not None and access.sees(each["topic"]))
    ]
    return await page(
        request, "audit.html", access=access, entries=seen, group=group or "", older=_older(entries)
    )


def _older(found: list[Mapping[str, Any]] | list[dict[str, Any]]) -> int | None:
    """Return the id before which the next page begins; None: there is none."""
    return found[-1]["id"] if len(found) == MOST else None


async def bridges(request: Request) -> Response:
    """Show mirrors, captures, compatible channels and watched tables."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    found: list[dict[str, object]] = []
    if access.sees_all:
        async with site.database.read() as connection:
            found = await rows(connection, sql.BRIDGES)
    return await page(request, "bridges.html", access=access, bridges=found)


ROUTES = [
    Route("/consumers", consumers),
    Route("/retention", retention),
    Route("/audit", audit),
    Route("/bridges", bridges),
]
