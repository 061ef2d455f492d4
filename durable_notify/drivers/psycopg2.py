"""psycopg2, which writes the values into the statement."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, LiteralString

from .base import Caller, checked, plain_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .base import Params, Rows

__all__ = ["begun", "caller", "values"]


def caller(connection: Any) -> Caller | None:
    """Return what runs statements on a connection, if it is one of psycopg2."""
    extensions = sys.modules.get("psycopg2.extensions")
    if extensions is None or not isinstance(connection, extensions.connection):
        return None
    return _Caller(connection)


def values(params: Params) -> Params | None:
    """Return values as psycopg2 takes them, whatever the program has registered for lists."""
    # Trap: programs register Json for lists. None: without values, % stands for itself.
    from psycopg2._psycopg import List

    adapted = [List(value) if isinstance(value, list) else value for value in checked(params)]
    return tuple(adapted) or None


def begun(source: Any) -> contextlib.AbstractContextManager[Any] | None:
    """Return a transaction on a connection of a pool, if it is one of psycopg2."""
    pools = sys.modules.get("psycopg2.pool")
    if pools is None or not isinstance(source, pools.AbstractConnectionPool):
        return None
    return _borrowed(source)


@contextlib.contextmanager
def _borrowed(pool: Any) -> Iterator[Any]:
    connection = pool.getconn()
    try:
        with connection:  # commits or rolls back
            yield connection
    finally:
        pool.putconn(connection)


class _Caller(Caller):
    def __init__(self, connection: Any) -> None:
        self.raw = connection

    def run(self, query: LiteralString, params: Params) -> Rows:
        from psycopg2.extensions import cursor

        # Not the connection's own kind: rows may be dictionaries there.
        with self.raw.cursor(cursor_factory=cursor) as own:
            own.execute(query, values(params))
            return plain_rows(own.fetchall()) if own.description else []

    def commits_each(self) -> bool:
        if not self.raw.autocommit or self.in_transaction():
            return False
        # Trap: within ``with connection``, a statement begins a transaction here, too.
        self.run("SELECT 1", ())
        return not self.in_transaction()
