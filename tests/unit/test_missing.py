"""The last line of a run: what was skipped, and what would run it."""

from tests.support.missing import sum_up


def test_nothing_was_skipped() -> None:
    assert sum_up([]) == "No test was skipped."


def test_packages_are_named_once() -> None:
    assert sum_up(
        [
            "no pgbouncer: apt-get install pgbouncer",
            "only root may mount a small disk",
            "no spin: apt-get install spin",
            "no pgbouncer: apt-get install pgbouncer",
            "no asyncpg: pip install asyncpg",
        ]
    ) == (
        "Skipped: 5 (2 no pgbouncer; 1 only root may mount a small disk; 1 no spin; "
        "1 no asyncpg). To run more: pip install asyncpg; apt-get install pgbouncer spin."
    )
