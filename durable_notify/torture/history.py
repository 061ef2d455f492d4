"""The history of a run: every attempt with its outcome, and the database's view of it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Effect", "Event", "History", "Promise", "Sent", "read_events"]


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that a process did or tried to do, or a fault.

    ``what`` is, for publishers: ``publishing`` (about to commit), ``committed``, ``rolled back`` or
    ``unknown``; for consumers: ``delivered`` (a handler begins), ``settling``, ``settled``,
    ``refused`` or ``unknown``; for the nemesis: ``fault``.

    Attributes:
        at: when, in seconds of the machine's monotonic clock.
        who: the process.
        numbers: its messages, by the number in their payloads.
        group, message_id, attempt, token: of a delivery or settling.
        note: how it was settled; which fault.
    """

    at: float
    who: str
    what: str
    numbers: tuple[int, ...] = ()
    group: str = ""
    message_id: int = 0
    attempt: int = 0
    token: int = 0
    note: str = ""

    def line(self) -> str:
        """Return the event as a line of JSON, without empty fields."""
        given = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) not in ("", 0, ())
        }
        return json.dumps(given)

    @classmethod
    def of(cls, line: str) -> Event:
        """Return the event of a line."""
        given = json.loads(line)
        return cls(**given | {"numbers": tuple(given.get("numbers", ()))})

    def __str__(self) -> str:
        about = ", ".join(
            f"{name} {value}"
            for name, value in (
                ("message", " ".join(map(str, self.numbers[:8]))),
                ("id", self.message_id),
                ("attempt", self.attempt),
                ("lease", self.token),
            )
            if value
        )
        words = f"{self.at:12.4f}  {self.who:14} {self.what} {self.note}".rstrip()
        return f"{words}  ({about})" if about else words


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A committed message, from the publisher's own table."""

    number: int
    message_id: int
    topic: str
    key: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Effect:
    """A row that a handler wrote with its acknowledgement; in the order of ``seq``."""

    seq: int
    group: str
    number: int
    who: str


@dataclasses.dataclass(frozen=True, slots=True)
class Promise:
    """The promises of a group.

    Attributes:
        order_by: ``none``, ``key`` or ``strict``, the group's option.
        once: its handlers acknowledge in their own transaction, for effects exactly once.
    """

    order_by: str = "none"
    once: bool = False


@dataclasses.dataclass(slots=True)
class History:
    """A complete run, after everything was drained.

    Attributes:
        events: all recorded events, in order of time.
        sent: the committed messages, by number; they resolve unknown outcomes.
        logged: the ids in the outbox, by number.
        effects: the rows that handlers have written.
        promises: by group.
        left: what could not be drained, or did not end, as text.
    """

    events: list[Event]
    sent: dict[int, Sent]
    logged: dict[int, int]
    effects: list[Effect]
    promises: Mapping[str, Promise]
    left: list[str] = dataclasses.field(default_factory=list)

    def of_group(self, group: str, *what: str) -> Iterator[Event]:
        """Yield the events of some kinds of a group's consumers, in order of time."""
        return (event for event in self.events if event.group == group and event.what in what)

    def about(self, numbers: Iterable[int], limit: int = 40) -> tuple[Event, ...]:
        """Return the shortest range of events about some messages, with the faults in it."""
        wanted = set(numbers)
        theirs = [event for event in self.events if wanted & set(event.numbers)]
        if not theirs:
            return ()
        first, last = theirs[0].at, theirs[-1].at
        faults = [e for e in self.events if e.what == "fault" and first <= e.at <= last]
        spare = max(limit - len(theirs), 0)
        return tuple(sorted((*theirs[:limit], *faults[:spare]), key=lambda event: event.at))

    def known(self) -> Mapping[str, int]:
        """Count the events of each kind."""
        counts: dict[str, int] = {}
        for event in self.events:
            counts[event.what] = counts.get(event.what, 0) + max(len(event.numbers), 1)
        return counts


def read_events(folder: Path) -> list[Event]:
    """Read the records of all processes, in order of time; a kill may have cut a last line."""
    events: list[Event] = []
    for path in sorted(folder.glob("*.jsonl")):
        lines: list[Any] = path.read_text(encoding="utf-8").split("\n")
        events += [Event.of(line) for line in lines[:-1] if line]
    return sorted(events, key=lambda event: event.at)
