"""Count what each side received, from what was sent and what arrived."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Arrived", "Results", "Sent", "Tally", "count"]

#: An arrival: the event's number, and the event.
Arrived = tuple[int, Any]


@dataclasses.dataclass(slots=True)
class Sent:
    """The publisher's view: events by their number, each once."""

    committed: dict[int, Any] = dataclasses.field(default_factory=dict)
    rolled_back: dict[int, Any] = dataclasses.field(default_factory=dict)
    in_flight: dict[int, Any] = dataclasses.field(default_factory=dict)  # when PostgreSQL died

    @property
    def never(self) -> dict[int, Any]:
        """Return the events that must not arrive."""
        return self.rolled_back | self.in_flight


@dataclasses.dataclass(slots=True)
class Results:
    """All that was sent and all that arrived."""

    sent: Sent
    plain: list[Arrived]
    durable: list[Arrived] = dataclasses.field(default_factory=list)
    replayed: list[Arrived] = dataclasses.field(default_factory=list)
    too_long: int = 0
    announced: int = 0
    to_replay: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class Tally:
    """The figures of one side; strays: delivered, but never committed."""

    received: int
    lost: int
    again: int
    strays: int
    altered: int

    @property
    def kept_its_promise(self) -> bool:
        """Whether everything committed arrived unchanged, and nothing else did."""
        return not (self.lost or self.strays or self.altered)


def count(sent: Sent, arrived: Iterable[Arrived]) -> Tally:
    """Compare what arrived with what was sent."""
    times: Counter[int] = Counter()
    altered = 0
    for number, event in arrived:
        times[number] += 1
        altered += event != _known(number, sent.committed, sent.never)
    received = times.keys() & sent.committed.keys()
    return Tally(
        received=len(received),
        lost=len(sent.committed) - len(received),
        again=sum(times[number] - 1 for number in received),
        strays=len(times.keys() - sent.committed.keys()),
        altered=altered,
    )


def _known(number: int, *groups: Mapping[int, Any]) -> Any:
    return next((group[number] for group in groups if number in group), None)
