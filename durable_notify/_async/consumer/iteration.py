"""Iterating: deliver messages to loops, which settle them themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..._core.hints import Unsettled

if TYPE_CHECKING:
    from ..._core.pacing import BatchSizer
    from .buffer import AsyncPrefetchBuffer
    from .leases import AsyncLeaseManager
    from .message import AsyncMessage

__all__ = ["AsyncIteration"]


class AsyncIteration:
    """Delivers messages to the loops over a consumer, and counts how many they have.

    Args:
        buffer: delivers messages.
        lease_manager: settles what loops acknowledge in transactions of their own.
        batch_sizer: receives how long loops take.
        until_empty: whether the loops end once nothing is left.
    """

    def __init__(
        self,
        buffer: AsyncPrefetchBuffer,
        lease_manager: AsyncLeaseManager,
        batch_sizer: BatchSizer,
        *,
        until_empty: bool,
    ) -> None:
        self._buffer = buffer
        self._lease_manager = lease_manager
        self._batch_sizer = batch_sizer
        self._unsettled = Unsettled(until_empty=until_empty)
        self.out = 0  # how many messages a loop has
        self._out_at = self._claimed_at = 0.0

    async def next(self) -> AsyncMessage | None:
        """Return the next message; None: there are no more."""
        self._lease_manager.finish_pending()  # the loop's body has ended, and so its transactions
        self._came_back()
        with self._unsettled.waits():
            message = await self._buffer.next()
        if message is not None:
            self._went_out([message])
        return message

    async def next_batch(self, size: int, max_wait: float) -> list[AsyncMessage]:
        """Return the next batch; empty: there are no more."""
        self._came_back()  # here, not when a batch ends: a loop may be left by break
        with self._unsettled.waits():
            batch = await self._buffer.batch(size, max_wait)
        if batch:
            self._went_out(batch)
        return batch

    def end_batch(self, batch: list[AsyncMessage]) -> None:
        """Finish a batch: the loop's body has ended, and so its transactions."""
        pending = self._lease_manager.pending_in_transaction
        for message in batch if pending else ():
            if (delivered := (message._lease, message.id)) in pending:
                pending.discard(delivered)
                self._lease_manager.settled_in_transaction(*delivered)

    def warn_if_stuck(self, *, room: bool) -> None:
        """Warn if a loop waits for messages while it has not settled those it has.

        Args:
            room: whether more may be claimed.
        """
        self._unsettled.look(self._lease_manager.held - self._buffer.size, room=room)

    def _went_out(self, messages: list[AsyncMessage]) -> None:
        self.out, self._out_at = len(messages), time.monotonic()
        self._claimed_at = messages[0]._lease.claimed_at
        self._buffer.begun(len(messages))

    def _came_back(self) -> None:
        if self.out:
            seconds = time.monotonic() - self._out_at
            self._batch_sizer.took(self.out, seconds, self._claimed_at)
            self.out = 0
