"""Consumers, retention, bridges and the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..._async.admin import AsyncAdmin
from ..._core import sql
from ..access import access_of
from ..database import rows
from ..queries import LEASES
from ..site import page, site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ROUTES"]

#: How many entries of the audit log and losses are shown.
MOST = 100


async def consumers(request: Request) -> Response:
    """Show what consumers hold, and which topics have consumers that sleep."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    await site.sampler.ensure()
    async with site.database.read() as connection:
        leases = await rows(connection, LEASES)
    topics = site.sampler.seen.topics.values()
    asleep = {each.name: each.asleep for each in topics if each.asleep and access.sees(each.name)}
    findings = site.sampler.findings or [] if access.sees_all else []
    return await page(
        request, "consumers.html", access=access, asleep=sorted(asleep.items()),
        deaf=[each for each in findings if each.name in DEAF],
        leases=[each for each in leases if access.sees(each["topic"])],
    )  # fmt: skip


async def retention(request: Request) -> Response:
    """Show how long messages are kept, what holds their removal back, and what was lost."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    admin = AsyncAdmin()
    async with site.database.read() as connection:
        policies = await admin.retention(connection)
        blockers = await admin.retention_blockers(connection)
        losses = await admin.lost_messages(connection, limit=MOST)
    return await page(
        request, "retention.html", access=access,
        policies=[each for each in policies if access.sees(each.pattern)],
        blockers=[each for each in blockers if access.sees(each.topic)],
        losses=[each for each in losses if access.sees(each.topic)],
    )  # fmt: skip


async def audit(request: Request) -> Response:
    """Show who has changed what."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    group = request.query_params.get("group") or None
    async with site.database.read() as connection:
        entries = await AsyncAdmin().audit(connection, group, limit=MOST)
    seen = [
        each
        for each in entries
        if access.sees_all or (each.topic is not None and access.sees(each.topic))
    ]
    return await page(request, "audit.html", access=access, entries=seen, group=group or "")


async def bridges(request: Request) -> Response:
    """Show mirrors, captures, compatible channels and watched tables."""
    site = site_of(request)
    access = await access_of(request, site.authorize)
    found: list[dict[str, object]] = []
    if access.sees_all:
        async with site.database.read() as connection:
            found = await rows(connection, sql.BRIDGES)
    return await page(request, "bridges.html", access=access, bridges=found)


#: Findings of the doctor about wake-ups that do not arrive.
DEAF = frozenset({"listener-deaf", "listener-stuck", "pooler", "queue-crowded"})

ROUTES = [
    Route("/consumers", consumers),
    Route("/retention", retention),
    Route("/audit", audit),
    Route("/bridges", bridges),
]
