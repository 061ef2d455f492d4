# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""The functions of the database half, as a consumer calls them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
import weakref
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool

from .. import schema
from ..connecting import check_dsn, unquoted
from ..errors import ClaimBusy
from ..topics import is_pattern
from .compat import Lock
from .connections import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import LiteralString, Self

    from .._core.failures import Failure
    from .._core.leases import Outcomes
    from ..options import ConsumerOptions
    from .connections import Publishable

__all__ = ["TRANSIENT", "Store", "connect", "settle"]

#: Errors after which to try again: the connection broke, the server is restarting, standing by or
#: short of something. ``InterfaceError``: the connection was found closed.
TRANSIENT = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction
)  # fmt: skip

READ_ONLY = (
    "the server can only be read: it is a standby, or was made read-only. LISTEN and claims need "
    "the primary: name it, or all hosts with target_session_attrs=read-write"
)

#: What a pooler in transaction mode says where another of its sessions has a prepared statement.
_UNPREPARED = (
    psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement
)  # fmt: skip

#: How many handlers at once may be in a transaction of ``message.transaction()``.
MOST_TRANSACTIONS = 1000

# JSON as text: what one message holds must not keep the driver from reading the others.
_CLAIM = (
    "SELECT token, id, topic, key, payload::text, data, headers::text, published_at, attempt,"
    " order_key"
    " FROM durable_notify.claim(%s, %s::text[], %s, pg_catalog.make_interval(secs => %s), %s, %s)"
)
_SETTLE = (
    "SELECT durable_notify.settle(%s, %s::bigint[], %s::bigint[], %s::bigint[],"
    " (SELECT pg_catalog.array_agg(pg_catalog.make_interval(secs => d) ORDER BY n)"
    " FROM pg_catalog.unnest(%s::float8[]) WITH ORDINALITY AS t (d, n)),"
    " %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[])"
)
_ACK = "SELECT durable_notify.settle(%s, %s::bigint[])"


class OwnConnection(Connection[tuple[Any, ...]]):
    """A connection whose errors of connecting do not quote the DSN."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        with unquoted(conninfo):
            return super().connect(conninfo, **kwargs)


def connect(dsn: str, purpose: str) -> OwnConnection:
    """Open a connection of our own: autocommit, and found dead within half a minute.

    Raises:
        psycopg.OperationalError: among others, where it leads to a standby.
    """
    connection = OwnConnection.connect(dsn, **settings(dsn, purpose))
    if connection.info.parameter_status("in_hot_standby") == "on":
        connection.close()
        raise psycopg.OperationalError(READ_ONLY)
    return connection


def can_write(connection: Connection[Any]) -> bool:
    """Whether a session may write by default: the server says so with its answers, and changes."""
    return connection.info.parameter_status("default_transaction_read_only") != "on"


class Open:
    """The connections that somebody has, to be cut where their server does not answer any more.

    Nothing else ends a wait for a server that hangs: its machine still confirms what is sent to it.
    """

    def __init__(self) -> None:
        self._connections: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()
        self._mutex = threading.Lock()

    def add(self, connection: Connection[Any]) -> None:
        with self._mutex:
            self._connections.add(connection)

    def cut(self) -> None:
        """Have whoever waits on one of them get an OperationalError, and whoever uses one next."""
        with self._mutex:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(psycopg.Error, OSError):  # closed already
                handle = os.dup(connection.fileno())
                with socket.socket(fileno=handle) as end:
                    end.shutdown(socket.SHUT_RDWR)


def settings(dsn: str, purpose: str) -> dict[str, Any]:
    """Return the settings of our own connections, where the DSN does not say otherwise."""
    given = check_dsn(dsn)
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
    # UTF-8 whatever the DSN or PGCLIENTENCODING say: channels and payloads may have any character.
    fixed = {"autocommit": True, "prepare_threshold": None, "client_encoding": "utf8"}
    return {**ours, **fixed}


def settle(connection: Publishable, token: int, outcomes: Outcomes) -> None:
    """Settle messages of a lease in the transaction of a connection.

    Raises:
        LeaseLost, AlreadySettled: the transaction has failed and can only be rolled back.
    """
    retried, rejected = outcomes.retried, outcomes.rejected
    if not (retried or rejected):
        fetch(connection, _ACK, (token, outcomes.acked))
    else:
        params = (
            token,
            outcomes.acked,
            [message_id for message_id, _ in retried],
            [message_id for message_id, _ in rejected],
            [outcome.seconds for _, outcome in retried],
            [_as_json(outcome.error) for _, outcome in retried],
            [outcome.reason for _, outcome in rejected],
            [_as_json(outcome.error) for _, outcome in rejected],
        )
        fetch(connection, _SETTLE, params)


class NotSent(psycopg.OperationalError):
    """There was no connection to send a statement on: it has had no effect."""


class Link:
    """A connection for one thing after the other, made anew where it broke.

    A pool takes half a millisecond to lend and to take back, which is as long as a claim.
    """

    def __init__(self, dsn: str, purpose: str, opened: Open) -> None:
        self._dsn = dsn
        self._purpose = purpose
        self._opened = opened
        self._connection: Connection[tuple[Any, ...]] | None = None
        self._direct = False
        self._lock = Lock()

    def direct(self) -> None:
        """Take note that no pooler stands in between: statements can be prepared."""
        self._direct = True
        if self._connection is not None:
            self._connection.prepare_threshold = 2

    def fetch(self, query: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._use() as connection:
            return fetch(connection, query, params)

    def settle(self, token: int, outcomes: Outcomes) -> None:
        with self._use() as connection:
            settle(connection, token, outcomes)

    @contextlib.contextmanager
    def _use(self) -> Iterator[Connection[tuple[Any, ...]]]:
        """Lend the connection, and give it up where it broke or was left in a statement's midst."""
        with self._lock:
            connection = self._connected()
            try:
                yield connection
            except _UNPREPARED:
                self._direct = False
                self._close()
                raise NotSent("statements cannot be prepared here; trying without") from None
            except psycopg.errors.ReadOnlySqlTransaction:
                self._close()  # the DSN may lead to another host by now
                raise
            finally:
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    self._close()

    def _connected(self) -> Connection[tuple[Any, ...]]:
        if self._connection is None:
            try:
                self._connection = connect(self._dsn, self._purpose)
            except psycopg.OperationalError as error:
                raise NotSent(str(error)) from error
            self._opened.add(self._connection)
            if self._direct:
                self.direct()
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        with self._lock:
            self._close()


def _writable(connection: Connection[Any]) -> None:
    """Have a pool give up a connection that leads where nothing can be written any more."""
    if not can_write(connection):
        raise psycopg.OperationalError(READ_ONLY)


def _as_json(error: Failure | None) -> str | None:
    return None if error is None else json.dumps(error)


class Store:
    """Calls the database half through connections of its own.

    One for claiming, one for settling, so that neither waits for the other; a small pool for
    everything else.
    """

    def __init__(self, dsn: str, options: ConsumerOptions) -> None:
        self._dsn = dsn
        self._options = options
        self._patterns = [topic for topic in options.topics if is_pattern(topic)]
        # Tells this consumer from all others of an exclusive group; an owner need not.
        self._consumer = f"{options.owner} {uuid.uuid4().hex}"
        self.exclusive = False
        self._transactions: ConnectionPool[Connection[tuple[Any, ...]]] | None = None
        purpose = f"consumer {options.group}"[:45]
        self.opened = Open()
        self._claiming = Link(dsn, purpose, self.opened)
        self._settling = Link(dsn, purpose, self.opened)
        self._pool: ConnectionPool[Connection[tuple[Any, ...]]] = ConnectionPool(
            dsn,
            connection_class=OwnConnection,
            kwargs=settings(dsn, purpose),
            configure=self.opened.add,
            reset=_writable,
            min_size=0,
            max_size=2,
            timeout=10,
            open=False,
        )

    def open(self) -> None:
        """Check the schema, subscribe the group, and open the pool.

        Raises:
            SchemaError: the migrations do not fit this package.
            psycopg.Error: the database cannot be reached or used, in the driver's own words.
        """
        options = self._options
        start = options.start
        with connect(self._dsn, "start") as connection:
            schema.check(connection)
            since = start if isinstance(start, datetime) else None
            fetch(
                connection,
                "SELECT durable_notify.subscribe(%s, %s::text[], %s, %s::timestamptz)",
                (options.group, list(options.topics), "since" if since else start, since),
            )
            if settings_given := options.group_settings:
                query = "SELECT durable_notify.configure(%s, %s::jsonb)"
                fetch(connection, query, (options.group, json.dumps(settings_given)))
            query = "SELECT g.exclusive FROM durable_notify.groups() AS g WHERE g.name = %s"
            self.exclusive = (fetch(connection, query, (options.group,)))[0][0]
        self._pool.open()

    def direct(self) -> None:
        """Take note that no pooler stands between us and the database."""
        self._claiming.direct()
        self._settling.direct()

    def close(self) -> None:
        self._claiming.close()
        self._settling.close()
        self._pool.close()
        if self._transactions is not None:
            self._transactions.close()

    def transactions(self) -> ConnectionPool[Connection[tuple[Any, ...]]]:
        """Return the pool for the handlers' own transactions, which may take their time.

        It grows with their number: settling never waits for a handler's connection.
        """
        if self._transactions is None:
            self._transactions = ConnectionPool(
                self._dsn,
                connection_class=OwnConnection,
                kwargs=settings(self._dsn, f"handler {self._options.group}"[:45]),
                configure=self.opened.add,
                reset=_writable,
                min_size=0,
                max_size=MOST_TRANSACTIONS,
                timeout=10,
                open=False,
            )
        self._transactions.open()
        return self._transactions

    def discover(self) -> list[str]:
        """Return the topics that the patterns stand for by now, the group subscribed to them."""
        query = "SELECT durable_notify.discover(%s, %s::text[])"
        rows = self._claiming.fetch(query, (self._options.group, self._patterns))
        return [row[0] for row in rows]

    def claim(self, topics: Iterable[str], most: int) -> list[tuple[Any, ...]]:
        """Claim messages; the columns are those of ``claim()``.

        Raises:
            ClaimBusy: other claims of the group held its lock for too long.
        """
        options = self._options
        owner, consumer = options.owner, self._consumer
        params = (options.group, list(topics), most, options.lease, owner, consumer)
        try:
            return self._claiming.fetch(_CLAIM, params)
        except psycopg.errors.LockNotAvailable as error:
            raise ClaimBusy(f"claims of group {options.group!r} are held up; try again") from error

    def settle(self, token: int, outcomes: Outcomes) -> None:
        """Settle messages of a lease; durable on return."""
        self._settling.settle(token, outcomes)

    def extend(self, tokens: Iterable[int], seconds: float) -> set[int]:
        """Prolong leases; returns the tokens still held."""
        query = "SELECT durable_notify.extend(%s::bigint[], pg_catalog.make_interval(secs => %s))"
        return {row[0] for row in self._fetch(query, (list(tokens), seconds))}

    def release(self, tokens: Iterable[int], *, counted: bool) -> set[int]:
        """Give leases back; returns the tokens that an open transaction still holds."""
        query = "SELECT durable_notify.release(%s::bigint[], %s)"
        return {row[0] for row in self._settling.fetch(query, (list(tokens), counted))}

    def next_due(self, topics: Iterable[str]) -> float | None:
        """Return the seconds until something comes back by the clock; None: nothing will."""
        query = "SELECT durable_notify.next_due(%s, %s::text[], %s)"
        rows = self._claiming.fetch(query, (self._options.group, list(topics), self._consumer))
        due: float | None = rows[0][0]
        return due

    def advance_replays(self, topics: Iterable[str]) -> float | None:
        """Advance running replays; returns the seconds until the next step, None: none runs."""
        query = "SELECT durable_notify.advance_replays(%s, %s::text[])"
        rows = self._claiming.fetch(query, (self._options.group, list(topics)))
        due: float | None = rows[0][0]
        return due

    def stay_active(self) -> None:
        """Give a sign of life as the active consumer of an exclusive group, if this one is."""
        query = "SELECT durable_notify.stay_active(%s, %s, pg_catalog.make_interval(secs => %s))"
        self._fetch(query, (self._options.group, self._consumer, self._options.lease))

    def stand_down(self) -> None:
        """Let another consumer of an exclusive group be the active one at once."""
        query = "SELECT durable_notify.stand_down(%s, %s)"
        self._settling.fetch(query, (self._options.group, self._consumer))

    def _fetch(self, query: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._pool.connection() as connection:
            return fetch(connection, query, params)
