"""The leases that a consumer holds; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .leases import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from .emitter import EventEmitter

__all__ = ["LeaseTable"]


class LeaseTable(dict[int, Lease]):
    """Holds a consumer's leases by token.

    Args:
        emitter: emits the events of lost leases.
        on_capacity: called whenever messages are no longer held.
    """

    def __init__(self, emitter: EventEmitter, on_capacity: Callable[[], None]) -> None:
        super().__init__()
        self._emitter = emitter
        self.on_capacity = on_capacity

    @property
    def held(self) -> int:
        """How many messages are held: not settled, or with an outcome that is not flushed."""
        return sum(lease.held for lease in list(self.values()))

    @property
    def held_bytes(self) -> int:
        """The size of the payloads of messages that have no outcome yet."""
        return sum(lease.held_bytes for lease in list(self.values()))

    def forget(self, lease: Lease) -> None:
        """Remove a lease that has ended."""
        self.pop(lease.token, None)
        self.on_capacity()

    def lose(self, lease: Lease, refused: int = 0) -> None:
        """Mark a lease as lost: other consumers have its open messages and the refused ones."""
        if self._emitter and not lease.lost:
            self._emitter.lost(lease, len(lease.open) + refused)
        lease.lose()
