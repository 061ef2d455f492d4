"""Find the psycopg connection underneath the caller's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection
from psycopg.pq import PipelineStatus, TransactionStatus

from ..._core.grant_hints import allowing, to_call
from ..._core.sqlstate import map_errors
from ...adapters import check_encoding
from ...errors import UnsupportedConnection
from ..concurrency import own_cursor, usable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import LiteralString

    from sqlalchemy.ext.asyncio import AsyncConnection as AlchemyAsyncConnection
    from sqlalchemy.ext.asyncio import AsyncSession as AlchemyAsyncSession

    Publishable = AsyncConnection[Any] | AlchemyAsyncConnection | AlchemyAsyncSession

__all__ = ["fetch", "fetch_alone", "unwrap"]


async def unwrap(connection: Publishable) -> AsyncConnection[Any]:
    """Return the psycopg connection that carries the caller's transaction.

    A SQLAlchemy Connection or Session begins its transaction here if it has none, so that its
    ``commit()`` and ``rollback()`` decide.

    Raises:
        UnsupportedConnection: it is neither of psycopg 3 nor of SQLAlchemy on psycopg 3.
    """
    if isinstance(connection, AsyncConnection):
        return connection
    driver: Any = None
    if "sqlalchemy.ext.asyncio" in sys.modules:  # do not import it for callers that do not use it
        from sqlalchemy.ext.asyncio import AsyncConnection as AlchemyAsyncConnection
        from sqlalchemy.ext.asyncio import AsyncSession as AlchemyAsyncSession
        from sqlalchemy.ext.asyncio import async_scoped_session

        if isinstance(connection, (AlchemyAsyncSession, async_scoped_session)):
            connection = await connection.connection()
        if isinstance(connection, AlchemyAsyncConnection):
            if not connection.in_transaction():
                await connection.begin()
            driver = (await connection.get_raw_connection()).driver_connection
            if (found := usable(driver)) is not None:
                return found
    raise UnsupportedConnection(
        "give a psycopg AsyncConnection, or a SQLAlchemy AsyncConnection or AsyncSession of an "
        f"engine on postgresql+psycopg://, not {type(driver or connection).__name__}"
    )


async def fetch(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement in the caller's transaction."""
    driver = await unwrap(connection)
    check_encoding(driver.pgconn)
    if getattr(driver, "must_begin", False):
        return await _fetch_alone(driver, query, params)
    return await _fetch(driver, query, params)


async def fetch_alone(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement that needs READ COMMITTED: begin such a transaction if none is open."""
    driver = await unwrap(connection)
    check_encoding(driver.pgconn)
    return await (_fetch_alone if driver.autocommit else _fetch)(driver, query, params)


async def _fetch_alone(
    driver: AsyncConnection[Any], query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    await _catch_up(driver)
    if driver.info.transaction_status != TransactionStatus.IDLE:
        return await _fetch(driver, query, params)
    await driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        rows = await _fetch(driver, query, params)
        await _catch_up(driver)
    except BaseException:
        if not driver.closed:
            await driver.rollback()
        raise
    await driver.commit()
    return rows


async def _catch_up(driver: AsyncConnection[Any]) -> None:
    """Wait for the answers to all that was sent.

    Trap: in pipeline mode nothing else tells whether a transaction is open. Without this, a
    caller's open transaction was not left alone, and our own was not committed.
    """
    if driver.pgconn.pipeline_status != PipelineStatus.OFF:
        async with driver.pipeline():  # nested in the caller's, it begins with a sync
            pass


async def _fetch(
    driver: AsyncConnection[Any], query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    # A cursor of our own kind: the caller's connection may have other cursor and row factories.
    async with own_cursor(driver) as cursor:
        with map_errors(), allowing(lambda: (driver.info.user, to_call(query, params))):
            await cursor.execute(query, params)
            return await cursor.fetchall()
