"""A listening session, without psycopg's ``notifies()``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from ..concurrency import Waiter
from ..database.connection import StatementTimeout

if TYPE_CHECKING:
    from psycopg import AsyncConnection

__all__ = ["AsyncListeningSession"]


class AsyncListeningSession:
    """A connection on which statements run and notifications arrive.

    It works below psycopg's ``notifies()``. That would hold the connection's lock while it
    waits, drop the rest of a batch when left, and could not limit how long an answer takes.
    """

    def __init__(self) -> None:
        self._waiter = Waiter()
        self._connection: AsyncConnection[Any] | None = None
        self._failure: psycopg.Error | None = None  # what broke the connection

    @property
    def _answer(self) -> float:
        """How long an answer may take, in seconds."""
        raise NotImplementedError

    def _dispatch(self) -> None:
        """Take the notifications that have arrived."""
        raise NotImplementedError

    async def _attach(self, connection: AsyncConnection[Any]) -> None:
        self._connection, self._failure = connection, None
        self._waiter.watch(connection.fileno(), self._on_readable)

    async def _detach(self) -> None:
        self._waiter.unwatch()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _command(self, statement: str) -> list[tuple[str, ...]]:
        """Run one statement.

        Raises:
            StatementTimeout: the answer took too long.
        """
        connection = self._live()
        connection.pgconn.send_query(statement.encode())
        connection.pgconn.flush()
        until = time.monotonic() + (answer := self._answer)
        rows: list[tuple[str, ...]] = []
        error: psycopg.Error | None = None
        while True:
            while not connection.pgconn.is_busy():
                result = connection.pgconn.get_result()
                if result is None:
                    self._dispatch()
                    if error is not None:
                        raise error
                    return rows
                if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                    error = psycopg.errors.error_from_result(result)
                rows += [
                    tuple(
                        (result.get_value(row, column) or b"").decode()
                        for column in range(result.nfields)
                    )
                    for row in range(result.ntuples)
                ]
            if time.monotonic() >= until:
                raise StatementTimeout(f"no answer within {answer:g} s")
            await self._waiter.wait(until - time.monotonic())
            self._receive()

    def _on_readable(self) -> None:
        """Take what has arrived in the event loop's callback: a turn of the loop earlier."""
        try:
            self._receive()
        except psycopg.Error as error:
            self._failure = error  # for the task
        self._waiter.wake()

    def _live(self) -> AsyncConnection[Any]:
        if self._failure is not None:
            raise self._failure
        if self._connection is None or self._connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the connection is closed")
        return self._connection

    def _receive(self) -> None:
        self._live().pgconn.consume_input()  # raises OperationalError if the server is gone
        self._dispatch()
