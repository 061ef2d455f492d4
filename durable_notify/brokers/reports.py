"""Reports: what a broker has confirmed of a batch is settled together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .broker import Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._async.consumer.message import AsyncMessage
    from .broker import BrokerMessage, Outcome

__all__ = ["BatchReport"]

#: After how many seconds the first confirmed messages of a batch are settled, if others are not.
SETTLE_AFTER = 0.05


class BatchReport:
    """Settles the messages of a batch by their outcomes: each after all earlier ones of its key.

    Many at once: a broker confirms some messages at a time, and each settling costs the database.
    """

    def __init__(
        self,
        left: Sequence[tuple[AsyncMessage, BrokerMessage]],
        settle: Callable[[AsyncMessage, Outcome], None],
        ack: Callable[[list[AsyncMessage]], None],
    ) -> None:
        self._left, self._settle, self._ack = left, settle, ack
        self._known: dict[int, Outcome] = {}
        self._unsettled: Sequence[int] = range(len(left))
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, index: int, outcome: Outcome) -> None:
        self._known[index] = outcome
        if len(self._known) == len(self._left):
            self.settle()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_AFTER, self.settle)

    def settle(self) -> None:
        """Settle what can be settled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unknown = set()  # the keys of messages without an outcome so far
        left, sent = [], []
        for index in self._unsettled:
            message, outgoing = self._left[index]
            key, outcome = outgoing.ordering_key, self._known.get(index)
            if message.is_settled:
                continue  # with an earlier one of its key
            if outcome is None or key in unknown:
                left.append(index)
                if key is not None:
                    unknown.add(key)
            elif isinstance(outcome, Sent):
                sent.append(message)
            else:
                self._settle(message, outcome)
        self._unsettled = left
        if sent:
            self._ack(sent)
