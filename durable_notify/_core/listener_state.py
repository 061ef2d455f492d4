"""The state of a listening session, for its subscriptions."""

from __future__ import annotations

import dataclasses

from .doorbells import ArmedTopics

__all__ = ["ListenerState"]


@dataclasses.dataclass(slots=True)
class ListenerState:
    """Shares the state of a listening session: the listener writes, subscriptions read.

    Attributes:
        doorbells: those that the session has armed.
        listening: the channels that it listens to.
        hears: wake-ups were proven to arrive on the current connection.
        deaf: wake-ups were proven not to arrive.
        failures: how many attempts to listen have failed since the last success.
        lost_at: when the connection was lost; None: there is one.
    """

    doorbells: ArmedTopics = dataclasses.field(default_factory=ArmedTopics)
    listening: set[str] = dataclasses.field(default_factory=set)
    hears: bool = False
    deaf: bool = False
    failures: int = 0
    lost_at: float | None = None
