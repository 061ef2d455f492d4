"""What a listening session knows of itself, as its subscriptions see it."""

from __future__ import annotations

import dataclasses

from .doorbells import ArmedTopics

__all__ = ["ListenerState"]


@dataclasses.dataclass(slots=True)
class ListenerState:
    """The state of a listening session. The listener writes it; subscriptions only read.

    Attributes:
        doorbells: those that the session has armed.
        listening: the channels that it listens to.
        hears: wake-ups were proven to arrive on the connection there is now.
        deaf: wake-ups were proven not to arrive.
        failures: how many attempts to listen have failed, one after the other.
        lost_at: since when there is no connection; None: there is one.
    """

    doorbells: ArmedTopics = dataclasses.field(default_factory=ArmedTopics)
    listening: set[str] = dataclasses.field(default_factory=set)
    hears: bool = False
    deaf: bool = False
    failures: int = 0
    lost_at: float | None = None
