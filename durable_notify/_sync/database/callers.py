# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Run a statement of ours on the caller's connection, whatever its driver."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from psycopg import Connection
from psycopg.pq import PipelineStatus, TransactionStatus

from ..._core.grant_hints import allowing, to_call
from ..._core.sqlstate import map_errors
from ...adapters import check_encodings
from ...drivers import Caller
from ...drivers.base import BEGIN
from ...errors import InvalidArgument
from ..concurrency import begun_by_driver, find_driver, own_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import LiteralString

    from sqlalchemy import Connection as AlchemyConnection
    from sqlalchemy.orm import Session as AlchemySession

    from ...drivers.protocols import DriverConnection

    Publishable = Connection[Any] | AlchemyConnection | AlchemySession | DriverConnection

__all__ = ["begun", "fetch", "fetch_alone"]


def fetch(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement in the caller's transaction.

    Raises:
        UnsupportedConnection: the connection is of no driver that is known here.
    """
    return _fetch(_caller(connection), query, params)


def fetch_alone(
    connection: Publishable, query: LiteralString, params: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a statement that needs READ COMMITTED: begin such a transaction if none is open."""
    caller = _caller(connection)
    with caller.alone():
        return _fetch(caller, query, params)


def begun(source: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a transaction on a connection that a source of connections lends.

    Raises:
        InvalidArgument: it is no such source.
    """
    if (found := begun_by_driver(source)) is not None:
        return found
    if hasattr(source, "begin"):
        transaction: contextlib.AbstractContextManager[Any] = source.begin()
        return transaction
    if hasattr(source, "connection"):
        return _begun(source)
    raise InvalidArgument(
        "transaction() takes an engine, sessionmaker, connection or session of SQLAlchemy, a pool "
        f"of psycopg, psycopg2 or asyncpg, or Django's connection, not {type(source).__name__}"
    )


@contextlib.contextmanager
def _begun(pool: Any) -> Iterator[Any]:
    with pool.connection() as connection, connection.transaction():
        yield connection


def _caller(connection: Publishable) -> Caller:
    if isinstance(connection, Connection):
        return _Psycopg(connection)
    found = find_driver(connection)
    return found if isinstance(found, Caller) else _Psycopg(found)


def _fetch(caller: Caller, query: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    check_encodings(caller.parameter("server_encoding"), caller.parameter("client_encoding"))
    with map_errors(), allowing(lambda: (caller.user(), to_call(query, params))):
        return caller.run(query, params)


class _Psycopg(Caller):
    """Runs statements on a connection of psycopg 3."""

    def __init__(self, driver: Connection[Any]) -> None:
        self.raw = driver

    def parameter(self, name: LiteralString) -> str | None:
        value = self.raw.pgconn.parameter_status(name.encode())
        return None if value is None else value.decode()

    def run(self, query: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not getattr(self.raw, "must_begin", False):
            return self._run(query, params)
        with self._begun():
            return self._run(query, params)

    def _run(self, query: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        # A cursor of our own kind: the caller's connection may have other cursor and row factories.
        with own_cursor(self.raw) as cursor:
            cursor.execute(query, params)
            return cursor.fetchall()

    def commits_each(self) -> bool:
        return bool(self.raw.autocommit)

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        driver = self.raw
        self._catch_up()
        if driver.info.transaction_status != TransactionStatus.IDLE:
            yield
            return
        try:
            driver.execute(BEGIN)  # Trap: it may have run, although it was cancelled
            yield
            self._catch_up()
        except BaseException:
            if not driver.closed:
                driver.rollback()
            raise
        driver.commit()

    def _catch_up(self) -> None:
        """Wait for the answers to all that was sent.

        Trap: in pipeline mode nothing else tells whether a transaction is open. Without this, a
        caller's open transaction was not left alone, and our own was not committed.
        """
        if self.raw.pgconn.pipeline_status != PipelineStatus.OFF:
            with self.raw.pipeline():  # nested in the caller's, it begins with a sync
                pass
