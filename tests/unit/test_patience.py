"""How a consumer that finds nothing waits longer and longer; and which rings concern it."""

from __future__ import annotations

import pytest

from durable_notify._core.pacing import Patience, RingPacer
from durable_notify._core.topic_set import TopicSet
from durable_notify.topics import ANY_TOPIC


def test_it_waits_for_what_is_due_the_first_time() -> None:
    patience = Patience()
    assert [patience.wait(due) for due in (None, 0.25, 2.0, 60.0)] == [None, 0.25, 2.0, 60.0]


def test_each_time_in_vain_it_waits_twice_as_long() -> None:
    patience = Patience()
    waits = []
    for _ in range(100):
        waits.append(patience.wait(0.1))
        patience.missed()
    assert waits[:6] == [pytest.approx(0.1 * 2**n, abs=1e-6) for n in range(5)] + [3.0]
    assert waits[-1] == 3.0


@pytest.mark.parametrize("due", [None, 60.0, "found"])
def test_it_starts_again_once_it_waits_for_something_else(due: float | str | None) -> None:
    patience = Patience()
    for _ in range(9):
        patience.missed()
    assert patience.wait(0.1) == 3.0
    if due == "found":
        patience.found()
    else:
        assert patience.wait(due) == due  # type: ignore[arg-type]
    assert patience.wait(0.1) == 0.1


def test_wake_ups_in_vain_are_answered_later_and_later() -> None:
    pacer = RingPacer()
    pauses = []
    for _ in range(RingPacer.FREE + 100):
        pauses.append(pacer.pause)
        pacer.looked(rung=True, found=False)
    assert pauses[: RingPacer.FREE + 1] == [0.0] * (RingPacer.FREE + 1)
    assert pauses[RingPacer.FREE + 1 :][:3] == [0.02, 0.04, 0.08]
    assert pauses[-1] == RingPacer.MAX
    pacer.looked(rung=True, found=True)
    assert pacer.pause == 0.0


def test_a_look_without_a_ring_ends_the_row() -> None:
    pacer = RingPacer()
    for _ in range(200):
        pacer.looked(rung=True, found=False)
    pacer.looked(rung=False, found=False)
    assert pacer.pause == 0.0


def test_only_new_topics_that_match_concern_a_consumer_by_pattern() -> None:
    topics = TopicSet(["orders.*", "t"])
    topics.add(["orders.eu"])
    assert topics.concerns({ANY_TOPIC: {"orders.us"}})
    assert topics.concerns({ANY_TOPIC: {"another", "orders.us"}})
    assert topics.concerns({ANY_TOPIC: {""}})  # a publisher may have been unable to ring
    assert topics.concerns({"durable_notify:t": {"1"}})
    assert topics.concerns({ANY_TOPIC: {"another"}, "durable_notify:t": {"1"}})
    assert not topics.concerns({ANY_TOPIC: {"another", "orders.eu"}})
