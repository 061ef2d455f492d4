"""The gate that keeps messages of a key in order, and the topics that a consumer claims from."""

from __future__ import annotations

import random

import pytest

from durable_notify._core.ordering import KeyGate
from durable_notify._core.sanitize import describe
from durable_notify._core.topic_set import FEW, TopicSet
from durable_notify.topics import channel, check_pattern, matches

PLACE = ("t", "k")


def test_one_at_a_time_in_order() -> None:
    gate: KeyGate[int] = KeyGate()
    assert gate.enter(PLACE, (1, 1), 1, "a")
    assert not gate.enter(PLACE, (1, 2), 2, "b")
    assert not gate.enter(PLACE, (1, 3), 3, "c")
    assert gate.enter(("t", "other"), (1, 4), 4, "d")
    assert gate.enter(None, (1, 5), 5, "e")
    assert gate.leave(PLACE, (1, 1)) == 2
    assert not gate.enter(PLACE, (1, 6), 6, "f")  # came meanwhile: behind those that wait
    assert gate.enter(PLACE, (1, 2), 2, "b")
    assert gate.leave(PLACE, (1, 2)) == 3
    assert gate.leave(PLACE, (1, 3)) == 6  # it will not go through after all
    assert gate.enter(PLACE, (1, 6), 6, "f")
    assert gate.leave(PLACE, (1, 6)) is None
    assert gate.enter(PLACE, (2, 1), 1, "g")


def test_a_batch_asks_for_the_next_of_a_key_that_will_not_go_through() -> None:
    """Its lease was lost; the batch has the one before still."""
    gate: KeyGate[int] = KeyGate()
    batch = [1]
    gate.expect([(PLACE, (1, 2))])
    assert not gate.enter(PLACE, (1, 3), 3, "b")
    assert gate.leave(PLACE, (1, 2)) == 3
    assert gate.enter(PLACE, (1, 3), 3, batch)
    gate.expect([(PLACE, (1, 4))])
    assert gate.waits(PLACE)
    assert gate.leave(PLACE, (1, 4)) is None
    assert not gate.waits(PLACE)
    assert gate.following(PLACE, batch) is None


def test_entering_too_early_waits_for_the_one_before() -> None:
    gate: KeyGate[int] = KeyGate()
    for n in range(4):
        gate.expect([(PLACE, (1, n))])
    gate.expect([(None, (1, 9))])
    assert not gate.enter(PLACE, (1, 2), 2, "c")
    assert not gate.enter(PLACE, (1, 1), 1, "b")
    assert gate.enter(PLACE, (1, 0), 0, "a")
    assert gate.leave(PLACE, (1, 0)) == 1
    assert gate.enter(PLACE, (1, 1), 1, "b")
    assert gate.leave(PLACE, (1, 1)) == 2
    assert gate.leave(PLACE, (1, 2)) is None  # given up; the one after it has not come yet
    assert gate.enter(PLACE, (1, 3), 3, "d")
    assert gate.leave(PLACE, (1, 3)) is None
    assert not gate._lines
    assert not gate._inside


def test_one_that_never_enters_does_not_block_the_others() -> None:
    gate: KeyGate[int] = KeyGate()
    for n in range(2):
        gate.expect([(PLACE, (1, n))])
    assert not gate.enter(PLACE, (1, 1), 1, "b")
    assert gate.leave(PLACE, (1, 0)) == 1  # its lease was lost
    assert gate.enter(PLACE, (1, 1), 1, "b")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("at_once", [1, 4])
def test_taken_in_order_and_brought_in_any(seed: int, at_once: int) -> None:
    dice = random.Random(seed)
    gate: KeyGate[tuple[str, int]] = KeyGate()
    queue = [(dice.choice("ab"), n) for n in range(60)]
    for key, n in queue:
        gate.expect([(("t", key), (1, n))])
    on_their_way: list[tuple[str, int]] = []
    inside: list[tuple[str, int]] = []
    through: list[tuple[str, int]] = []
    while queue or on_their_way or inside:
        if queue and len(on_their_way) < at_once:
            on_their_way.append(queue.pop(0))
        elif on_their_way and dice.random() < 0.6:
            message = on_their_way.pop(dice.randrange(len(on_their_way)))
            if gate.enter(("t", message[0]), (1, message[1]), message, message):
                inside.append(message)
                through.append(message)
        elif inside:
            message = inside.pop(dice.randrange(len(inside)))
            following = gate.leave(("t", message[0]), (1, message[1]))
            if following is not None:
                queue.append(following)
    assert len(through) == 60
    for key in "ab":
        order = [n for k, n in through if k == key]
        assert order == sorted(order), f"seed {seed}"


def test_one_that_is_not_inside_does_not_leave() -> None:
    gate: KeyGate[int] = KeyGate()
    assert gate.enter(PLACE, (1, 1), 1, "a")
    assert not gate.enter(PLACE, (1, 2), 2, "b")
    assert gate.leave(PLACE, (9, 9)) is None
    assert gate.leave(PLACE, (1, 2)) is None
    assert gate.leave(None, (1, 1)) is None
    assert not gate.enter(PLACE, (1, 3), 3, "c")


def test_a_batch_has_several() -> None:
    gate: KeyGate[int] = KeyGate()
    assert all(gate.enter(PLACE, (1, n), n, "batch") for n in range(3))
    assert not gate.enter(PLACE, (1, 3), 3, "other")
    assert [gate.leave(PLACE, (1, n)) for n in range(3)] == [None, None, 3]


def test_few_topics_are_all_claimed() -> None:
    attention = TopicSet(["a", "b"])
    attention.mark_empty(["a", "b"])
    assert attention.to_claim() == ["a", "b"]
    assert attention.channels == {channel("a"): "a", channel("b"): "b"}


def test_of_many_topics_those_that_rang() -> None:
    topics = [f"t{n}" for n in range(FEW + 1)]
    attention = TopicSet(topics)
    assert sorted(attention.to_claim()) == sorted(topics)
    attention.mark_empty(topics)
    assert attention.to_claim() == []
    assert not attention.mark_ready({channel("t3"): {"7"}, channel("unknown"): {"1"}})
    assert attention.to_claim() == ["t3"]
    attention.mark_empty(["t3"])
    attention.mark_ready({channel("t1"): {"*"}})
    assert len(attention.to_claim()) == len(topics)
    attention.mark_empty(topics)
    attention.mark_ready(None)
    assert len(attention.to_claim()) == len(topics)


def test_patterns_ask_for_new_topics() -> None:
    attention = TopicSet(["orders.*", "t"])
    assert attention.to_claim() == ["t"]
    assert attention.mark_ready(None)
    assert attention.mark_ready({"durable_notify": {"orders.eu"}})
    assert attention.add(["orders.eu", "t"]) == {channel("orders.eu"): "orders.eu"}
    assert not attention.mark_ready({"durable_notify": {"orders.eu", "invoices.eu", "orders.eu.x"}})


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a.*", ["a.b", "a.*x"], ["a", "a.b.c", "b.a"]),
        ("a.>", ["a.b", "a.b.c"], ["a", "ab.c"]),
        (">", ["a", "a.b"], []),
        ("*", ["a"], ["a.b"]),
        ("a+b.*.c", ["a+b.x.c"], ["aab.x.c", "a+b.x.y.c"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert check_pattern(pattern) == pattern
    assert [topic for topic in yes + no if matches(topic, pattern)] == yes


def test_a_long_traceback_is_cut() -> None:
    def deeper(n: int) -> None:
        exec(f"x = {'0 + ' * 200} 0\nif {n}: f({n} - 1)\nelse: 1 / 0", {"f": deeper})

    try:
        deeper(100)
    except ZeroDivisionError as error:
        described = describe(error)
    assert described["type"] == "ZeroDivisionError"
    assert described["message"] == "division by zero"
    assert len(described["traceback"]) < 8100
    assert described["traceback"].startswith("...")
    assert described["traceback"].endswith("ZeroDivisionError: division by zero\n")
