"""Use an asyncio connection from plain functions that SQLAlchemy runs in a greenlet.

Event handlers of an AsyncSession, and functions given to ``run_sync()``, receive the plain Session
or Connection. The driver's connection underneath is an asyncio one. As SQLAlchemy does, this lets
the task that runs the function do the waiting.
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
    """The part of a plain connection that the synchronous API needs, on an asyncio one."""

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
        """Return a cursor of this library's own kind."""
        return BridgedCursor(AsyncOwnCursor(self._driver, row_factory=tuple_row))


class BridgedCursor:
    """The part of a cursor that the synchronous API needs."""

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
