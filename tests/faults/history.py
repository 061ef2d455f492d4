"""What a history of publishing and consuming must not contain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple


class Sent(NamedTuple):
    """A committed message; within a key the counters say what was caused by what."""

    id: int
    key: str | None = None
    counter: int = 0


class Delivery(NamedTuple):
    """One delivery of a message: claims of a group are in the order of their tokens."""

    group: str
    token: int
    index: int
    id: int
    attempt: int = 1


class Settled(NamedTuple):
    """A message acknowledged or rejected by a transaction that committed."""

    group: str
    token: int
    id: int


@dataclass
class History:
    """What publishers and consumers have seen."""

    sent: list[Sent] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)


def numbered(history: History) -> History:
    """The same with leases numbered in their order: tokens have the time in them."""
    tokens = sorted({entry.token for entry in (*history.deliveries, *history.settled)})
    return History(
        history.sent,
        [h._replace(token=tokens.index(h.token)) for h in history.deliveries],
        [s._replace(token=tokens.index(s.token)) for s in history.settled],
    )


@dataclass
class Faults:
    """Each an (group, id), except where said otherwise."""

    lost: set[tuple[str, int]] = field(default_factory=set)
    """Committed and never settled."""
    unexpected: set[tuple[str, int]] = field(default_factory=set)
    """Delivered and never committed."""
    twice: set[tuple[str, int]] = field(default_factory=set)
    """Settled twice, or delivered twice as a first attempt, or, with `once`, delivered twice."""
    revived: set[tuple[str, int]] = field(default_factory=set)
    """Delivered under a later lease than the one in which it was settled."""
    disordered: set[tuple[str, str]] = field(default_factory=set)
    """(group, key): first delivered in another order than published."""

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def __str__(self) -> str:
        found = {f.name: sorted(getattr(self, f.name)) for f in fields(self)}
        return ", ".join(f"{len(what)} {name}: {what[:5]}" for name, what in found.items() if what)


def check(history: History, groups: list[str], *, once: bool = True) -> Faults:
    """Compare what was published with what each group got, after a full drain.

    `once`: nothing may have been delivered a second time, whatever the attempt.
    """
    faults = Faults()
    sent = {message.id: message for message in history.sent}
    for group in groups:
        deliveries = sorted(h for h in history.deliveries if h.group == group)
        settled = [s for s in history.settled if s.group == group]
        faults.lost |= {(group, i) for i in sent.keys() - {s.id for s in settled}}
        faults.unexpected |= {(group, h.id) for h in deliveries if h.id not in sent}
        for counted in (
            Counter(s.id for s in settled),
            Counter(h.id for h in deliveries if once or h.attempt == 1),
        ):
            faults.twice |= {(group, i) for i, times in counted.items() if times > 1}
        last_lease = {s.id: s.token for s in settled}
        faults.revived |= {
            (group, h.id) for h in deliveries if h.token > last_lease.get(h.id, h.token)
        }
        faults.disordered |= {(group, key) for key in _disordered(sent, deliveries)}
    return faults


def _disordered(sent: dict[int, Sent], deliveries: list[Delivery]) -> Iterator[str]:
    """Yield the keys whose messages came, each for the first time, in another order than sent."""
    newest: dict[str, int] = {}
    for message_id in dict.fromkeys(h.id for h in deliveries):
        message = sent.get(message_id)
        if message is None or message.key is None:
            continue
        if message.counter < newest.get(message.key, message.counter):
            yield message.key
        newest[message.key] = max(message.counter, newest.get(message.key, message.counter))
