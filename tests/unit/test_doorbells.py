"""Which doorbells are armed, when to look again, and what a consumer pays attention to."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_notify._core.doorbells import GRACE, LOOK, RETRY, ArmedTopics
from durable_notify._core.pacing import BusyPoller
from durable_notify._core.topic_set import FEW, TopicSet
from durable_notify.topics import ANY_TOPIC, channel

TOPICS = ["", "a", "b", "c"]


def armed_with(*topics: str) -> ArmedTopics:
    """Doorbells of these topics, all armed."""
    doorbells = ArmedTopics()
    doorbells.tried(topics, [], [], 0.0)
    return doorbells


# Arming and disarming


def test_nothing_is_armed_at_first() -> None:
    doorbells = ArmedTopics()
    assert doorbells.armed == doorbells.refused == frozenset()
    assert doorbells.to_arm({"b", "a"}, 0.0) == ["a", "b"]
    assert doorbells.next_at() is None


def test_what_is_armed_is_not_armed_again() -> None:
    doorbells = armed_with("a")
    assert doorbells.armed == {"a"}
    assert doorbells.to_arm({"a", "b"}, 0.0) == ["b"]


def test_what_is_not_wanted_stays_armed_for_a_moment() -> None:
    """A consumer that reads one message rests again by then, and neither disarms nor arms."""
    doorbells = armed_with("a", "b")
    assert doorbells.to_disarm({"b"}, 10.0) == []
    assert doorbells.next_at() == 10.0 + GRACE
    assert doorbells.to_disarm({"b"}, 10.0 + GRACE / 2) == []
    assert doorbells.armed == {"a", "b"}
    assert doorbells.to_disarm({"b"}, 10.0 + GRACE) == ["a"]
    assert doorbells.next_at() is None


def test_what_is_wanted_again_in_time_restarts_its_delay() -> None:
    doorbells = armed_with("a")
    doorbells.to_disarm(set(), 0.0)
    assert doorbells.to_disarm({"a"}, GRACE) == []
    assert doorbells.next_at() is None
    assert doorbells.to_disarm(set(), GRACE * 2) == []
    assert doorbells.to_disarm(set(), GRACE * 3) == ["a"]


def test_an_unneeded_ring_ends_the_delay() -> None:
    doorbells = armed_with("a", "b")
    doorbells.rung(["a"])  # it is wanted: this says nothing
    doorbells.to_disarm({"b"}, 10.0)
    doorbells.rung(["a", "b", "never heard of"])
    assert doorbells.to_disarm({"b"}, 10.0) == ["a"]


def test_disarmed_counts_before_it_is_done() -> None:
    """A consumer that sees a doorbell armed may sleep, so it is crossed off before the statement runs."""
    doorbells = armed_with("a")
    doorbells.to_disarm(set(), 0.0)
    assert doorbells.to_disarm(set(), GRACE) == ["a"]
    assert doorbells.armed == frozenset()
    assert doorbells.to_arm({"a"}, GRACE) == ["a"]


def test_another_session_has_nothing() -> None:
    doorbells = armed_with("a")
    doorbells.tried(["b"], ["b"], ["7"], 0.0)
    doorbells.to_disarm({"b"}, 0.0)
    doorbells.reset()
    assert doorbells.armed == doorbells.refused == frozenset()
    assert doorbells.next_at() is None
    assert doorbells.to_look(math.inf) == []
    assert doorbells.to_disarm(set(), math.inf) == []
    assert doorbells.to_arm({"a", "b"}, 0.0) == ["a", "b"]


# Armed by another rule


def test_what_rings_by_another_rule_is_disarmed_before_it_is_armed_again() -> None:
    doorbells = armed_with("a", "b")
    doorbells.expire(["a", "c"])
    assert (doorbells.armed, doorbells.held, doorbells.stale) == ({"b"}, {"a", "b"}, True)
    assert doorbells.to_arm({"a", "b"}, 0.0) == []
    assert doorbells.to_disarm({"a", "b"}, 0.0) == ["a"]
    assert (doorbells.held, doorbells.stale) == ({"b"}, False)
    assert doorbells.to_arm({"a", "b"}, 0.0) == ["a"]


def test_a_rule_that_changes_while_doorbells_are_disarmed_and_armed() -> None:
    """Each lock taken is given back once, and none stays that was taken by an old rule."""
    doorbells = armed_with("a")
    locks = {"a": 1}
    for moment in ("before", "while disarming", "while arming"):
        doorbells.expire(["a"])
        for topic in doorbells.to_disarm({"a"}, 0.0):
            locks[topic] -= 1
        if moment == "while disarming":
            doorbells.expire(["a"])
        missing = doorbells.to_arm({"a"}, 0.0)
        doorbells.arming(missing)
        for topic in missing:
            locks[topic] += 1
        if moment == "while arming":
            doorbells.expire(["a"])
        doorbells.tried(missing, [], [], 0.0)
        assert locks["a"] == (1 if "a" in doorbells.held else 0)
        assert ("a" in doorbells.armed) == (moment != "while arming")
    assert doorbells.to_disarm({"a"}, 0.0) == ["a"]


def test_a_rule_that_changes_while_a_doorbell_is_refused_leaves_nothing_to_disarm() -> None:
    doorbells = ArmedTopics()
    doorbells.arming(["a"])
    doorbells.expire(["a"])
    doorbells.tried(["a"], ["a"], [], 0.0)
    assert not doorbells.stale
    assert doorbells.to_disarm({"a"}, 0.0) == []


# Refused


def test_a_refused_doorbell_is_tried_less_and_less_often() -> None:
    doorbells, now, delays = ArmedTopics(), 100.0, []
    for _ in range(12):
        assert doorbells.to_arm({"a"}, now) == ["a"]
        doorbells.tried(["a"], ["a"], [], now)
        assert doorbells.refused == {"a"}
        assert doorbells.to_arm({"a"}, now) == []
        due = doorbells.next_at()
        assert due is not None
        assert doorbells.to_arm({"a"}, due - 1e-6) == []
        delays.append(due - now)
        now = due
    assert delays[:3] == pytest.approx([RETRY[0], RETRY[0] * 2, RETRY[0] * 4])
    assert doorbells.hopeless(["a"])
    assert not doorbells.hopeless(["a", "b"])
    assert doorbells.next_at(retries=False) is None
    assert delays[-2:] == pytest.approx([RETRY[1]] * 2)


def test_a_doorbell_that_was_refused_can_be_armed_later() -> None:
    doorbells = ArmedTopics()
    doorbells.tried(["a", "b"], ["a"], [], 0.0)
    assert (doorbells.armed, doorbells.refused) == ({"b"}, {"a"})
    doorbells.tried(["a"], [], [], 1.0)
    assert (doorbells.armed, doorbells.refused) == ({"a", "b"}, frozenset())
    assert doorbells.next_at() is None


def test_a_refused_doorbell_that_is_not_wanted_is_forgotten() -> None:
    doorbells = ArmedTopics()
    for _ in range(9):
        doorbells.tried(["a"], ["a"], [], 0.0)
    assert doorbells.to_disarm(set(), 0.0) == []
    assert doorbells.refused == frozenset()
    assert doorbells.to_arm({"a"}, 0.0) == ["a"]
    doorbells.tried(["a"], ["a"], [], 0.0)
    assert doorbells.next_at() == RETRY[0]


# Unnotified transactions


def test_unannounced_transactions_are_looked_at_less_and_less_often() -> None:
    doorbells, now, delays = ArmedTopics(), 50.0, []
    doorbells.tried(["a"], [], ["9", "10"], now)
    for _ in range(13):
        due = doorbells.next_at()
        assert due is not None
        assert doorbells.to_look(due - 1e-6) == []
        assert doorbells.to_look(due) == ["10", "9"]
        delays.append(due - now)
        now = due
        assert doorbells.looked(["9", "10"], ["9", "10"], now) is False
    assert delays[:3] == pytest.approx([LOOK[0], LOOK[0] * 2, LOOK[0] * 4])
    assert delays[-2:] == pytest.approx([LOOK[1]] * 2)


def test_what_has_ended_is_reported_once_and_no_longer_watched() -> None:
    doorbells = ArmedTopics()
    doorbells.tried(["a"], [], ["1", "2"], 0.0)
    assert doorbells.looked(["1", "2"], ["2"], 1.0) is True
    assert doorbells.to_look(math.inf) == ["2"]
    assert doorbells.looked(["2"], ["2"], 2.0) is False
    assert doorbells.looked(["2"], [], 3.0) is True
    assert doorbells.to_look(math.inf) == []
    assert doorbells.next_at() is None


def test_another_one_is_looked_at_soon_though_old_ones_are_not() -> None:
    doorbells = ArmedTopics()
    doorbells.tried(["a"], [], ["1"], 0.0)
    for _ in range(20):
        doorbells.looked(["1"], ["1"], 0.0)
    doorbells.tried(["b"], [], ["1"], 5.0)  # known: no reason to hurry
    assert doorbells.next_at() == pytest.approx(LOOK[1])
    doorbells.tried(["b"], [], ["1", "2"], 5.0)
    assert doorbells.next_at() == pytest.approx(5.0 + LOOK[0])
    assert doorbells.to_look(6.0) == ["1", "2"]


def test_one_noted_after_the_look_was_taken_is_not_taken_for_ended() -> None:
    doorbells = ArmedTopics()
    doorbells.tried(["a"], [], ["1"], 0.0)
    looked_at = doorbells.to_look(1.0)
    doorbells.tried(["b"], [], ["2"], 1.0)
    assert doorbells.looked(looked_at, ["1"], 1.0) is False
    assert doorbells.to_look(math.inf) == ["1", "2"]


def test_disarming_forgets_no_unannounced_transaction() -> None:
    """Another consumer of the process may have armed the doorbell of another topic."""
    doorbells = ArmedTopics()
    doorbells.tried(["a"], [], ["1"], 0.0)
    doorbells.to_disarm(set(), 1.0)
    doorbells.to_disarm(set(), 2.0)
    assert doorbells.to_look(math.inf) == ["1"]


# A rule that changes


def test_by_another_rule_it_is_armed_again() -> None:
    """A consumer that rests for it sees at once that it is not armed, whatever the session holds."""
    doorbells = armed_with("a", "b")
    doorbells.expire(["a", "never heard of"])
    assert doorbells.armed == {"b"}
    assert doorbells.to_disarm({"a", "b"}, 0.0) == ["a"]
    assert doorbells.to_disarm({"a", "b"}, 0.0) == []
    assert doorbells.to_arm({"a", "b"}, 0.0) == ["a"]


def test_by_another_rule_and_not_wanted_it_is_disarmed_at_once() -> None:
    doorbells = armed_with("a")
    doorbells.to_disarm(set(), 0.0)
    doorbells.expire(["a"])
    assert doorbells.to_disarm(set(), 0.0) == ["a"]
    assert doorbells.to_disarm(set(), 1.0) == []


SOME = st.sets(st.sampled_from(TOPICS))
STEP = st.tuples(
    SOME,  # wanted
    SOME,  # refused, if tried
    st.sets(st.sampled_from(["1", "2", "3"])),  # unannounced
    SOME,  # rung
    st.tuples(SOME, SOME, SOME),  # changed their rules: before, while it disarms, while it arms
    st.floats(0.0, 0.02),  # seconds until then
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=30))
def test_the_books_agree_with_the_session(steps: list[tuple[Any, ...]]) -> None:
    """Whatever the order of things: what counts as held the session holds, once, and nothing else.

    And what is wanted is armed, or to be armed at a time that is known, whatever rule changes when.
    """
    doorbells, held, now = ArmedTopics(), Counter[str](), 0.0
    for wanted, refused, unannounced, rung, changed, seconds in steps:
        now += seconds
        doorbells.rung(rung)
        doorbells.expire(changed[0])
        held.subtract(doorbells.to_disarm(wanted, now))
        assert set(+held) == doorbells.held
        doorbells.expire(changed[1])
        missing = doorbells.to_arm(wanted, now)
        doorbells.arming(missing)
        doorbells.expire(changed[2])
        doorbells.tried(missing, refused, unannounced, now)
        held.update(set(missing) - refused)
        assert set(held.values()) <= {0, 1}, "armed more than once, or disarmed"
        assert set(+held) == doorbells.held
        assert doorbells.armed.isdisjoint(changed[2])
        assert wanted <= doorbells.held | doorbells.refused
        assert doorbells.armed.isdisjoint(doorbells.refused)
        if doorbells.refused or doorbells.armed - wanted:
            assert doorbells.next_at() is not None


# Whether to look again soon, or to be rung


def looks(
    linger: BusyPoller, arrivals: list[float], until: float
) -> tuple[list[float], list[float]]:
    """A consumer with this many arrivals: when it looked and kept looking, and when it slept.

    It is woken by the next arrival, at once.
    """
    looked, slept, now, waiting = [], [], 0.0, sorted(arrivals)
    while now < until:
        found = sum(at <= now for at in waiting)
        waiting = waiting[found:]
        if found:
            linger.found(found, now)
            continue
        pause = linger.pause(now)
        if pause is None:
            slept.append(now)
            now = max(now, waiting[0]) if waiting else until
        else:
            assert 0 < pause <= linger.STEP
            looked.append(now)
            now += pause
    return looked, slept


def test_before_anything_was_found() -> None:
    assert BusyPoller().pause(0.0) is None
    assert BusyPoller().pause(1e9) is None


@pytest.mark.parametrize("batch", [1, 2])
def test_one_message_a_second_is_always_rung(batch: int) -> None:
    looked, slept = looks(BusyPoller(), [float(s) for s in range(1, 60)] * batch, 60.0)
    assert looked == []
    assert len(slept) >= 59


def test_a_steady_thousand_a_second_are_looked_for() -> None:
    looked, slept = looks(BusyPoller(), [n / 1000 for n in range(5000)], 5.0)
    assert len(looked) * BusyPoller.STEP > 4.0, "most of the time it waits for the next look"
    assert all(at < 0.5 for at in slept), "it slept once it knew the rate"


def test_after_a_burst_it_soon_sleeps() -> None:
    """It has seen very many, and keeps looking, but not for long."""
    linger = BusyPoller()
    for n in range(20):
        linger.found(500, n * 0.002)
    last, now = 19 * 0.002, 19 * 0.002
    while (pause := linger.pause(now)) is not None:
        now += pause
    assert now == pytest.approx(last + BusyPoller.MAX_GAP)
    assert linger.pause(last + 1000.0) is None


def test_a_single_large_batch_out_of_the_blue_is_no_rate() -> None:
    linger = BusyPoller()
    linger.found(10_000, 5.0)
    assert linger.pause(5.0) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(0.0, 5.0)), max_size=30), st.floats(0, 1)
)
def test_it_never_lingers_longer_than_it_may(found: list[tuple[int, float]], later: float) -> None:
    linger, now = BusyPoller(), 0.0
    for messages, gap in found:
        now += gap
        linger.found(messages, now)
    pause = linger.pause(now + later)
    assert pause is None or (
        0 < pause <= BusyPoller.STEP and later + pause <= BusyPoller.MAX_GAP + 1e-9
    )


# What to pay attention to


def many() -> TopicSet:
    """Of more topics than are claimed from at once; none has anything."""
    attention = TopicSet(f"t{n}" for n in range(FEW + 4))
    attention.mark_empty(attention.topics)
    assert attention.to_claim() == []
    return attention


def test_a_few_topics_are_all_claimed_from() -> None:
    attention = TopicSet(["a", "b"])
    attention.mark_empty(["a", "b"])
    assert attention.to_claim() == ["a", "b"]


def test_of_many_those_that_have_rung() -> None:
    attention = many()
    assert attention.mark_ready({channel("t3"): {"7"}, channel("stranger"): {"8"}}) is False
    assert attention.to_claim() == ["t3"]
    attention.mark_empty(["t3"])
    assert attention.to_claim() == []


def test_only_what_was_armed_is_exhausted() -> None:
    """What could not ring while it was read may have got something since."""
    attention = many()
    attention.mark_ready({channel("t1"): {""}, channel("t2"): {""}})
    attention.mark_empty({"t2", "t9"}.intersection(attention.to_claim()))
    assert attention.to_claim() == ["t1"]


@pytest.mark.parametrize("rung", [None, {channel("t0"): {"0", "*"}}])
def test_anything_may_have_come(rung: dict[str, set[str]] | None) -> None:
    attention = many()
    assert attention.mark_ready(rung) is False
    assert len(attention.to_claim()) == FEW + 4


def test_channels_of_topics_and_of_patterns() -> None:
    assert TopicSet(["a"]).channels == {channel("a"): "a"}
    assert TopicSet(["a", "b.*"]).channels == {channel("a"): "a", ANY_TOPIC: "b.>"}


@pytest.mark.parametrize(
    ("topics", "family"),
    [
        (["a"], None),
        (["a.*", "b"], "a.>"),
        (["a.b.*", "a.>"], "a.>"),
        (["a.*", "b.*"], ""),
        ([">"], ""),
        (["*.a"], ""),
    ],
)
def test_whose_publishers_announce_new_topics(topics: list[str], family: str | None) -> None:
    """Those of all topics with the first word of its patterns, if they share one without wildcards."""
    assert TopicSet(topics).family == family


@pytest.mark.parametrize(
    ("payload", "look"),
    [("b.new", True), ("c.new", False), ("a", False), ("b.known", False), ("", True)],
)
def test_when_to_look_for_new_topics(payload: str, look: bool) -> None:
    """Rung with the name of a topic that is new; or with "", which says that some may be."""
    attention = TopicSet(["a", "b.*"])
    attention.add(["b.known"])
    assert attention.mark_ready({ANY_TOPIC: {payload}}) is look


def test_without_patterns_there_are_no_new_topics() -> None:
    assert TopicSet(["a"]).mark_ready(None) is False
    assert TopicSet(["b.*"]).mark_ready(None) is True


def test_a_new_topic_is_claimed_from_and_listened_to() -> None:
    attention = many()
    assert attention.add(["new", "t0"]) == {channel("new"): "new"}
    assert attention.to_claim() == ["new"]
    assert attention.channels[channel("new")] == "new"


def test_new_topics_are_searched_if_no_doorbell_tells_of_them() -> None:
    """Now and then, while it has no time to rest."""
    attention = TopicSet(["a", "b.*"])
    looked = [n / 10 for n in range(100, 140) if attention.look_for_topics(n / 10, notified=False)]
    assert looked == pytest.approx([10.0, 11.5, 13.0], abs=0.11)
    assert not any(attention.look_for_topics(20.0 + n, notified=True) for n in range(9))


def test_new_topics_are_searched_while_polling() -> None:
    """A consumer that polls finds them: a topic may never ring."""
    attention = TopicSet(["b.*"])
    attention.mark_all()
    assert attention.look_for_topics(10.0, notified=True) is True
    assert attention.look_for_topics(20.0, notified=True) is False
    attention.mark_all()
    assert attention.look_for_topics(20.5, notified=True) is True


def test_without_patterns_none_are_looked_for() -> None:
    attention = TopicSet(["a"])
    attention.mark_all()
    assert attention.look_for_topics(10.0, notified=False) is False
