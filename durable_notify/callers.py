"""A connection of asyncio's, used from plain functions: those that SQLAlchemy runs in a greenlet.

Events of an AsyncSession, and what is given to ``run_sync()``, get the plain Session or Connection.
The driver's connection underneath is asyncio's: what it waits for is waited for by the task that
the function runs in, as SQLAlchemy does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from psycopg.rows import tuple_row
from sqlalchemy.util import await_only

from .adapters import AsyncOwnCursor

if TYPE_CHECKING:
    from psycopg import AsyncConnection

__all__ = ["Bridged"]


class Bridged:
    """What the plain half needs of a connection, on one of asyncio's."""

    def __init__(self, driver: AsyncConnection[Any]) -> None:
        self._driver = driver
        self.pgconn = driver.pgconn
        self.info = driver.info
        self.autocommit = driver.autocommit

    @property
    def closed(self) -> bool:
        return self._driver.closed

    def execute(self, query: Any) -> None:
        await_only(self._driver.execute(query))

    def commit(self) -> None:
        await_only(self._driver.commit())

    def rollback(self) -> None:
        await_only(self._driver.rollback())

    def cursor(self) -> BridgedCursor:
        """Return a cursor of ours."""
        return BridgedCursor(AsyncOwnCursor(self._driver, row_factory=tuple_row))


class BridgedCursor:
    """What the plain half needs of a cursor."""

    def __init__(self, cursor: AsyncOwnCursor) -> None:
        self._cursor = cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        await_only(self._cursor.close())

    def execute(self, query: Any, params: Any) -> None:
        await_only(self._cursor.execute(query, params))

    def fetchall(self) -> list[tuple[Any, ...]]:
        return await_only(self._cursor.fetchall())
