"""The pages of the dashboard: one module each, named as its address."""

from starlette.routing import Route

from . import (
    actions,
    audit,
    bridges,
    consumers,
    dead_letters,
    groups,
    messages,
    overview,
    replays,
    retention,
    topics,
)

__all__ = ["ROUTES"]

ROUTES: list[Route] = [
    route
    for module in (
        overview, topics, groups, messages, dead_letters, replays, consumers, retention, bridges,
        audit, actions,
    )
    for route in module.ROUTES
]  # fmt: skip
