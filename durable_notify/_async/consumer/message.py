"""A message as its handler receives it."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic

from ..._core import sql
from ..._core.leases import Ack, Reject, Retry, Settlement, already_settled
from ..._core.sanitize import describe, sanitize_error
from ...codecs import T
from ...durations import in_seconds
from ...errors import LeaseLost
from ..database.callers import begun, fetch
from ..database.queries import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..._core.leases import Lease, Outcome
    from ..._core.ordering import Delivery, OrderingKey
    from ..._core.sanitize import Failure
    from ...durations import Seconds
    from ...payloads import Decode
    from ..database.callers import Publishable
    from .leases import AsyncLeaseManager

__all__ = ["AsyncMessage"]


class AsyncMessage(Generic[T]):
    """A message, leased until it is settled: acknowledged, retried or rejected."""

    __slots__ = (
        "_flaw", "_lease", "_lease_manager",
        "attempt", "headers", "id", "key", "payload", "published_at", "topic",
    )  # fmt: skip

    id: int
    topic: str
    key: str | None
    payload: T
    headers: dict[str, Any]
    published_at: datetime
    attempt: int

    def __init__(
        self,
        row: tuple[Any, ...],
        lease: Lease,
        lease_manager: AsyncLeaseManager,
        decode: Decode,
        decode_headers: Callable[[str], Any],
    ) -> None:
        (
            _,
            self.id,
            self.topic,
            self.key,
            text,
            data,
            headers,
            self.published_at,
            self.attempt,
            _,
        ) = row
        self._flaw: Exception | None = None
        try:
            self.payload = decode(text, data)
            self.headers = {} if headers is None else decode_headers(headers)
        except (ValueError, RecursionError) as error:
            # PostgreSQL holds JSON that Python cannot decode, or that is not of the topic's type.
            self._flaw = error
            self.payload, self.headers = None, {}  # type: ignore[assignment]
        self._lease = lease
        self._lease_manager = lease_manager

    def __repr__(self) -> str:
        # No payload or headers: they do not belong in logs.
        return f"<{type(self).__name__} {self.id} of {self.topic!r}, attempt {self.attempt}>"

    @property
    def _ordering_key(self) -> OrderingKey | None:
        return self._lease.ordering_keys[self.id]

    @property
    def _delivery(self) -> Delivery:
        return (self._lease.token, self.id)

    async def ack(self, connection: Publishable | None = None) -> None:
        """Acknowledge the message: it is not delivered to the group again.

        Without a connection, this is durable on return. With one, it is part of that transaction,
        and commits together with what the handler wrote in it, so that the effect is exactly
        once. If the transaction rolls back, the message is redelivered.

        Raises:
            AlreadySettled: it was settled before.
            LeaseLost: another consumer has the message by now. The given transaction has failed.
            ConsumerClosed: the consumer has released its leases.
        """
        if connection is None:
            await self._settle(Ack())
            return
        self._lease_manager.check_open()
        self._lease.check(self.id)
        if self._ordering_key is not None:
            await self._lease_manager.flush()  # earlier messages of its key are settled first
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
                raise already_settled(self.id) from error  # settling it had ended the lease
            raise

    @contextlib.asynccontextmanager
    async def transaction(self, source: Any = None) -> AsyncIterator[Any]:
        """Run the body in a transaction that acknowledges the message at its end.

        The acknowledgement and what the body writes through this connection commit together, or
        not at all: the effect is exactly once. If the body raises, all is rolled back, and the
        exception passes on to the rules for errors.

        Args:
            source: where the connection comes from: an engine or sessionmaker of SQLAlchemy (the
                body receives a Connection or Session), or a Connection or Session itself, if it has
                no transaction yet; a pool of psycopg, psycopg2 or asyncpg; Django's connection;
                None: a psycopg connection of the consumer's own.

        Raises:
            LeaseLost: another consumer has the message by now; all was rolled back.
        """
        if source is None:
            source = self._lease_manager.transactions
        registry = begun(source)
        lease = self._lease
        self._lease_manager.check_open()
        lease.check(self.id)
        before, over = lease.in_transaction.get(self.id, ""), False
        # Until it has committed, it counts as rolled back. Trap: the handler may swallow the
        # exception that ended it, or the transaction may (psycopg.Rollback).
        lease.rolled_back_by[self.id] = RuntimeError("the transaction of the message rolled back")
        try:
            async with registry as connection:
                yield connection
                if self.id in lease.withdrawn:
                    lease.check(self.id)  # another consumer may have it: roll the body back
                # Trap: an acknowledgement in an earlier transaction was rolled back with that one.
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
        """Return whether the group processes this message for the first time, in a transaction.

        It returns True in one transaction that commits, and False in all later ones, also when the
        message is redelivered or replayed. It is for handlers with effects outside the database.
        These effects cannot commit with it, so use the message's id as their idempotency key too.
        Another transaction that asks at the same time waits for the first.
        """
        rows = await fetch(connection, sql.ONCE, (self._lease_manager.group, self.id))
        return bool(rows[0][0])

    async def retry(
        self,
        delay: Seconds | None = None,
        error: str | BaseException | None = None,
    ) -> None:
        """Redeliver the message, after a delay or by the group's backoff.

        Its ``attempt`` is one higher then; after the last one, it becomes a dead letter. In a
        group that keeps order, later messages of its key wait for it. ``error`` is stored with it.
        Durable on return; raises what ``ack`` raises.
        """
        await self._settle(Retry(delay, _failure(error)))

    async def reject(
        self, reason: str = "rejected", error: str | BaseException | None = None
    ) -> None:
        """Give the message up: it becomes a dead letter of the group, stored with ``error``.

        Durable on return; raises what ``ack`` raises.
        """
        await self._settle(Reject(reason, _failure(error)))

    async def extend(self, seconds: Seconds) -> None:
        """Keep the lease for so many seconds from now, or a timedelta.

        Needed only if the process may be suspended for longer than the consumer's ``lease``:
        otherwise the consumer extends its leases itself.

        Raises:
            LeaseLost: another consumer has the message by now.
        """
        length = in_seconds("seconds", seconds)
        self._lease_manager.check_open()
        self._lease.check(self.id)
        await self._lease_manager.extend(self._lease, length)

    @property
    def is_settled(self) -> bool:
        """Whether the message is settled, or a transaction has tried to acknowledge it."""
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
