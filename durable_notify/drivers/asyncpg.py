"""asyncpg, which names values by number and encodes each as the type that the server wants."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import sys
from typing import TYPE_CHECKING, Any, LiteralString

from .base import AsyncCaller, checked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .base import Params, Rows

__all__ = ["begun", "caller", "numbered"]

#: Types that we give as text. Trap: programs register codecs for jsonb, and SQLAlchemy does.
_AS_TEXT = re.compile(r"%s(?=::(?:jsonb|jsonpath|regclass|pg_snapshot)\b)")


def caller(connection: Any) -> AsyncCaller | None:
    """Return what runs statements on a connection, if it is one of asyncpg or of its pool."""
    asyncpg = sys.modules.get("asyncpg")
    kinds = asyncpg and (asyncpg.Connection, asyncpg.pool.PoolConnectionProxy)
    return _Caller(connection) if kinds and isinstance(connection, kinds) else None


@functools.cache
def numbered(query: LiteralString) -> str:
    """Return a statement with ``$1``, ``$2`` and so on for its values."""
    numbers = itertools.count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", _AS_TEXT.sub("%s::text", query))


def begun(source: Any) -> contextlib.AbstractAsyncContextManager[Any] | None:
    """Return a transaction on a connection of a pool, if it is one of asyncpg."""
    asyncpg = sys.modules.get("asyncpg")
    return _acquired(source) if asyncpg and isinstance(source, asyncpg.Pool) else None


@contextlib.asynccontextmanager
async def _acquired(pool: Any) -> AsyncIterator[Any]:
    async with pool.acquire() as connection, connection.transaction():
        yield connection


class _Caller(AsyncCaller):
    def __init__(self, connection: Any) -> None:
        self.raw = connection

    async def run(self, query: LiteralString, params: Params) -> Rows:
        plain = sys.modules["asyncpg"].Record  # the connection may have a kind of its own
        rows = await self.raw.fetch(numbered(query), *checked(params), record_class=plain)
        return list(map(tuple, rows))

    def commits_each(self) -> bool:
        return not self.in_transaction()
