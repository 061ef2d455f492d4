"""The pages of the dashboard: one module each, named as its address."""

from starlette.routing import Route

from . import overview

__all__ = ["ROUTES"]

ROUTES: list[Route] = [*overview.ROUTES]
