"""Checkers of a history: each looks for one way in which a promise can be broken.

They follow those of Jepsen. ``total-queue``: what was acknowledged and is never received is lost,
and what is received and was never sent is unexpected. ``set-full``: what was present once must not
disappear. ``kafka``: reads must not go back, nor return a transaction that was rolled back.
https://github.com/jepsen-io/jepsen and https://github.com/jepsen-io/redpanda
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .history import Event, History

__all__ = ["CHECKERS", "Finding", "Verdict", "check"]

#: Faults that break no connection.
_HARMLESS = frozenset({"stop", "hold", "prepare", "elsewhere"})
#: How long a dead connection may stay unnoticed, in seconds.
_UNNOTICED = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise, and the events that show it."""

    checker: str
    text: str
    events: tuple[Event, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What the checkers found, and the figures of the run."""

    findings: tuple[Finding, ...]
    figures: dict[str, int | float]

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.findings


def half_published(history: History) -> Iterator[Finding]:
    """Atomic: the outbox has exactly what the publishers' own rows say has committed."""
    logged = {number: sent.message_id for number, sent in history.sent.items()}
    for number in sorted(set(logged.items()) ^ set(history.logged.items()))[:20]:
        yield Finding(
            "half published",
            f"message {number[0]}: {logged.get(number[0])} as its publisher committed,"
            f" {history.logged.get(number[0])} in the log",
            history.about([number[0]]),
        )


def wrong_outcome(history: History) -> Iterator[Finding]:
    """Outcomes: what was reported as committed is, and what was rolled back is not."""
    for event in history.events:
        if event.what == "committed":
            wrong = [n for n in event.numbers if n not in history.sent]
        elif event.what == "rolled back":
            wrong = [n for n in event.numbers if n in history.sent]
        else:
            continue
        if wrong:
            text = f"messages {wrong[:5]} were {event.what}, and the database says they were not"
            yield Finding("wrong outcome", text, history.about(wrong))


def lost(history: History) -> Iterator[Finding]:
    """Lost: committed, and never delivered to a group, or never settled by it."""
    for group, promise in history.promises.items():
        if promise.once:
            done = {effect.number for effect in history.effects if effect.group == group}
        else:
            done = _acknowledged(history, group)
        for number in sorted(history.sent.keys() - done):
            yield Finding("lost", f"group {group} lost message {number}", history.about([number]))


def _acknowledged(history: History, group: str) -> set[int]:
    """Return what was acknowledged, or may have been: at the end nothing is left, so it was."""
    last: dict[tuple[int, int], str] = {}
    for event in history.of_group(group, "settling", "settled", "refused", "unknown"):
        if event.note == "ack":
            last[event.numbers[0], event.token] = event.what
    return {number for (number, _), what in last.items() if what != "refused"}


def unexpected(history: History) -> Iterator[Finding]:
    """Unexpected: delivered, and never committed."""
    for group in history.promises:
        seen = {n for event in history.of_group(group, "delivered") for n in event.numbers}
        seen |= {effect.number for effect in history.effects if effect.group == group}
        for number in sorted(seen - history.sent.keys()):
            text = f"group {group} got message {number}, which never committed"
            yield Finding("unexpected", text, history.about([number]))


def twice(history: History) -> Iterator[Finding]:
    """Twice: two effects, although exactly once is promised."""
    for group, promise in history.promises.items():
        times = Counter(effect.number for effect in history.effects if effect.group == group)
        for number, count in times.items():
            if promise.once and count > 1:
                text = f"message {number} took effect {count} times in group {group}"
                yield Finding("twice", text, history.about([number]))


def stale_settle(history: History) -> Iterator[Finding]:
    """Stale: acknowledged under two leases, of which one was superseded by then.

    If a connection broke meanwhile, the second consumer may have been told only the truth: that the
    message is settled, even if by another consumer.
    """
    for group in history.promises:
        acknowledged: dict[int, Event] = {}
        for event in history.of_group(group, "settled"):
            for number in event.numbers if event.note != "retry" else ():
                first = acknowledged.setdefault(number, event)
                if first is not event and not _broken(history, event):
                    text = f"message {number} was acknowledged twice in group {group}"
                    yield Finding("stale settle", text, history.about([number]))


def _broken(history: History, settled: Event) -> bool:
    """Whether a connection may have broken while a message was settled, or shortly before."""
    began = settled.at
    for event in history.of_group(settled.group, "settling"):
        if event.token == settled.token and event.numbers == settled.numbers:
            began = event.at
    return any(
        event.what == "fault"
        and began - _UNNOTICED < event.at < settled.at
        and event.note.split()[0] not in _HARMLESS
        for event in history.events
    )


def after_settling(history: History) -> Iterator[Finding]:
    """Redelivered after its acknowledgement was confirmed, under a younger lease.

    Under an older lease it is a consumer that does not know yet that it has lost the message. Lease
    tokens increase with the time of the claim.
    """
    for group in history.promises:
        settled: dict[int, Event] = {}
        for event in history.of_group(group, "settled", "delivered"):
            for number in event.numbers:
                if event.what == "settled" and event.note != "retry":
                    settled.setdefault(number, event)
                elif number in settled and event.token > settled[number].token:
                    text = f"group {group} got message {number} again after it was acknowledged"
                    yield Finding("after settling", text, history.about([number]))


def disorder(history: History) -> Iterator[Finding]:
    """Disorder: messages of a key, or any in a strict group, in another order than published."""
    for group, promise in history.promises.items():
        if promise.order_by == "none":
            continue
        newest: dict[str, int] = {}
        for number in dict.fromkeys(_as_taken(history, group)):
            sent = history.sent.get(number)
            if sent is None or (promise.order_by == "key" and sent.key is None):
                continue
            line = sent.topic if promise.order_by == "strict" else f"{sent.topic}: {sent.key}"
            before = newest.get(line)
            if before is not None and sent.message_id < history.sent[before].message_id:
                text = f"group {group}, {line}: message {number} came after {before}"
                yield Finding("disorder", text, history.about([before, number]))
            else:
                newest[line] = number


def _as_taken(history: History, group: str) -> Iterator[int]:
    """Yield a group's messages in the order in which they took effect, or were first delivered."""
    if history.promises[group].once:
        for effect in sorted(history.effects, key=lambda effect: effect.seq):
            if effect.group == group:
                yield effect.number
    else:
        for event in history.of_group(group, "delivered"):
            yield from event.numbers


def not_drained(history: History) -> Iterator[Finding]:
    """Not drained: something was left, or hung, although every fault was over."""
    for words in history.left:
        yield Finding("not drained", words)


CHECKERS: tuple[Callable[[History], Iterator[Finding]], ...] = (
    half_published, wrong_outcome, lost, unexpected, twice, stale_settle, after_settling, disorder,
    not_drained,
)  # fmt: skip


def check(history: History) -> Verdict:
    """Run every checker."""
    findings = tuple(finding for checker in CHECKERS for finding in checker(history))
    return Verdict(findings, _figures(history))


def _figures(history: History) -> dict[str, int | float]:
    known = history.known()
    times = Counter(
        (event.group, number)
        for event in history.events
        if event.what == "delivered"
        for number in event.numbers
    )
    return {
        "committed": len(history.sent),
        "rolled back": known.get("rolled back", 0),
        "outcome unknown": sum(len(e.numbers) for e in history.events
                               if e.what == "unknown" and not e.group),
        "delivered": sum(times.values()),
        "delivered again": sum(count - 1 for count in times.values()),
        "settled": sum(1 for e in history.events if e.what == "settled"),
        "settling refused": sum(1 for e in history.events if e.what == "refused"),
        "settling unknown": sum(1 for e in history.events if e.what == "unknown" and e.group),
        "faults": known.get("fault", 0),
    }  # fmt: skip
