"""Django's connection, through its own cursor: with its query log, wrappers and checks.

Where this library is, Django uses psycopg 3: it prefers it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.types.datetime import TimestamptzLoader

from ..errors import UnsupportedConnection
from .base import Caller, checked, plain_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .base import Params, Rows

__all__ = ["begun", "caller"]


def caller(connection: Any) -> Caller | None:
    """Return what runs statements on a connection, if it is one of Django."""
    return _Caller(connection) if _is_django(connection) else None


def begun(source: Any) -> contextlib.AbstractContextManager[Any] | None:
    """Return a transaction on Django's connection, if it is one."""
    return _atomic(source) if _is_django(source) else None


@contextlib.contextmanager
def _atomic(connection: Any) -> Iterator[Any]:
    from django.db import transaction

    with transaction.atomic(using=connection.alias):
        yield transaction.get_connection(connection.alias)  # this thread's


def _is_django(connection: Any) -> bool:
    base = sys.modules.get("django.db.backends.base.base")
    proxy = sys.modules.get("django.utils.connection")
    if base is None or proxy is None:
        return False
    if not isinstance(connection, (base.BaseDatabaseWrapper, proxy.ConnectionProxy)):
        return False
    if getattr(connection, "vendor", None) != "postgresql":
        raise UnsupportedConnection(
            f"Django's database {getattr(connection, 'alias', '')!r} is not PostgreSQL: give "
            "django.db.connections[...] of one that is"
        )
    return True


class _Caller(Caller):
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def raw(self) -> Any:
        self._connection.ensure_connection()
        return self._connection.connection

    def run(self, query: LiteralString, params: Params) -> Rows:
        with self._connection.cursor() as cursor:
            # Trap: with USE_TZ off, Django takes the zone from times.
            cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
            cursor.execute(query, checked(params))
            return plain_rows(cursor.fetchall()) if cursor.description else []

    def commits_each(self) -> bool:
        return bool(self._connection.get_autocommit()) and not self.in_transaction()
