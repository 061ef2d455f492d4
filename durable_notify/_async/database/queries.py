"""The functions of the database half, as a consumer calls them."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from ... import schema
from ..._core.grant_hints import allowing, to_consume
from ..._core.hints import say_unpublished
from ...adapters import storable_in
from ...dsn import said
from ...errors import ClaimBusy
from ...options import GroupSettings
from ...topics import is_pattern
from .callers import fetch, unwrap
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

#: How often to try to join a group that open transactions hold: the database waits 5 s each time.
TRIES_TO_JOIN = 6

# JSON as text: what one message holds must not keep the driver from reading the others.
_CLAIM = (
    "SELECT token, id, topic, key, payload::text, data, headers::text, published_at, attempt,"
    " order_key"
    " FROM durable_notify.claim_alone("
    "%s, %s::text[], %s, pg_catalog.make_interval(secs => %s), %s, %s)"
)
_SETTLE = (
    "SELECT durable_notify.settle(%s, %s::bigint[], %s::bigint[], %s::bigint[],"
    " (SELECT pg_catalog.array_agg(pg_catalog.make_interval(secs => d) ORDER BY n)"
    " FROM pg_catalog.unnest(%s::float8[]) WITH ORDINALITY AS t (d, n)),"
    " %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[]),"
    " pg_catalog.pg_current_xact_id()::text"
)
_OPTIONS = (
    "SELECT g.order_by, g.exclusive, g.max_attempts,"
    " EXTRACT(epoch FROM g.retry_base)::float8, g.retry_factor,"
    " EXTRACT(epoch FROM g.retry_max)::float8, g.on_expiry, g.park_limit, g.max_in_flight,"
    " g.rate_limit FROM durable_notify.groups() AS g WHERE g.name = %s"
)
_ACK = "SELECT durable_notify.settle(%s, %s::bigint[]), pg_catalog.pg_current_xact_id()::text"


async def settle(connection: Publishable, token: int, outcomes: Settlement) -> str:
    """Settle messages of a lease in the transaction of a connection; returns that one's name.

    Raises:
        LeaseLost, AlreadySettled: the transaction has failed and can only be rolled back.
    """
    retried, rejected = outcomes.retried, outcomes.rejected
    if not (retried or rejected):
        rows = await fetch(connection, _ACK, (token, outcomes.acked))
    else:
        pgconn = (await unwrap(connection)).pgconn
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
        rows = await fetch(connection, _SETTLE, params)
    transaction: str = rows[0][1]
    return transaction


def _as_json(pgconn: PGconn, error: Failure | None) -> str | None:
    if error is None:
        return None
    kept = {storable_in(pgconn, name): storable_in(pgconn, text) for name, text in error.items()}
    return json.dumps(kept, ensure_ascii=False)


class AsyncQueries:
    """Calls the database half through connections of its own.

    One for claiming, one for settling, one for keeping leases alive, so that none waits for
    another.
    """

    def __init__(self, dsn: str, options: ConsumerOptions) -> None:
        self._dsn = dsn
        self._options = options
        self._patterns = [topic for topic in options.topics if is_pattern(topic)]
        # Tells this consumer from all others of an exclusive group; an owner need not.
        self._consumer = f"{options.owner} {uuid.uuid4().hex}"
        self.exclusive = False
        purpose = f"consumer {options.group}"[:45]
        beat, lease = options.heartbeat, options.lease
        self.opened = opened = AsyncConnectionRegistry()
        self._claiming = AsyncReconnectingConnection(dsn, purpose, opened, beat, 2 * beat)
        self._settling = AsyncReconnectingConnection(dsn, purpose, opened, beat, 2 * beat)
        # Where it is dead, there is time to try again before a lease runs out.
        self._keeping = AsyncReconnectingConnection(
            dsn, purpose, opened, beat, min(2 * beat, lease / 3)
        )
        self._links = (self._claiming, self._settling, self._keeping)
        # Settling never waits for a handler's connection, nor handlers for one another's.
        self.transactions = AsyncTransactionPool(dsn, f"handler {options.group}"[:45], opened, beat)

    async def open(self) -> dict[str, tuple[Any, Any]]:
        """Check the schema, and subscribe the group; returns what options it had that we change.

        Raises:
            SchemaError: the migrations do not fit this package.
            psycopg.Error: the database cannot be reached or used, in the driver's own words.
        """
        options = self._options
        async with await connect(self._dsn, "start", options.heartbeat) as connection:
            wanted = to_consume(options.topics, options.group)
            with allowing(lambda: (connection.info.user, wanted)):
                await schema.check_async(connection)
                before = self._differing(await fetch(connection, _OPTIONS, (options.group,)))
            for left in reversed(range(TRIES_TO_JOIN)):
                try:
                    await self._join(connection)
                    break
                except psycopg.errors.LockNotAvailable as error:
                    if not left:
                        raise
                    log.info("waiting for group %r: %s", options.group, said(error))
            query = "SELECT g.exclusive FROM durable_notify.groups() AS g WHERE g.name = %s"
            self.exclusive = (await fetch(connection, query, (options.group,)))[0][0]
            await self._look_at_topics(connection)
        return before

    def _differing(self, rows: list[tuple[Any, ...]]) -> dict[str, tuple[Any, Any]]:
        given = self._options.group_settings
        stored = dict(zip(GroupSettings.__annotations__, rows[0], strict=True)) if rows else given
        return {
            name: (stored[name], value) for name, value in given.items() if stored[name] != value
        }

    async def differing(self) -> dict[str, tuple[Any, Any]]:
        """Return which options of the group are not those that were given; and both values."""
        if not self._options.group_settings:
            return {}
        return self._differing(await self._keeping.fetch(_OPTIONS, (self._options.group,)))

    async def _join(self, connection: AsyncConnection[Any]) -> None:
        options = self._options
        start = options.start
        since = start if isinstance(start, datetime) else None
        await fetch(
            connection,
            "SELECT durable_notify.subscribe(%s, %s::text[], %s, %s::timestamptz)",
            (options.group, list(options.topics), "since" if since else start, since),
        )
        if settings_given := options.group_settings:
            query = "SELECT durable_notify.configure(%s, %s::jsonb)"
            await fetch(connection, query, (options.group, json.dumps(settings_given)))

    async def _look_at_topics(self, connection: AsyncConnection[Any]) -> None:
        """Say which topics may be misspelt. Other topics' names are for the owner to see."""
        group, topics = self._options.group, list(self._options.topics)
        query = "SELECT durable_notify.never_published(%s, %s::text[])"
        unpublished = [row[0] for row in await fetch(connection, query, (group, topics))]
        others: list[str] = []
        if unpublished and (await fetch(connection, "SELECT durable_notify._is_owner()", ()))[0][0]:
            query = "SELECT t.topic FROM durable_notify.topics() AS t LIMIT 10000"
            others = [row[0] for row in await fetch(connection, query, ())]
        say_unpublished(group, unpublished, others)

    def direct(self) -> None:
        """Take note that no pooler stands between us and the database."""
        self._claiming.direct()
        self._settling.direct()

    async def check(self) -> None:
        """See whether the connections that lie idle are alive, and close those that are not."""
        for link in self._links:
            if not await link.check():
                for other in self._links:  # they have most likely died together
                    await other.drop()
        await self.transactions.check()

    async def close(self) -> None:
        for link in self._links:
            await link.close()
        await self.transactions.close()

    async def discover(self) -> list[str]:
        """Return the topics that the patterns stand for by now, the group subscribed to them."""
        query = "SELECT durable_notify.discover(%s, %s::text[])"
        rows = await self._claiming.fetch(query, (self._options.group, self._patterns))
        return [row[0] for row in rows]

    async def claim(self, topics: Iterable[str], most: int) -> list[tuple[Any, ...]]:
        """Claim messages; the columns are those of ``claim()``.

        Raises:
            ClaimBusy: other claims of the group held its lock for too long.
        """
        options = self._options
        owner, consumer = options.owner, self._consumer
        params = (options.group, list(topics), most, options.lease, owner, consumer)
        try:
            return await self._claiming.fetch(_CLAIM, params)
        except psycopg.errors.LockNotAvailable as error:
            raise ClaimBusy(f"claims of group {options.group!r} are held up; try again") from error
        except psycopg.errors.UniqueViolation as error:  # of the lease's name, which is the time
            raise ClaimBusy("lease token already used: the database clock was set back") from error

    async def settle(self, token: int, outcomes: Settlement) -> None:
        """Settle messages of a lease; durable on return."""
        async with self._settling.use() as connection:
            await settle(connection, token, outcomes)

    async def extend(self, tokens: Iterable[int], seconds: float) -> set[int]:
        """Prolong leases; returns the tokens still held."""
        query = "SELECT durable_notify.extend(%s::bigint[], pg_catalog.make_interval(secs => %s))"
        return {row[0] for row in await self._keeping.fetch(query, (list(tokens), seconds))}

    async def release(self, tokens: Iterable[int], *, counted: bool) -> set[int]:
        """Give leases back; returns the tokens that an open transaction still holds."""
        query = "SELECT durable_notify.release(%s::bigint[], %s)"
        return {row[0] for row in await self._settling.fetch(query, (list(tokens), counted))}

    async def still_out(self, ids: Iterable[int]) -> dict[int, bool]:
        """Return those of some messages that are not acknowledged, and whether they are dead."""
        query = "SELECT message_id, is_dead FROM durable_notify.unacknowledged(%s, %s::bigint[])"
        return dict(await self._settling.fetch(query, (self._options.group, list(ids))))

    async def over(self, transactions: Iterable[str]) -> set[str]:
        """Return those of some transactions that have ended, committed or not."""
        query = (
            "SELECT t.name FROM pg_catalog.unnest(%s::text[]) AS t (name)"
            " WHERE pg_catalog.pg_xact_status(t.name::pg_catalog.xid8) IS DISTINCT FROM"
            " 'in progress'"
        )
        names = list(transactions)
        try:
            return {row[0] for row in await self._settling.fetch(query, (names,))}
        except psycopg.errors.InvalidParameterValue:
            return set(names)  # it never came so far: they are of a primary that was replaced

    async def next_due(self, topics: Iterable[str]) -> float | None:
        """Return the seconds until something comes back by the clock; None: nothing will."""
        query = "SELECT durable_notify.next_due(%s, %s::text[], %s)"
        rows = await self._claiming.fetch(
            query, (self._options.group, list(topics), self._consumer)
        )
        due: float | None = rows[0][0]
        return due

    async def advance_replays(self, topics: Iterable[str]) -> float | None:
        """Advance running replays; returns the seconds until the next step, None: none runs."""
        query = "SELECT durable_notify.advance_replays(%s, %s::text[])"
        rows = await self._claiming.fetch(query, (self._options.group, list(topics)))
        due: float | None = rows[0][0]
        return due

    async def stay_active(self) -> None:
        """Give a sign of life as the active consumer of an exclusive group, if this one is."""
        query = "SELECT durable_notify.renew_active(%s, %s, pg_catalog.make_interval(secs => %s))"
        params = (self._options.group, self._consumer, self._options.lease)
        await self._keeping.fetch(query, params)

    async def stand_down(self) -> None:
        """Let another consumer of an exclusive group be the active one at once."""
        query = "SELECT durable_notify.resign_active(%s, %s)"
        await self._settling.fetch(query, (self._options.group, self._consumer))

    async def maintenance_due(self, every: float) -> bool | None:
        """Return whether nobody has maintained the database for so long; None: others do that."""
        if not (await self._keeping.fetch("SELECT durable_notify._is_owner()", ()))[0][0]:
            return None
        query = (
            "SELECT NOT EXISTS (SELECT FROM durable_notify.maintenance m WHERE m.done_at >"
            " pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s))"
        )
        return bool((await self._keeping.fetch(query, (every,)))[0][0])
