"""A message as its handler gets it."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..._core import sql
from ..._core.leases import Ack, Reject, Retry, Settlement, already_settled
from ..._core.sanitize import describe, sanitize_error
from ...errors import InvalidArgument, LeaseLost
from ..database.callers import fetch
from ..database.queries import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..._core.leases import Lease, Outcome
    from ..._core.ordering import Delivery, OrderingKey
    from ..._core.sanitize import Failure
    from ..database.callers import Publishable
    from .leases import AsyncLeaseManager

__all__ = ["AsyncMessage"]


class AsyncMessage:
    """A message, held under a lease until it is settled: acknowledged, retried or rejected."""

    __slots__ = (
        "_flaw", "_lease", "_lease_manager",
        "attempt", "headers", "id", "key", "payload", "published_at", "topic",
    )  # fmt: skip

    id: int
    topic: str
    key: str | None
    payload: Any
    headers: dict[str, Any]
    published_at: datetime
    attempt: int

    def __init__(
        self,
        row: tuple[Any, ...],
        lease: Lease,
        lease_manager: AsyncLeaseManager,
        loads: Callable[[str], Any] = json.loads,
    ) -> None:
        (
            _,
            self.id,
            self.topic,
            self.key,
            payload,
            data,
            headers,
            self.published_at,
            self.attempt,
            *_,
        ) = row
        self._flaw: Exception | None = None
        self.payload, self.headers = None, {}
        try:
            self.payload = loads(payload) if data is None else data
            # A relay takes payloads as text, and headers too.
            of_headers = getattr(loads, "of_headers", json.loads)
            self.headers = {} if headers is None else of_headers(headers)
        except (ValueError, RecursionError) as error:
            # PostgreSQL holds JSON that Python cannot: numbers too long, nested too deep.
            self._flaw = error
        self._lease = lease
        self._lease_manager = lease_manager

    def __repr__(self) -> str:
        # Neither payload nor headers: they do not belong in logs.
        return f"<{type(self).__name__} {self.id} of {self.topic!r}, attempt {self.attempt}>"

    @property
    def _ordering_key(self) -> OrderingKey | None:
        return self._lease.ordering_keys[self.id]

    @property
    def _delivery(self) -> Delivery:
        return (self._lease.token, self.id)

    async def ack(self, connection: Publishable | None = None) -> None:
        """Acknowledge the message: the group will not get it again.

        Without a connection, it is durable on return. With one, it is part of that transaction,
        and takes effect if and when that commits: together with what the handler wrote in it, so
        that the effect is exactly once. If it rolls back, the message is redelivered.

        Raises:
            AlreadySettled: it was settled before.
            LeaseLost: another consumer has the message by now. A transaction given has failed.
            ConsumerClosed: the consumer has given its leases back.
        """
        if connection is None:
            await self._settle(Ack())
            return
        self._lease_manager.check_open()
        self._lease.check(self.id)
        if self._ordering_key is not None:
            await self._lease_manager.flush()  # those before it of its key are settled first
        outcomes = Settlement()
        outcomes.acked.append(self.id)
        again = self.id in self._lease.in_transaction
        self._lease.in_transaction[self.id] = None
        self._lease_manager.pending_in_transaction.add((self._lease, self.id))
        try:
            self._lease.in_transaction[self.id] = await settle(
                connection, self._lease.token, outcomes
            )
        except LeaseLost as error:
            if again and self._lease.presumed_settled:
                raise already_settled(self.id) from error  # which ended the lease
            raise

    @contextlib.asynccontextmanager
    async def transaction(self, source: Any = None) -> AsyncIterator[Any]:
        """Run the body in a transaction that acknowledges the message at its end.

        What the body writes through the connection it is given and the acknowledgement commit
        together, or not at all: the effect is exactly once. If the body raises, all is rolled
        back and the exception passes on, to the rules for errors.

        Args:
            source: what the connection comes from: an engine or sessionmaker of SQLAlchemy (the
                body gets a Connection or Session), or a psycopg pool; None: a psycopg connection
                of the consumer's own.

        Raises:
            LeaseLost: another consumer has the message by now; all was rolled back.
        """
        if source is None:
            source = self._lease_manager.transactions
        if hasattr(source, "begin"):
            registry = source.begin()
        elif hasattr(source, "connection"):
            registry = _begun(source)
        else:
            raise InvalidArgument(
                "transaction() takes an engine or sessionmaker of SQLAlchemy, or a psycopg pool, "
                f"not {type(source).__name__}"
            )
        lease = self._lease
        self._lease_manager.check_open()
        lease.check(self.id)
        before, over = lease.in_transaction.get(self.id, ""), False
        # Till it has committed it counts as rolled back. Trap: what ended it may be swallowed,
        # outside by the handler or inside by the transaction (psycopg.Rollback).
        lease.rolled_back_by[self.id] = RuntimeError("the transaction of the message rolled back")
        try:
            async with registry as connection:
                yield connection
                if self.id in lease.withdrawn:
                    lease.check(self.id)  # others may have it: nothing of the body is to stay
                # Trap: an acknowledgement of an earlier transaction has been rolled back with it.
                if self.id in lease.open and lease.in_transaction.get(self.id, "") == before:
                    await self.ack(connection)
                over = True
        except BaseException as error:
            lease.rolled_back_by[self.id] = error
            raise
        if over:
            del lease.rolled_back_by[self.id]
            self._lease_manager.settled_in_transaction(lease, self.id, committed=True)

    async def once(self, connection: Publishable) -> bool:
        """Return whether the group has this message for the first time, in a transaction.

        True in one transaction that commits, False in all after it: also when the message is
        redelivered or replayed. For handlers whose effects are outside the database. As these
        cannot commit with it, give them the message's id as their idempotency key as well. Another
        transaction that asks at the same time waits for the first.
        """
        rows = await fetch(connection, sql.ONCE, (self._lease_manager.group, self.id))
        return bool(rows[0][0])

    async def retry(
        self,
        delay: float | timedelta | None = None,
        error: str | BaseException | None = None,
    ) -> None:
        """Have the message redelivered, ``delay`` seconds from now or as the group backs off.

        Its ``attempt`` is one higher then; if that is one too many, it becomes a dead letter.
        In a group that keeps order, later messages of its key come after it. ``error`` is kept with
        it. Durable on return; raises what ``ack`` raises.
        """
        await self._settle(Retry(delay, _failure(error)))

    async def reject(
        self, reason: str = "rejected", error: str | BaseException | None = None
    ) -> None:
        """Give the message up: it becomes a dead letter of the group, with ``error`` kept.

        Durable on return; raises what ``ack`` raises.
        """
        await self._settle(Reject(reason, _failure(error)))

    async def extend(self, seconds: float) -> None:
        """Keep the lease for that long from now.

        Needed only if the process may stop giving signs of life for longer than the consumer's
        ``lease``: while it gives them, leases are prolonged by themselves.

        Raises:
            LeaseLost: another consumer has the message by now.
        """
        if not 0 < seconds < 10**9:
            raise InvalidArgument(f"extend by a positive number of seconds, not {seconds!r}")
        self._lease_manager.check_open()
        self._lease.check(self.id)
        await self._lease_manager.extend(self._lease, seconds)

    @property
    def is_settled(self) -> bool:
        """Whether the message was settled, or an ack was tried in a transaction."""
        return self.id in self._lease.in_transaction or self.id not in self._lease.open

    async def _settle(self, outcome: Outcome) -> None:
        self._lease_manager.check_open()
        await self._lease_manager.settle(self._lease, self.id, outcome)


def _failure(error: str | BaseException | None) -> Failure | None:
    if error is None:
        return None
    if isinstance(error, BaseException):
        return describe(error)
    return sanitize_error(error)


@contextlib.asynccontextmanager
async def _begun(pool: Any) -> AsyncIterator[Any]:
    async with pool.connection() as connection, connection.transaction():
        yield connection
