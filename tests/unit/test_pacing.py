"""How long to wait, and how much to claim at once."""

from __future__ import annotations

import random

import pytest

from durable_notify._core.pacing import BatchSizer, backoff, shortest


@pytest.mark.parametrize("attempt", [1, 2, 3, 10, 60, 61, 1000, 2**31])
def test_backoff_stays_within_its_bounds(attempt: int) -> None:
    rng = random.Random(7)
    full = min(300.0, 2.0 ** min(attempt - 1, 60))
    delays = [backoff(attempt, 1.0, 300.0, rng) for _ in range(200)]
    assert all(full / 2 <= delay <= full for delay in delays)
    assert max(delays) - min(delays) > full / 4, "no jitter"


def test_backoff_if_the_base_exceeds_the_maximum() -> None:
    assert backoff(1, 500.0, 10.0) <= 10.0


def test_backoff_without_a_generator_of_ones_own() -> None:
    assert 0.5 <= backoff(1, 1.0, 300.0) <= 1.0


def test_shortest() -> None:
    assert shortest() is None
    assert shortest(None, None) is None
    assert shortest(None, 3.0, 2.0) == 2.0
    assert shortest(0.0, None) == 0.0


def paced(pacer: BatchSizer, each: float, claims: int = 12) -> list[int]:
    """The sizes after some claims of a backlog, whose messages take so long."""
    sizes = []
    for _ in range(claims):
        pacer.took(1, each, 1.0)
        pacer.claimed(full=True)
        sizes.append(pacer.size)
    return sizes


def test_a_fast_handler_gets_more_and_more() -> None:
    pacer = BatchSizer(1, 500)
    assert pacer.size == 1
    assert paced(pacer, 0.00001) == [2, 4, 8, 16, 32, 64, 128, 256, 500, 500, 500, 500]


def test_it_is_not_known_whether_a_handler_is_fast_before_it_has_handled_some() -> None:
    pacer = BatchSizer(4, 500)
    for _ in range(5):
        pacer.claimed(full=True)
    assert pacer.size == 4
    paced(pacer, 0.00001)
    assert pacer.size == 500
    pacer.rest(1.0)
    for _ in range(5):
        pacer.claimed(full=True)
    assert pacer.size == 4


def test_what_was_claimed_before_a_pause_says_nothing() -> None:
    pacer = BatchSizer(3, 500)
    pacer.rest(10.0)
    pacer.took(1, 0.00001, 9.0)
    pacer.claimed(full=True)
    assert pacer.size == 3
    pacer.took(1, 0.00001, 10.0)
    pacer.claimed(full=True)
    assert pacer.size == 6


def test_a_slow_handler_gets_few_at_once() -> None:
    pacer = BatchSizer(1, 500)
    paced(pacer, 0.00001)
    for _ in range(100):
        pacer.took(1, 6.0, 1.0)
    pacer.claimed(full=True)
    assert pacer.size == 1


def test_as_many_as_are_handled_in_a_quarter_of_a_second() -> None:
    pacer = BatchSizer(1, 500)
    assert 90 <= paced(pacer, 1 / 400)[-1] <= 100  # 400 a second
    pacer = BatchSizer(1, 500)
    pacer.can_begin(4, 4)
    assert 380 <= paced(pacer, 1 / 400)[-1] <= 400  # four times as many


def test_what_is_delivered_in_batches() -> None:
    pacer = BatchSizer(1, 500)
    pacer.can_begin(100, 1)
    for _ in range(5):
        pacer.took(100, 0.1, 1.0)
        pacer.claimed(full=True)
    assert 240 <= pacer.size <= 250


def test_never_fewer_than_are_handled_at_once() -> None:
    pacer = BatchSizer(32, 500)
    paced(pacer, 600.0)
    assert pacer.size == 32


@pytest.mark.parametrize(("least", "most"), [(1, 1), (100, 5), (1, 10_000)])
def test_never_more_than_allowed(least: int, most: int) -> None:
    pacer = BatchSizer(least, most)
    for seconds in (0.0, 1e-9, 1e9):
        assert all(1 <= size <= most for size in paced(pacer, seconds))


@pytest.mark.parametrize(
    ("begun", "queued", "wanted"), [(0, 0, 4), (3, 0, 1), (4, 0, 0), (2, 2, 0), (4, 9, 0)]
)
def test_at_first_only_what_can_be_begun(begun: int, queued: int, wanted: int) -> None:
    pacer = BatchSizer(4, 500)
    assert pacer.to_claim(begun, queued, queued) == wanted


def test_of_a_backlog_the_next_batch_before_the_last_is_over() -> None:
    pacer = BatchSizer(4, 500)
    paced(pacer, 1 / 1600)
    assert pacer.size == 400
    assert pacer.to_claim(4, 201, 201) == 0
    assert pacer.to_claim(4, 200, 200) == 400
    assert pacer.to_claim(4, 100, 300) == 0  # the rest wait for their keys
    assert pacer.to_claim(1, 0, 300) == 400  # and some handlers for anything at all


def test_a_batch_that_is_soon_over_is_followed_by_a_whole_one() -> None:
    pacer = BatchSizer(4, 500)
    paced(pacer, 0.00001)
    assert pacer.to_claim(4, 501, 501) == 0
    assert pacer.to_claim(4, 500, 500) == 500
    paced(pacer, 1 / 2800, claims=60)  # so 350 messages take an eighth of a second
    assert 345 <= pacer.low_water <= 355


def test_smaller_batches_than_there_are_handlers() -> None:
    """Each handler gets its message, by a claim of its own."""
    pacer = BatchSizer(1, 2)
    pacer.can_begin(5, 5)
    assert [pacer.to_claim(begun, 0, 0) for begun in range(6)] == [2, 2, 2, 2, 1, 0]
