"""Run a statement of ours on the caller's connection, whatever its driver."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus

from ..._core.grant_hints import allowing, to_call
from ..._core.sqlstate import map_errors
from ...adapters import check_encodings
from ...drivers import AsyncCaller
from ...drivers.base import BEGIN
from ...errors import InvalidArgument
from ..concurrency import begun_by_driver, find_driver, own_cursor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import LiteralString

    from sqlalchemy.ext.asyncio import AsyncConnection as AlchemyAsyncConnection
    from sqlalchemy.ext.asyncio import AsyncSession as AlchemyAsyncSession

    from ...drivers.protocols import AsyncDriverConnection

    Publishable = (
        AsyncConnection[Any] | AlchemyAsyncConnection | AlchemyAsyncSession | AsyncDriverConnection
    )

__all__ = ["begun", "fetch", "fetch_alone"]


async def fetch(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement in the caller's transaction.

    Raises:
        UnsupportedConnection: the connection is of no driver that is known here.
    """
    return await _fetch(await _caller(connection), query, params)


async def fetch_alone(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement that needs READ COMMITTED: begin such a transaction if none is open."""
    caller = await _caller(connection)
    async with caller.alone():
        return await _fetch(caller, query, params)


def begun(source: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    """Return a transaction on a connection that a source of connections lends.

    Raises:
        InvalidArgument: it is no such source.
    """
    if (found := begun_by_driver(source)) is not None:
        return found
    if hasattr(source, "begin"):
        transaction: contextlib.AbstractAsyncContextManager[Any] = source.begin()
        return transaction
    if hasattr(source, "connection"):
        return _begun(source)
    raise InvalidArgument(
        "transaction() takes an engine, sessionmaker, connection or session of SQLAlchemy, a pool "
        f"of psycopg, psycopg2 or asyncpg, or Django's connection, not {type(source).__name__}"
    )


@contextlib.asynccontextmanager
async def _begun(pool: Any) -> AsyncIterator[Any]:
    async with pool.connection() as connection, connection.transaction():
        yield connection


async def _caller(connection: Publishable) -> AsyncCaller:
    if isinstance(connection, AsyncConnection):
        return _AsyncPsycopg(connection)
    found = await find_driver(connection)
    return found if isinstance(found, AsyncCaller) else _AsyncPsycopg(found)


async def _fetch(
    caller: AsyncCaller, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    check_encodings(caller.parameter("server_encoding"), caller.parameter("client_encoding"))
    with map_errors(), allowing(lambda: (caller.user(), to_call(query, params))):
        return await caller.run(query, params)


class _AsyncPsycopg(AsyncCaller):
    """Runs statements on a connection of psycopg 3."""

    def __init__(self, driver: AsyncConnection[Any]) -> None:
        self.raw = driver

    def parameter(self, name: LiteralString) -> str | None:
        value = self.raw.pgconn.parameter_status(name.encode())
        return None if value is None else value.decode()

    async def run(self, query: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not getattr(self.raw, "must_begin", False):
            return await self._run(query, params)
        async with self._begun():
            return await self._run(query, params)

    async def _run(self, query: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        # A cursor of our own kind: the caller's connection may have other cursor and row factories.
        async with own_cursor(self.raw) as cursor:
            await cursor.execute(query, params)
            return await cursor.fetchall()

    def commits_each(self) -> bool:
        return bool(self.raw.autocommit)

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[None]:
        driver = self.raw
        await self._catch_up()
        if driver.info.transaction_status != TransactionStatus.IDLE:
            yield
            return
        try:
            await driver.execute(BEGIN)  # Trap: it may have run, although it was cancelled
            yield
            await self._catch_up()
        except BaseException:
            if not driver.closed:
                await driver.rollback()
            raise
        await driver.commit()

    async def _catch_up(self) -> None:
        """Wait for the answers to all that was sent.

        Trap: in pipeline mode nothing else tells whether a transaction is open. Without this, a
        caller's open transaction was not left alone, and our own was not committed.
        """
        if self.raw.pgconn.pipeline_status != PipelineStatus.OFF:
            async with self.raw.pipeline():  # nested in the caller's, it begins with a sync
                pass
