# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""From what the caller has to the psycopg connection underneath."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from psycopg import Connection, Cursor
from psycopg.rows import tuple_row

from .._core.translate import translated
from ..errors import UnsupportedConnection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import LiteralString

    from sqlalchemy import Connection as AlchemyConnection
    from sqlalchemy.orm import Session as AlchemySession

    Publishable = Connection[Any] | AlchemyConnection | AlchemySession

__all__ = ["fetch", "unwrap"]


def unwrap(connection: Publishable) -> Connection[Any]:
    """Return the psycopg connection that carries the caller's transaction.

    A SQLAlchemy Connection or Session begins its transaction here if it had not, so that its
    ``commit()`` and ``rollback()`` decide.

    Raises:
        UnsupportedConnection: it is neither of psycopg 3 nor of SQLAlchemy on psycopg 3.
    """
    if isinstance(connection, Connection):
        return connection
    driver: Any = None
    if "sqlalchemy" in sys.modules:  # who has no SQLAlchemy objects need not import it
        from sqlalchemy import Connection as AlchemyConnection
        from sqlalchemy.orm import Session as AlchemySession
        from sqlalchemy.orm import scoped_session

        if isinstance(connection, (AlchemySession, scoped_session)):
            connection = connection.connection()
        if isinstance(connection, AlchemyConnection):
            if not connection.in_transaction():
                connection.begin()
            driver = connection.connection.driver_connection
            if isinstance(driver, Connection):
                return driver
    raise UnsupportedConnection(
        "give a psycopg Connection, or a SQLAlchemy Connection or Session of an "
        f"engine on postgresql+psycopg://, not {type(driver or connection).__name__}"
    )


def fetch(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Call the database half in the caller's transaction."""
    driver = unwrap(connection)
    # A cursor of our own: the caller's connection may make cursors and rows of another kind.
    with Cursor(driver, row_factory=tuple_row) as cursor:
        with translated():
            cursor.execute(query, params)
            return cursor.fetchall()
