"""The program's own connections: one module a driver, which runs our statements on it.

It imports no driver but psycopg 3: a program that gives a connection has imported its driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from ..errors import UnsupportedConnection
from . import asyncpg, django, psycopg2, sqlalchemy
from .base import AsyncCaller, Caller

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

__all__ = ["AsyncCaller", "Caller", "begun", "begun_async", "find", "find_async"]

_ENGINE = "of a SQLAlchemy engine on postgresql+psycopg:// or another driver for PostgreSQL"


def find(connection: Any) -> Caller | psycopg.Connection[Any]:
    """Return what runs statements on a program's connection; psycopg's own as it is.

    Raises:
        UnsupportedConnection: it is none, or one for asyncio.
    """
    if isinstance(connection, psycopg.Connection):
        return connection
    found = (
        psycopg2.caller(connection) or django.caller(connection) or sqlalchemy.caller(connection)
    )
    if found:
        return found
    wanted = (
        "give a psycopg Connection, a connection of psycopg2 or Django, or a Connection or Session "
        f"{_ENGINE}, not {type(connection).__name__}"
    )
    if _is_async(connection):
        wanted += ", which is for asyncio: use AsyncPublisher, AsyncAdmin or AsyncConsumer with it"
    raise UnsupportedConnection(wanted + _way(connection))


async def find_async(connection: Any) -> AsyncCaller | psycopg.AsyncConnection[Any]:
    """Return the same for asyncio.

    Raises:
        UnsupportedConnection: it is none, or a synchronous one.
    """
    if isinstance(connection, psycopg.AsyncConnection):
        return connection
    found = asyncpg.caller(connection) or await sqlalchemy.caller_async(connection)
    if found:
        return found
    wanted = (
        "give a psycopg AsyncConnection, a connection of asyncpg, or an AsyncConnection or "
        f"AsyncSession {_ENGINE}, not {type(connection).__name__}"
    )
    if _is_plain(connection):
        wanted += ", which is synchronous: use Publisher, Admin or Consumer with it"
    raise UnsupportedConnection(wanted + _way(connection))


def _way(given: Any) -> str:
    """Return how to get a connection from what is often given instead; or nothing."""
    if sqlalchemy.is_engine(given):
        opening = "async with" if type(given).__name__.startswith("Async") else "with"
        return f": `{opening} engine.begin() as connection` opens one"
    if isinstance(given, (psycopg.Cursor, psycopg.AsyncCursor)):
        return ": give its cursor.connection"
    return ""


def _is_async(connection: Any) -> bool:
    return (
        isinstance(connection, psycopg.AsyncConnection)
        or asyncpg.caller(connection) is not None
        or sqlalchemy.is_async(connection)
    )


def _is_plain(connection: Any) -> bool:
    return (
        isinstance(connection, psycopg.Connection)
        or psycopg2.caller(connection) is not None
        or django.caller(connection) is not None
        or sqlalchemy.is_plain(connection)
    )


def begun(source: Any) -> AbstractContextManager[Any] | None:
    """Return a transaction on a connection that a source lends, or is; None: psycopg's, or none."""
    return psycopg2.begun(source) or django.begun(source) or sqlalchemy.begun(source)


def begun_async(source: Any) -> AbstractAsyncContextManager[Any] | None:
    """Return the same for asyncio."""
    return asyncpg.begun(source) or sqlalchemy.begun_async(source)
