"""The SQL functions that a consumer calls."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import psycopg

from ... import schema
from ..._core import sql
from ..._core.grant_hints import allowing, to_consume
from ..._core.hints import say_unpublished
from ...adapters import storable_in
from ...dsn import safe_message
from ...errors import ClaimBusy
from ...groups import STORED
from ...topics import is_pattern
from .callers import fetch
from .connection import AsyncConnectionRegistry, AsyncReconnectingConnection, connect
from .transactions import AsyncTransactionPool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import AsyncConnection
    from psycopg.pq.abc import PGconn

    from ..._core.leases import Settlement
    from ..._core.sanitize import Failure
    from ...options import ConsumerOptions
    from .callers import Publishable

__all__ = ["AsyncQueries", "settle"]

log = logging.getLogger("durable_notify")

#: How often to try to join a group that open transactions lock; the database waits 5 s each time.
TRIES_TO_JOIN = 6


async def settle(connection: Publishable, token: int, outcomes: Settlement) -> str:
    """Settle messages of a lease in the transaction of a connection; return its name.

    Raises:
        LeaseLost, AlreadySettled: the transaction has failed and can only be rolled back.
    """
    retried, rejected = outcomes.retried, outcomes.rejected
    if not (retried or rejected):
        rows = await fetch(connection, sql.ACK, (token, outcomes.acked))
    else:
        pgconn = cast("AsyncConnection[Any]", connection).pgconn  # the consumer's own
        params = (
            token,
            outcomes.acked,
            [message_id for message_id, _ in retried],
            [message_id for message_id, _ in rejected],
            [outcome.seconds for _, outcome in retried],
            [_as_json(pgconn, outcome.error) for _, outcome in retried],
            [storable_in(pgconn, outcome.reason) for _, outcome in rejected],
            [_as_json(pgconn, outcome.error) for _, outcome in rejected],
        )
        rows = await fetch(connection, sql.SETTLE, params)
    transaction: str = rows[0][1]
    return transaction


def _as_json(pgconn: PGconn, error: Failure | None) -> str | None:
    if error is None:
        return None
    kept = {storable_in(pgconn, name): storable_in(pgconn, text) for name, text in error.items()}
    return json.dumps(kept, ensure_ascii=False)


class AsyncQueries:
    """Calls SQL functions through connections of its own.

    One connection claims, one settles, and one keeps leases alive, so that none waits for
    another.
    """

    def __init__(self, dsn: str, options: ConsumerOptions) -> None:
        self._dsn = dsn
        self._options = options
        self._group = options.group.name
        self._patterns = [topic for topic in options.topics if is_pattern(topic)]
        # Identifies this consumer of an exclusive group; owners need not be unique.
        self._consumer = f"{options.owner} {uuid.uuid4().hex}"
        self.exclusive = False
        purpose = f"consumer {self._group}"[:45]
        beat, lease = options.heartbeat_interval, options.lease
        self.registry = registry = AsyncConnectionRegistry()
        self._claiming = AsyncReconnectingConnection(dsn, purpose, registry, beat, 2 * beat)
        self._settling = AsyncReconnectingConnection(dsn, purpose, registry, beat, 2 * beat)
        # If the connection is dead, there is time to retry before a lease expires.
        self._keeping = AsyncReconnectingConnection(
            dsn, purpose, registry, beat, min(2 * beat, lease / 3)
        )
        self._connections = (self._claiming, self._settling, self._keeping)
        # Settling never waits for a handler's connection, nor one handler for another's.
        self.transactions = AsyncTransactionPool(dsn, f"handler {self._group}"[:45], registry, beat)

    async def open(self) -> dict[str, tuple[Any, Any]]:
        """Check the schema, and subscribe the group; return the options that this changes.

        Raises:
            SchemaError: the migrations do not fit this package.
            psycopg.Error: the database cannot be reached or used.
        """
        options = self._options
        async with await connect(self._dsn, "start", options.heartbeat_interval) as connection:
            wanted = to_consume(options.topics, self._group)
            with allowing(lambda: (connection.info.user, wanted)):
                await schema.check_async(connection)
                stored = await fetch(connection, sql.GROUP_OPTIONS, (self._group,))
                before = self._differing(stored)
            for left in reversed(range(TRIES_TO_JOIN)):
                try:
                    await self._join(connection)
                    break
                except psycopg.errors.LockNotAvailable as error:
                    if not left:
                        raise
                    log.info("waiting for group %r: %s", self._group, safe_message(error))
            ((_, self.exclusive, *_),) = await fetch(connection, sql.GROUP_OPTIONS, (self._group,))
            await self._look_at_topics(connection)
        return before

    def _differing(self, rows: list[tuple[Any, ...]]) -> dict[str, tuple[Any, Any]]:
        given = self._options.group.stored
        stored = dict(zip(STORED, rows[0], strict=True)) if rows else given
        return {
            name: (stored[name], value) for name, value in given.items() if stored[name] != value
        }

    async def differing(self) -> dict[str, tuple[Any, Any]]:
        """Return the options of the group that differ from those given, with both values."""
        if not self._options.group.stored:
            return {}
        return self._differing(await self._keeping.fetch(sql.GROUP_OPTIONS, (self._group,)))

    async def _join(self, connection: AsyncConnection[Any]) -> None:
        options = self._options
        start = options.group.start
        since = start if isinstance(start, datetime) else None
        params = (self._group, list(options.topics), "since" if since else start, since)
        await fetch(connection, sql.SUBSCRIBE, params)
        if given := options.group.stored:
            await fetch(connection, sql.CONFIGURE, (self._group, json.dumps(given)))

    async def _look_at_topics(self, connection: AsyncConnection[Any]) -> None:
        """Warn of topics that may be misspelt. Only the owner may see the names of other topics."""
        group, topics = self._group, list(self._options.topics)
        unpublished = [
            row[0] for row in await fetch(connection, sql.NEVER_PUBLISHED, (group, topics))
        ]
        others: list[str] = []
        if unpublished and (await fetch(connection, sql.IS_OWNER, ()))[0][0]:
            others = [row[0] for row in await fetch(connection, sql.SOME_TOPICS, ())]
        say_unpublished(group, unpublished, others)

    def direct(self) -> None:
        """Prepare statements from here on, because there is no pooler."""
        self._claiming.direct()
        self._settling.direct()

    async def check(self) -> None:
        """Check that the idle connections are alive, and close those that are not."""
        for connection in self._connections:
            if not await connection.check():
                for other in self._connections:  # the others have most likely died too
                    await other.drop()
        await self.transactions.check()

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            await connection.close()
        await self.transactions.close()

    async def discover(self) -> list[str]:
        """Subscribe the group to topics that its patterns match by now, and return them."""
        rows = await self._claiming.fetch(sql.DISCOVER, (self._group, self._patterns))
        return [row[0] for row in rows]

    async def claim(self, topics: Iterable[str], limit: int) -> list[tuple[Any, ...]]:
        """Claim messages; the columns are those of ``claim()``.

        Raises:
            ClaimBusy: other claims of the group held its lock for too long.
        """
        options = self._options
        owner, consumer = options.owner, self._consumer
        params = (self._group, list(topics), limit, options.lease, owner, consumer)
        try:
            return await self._claiming.fetch(sql.CLAIM, params)
        except psycopg.errors.LockNotAvailable as error:
            raise ClaimBusy(f"claims of group {self._group!r} are held up; try again") from error
        except psycopg.errors.UniqueViolation as error:  # a lease token is a time
            raise ClaimBusy("lease token already used: the database clock was set back") from error

    async def settle(self, token: int, outcomes: Settlement) -> None:
        """Settle messages of a lease; durable on return."""
        async with self._settling.use() as connection:
            await settle(connection, token, outcomes)

    async def extend(self, tokens: Iterable[int], seconds: float) -> set[int]:
        """Extend leases; return the tokens still held."""
        rows = await self._keeping.fetch(sql.EXTEND, (list(tokens), seconds))
        return {row[0] for row in rows}

    async def release(self, tokens: Iterable[int], *, counted: bool) -> set[int]:
        """Release leases; return the tokens that an open transaction still holds."""
        rows = await self._settling.fetch(sql.RELEASE, (list(tokens), counted))
        return {row[0] for row in rows}

    async def unacknowledged(self, ids: Iterable[int]) -> dict[int, bool]:
        """Return the unacknowledged ones of some messages, and whether each is a dead letter."""
        params = (self._group, list(ids))
        return dict(await self._settling.fetch(sql.UNACKNOWLEDGED, params))

    async def ended_transactions(self, transactions: Iterable[str]) -> set[str]:
        """Return which of some transactions have ended, committed or not."""
        names = list(transactions)
        try:
            rows = await self._settling.fetch(sql.ENDED_TRANSACTIONS, (names,))
        except psycopg.errors.InvalidParameterValue:
            return set(names)  # this server never had them: it replaced their primary
        return {row[0] for row in rows}

    async def next_due(self, topics: Iterable[str]) -> float | None:
        """Return in how many seconds a message becomes due; None: none will."""
        params = (self._group, list(topics), self._consumer)
        due: float | None = (await self._claiming.fetch(sql.NEXT_DUE, params))[0][0]
        return due

    async def advance_replays(self, topics: Iterable[str]) -> float | None:
        """Advance running replays; return the seconds until the next step, None: none runs."""
        params = (self._group, list(topics))
        due: float | None = (await self._claiming.fetch(sql.ADVANCE_REPLAYS, params))[0][0]
        return due

    async def travel(self, seconds: float) -> None:
        """Move all times of the schema into the past, for tests."""
        await self._claiming.fetch(sql.TRAVEL, (seconds,))

    async def renew_active(self) -> None:
        """Report that the active consumer of an exclusive group is alive, if this is the one."""
        params = (self._group, self._consumer, self._options.lease)
        await self._keeping.fetch(sql.RENEW_ACTIVE, params)

    async def resign_active(self) -> None:
        """Let another consumer of an exclusive group become active at once."""
        await self._settling.fetch(sql.RESIGN_ACTIVE, (self._group, self._consumer))

    async def maintenance_due(self, every: float) -> bool | None:
        """Return whether no maintenance ran for so many seconds; None: this role may not run it."""
        if not (await self._keeping.fetch(sql.MAY_MAINTAIN, ()))[0][0]:
            return None
        return bool((await self._keeping.fetch(sql.MAINTAIN_DUE, (every,)))[0][0])
