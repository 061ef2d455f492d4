"""What all pages share: the site, and how a page is made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse

from .access import Access, access_of
from .formats import FILTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from .access import Authorize
    from .database import Database
    from .masking import Masks
    from .sampler import Sampler

__all__ = ["Site", "entered", "error_page", "page", "site_of", "url"]

#: What stands in the navigation: the path, and its name.
PAGES = (
    ("/", "Overview"),
    ("/topics", "Topics"),
    ("/groups", "Groups"),
    ("/messages", "Messages"),
    ("/dead-letters", "Dead letters"),
    ("/replays", "Replays"),
    ("/consumers", "Consumers"),
    ("/retention", "Retention"),
    ("/bridges", "Bridges"),
    ("/audit", "Audit"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A dashboard: its database, its sampler, its masks, and who may use it."""

    database: Database
    sampler: Sampler
    masks: Masks
    authorize: Authorize

    async def close(self) -> None:
        """Close its connections."""
        await self.sampler.close()
        await self.database.close()


def site_of(request: Request) -> Site:
    """Return the dashboard that answers a request."""
    site: Site = request.app.state.site
    return site


async def entered(request: Request) -> tuple[Site, Access]:
    """Return the dashboard that answers a request, and what the user may see and do there.

    Raises:
        HTTPException: nothing.
    """
    site = site_of(request)
    return site, await access_of(request, site.authorize)


def _templates() -> Environment:
    # A missing variable is an error, and every value is escaped.
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters.update(FILTERS)
    return templates


_ENVIRONMENT = _templates()


def url(request: Request, path: str, /, **query: Any) -> str:
    """Return the address of a page, under whatever path the dashboard is mounted.

    Trap: a query may have a field "path"; a topic may have a "%".
    """
    chosen = {name: value for name, value in query.items() if value not in {None, ""}}
    root = request.scope.get("root_path", "")
    text = f"?{urlencode(chosen, doseq=True)}" if chosen else ""
    return f"{quote(root)}{quote(path)}{text}"


def page(request: Request, template: str, **context: Any) -> HTMLResponse:
    """Return a page of the dashboard; its context has at least ``access``."""
    return HTMLResponse(_rendered(request, template, **context))


def error_page(
    request: Request, status: int, text: str, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Return a page that says what went wrong."""
    content = _rendered(
        request, "error.html", access=Access("", topics=()), status=status, text=text
    )
    return HTMLResponse(content, status, dict(headers or {}))


def _rendered(request: Request, template: str, **context: Any) -> str:
    sampler = site_of(request).sampler

    def here(path: str, /, **query: Any) -> str:
        return url(request, path, **query)

    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"
    return _ENVIRONMENT.get_template(template).render(
        url=here,
        pages=PAGES,
        path=path,
        stale=sampler.error,
        looking=sampler.sample is None,
        **context,
    )
