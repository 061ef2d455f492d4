"""Events of consumers and publishers, with stable names and fields.

Give a consumer or publisher ``on_event``: one function, or several. Each is called with every
event at once, in the thread or event loop that caused it. It must be quick, and must not wait. An
exception that it raises is logged, once a minute, and has no other effect. Without a subscriber
nothing is measured.

Durations are in seconds, by the clock of this process. Events contain no payloads, and name
exceptions by their type alone. An event may get more fields; fields and names stay.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import ClassVar

__all__ = [
    "EVENTS",
    "ClaimFailed",
    "ClaimRecovered",
    "Claimed",
    "DeadLettered",
    "Disconnected",
    "Event",
    "Handled",
    "ListenFailed",
    "ListenVerified",
    "LostLease",
    "Notified",
    "OnEvent",
    "OptionDiffers",
    "Polled",
    "Published",
    "Reconnected",
    "Retried",
    "Settled",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        name: its name in logs and documentation.
        level: the level to log it at.
    """

    name: ClassVar[str]
    level: ClassVar[int] = logging.DEBUG


#: A function that is called with each event.
OnEvent = Callable[[Event], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Published(Event):
    """A publisher has published, in its caller's transaction, which may still roll back."""

    name = "published"
    topic: str
    messages: int
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claimed(Event):
    """A consumer has claimed messages of a topic; ``seconds``: how long the database took."""

    name = "claimed"
    group: str
    topic: str
    messages: int
    bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Handled(Event):
    """A handler given to ``run`` or ``run_batches`` has returned, or raised ``error``.

    There is one event per message; ``seconds`` is the duration of the call, which had ``batch``
    messages.
    """

    name = "handled"
    group: str
    topic: str
    message_id: int
    attempt: int
    batch: int
    seconds: float
    error: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Event):
    """Outcomes of messages are durable; ``seconds``: how long the database took.

    ``in_transaction``: acknowledged in a transaction of the handler, which has ended as far as the
    consumer can know. The handler waited for its commit, so ``seconds`` is 0.
    """

    name = "settled"
    group: str
    topic: str
    acked: int
    retried: int
    rejected: int
    seconds: float
    in_transaction: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A message will be redelivered after ``delay`` seconds; None: by its group's backoff."""

    name = "retried"
    level = logging.INFO
    group: str
    topic: str
    message_id: int
    attempt: int
    delay: float | None
    error: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(Event):
    """This consumer has given a message up: it was rejected, or failed too often.

    If a message becomes a dead letter because its lease or the message itself expired, no consumer
    sees it. The database counts it, see ``status()``.
    """

    name = "dead_lettered"
    level = logging.WARNING
    group: str
    topic: str
    message_id: int
    attempt: int
    error: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LostLease(Event):
    """Another consumer now has messages that this one had not settled."""

    name = "lost_lease"
    level = logging.WARNING
    group: str
    topic: str
    messages: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Notified(Event):
    """A wake-up arrived. ``topics``: the topics that it names."""

    name = "notified"
    group: str
    topics: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Polled(Event):
    """A consumer polls without a wake-up: ``poll_interval`` has passed, or something is due."""

    name = "polled"
    group: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFailed(Event):
    """Claiming has failed ``failures`` times in a row; the next try is in ``delay`` seconds."""

    name = "claim_failed"
    level = logging.WARNING
    group: str
    failures: int
    delay: float
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecovered(Event):
    """Claiming works again, after ``seconds``."""

    name = "claim_recovered"
    level = logging.INFO
    group: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Event):
    """The listening connection was lost, or a reconnection failed."""

    name = "disconnected"
    level = logging.WARNING
    group: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected(Event):
    """The process listens again, after ``seconds``."""

    name = "reconnected"
    level = logging.INFO
    group: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListenFailed(Event):
    """A check found that wake-ups do not arrive: the consumer polls."""

    name = "listen_failed"
    level = logging.WARNING
    group: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListenVerified(Event):
    """A check found that wake-ups arrive on the current connection."""

    name = "listen_verified"
    level = logging.INFO
    group: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OptionDiffers(Event):
    """An option of the group differs from the one a consumer was given; both as text."""

    name = "option_differs"
    level = logging.WARNING
    group: str
    option: str
    stored: str
    given: str


#: All kinds of events, by name.
EVENTS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        Published, Claimed, Handled, Settled, Retried, DeadLettered, LostLease, Notified, Polled,
        ClaimFailed, ClaimRecovered, Disconnected, Reconnected, ListenFailed, ListenVerified,
        OptionDiffers,
    )
}  # fmt: skip


def name_of(error: BaseException) -> str:
    """Return an exception's type, as events name it."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def subscribers(on_event: OnEvent | Sequence[OnEvent] | None) -> tuple[OnEvent, ...]:
    """Return the functions given as ``on_event``."""
    if on_event is None:
        return ()
    return (on_event,) if callable(on_event) else tuple(on_event)
