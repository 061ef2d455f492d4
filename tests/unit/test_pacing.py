"""How long to wait, and how much to take at once."""

from __future__ import annotations

import random

import pytest

from durable_notify._core.pacing import BatchPacer, backoff, shortest


@pytest.mark.parametrize("attempt", [1, 2, 3, 10, 60, 61, 1000, 2**31])
def test_backoff_stays_within_its_bounds(attempt: int) -> None:
    rng = random.Random(7)
    full = min(300.0, 2.0 ** min(attempt - 1, 60))
    delays = [backoff(attempt, 1.0, 300.0, rng) for _ in range(200)]
    assert all(full / 2 <= delay <= full for delay in delays)
    assert max(delays) - min(delays) > full / 4, "no jitter"


def test_backoff_where_the_base_is_over_the_most() -> None:
    assert backoff(1, 500.0, 10.0) <= 10.0


def test_backoff_without_a_generator_of_ones_own() -> None:
    assert 0.5 <= backoff(1, 1.0, 300.0) <= 1.0


def test_shortest() -> None:
    assert shortest() is None
    assert shortest(None, None) is None
    assert shortest(None, 3.0, 2.0) == 2.0
    assert shortest(0.0, None) == 0.0


def test_a_fast_handler_gets_more_and_more() -> None:
    pacer = BatchPacer(1, 500)
    sizes = []
    for _ in range(10):
        pacer.handled(pacer.size, 0.001)
        sizes.append(pacer.size)
    assert sizes == [20, 40, 80, 160, 320, 500, 500, 500, 500, 500]


def test_a_slow_handler_gets_few_at_once() -> None:
    pacer = BatchPacer(1, 500)
    pacer.handled(10, 60.0)
    assert pacer.size == 1


def test_as_many_as_are_handled_in_a_quarter_of_a_second() -> None:
    pacer = BatchPacer(1, 500)
    for _ in range(10):
        pacer.handled(pacer.size, pacer.size / 400)  # 400 a second
    assert 90 <= pacer.size <= 100


def test_never_fewer_than_are_handled_at_once() -> None:
    pacer = BatchPacer(32, 500)
    pacer.handled(32, 600.0)
    assert pacer.size == 32


@pytest.mark.parametrize(("least", "most"), [(1, 1), (100, 5), (1, 10_000)])
def test_never_more_than_allowed(least: int, most: int) -> None:
    pacer = BatchPacer(least, most)
    assert 1 <= pacer.size <= most
    for seconds in (0.0, 1e-9, 1e9):
        pacer.handled(10_000, seconds)
        assert 1 <= pacer.size <= most


@pytest.mark.parametrize("handled", [0, -5])
def test_nothing_handled_says_nothing(handled: int) -> None:
    pacer = BatchPacer(1, 500)
    before = pacer.size
    pacer.handled(handled, 10.0)
    assert pacer.size == before
