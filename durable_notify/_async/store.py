"""The functions of the database half, as a consumer calls them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from .. import schema
from .._core.translate import translated
from ..errors import ClaimBusy
from .connections import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import LiteralString

    from .._core.leases import Outcomes
    from ..options import ConsumerOptions
    from .connections import Publishable

__all__ = ["TRANSIENT", "AsyncStore", "connect", "settle"]

#: Errors after which to try again: the connection broke, the server is restarting, standing by or
#: short of something. ``InterfaceError``: the connection was found closed.
TRANSIENT = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction
)  # fmt: skip

# JSON as text: what one message holds must not keep the driver from reading the others.
_CLAIM = (
    "SELECT token, id, topic, key, payload::text, data, headers::text, published_at, attempt, order_key"
    " FROM durable_notify.claim(%s, %s::text[], %s, make_interval(secs => %s), %s, %s)"
)
_SETTLE = (
    "SELECT durable_notify.settle(%s, %s::bigint[], %s::bigint[], %s::bigint[],"
    " (SELECT array_agg(make_interval(secs => d) ORDER BY n)"
    " FROM unnest(%s::float8[]) WITH ORDINALITY AS t (d, n)),"
    " %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[])"
)
_ACK = "SELECT durable_notify.settle(%s, %s::bigint[])"


async def connect(dsn: str, purpose: str) -> AsyncConnection[tuple[Any, ...]]:
    """Open a connection of our own: autocommit, and found dead within half a minute."""
    return await AsyncConnection.connect(dsn, **settings(dsn, purpose))


def settings(dsn: str, purpose: str) -> dict[str, Any]:
    """Return the settings of our own connections, where the DSN does not say otherwise."""
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    wanted: dict[str, Any] = {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "application_name": f"durable_notify {purpose}",
    }
    ours = {name: value for name, value in wanted.items() if name not in given}
    # No prepared statements: what is behind a pooler in transaction mode has none of ours.
    return {"autocommit": True, "prepare_threshold": None, **ours}


async def settle(connection: Publishable, token: int, outcomes: Outcomes) -> None:
    """Settle messages of a lease in the transaction of a connection.

    Raises:
        LeaseLost, AlreadySettled: the transaction has failed and can only be rolled back.
    """
    retried, rejected = outcomes.retried, outcomes.rejected
    if not (retried or rejected):
        await fetch(connection, _ACK, (token, outcomes.acked))
    else:
        params = (
            token,
            outcomes.acked,
            [message_id for message_id, _ in retried],
            [message_id for message_id, _ in rejected],
            [outcome.delay for _, outcome in retried],
            [as_json(outcome.error) for _, outcome in retried],
            [outcome.reason for _, outcome in rejected],
            [as_json(outcome.error) for _, outcome in rejected],
        )
        await fetch(connection, _SETTLE, params)


class AsyncStore:
    """Calls the database half through a small pool of connections of its own."""

    def __init__(self, dsn: str, options: ConsumerOptions) -> None:
        self._dsn = dsn
        self._options = options
        self._pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]] = AsyncConnectionPool(
            dsn,
            kwargs=settings(dsn, f"consumer {options.group}"[:45]),
            min_size=1,
            max_size=4,
            timeout=10,
            open=False,
        )

    async def open(self) -> None:
        """Check the schema, subscribe the group, and open the pool.

        Raises:
            SchemaError: the migrations do not fit this package.
            psycopg.Error: the database cannot be reached or used, in the driver's own words.
        """
        options = self._options
        start = options.start
        async with await connect(self._dsn, "start") as connection:
            await schema.check_async(connection)
            with translated():
                await connection.execute(
                    "SELECT durable_notify.subscribe"
                    "(%s, %s::text[], %s, %s::timestamptz, %s::integer)",
                    (
                        options.group,
                        list(options.topics),
                        "since" if isinstance(start, datetime) else start,
                        start if isinstance(start, datetime) else None,
                        options.max_attempts,
                    ),
                )
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def claim(self, most: int) -> list[tuple[Any, ...]]:
        """Claim messages: token, id, topic, key, payload, data, headers, published_at, attempt.

        Raises:
            ClaimBusy: other claims of the group held its lock for too long.
        """
        options = self._options
        params = (options.group, list(options.topics), most, options.lease, options.owner)
        try:
            return await self._fetch(_CLAIM, params)
        except psycopg.errors.LockNotAvailable as error:
            raise ClaimBusy(f"claims of group {options.group!r} are held up; try again") from error

    async def settle(self, token: int, outcomes: Outcomes) -> None:
        """Settle messages of a lease; durable on return."""
        async with self._pool.connection() as connection:
            await settle(connection, token, outcomes)

    async def extend(self, tokens: Iterable[int], seconds: float) -> set[int]:
        """Prolong leases; returns the tokens still held."""
        query = "SELECT durable_notify.extend(%s::bigint[], make_interval(secs => %s))"
        return {row[0] for row in await self._fetch(query, (list(tokens), seconds))}

    async def release(self, tokens: Iterable[int], *, counted: bool) -> set[int]:
        """Give leases back; returns the tokens that an open transaction still holds."""
        query = "SELECT durable_notify.release(%s::bigint[], %s)"
        return {row[0] for row in await self._fetch(query, (list(tokens), counted))}

    async def next_due(self) -> float | None:
        """Return the seconds until something comes back by the clock; None: nothing will."""
        query = "SELECT durable_notify.next_due(%s, %s::text[])"
        rows = await self._fetch(query, (self._options.group, list(self._options.topics)))
        due: float | None = rows[0][0]
        return due

    async def _fetch(self, query: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as connection:
            return await fetch(connection, query, params)
