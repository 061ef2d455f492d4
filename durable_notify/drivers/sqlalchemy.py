"""SQLAlchemy's connections and sessions, on any PostgreSQL dialect.

On psycopg 3 statements run on the driver's connection, with this library's own cursor. On other
dialects they run through SQLAlchemy, which begins the driver's transactions.
"""

from __future__ import annotations

import contextlib
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from ..adapters import AsyncOwnCursor
from ..errors import UnsupportedConnection
from . import asyncpg, psycopg2
from .base import AsyncCaller, Caller, checked, plain_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .base import Params, Rows

__all__ = ["begun", "begun_async", "caller", "caller_async", "is_async", "is_engine", "is_plain"]


def is_plain(connection: Any) -> bool:
    """Return whether it is a Connection or Session."""
    return isinstance(
        connection,
        (
            *_loaded("sqlalchemy", "Connection"),
            *_loaded("sqlalchemy.orm", "Session", "scoped_session"),
        ),
    )


def is_async(connection: Any) -> bool:
    """Return whether it is an AsyncConnection or AsyncSession."""
    kinds = ("AsyncConnection", "AsyncSession", "async_scoped_session")
    return isinstance(connection, tuple(_loaded("sqlalchemy.ext.asyncio", *kinds)))


def is_engine(source: Any) -> bool:
    """Return whether it is an engine, also one for asyncio."""
    kinds = (*_loaded("sqlalchemy", "Engine"), *_loaded("sqlalchemy.ext.asyncio", "AsyncEngine"))
    return isinstance(source, kinds)


def _loaded(module: str, *kinds: str) -> list[type]:
    """Return classes of a module, which is not imported for programs that do not use it."""
    loaded = sys.modules.get(module)
    return [getattr(loaded, kind) for kind in kinds] if loaded else []


def caller(connection: Any) -> Caller | psycopg.Connection[Any] | None:
    """Return what runs statements on a Connection or Session; None: it is neither.

    It begins the transaction if there is none, so that ``commit()`` and ``rollback()`` decide.
    """
    if not is_plain(connection):
        return None
    from sqlalchemy import Connection

    if not isinstance(connection, Connection):
        connection = connection.connection()
    _check(connection)
    driver = connection.connection.driver_connection
    if not isinstance(driver, (psycopg.Connection, psycopg.AsyncConnection)):
        return _Caller(connection)
    if not connection.in_transaction():
        connection.begin()
    return driver if isinstance(driver, psycopg.Connection) else _InGreenlet(driver)


async def caller_async(connection: Any) -> AsyncCaller | psycopg.AsyncConnection[Any] | None:
    """Return what runs statements on an AsyncConnection or AsyncSession; None: it is neither."""
    if not is_async(connection):
        return None
    from sqlalchemy.ext.asyncio import AsyncConnection

    if not isinstance(connection, AsyncConnection):
        connection = await connection.connection()
    _check(connection)
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        return _AsyncCaller(connection)
    if not connection.in_transaction():
        await connection.begin()
    return driver


def begun(source: Any) -> contextlib.AbstractContextManager[Any] | None:
    """Return a transaction of a Connection or Session, which it lends; None: it is neither."""
    return _begun(source) if is_plain(source) else None


@contextlib.contextmanager
def _begun(source: Any) -> Iterator[Any]:
    with source.begin():  # Trap: this lends the transaction
        yield source


def begun_async(source: Any) -> contextlib.AbstractAsyncContextManager[Any] | None:
    """Return the same of an AsyncConnection or AsyncSession."""
    return _begun_async(source) if is_async(source) else None


@contextlib.asynccontextmanager
async def _begun_async(source: Any) -> AsyncIterator[Any]:
    async with source.begin():
        yield source


def _check(connection: Any) -> None:
    if connection.dialect.name != "postgresql":
        raise UnsupportedConnection(
            f"the engine is on {connection.dialect.name}, not on PostgreSQL: give a connection or "
            "session of an engine on postgresql+psycopg://, or another driver for PostgreSQL"
        )


class _InGreenlet(Caller):
    """An asyncio connection of psycopg 3, under a plain Session or Connection.

    Events of an AsyncSession, and functions given to ``run_sync()``, receive those. As SQLAlchemy
    does, this lets the task that runs the function do the waiting.
    """

    def __init__(self, driver: psycopg.AsyncConnection[Any]) -> None:
        self.raw = driver

    def run(self, query: LiteralString, params: Params) -> Rows:
        from sqlalchemy.util import await_only

        return await_only(self._run(query, params))

    async def _run(self, query: LiteralString, params: Params) -> Rows:
        async with AsyncOwnCursor(self.raw, row_factory=tuple_row) as cursor:
            await cursor.execute(query, params)
            return await cursor.fetchall() if cursor.description else []

    def commits_each(self) -> bool:
        return bool(self.raw.autocommit) and not self.in_transaction()


class _Caller(Caller):
    """A Connection on a driver other than psycopg 3, also one for asyncio in a greenlet."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.raw = connection.connection.driver_connection

    def run(self, query: LiteralString, params: Params) -> Rows:
        from sqlalchemy.exc import DBAPIError

        driver = self._connection.dialect.driver
        text, values = _PREPARED.get(driver, _as_text)(query, params)
        try:
            result = self._connection.exec_driver_sql(text, values, execution_options=_AT_ONCE)
            return plain_rows(result) if result.returns_rows else []
        except DBAPIError as error:
            failed = error.driver_exception
        raise failed  # errors are the driver's, also through SQLAlchemy

    def commits_each(self) -> bool:
        connection = self._connection
        driver = connection.connection.dbapi_connection
        autocommit = connection.dialect.detect_autocommit_setting(driver)
        return bool(autocommit) and not self.in_transaction()


class _AsyncCaller(AsyncCaller):
    """The same for asyncio."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._plain = _Caller(connection.sync_connection)
        self.raw = self._plain.raw

    async def run(self, query: LiteralString, params: Params) -> Rows:
        def run(_: object) -> Rows:
            return self._plain.run(query, params)

        rows: Rows = await self._connection.run_sync(run)
        return rows

    def commits_each(self) -> bool:
        return self._plain.commits_each()


def _for_psycopg2(query: LiteralString, params: Params) -> tuple[str, Params | None]:
    return query, psycopg2.values(params)


def _for_asyncpg(query: LiteralString, params: Params) -> tuple[str, Params | None]:
    return asyncpg.numbered(query), tuple(checked(params))


def _as_text(query: LiteralString, params: Params) -> tuple[str, Params | None]:
    """Write lists as PostgreSQL does, for drivers that are not known here.

    Trap: pg8000 sends the text NULL in a list as no value.
    """
    for value in checked(params):
        if isinstance(value, str):
            value.encode()  # raise here: pg8000 fails in the middle of a message to the server
    return query, tuple(_array(one) if isinstance(one, list) else one for one in params)


def _array(values: list[Any]) -> str:
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        value = f"\\x{value.hex()}"
    elif isinstance(value, timedelta):
        value = f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    text = str(value).replace("\\", r"\\").replace('"', r"\"")
    return f'"{text}"'


#: Trap: streamed results, which an engine may have for all its statements, need a transaction.
_AT_ONCE = {"stream_results": False, "yield_per": None}

#: How the statements and values of ours become those of a driver.
_PREPARED: dict[str, Callable[[LiteralString, Params], tuple[str, Params | None]]] = {
    "psycopg2": _for_psycopg2,
    "asyncpg": _for_asyncpg,
}
