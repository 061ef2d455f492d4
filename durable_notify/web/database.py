"""The dashboard's own connections: few, short, and read-only unless a user does something."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from .._async.database.connection import settings
from ..adapters import AsyncOwnCursor
from ..dsn import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import LiteralString

__all__ = ["Busy", "Database", "problem", "rows", "rows_in_time"]

#: The most connections for all browsers together; the sampler has one more.
CONNECTIONS = 4
#: How long a request waits for a connection, in seconds.
WAIT = 2.0
#: How long a page's statement may take, in milliseconds, and that of a part of a page.
READING, PART = 400, 100
#: How long a change may take, in milliseconds.
WRITING = 30_000

_LIMIT = "SELECT pg_catalog.set_config('statement_timeout', %s, true)"


class Busy(Exception):
    """All connections are in use."""


class Database:
    """Lends connections, each within a transaction that has limits.

    Args:
        dsn: the database. What its role may not do, no user can do.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = plain(dsn)
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] | None = None

    async def _opened(self) -> AsyncConnectionPool[AsyncConnection[Any]]:
        # Not at the start: a mounted application is told of no start and no end.
        if self._pool is None:
            self._pool = AsyncConnectionPool(
                self.dsn, kwargs=settings(self.dsn, "web"), min_size=0, max_size=CONNECTIONS,
                timeout=WAIT, max_idle=60, open=False,
            )  # fmt: skip
            await self._pool.open()
        return self._pool

    async def close(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def read(self, milliseconds: int = READING) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection in a read-only transaction, whose statements have a time limit.

        Raises:
            Busy: no connection became free in time.
        """
        async with self._transaction("web", milliseconds) as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            yield connection

    @asynccontextmanager
    async def write(self, user: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection in a transaction; the audit log names the user.

        Raises:
            Busy: no connection became free in time.
        """
        async with self._transaction(f"web {user}"[:63], WRITING) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(
        self, purpose: str, milliseconds: int
    ) -> AsyncIterator[AsyncConnection[Any]]:
        pool = await self._opened()
        try:
            connection = await pool.getconn()
        except PoolTimeout as error:
            raise Busy(
                f"the dashboard's {CONNECTIONS} connections are in use, or the database does not "
                "answer"
            ) from error
        try:
            async with connection.transaction():
                await connection.execute(
                    "SELECT pg_catalog.set_config('statement_timeout', %s, true),"
                    " pg_catalog.set_config('application_name', %s, true),"
                    " pg_catalog.set_config('lock_timeout', '2s', true)",
                    (str(milliseconds), f"durable_notify {purpose}"),
                )
                yield connection
        finally:
            await pool.putconn(connection)


async def rows(
    connection: AsyncConnection[Any], query: LiteralString, params: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    """Run a query of the dashboard, and return its rows by name."""
    # JSON comes as text: the page shows every digit.
    async with AsyncOwnCursor(connection, row_factory=dict_row) as cursor:
        await cursor.execute(query, params)
        return await cursor.fetchall()


async def rows_in_time(
    connection: AsyncConnection[Any], query: LiteralString, params: Sequence[Any] = ()
) -> list[dict[str, Any]] | None:
    """Run a query for one part of a page; None: it took too long, and the rest can be shown."""
    try:
        async with connection.transaction():
            await connection.execute(_LIMIT, (str(PART),))
            found = await rows(connection, query, params)
            await connection.execute(_LIMIT, (str(READING),))
    except psycopg.errors.QueryCanceled:
        return None
    return found


def problem(error: psycopg.Error) -> str:
    """Return what went wrong, in words for the page: no DSN, no payload."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "The database did not answer in time. Narrow the page down, or try again."
    return error.diag.message_primary or "The database cannot be reached."
