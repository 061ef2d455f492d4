"""Consumers: who is connected, what they hold, and which topics they sleep on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from ..database import rows
from ..queries import LEASES
from ..site import entered, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from ..sampler import Sampler

__all__ = ["ROUTES"]

#: The most topics with sleepers to show, those with the most first.
MAX_TOPICS = 100
#: Findings of the doctor about wake-ups that do not arrive.
DEAF = frozenset({"listener-deaf", "listener-stuck", "pooler", "queue-crowded"})


async def consumers(request: Request) -> Response:
    """Show who is connected, what consumers hold, and which topics have consumers that sleep."""
    site, access = await entered(request)
    await site.sampler.ensure()
    async with site.database.read() as connection:
        leases = await rows(connection, LEASES)
    topics = site.sampler.seen.topics.values()
    asleep = [(each.name, each.asleep) for each in topics if each.asleep and access.sees(each.name)]
    asleep.sort(key=lambda each: (-each[1], each[0]))
    findings = site.sampler.findings or [] if access.sees_all else []
    return page(
        request, "consumers.html", access=access, asleep=asleep[:MAX_TOPICS], sleeping=len(asleep),
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


ROUTES = [Route("/consumers", consumers)]
