"""The database that the doctor's checks examine, and their thresholds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg

from .findings import Finding

if TYPE_CHECKING:
    from typing import LiteralString

    from .._sync.database.connection import TimeoutConnection

__all__ = ["Check", "CheckContext", "Thresholds"]

#: A check yields what it has found, and nothing if it finds no problem.
Check = Callable[["CheckContext"], Iterator[Finding]]


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits beyond which something becomes a finding; times in seconds.

    Attributes:
        transaction: the age of a transaction, prepared or not.
        unused: how long nothing was delivered to a group that has unread messages.
        unclaimed: how long no running consumer of a group asked for a topic of it.
        paused: how long a group is paused.
        handler: how long a consumer holds a batch that it keeps alive.
        unsettled: how long a message that was delivered is not settled.
        dead_letters: the number of a group.
        dead_rows: the number of a small table.
        queue: the share of the queue of notifications that is full.
        connections: the share of the connections that are in use.
        clock: how far clocks may differ.
        topic: the bytes of a topic without retention.
        lost: how long to report a loss.
        maintenance: how long no process runs maintenance that is due.
        oldest: the oldest major version of PostgreSQL that is tested.
        newest: the newest one.
        statement: how long one query may take.
        hearing: how long to wait for a ring.
    """

    transaction: float = 300
    unused: float = 7 * 86_400
    unclaimed: float = 3_600
    paused: float = 86_400
    handler: float = 3_600
    unsettled: float = 7_200
    dead_letters: int = 1000
    dead_rows: int = 50_000
    queue: float = 0.5
    connections: float = 0.9
    clock: float = 5
    topic: int = 10 << 30
    lost: float = 7 * 86_400
    maintenance: float = 86_400
    oldest: int = 14
    newest: int = 18
    statement: float = 5
    hearing: float = 2


@dataclasses.dataclass(slots=True)
class CheckContext:
    """Runs the queries of the checks on the examined database."""

    connection: TimeoutConnection
    dsn: str
    listen_dsn: str
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    role: str = ""
    owns: bool | None = None
    sees_sessions: bool = False
    status: list[tuple[Any, ...]] | psycopg.Error | None = None

    def rows(self, query: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        """Run a query in a transaction of its own, within the limits."""
        with self.connection.transaction():
            patience = int(self.thresholds.statement * 1000)
            # Set it in the transaction: behind a pooler the next transaction has another session.
            self.connection.execute(
                "SELECT pg_catalog.set_config('statement_timeout', %s, true),"
                " pg_catalog.set_config('lock_timeout', %s, true),"
                " pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),"
                " pg_catalog.set_config('transaction_read_only', 'on', true)",
                [str(patience), str(min(patience, 1000))],
            )
            return self.connection.execute(query, params).fetchall()

    def row(self, query: LiteralString, *params: Any) -> tuple[Any, ...]:
        """Run a query that has one row."""
        (row,) = self.rows(query, *params)
        return row
