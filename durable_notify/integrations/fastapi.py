"""FastAPI: consumers that live with the application, and a publisher in the request's session.

    Work = Annotated[AsyncSession, Depends(session)]
    Publisher = Annotated[AsyncBoundPublisher, Depends(publisher_for(Work))]
    app = FastAPI(lifespan=lifespan(consumer))

Handlers get no dependencies of FastAPI: there is no request. See ``docs/fastapi.md``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, overload

import psycopg
from fastapi.params import Depends as Dependency
from starlette.applications import Starlette
from starlette.routing import Mount

from durable_notify import schema
from durable_notify._async.bound import AsyncBoundPublisher
from durable_notify._async.consumer.consumer import AsyncConsumer
from durable_notify._async.publisher import AsyncPublisher
from durable_notify._sync.bound import BoundPublisher
from durable_notify._sync.publisher import Publisher
from durable_notify.dsn import redacted_errors
from durable_notify.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import FastAPI

__all__ = ["AsyncBoundPublisher", "BoundPublisher", "lifespan", "publisher_for"]


def lifespan(
    *consumers: AsyncConsumer[Any], dsn: str | None = None
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    """Return a lifespan: consumers start with the application, and end once handlers are done.

    The application does not start if a consumer cannot: the schema is missing or too old, or the
    database is away. If a consumer fails later, its ``health()`` shows that, and the end of the
    application raises it. Dashboards and streams that the application has mounted are closed with
    it. Within a lifespan of your own: ``async with lifespan(consumer)(app): yield``.

    Args:
        consumers: with handlers by ``on()``. They leave signals to the server.
        dsn: checks the schema of this database too, for an application that only publishes.

    Raises:
        InvalidArgument: a consumer is not an ``AsyncConsumer``.
    """
    for consumer in consumers:
        if not isinstance(consumer, AsyncConsumer):
            raise InvalidArgument(
                f"the lifespan runs AsyncConsumers, not {type(consumer).__name__}: run others by "
                "`durable-notify run MODULE:CONSUMER`, in a process of their own"
            )

    @contextlib.asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        if dsn is not None:
            await _check_schema(dsn)
        async with contextlib.AsyncExitStack() as stack:
            for mounted in _mounted(app):
                await stack.enter_async_context(mounted.router.lifespan_context(mounted))
            for consumer in consumers:
                await stack.enter_async_context(consumer.running())
            for consumer in consumers:
                stack.callback(consumer.stop)  # all at once, before the first is waited for
            yield

    return run


async def _check_schema(dsn: str) -> None:
    with redacted_errors(dsn) as conninfo:
        connection = await psycopg.AsyncConnection.connect(conninfo)
    async with connection:
        await schema.check_async(connection)


def _mounted(app: FastAPI) -> list[Starlette]:
    """Return the dashboards and streams of an application.

    Trap: Starlette does not run the lifespan of what is mounted.
    """
    mounted = [route.app for route in app.routes if isinstance(route, Mount)]
    return [
        one
        for one in mounted
        if isinstance(one, Starlette) and getattr(one.state, "durable_notify", False)
    ]


@overload
def publisher_for(
    session: Any, publisher: AsyncPublisher | None = None
) -> Callable[..., AsyncBoundPublisher]: ...
@overload
def publisher_for(session: Any, publisher: Publisher) -> Callable[..., BoundPublisher]: ...
def publisher_for(session: Any, publisher: AsyncPublisher | Publisher | None = None) -> Any:
    """Return a dependency: a publisher that is bound to the session of the request.

    What it publishes is part of that session's transaction. It neither commits nor flushes.

    Args:
        session: how your endpoints get their session or connection, of any kind that the publisher
            takes: ``Annotated[AsyncSession, Depends(...)]``.
        publisher: a ``Publisher`` if the session is a synchronous one. None: an
            ``AsyncPublisher()``.

    Raises:
        InvalidArgument: the session is not an annotation with ``Depends``.
    """
    depends = get_origin(session) is Annotated and any(
        isinstance(one, Dependency) for one in get_args(session)[1:]
    )
    if not depends:
        raise InvalidArgument(
            "publisher_for() takes the annotation by which endpoints get their session, "
            f"Annotated[AsyncSession, Depends(...)], not {session!r}"
        )
    given = publisher or AsyncPublisher()

    async def bind(session: Any) -> AsyncBoundPublisher | BoundPublisher:
        if isinstance(given, Publisher):
            return BoundPublisher(given, session)
        return AsyncBoundPublisher(given, session)

    # Trap: with only the dependency of the annotation, which may have a scope as well, FastAPI
    # would open another session for the messages.
    bind.__annotations__["session"] = session
    return bind
