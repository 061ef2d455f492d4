# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Find the psycopg connection underneath the caller's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from psycopg import Connection
from psycopg.pq import PipelineStatus, TransactionStatus

from ..._core.grant_hints import allowing, to_call
from ..._core.sqlstate import map_errors
from ...adapters import check_encoding
from ...errors import UnsupportedConnection
from ..concurrency import own_cursor, usable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import LiteralString

    from sqlalchemy import Connection as AlchemyConnection
    from sqlalchemy.orm import Session as AlchemySession

    Publishable = Connection[Any] | AlchemyConnection | AlchemySession

__all__ = ["fetch", "fetch_alone", "unwrap"]


def unwrap(connection: Publishable) -> Connection[Any]:
    """Return the psycopg connection that carries the caller's transaction.

    A SQLAlchemy Connection or Session begins its transaction here if it has none, so that its
    ``commit()`` and ``rollback()`` decide.

    Raises:
        UnsupportedConnection: it is neither of psycopg 3 nor of SQLAlchemy on psycopg 3.
    """
    if isinstance(connection, Connection):
        return connection
    driver: Any = None
    if "sqlalchemy" in sys.modules:  # do not import it for callers that do not use it
        from sqlalchemy import Connection as AlchemyConnection
        from sqlalchemy.orm import Session as AlchemySession
        from sqlalchemy.orm import scoped_session

        if isinstance(connection, (AlchemySession, scoped_session)):
            connection = connection.connection()
        if isinstance(connection, AlchemyConnection):
            if not connection.in_transaction():
                connection.begin()
            driver = connection.connection.driver_connection
            if (found := usable(driver)) is not None:
                return found
    raise UnsupportedConnection(
        "give a psycopg Connection, or a SQLAlchemy Connection or Session of an "
        f"engine on postgresql+psycopg://, not {type(driver or connection).__name__}"
    )


def fetch(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement in the caller's transaction."""
    driver = unwrap(connection)
    check_encoding(driver.pgconn)
    if getattr(driver, "must_begin", False):
        return _fetch_alone(driver, query, params)
    return _fetch(driver, query, params)


def fetch_alone(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement that needs READ COMMITTED: begin such a transaction if none is open."""
    driver = unwrap(connection)
    check_encoding(driver.pgconn)
    return (_fetch_alone if driver.autocommit else _fetch)(driver, query, params)


def _fetch_alone(
    driver: Connection[Any], query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    _catch_up(driver)
    if driver.info.transaction_status != TransactionStatus.IDLE:
        return _fetch(driver, query, params)
    driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        rows = _fetch(driver, query, params)
        _catch_up(driver)
    except BaseException:
        if not driver.closed:
            driver.rollback()
        raise
    driver.commit()
    return rows


def _catch_up(driver: Connection[Any]) -> None:
    """Wait for the answers to all that was sent.

    Trap: in pipeline mode nothing else tells whether a transaction is open. Without this, a
    caller's open transaction was not left alone, and our own was not committed.
    """
    if driver.pgconn.pipeline_status != PipelineStatus.OFF:
        with driver.pipeline():  # nested in the caller's, it begins with a sync
            pass


def _fetch(
    driver: Connection[Any], query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    # A cursor of our own kind: the caller's connection may have other cursor and row factories.
    with own_cursor(driver) as cursor:
        with map_errors(), allowing(lambda: (driver.info.user, to_call(query, params))):
            cursor.execute(query, params)
            return cursor.fetchall()
