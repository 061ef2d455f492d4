"""The tables of docs/scaling.md are those of its results file."""

from __future__ import annotations

import json

from benchmarks import scaling, scaling_page


def test_the_page_shows_the_results() -> None:
    """If not: `python benchmarks/scaling_page.py`."""
    rates = json.loads(scaling_page.RESULTS.read_text())["rates"]
    page = scaling_page.PAGE.read_text()
    assert page == scaling_page.written(page, rates)


def test_simulated_consumers_add_up_until_claims_take_all_the_time() -> None:
    def rate(consumers: int) -> float:
        return scaling.simulate(consumers, 100, turn=0.001, settle=0.001, handle=0.098)

    assert rate(1) < 1_100  # 100 messages in 0.1 seconds
    assert 7 < rate(8) / rate(1) < 8.5
    assert 85_000 < rate(1_000) <= 105_000  # 100 messages a turn of a millisecond
