"""The pages of the dashboard: one module each, named as its address."""

from starlette.routing import Route

from . import acting, dead_letters, groups, messages, others, overview, replays, topics

__all__ = ["ROUTES"]

ROUTES: list[Route] = [
    route
    for module in (overview, topics, groups, messages, dead_letters, replays, others, acting)
    for route in module.ROUTES
]
