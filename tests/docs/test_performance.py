"""The tables of docs/performance.md are those of the results."""

from __future__ import annotations

from benchmarks import performance_page


def test_the_page_has_the_figures_of_the_results() -> None:
    """If not: `python benchmarks/performance_page.py`."""
    page = performance_page.PAGE.read_text()
    assert page == performance_page.written(page)
