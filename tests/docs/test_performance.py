"""The tables of docs/performance.md are those of the results, and figures of other pages too."""

from __future__ import annotations

import json
import re

from benchmarks import performance_page
from tests.docs.pages import CHECKOUT


def test_the_page_has_the_figures_of_the_results() -> None:
    """If not: `python benchmarks/performance_page.py`."""
    page = performance_page.PAGE.read_text()
    assert page == performance_page.written(page)


def figures(name: str) -> dict[str, float]:
    report = json.loads((CHECKOUT / "benchmarks" / "results" / f"{name}.json").read_text())
    return {each["name"]: each["median"] for each in report["figures"]}


def test_what_streams_cost() -> None:
    """If not: write the figures of streams.json into the page."""
    page = (CHECKOUT / "docs" / "streams.md").read_text()
    found = figures("streams")
    assert found["of what was published, arrived"] == 1
    assert found["clients that were disconnected"] == 0
    for text, names in {
        "{:.0f} ms in the median, {:.0f} ms": ("delay, median", "delay, 99th percentile"),
        "{:.2f} of a core": ("cores that the server used",),
        "{:.0f} MB without clients, {:.0f} MB at most: {:.0f} kB a client": (
            "memory without clients", "memory at most", "memory a client",
        ),
        "connections to the database | {:.0f} |": ("connections to the database",),
        "{:.1f} a message": ("statements on the database, a message",),
    }.items():  # fmt: skip
        assert text.format(*(found[name] for name in names)) in page


def test_pages_of_the_dashboard_are_fast() -> None:
    """Each as measured with 10,000,000 messages; the look behind them has the page's figure."""
    found = figures("web")
    look = found.pop("the first look after it")
    assert f"{look:.0f} seconds on one connection" in re.sub(
        r"\s+", " ", (CHECKOUT / "docs" / "dashboard.md").read_text()
    )
    assert len(found) > 20
    assert max(found.values()) <= 0.5
