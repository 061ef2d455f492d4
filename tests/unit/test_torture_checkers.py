"""Every checker of a history, with histories that have the fault it is for, and without."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from durable_notify.errors import InvalidArgument
from durable_notify.torture.checkers import CHECKERS, check
from durable_notify.torture.history import Effect, Event, History, Promise, Sent, read_events
from durable_notify.torture.nemesis import FAULTS, plan
from durable_notify.torture.run import Plan

PROMISES = {
    "effects": Promise("key", once=True),
    "acks": Promise("none"),
    "strict": Promise("strict"),
}


class Story:
    """A history that is written one thing after the other; each message has key k."""

    def __init__(self) -> None:
        self.clock = itertools.count(1)
        self.history = History([], {}, {}, [], PROMISES)

    def say(self, who: str, what: str, number: int, **about: object) -> None:
        first = who.partition(" ")[0]
        group = first if first in PROMISES else ""
        event = Event(next(self.clock), who, what, (number,), group, **about)  # type: ignore[arg-type]
        self.history.events.append(event)

    def publish(self, number: int, end: str = "committed") -> None:
        self.say("publisher 1", "publishing", number)
        if end != "rolled back":
            self.history.sent[number] = Sent(number, number + 100, "t", "k")
            self.history.logged[number] = number + 100
        self.say("publisher 1", end, number)

    def deliver(self, group: str, number: int, token: int = 1) -> None:
        self.say(f"{group} 1", "delivered", number, token=token)

    def settle(
        self, group: str, number: int, end: str = "settled", token: int = 1, note: str = "ack"
    ) -> None:
        self.say(f"{group} 1", "settling", number, token=token, note=note)
        if end == "settled" and note == "ack" and PROMISES[group].once:
            seq = len(self.history.effects)
            self.history.effects.append(Effect(seq, group, number, f"{group} 1"))
        if end:
            self.say(f"{group} 1", end, number, token=token, note=note)

    def handle(self, number: int, *groups: str) -> None:
        for group in groups or PROMISES:
            self.deliver(group, number)
            self.settle(group, number)

    def found(self) -> set[str]:
        return {finding.checker for finding in check(self.history).findings}


@pytest.fixture
def story() -> Story:
    """One in which everything goes well, if not at once."""
    story = Story()
    story.publish(1)
    story.publish(2, "unknown")  # the database says that it committed
    story.publish(3, "rolled back")
    story.handle(1)
    for group in PROMISES:
        story.deliver(group, 2)
        story.settle(group, 2, note="retry")
        story.deliver(group, 2, token=2)
        story.settle(group, 2, "refused", token=2)
        story.deliver(group, 2, token=3)
    for group in PROMISES:
        story.settle(group, 2, token=3)
    return story


def test_a_good_history(story: Story) -> None:
    verdict = check(story.history)
    assert verdict.good
    assert verdict.figures["committed"] == 2
    assert verdict.figures["outcome unknown"] == 1
    assert verdict.figures["delivered again"] == 6
    assert verdict.figures["settling refused"] == 3


def lost(story: Story) -> None:
    story.publish(9)
    story.handle(9, "effects", "acks")


def lost_though_delivered(story: Story) -> None:
    story.publish(9)
    story.handle(9, "effects", "strict")
    story.deliver("acks", 9)
    story.settle("acks", 9, "refused")


def lost_after_a_retry(story: Story) -> None:
    story.publish(9)
    story.handle(9, "effects", "strict")
    story.deliver("acks", 9)
    story.settle("acks", 9, note="retry")


def lost_effect(story: Story) -> None:
    story.publish(9)
    story.handle(9)
    story.history.effects.pop()


def never_sent(story: Story) -> None:
    story.handle(77, "acks")


def aborted_read(story: Story) -> None:
    story.handle(3, "acks")


def effect_twice(story: Story) -> None:
    story.history.effects.append(Effect(99, "effects", 1, "effects 2"))


def stale_ack(story: Story) -> None:
    story.publish(9)
    story.handle(9)
    story.settle("acks", 9, token=2)


def again_after_ack(story: Story) -> None:
    story.deliver("acks", 1, token=9)


def keys_swapped(story: Story) -> None:
    story.publish(8)
    story.publish(9)
    for number in (9, 8):
        story.handle(number, "effects")
    for number in (8, 9):
        story.handle(number, "acks", "strict")


def strict_swapped(story: Story) -> None:
    story.publish(8)
    story.publish(9)
    for number in (9, 8):
        story.handle(number, "strict")
    for number in (8, 9):
        story.handle(number, "acks", "effects")


def row_without_message(story: Story) -> None:
    del story.history.logged[2]


def message_without_row(story: Story) -> None:
    story.history.logged[3] = 103


def committed_and_gone(story: Story) -> None:
    del story.history.sent[1], story.history.logged[1]


def rolled_back_and_there(story: Story) -> None:
    story.history.sent[3] = Sent(3, 103, "t", None)
    story.history.logged[3] = 103
    story.handle(3)


def something_left(story: Story) -> None:
    story.history.left.append("group acks: 1 waiting")


@pytest.mark.parametrize(
    ("spoil", "checker"),
    [
        (lost, "lost"),
        (lost_though_delivered, "lost"),
        (lost_after_a_retry, "lost"),
        (lost_effect, "lost"),
        (never_sent, "unexpected"),
        (aborted_read, "unexpected"),
        (effect_twice, "twice"),
        (stale_ack, "stale settle"),
        (again_after_ack, "after settling"),
        (keys_swapped, "disorder"),
        (strict_swapped, "disorder"),
        (row_without_message, "half published"),
        (message_without_row, "half published"),
        (committed_and_gone, "wrong outcome"),
        (rolled_back_and_there, "wrong outcome"),
        (something_left, "not drained"),
    ],
)
def test_a_fault_is_found(story: Story, spoil: Callable[[Story], None], checker: str) -> None:
    spoil(story)
    assert checker in story.found()
    if spoil not in (lost_effect, committed_and_gone, aborted_read, effect_twice):
        assert story.found() == {checker}


def test_every_checker_has_its_fault() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for checker in CHECKERS:
        assert f'"{checker.__name__.replace("_", " ")}"' in source


def test_a_kill_between_an_ack_and_its_record_is_no_loss(story: Story) -> None:
    story.publish(9)
    story.handle(9, "effects", "strict")
    story.deliver("acks", 9)
    story.settle("acks", 9, end="")
    assert not story.found()


def test_a_delivery_under_a_lease_lost_unnoticed_is_no_fault(story: Story) -> None:
    story.publish(9)
    for group in PROMISES:
        story.deliver(group, 9, token=7)
        story.settle(group, 9, token=7)
    story.deliver("acks", 9, token=6)
    story.settle("acks", 9, "refused", token=6)
    assert not story.found()


@pytest.mark.parametrize(("fault", "found"), [("cut 0.5", set()), ("stop 0.5", {"stale settle"})])
def test_settled_by_another_while_the_connection_was_broken(
    story: Story, fault: str, found: set[str]
) -> None:
    story.publish(9)
    story.handle(9)
    story.say("acks 1", "settling", 9, token=2, note="ack")
    story.history.events.append(Event(next(story.clock), "nemesis", "fault", note=fault))
    story.say("acks 1", "settled", 9, token=2, note="ack")
    assert story.found() == found


def test_the_stretch_shows_the_message_and_the_faults_meanwhile(story: Story) -> None:
    story.publish(9)
    story.history.events.append(Event(next(story.clock), "nemesis", "fault", note="kill"))
    story.handle(9, "effects", "strict", "acks")
    story.deliver("acks", 9, token=5)
    (finding,) = check(story.history).findings
    assert {event.what for event in finding.events} >= {"publishing", "delivered", "fault"}
    assert all(9 in event.numbers or event.what == "fault" for event in finding.events)
    assert len(story.history.about([9], limit=3)) == 3


def test_events_survive_their_file(tmp_path: Path) -> None:
    events = [
        Event(2.5, "acks 1", "settled", (4,), "acks", 7, 2, 99, "ack"),
        Event(1.0, "nemesis", "fault", note="kill"),
    ]
    text = "".join(event.line() + "\n" for event in events)
    (tmp_path / "a.jsonl").write_text(text + '{"at": 3, "who"')  # cut by a kill
    assert read_events(tmp_path) == events[::-1]
    assert "settled ack" in str(events[0])


def test_a_seed_repeats_the_plan() -> None:
    assert plan("7", 60, FAULTS) == plan("7", 60, list(FAULTS)[::-1])
    assert plan("7", 60, FAULTS) != plan("8", 60, FAULTS)
    assert {step.fault for step in plan("7", 600, FAULTS)} == FAULTS.keys()
    assert plan("7", 60, []) == []
    assert all(dataclasses.astuple(step)[0] < 60 for step in plan("7", 60, FAULTS))


@pytest.mark.parametrize(
    "options", [{"faults": ("kil",)}, {"seconds": 0}, {"seconds": -1}, {"publishers": -1}]
)
def test_plans_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        Plan("1", **options)  # type: ignore[arg-type]
