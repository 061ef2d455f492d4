"""The dashboard as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import DurableNotifyError
from .database import Busy, Database, problem
from .live import events
from .masking import Masks
from .pages import ROUTES
from .protection import Protection
from .sampler import Sampler
from .site import Site, error_page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from .access import Authorize

__all__ = ["dashboard"]

STATIC = Path(__file__).parent / "static"


def dashboard(
    dsn: str,
    *,
    authorize: Authorize,
    masks: Iterable[str] = (),
    hosts: Iterable[str] | None = None,
    routes: Iterable[Route] = (),
) -> Starlette:
    """Return the dashboard, to be served or mounted.

    It opens at most five connections, for all browsers together, once the first page is asked for.
    A page reads in a read-only transaction of 0.4 seconds at most.

    Args:
        dsn: a libpq connection string or URI. Its role's rights are the most that a user can have.
        authorize: called with each request; returns the user's ``Access``, or None to refuse. May
            be async.
        masks: fields of payloads and headers that the pages do not show: names, such as
            ``password``, or paths, such as ``card.number``. A search does not find them either.
        hosts: the names in Host headers to answer. None: all; the application that serves
            it decides.
        routes: more pages, before the dashboard's own.

    Raises:
        InvalidArgument: libpq cannot read the DSN, or a mask is no path.
    """
    database = Database(dsn)
    sampler = Sampler(database.dsn)
    site = Site(database, sampler, Masks(masks), authorize)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await site.close()

    app = Starlette(
        routes=[
            *routes,
            Route("/healthz", healthz),
            Route("/events", events),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
            *ROUTES,
        ],
        middleware=[Middleware(Protection, hosts=hosts)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.state.site = site
    app.state.durable_notify = True  # so that the lifespan of its host ends it
    return app


async def healthz(_: Request) -> Response:
    """Answer that the dashboard runs; it asks neither the database nor ``authorize``."""
    return PlainTextResponse("ok\n")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as registered
    return error_page(request, error.status_code, error.detail, error.headers)


async def _busy(request: Request, error: Exception) -> Response:
    return error_page(request, 503, str(error), {"retry-after": "2"})


async def _database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, psycopg.Error)  # noqa: S101 - as registered
    if isinstance(error, psycopg.DataError) and error.diag.sqlstate is None:
        return error_page(request, 400, f"{error}.")  # the driver's: a NUL
    if (error.diag.sqlstate or "").startswith("DN"):
        return error_page(request, 400, problem(error))  # this library's: there is no such group
    denied = isinstance(error, psycopg.errors.InsufficientPrivilege)
    return error_page(request, 403 if denied else 503, problem(error))


async def _refused_by_us(request: Request, error: Exception) -> Response:
    return error_page(request, 400, str(error))


async def _failed(request: Request, error: Exception) -> Response:
    # Starlette raises the error again once this is sent: the server logs it.
    return error_page(request, 500, f"The dashboard failed: {type(error).__name__}.")


#: An error is a message on a page, never a blank page.
HANDLERS: dict[Any, Any] = {
    HTTPException: _refused,
    Busy: _busy,
    psycopg.Error: _database_error,
    DurableNotifyError: _refused_by_us,
    Exception: _failed,
}
