"""Write the tables of ``docs/scaling.md`` from ``results/scaling.json``: run this file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
RESULTS = Path(__file__).parent / "results" / "scaling.json"


def tables(rates: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page, of the results file's rates."""

    def middle(*names: str) -> float:
        found: Any = rates
        for name in names:
            found = found[name]
        return float(found["median"])

    def by(what: str, head: str, *columns: tuple[str, str, float]) -> str:
        """A row for each value; a column: its name, the path of a figure, and its unit."""
        rows = [f"| {head} | " + " | ".join(name for name, _, _ in columns) + " |"]
        rows.append("|---" * (len(columns) + 1) + "|")
        for value in rates[what]:
            figures = (middle(what, value, *path.split("/")) / unit for _, path, unit in columns)
            label = "none" if value == "None" else f"{int(value):,}"
            rows.append(f"| {label} | " + " | ".join(map(shown, figures)) + " |")
        return "\n".join(rows)

    python = ("python", "process"), ("backends", "database")
    simulated_rows = [
        f"| {handled} | " + " | ".join(f"{shown(rate)}" for rate in of_it.values()) + " |"
        for handled, of_it in rates["simulated"].items()
    ]
    alone, wal, disk = (
        middle("sizes", "1000", *path)
        for path in (("alone", "cpu"), ("alone", "wal"), ("disk", "bytes"))
    )
    few_a_claim, python_cpu = middle("batches", "10", "deliver", "cpu"), middle("python", "python")
    example = {
        "cores of the database": (1_000 * alone + 3_000 * few_a_claim) / 1e6,
        "cores of all consumers, without the handlers' own": 3_000 * python_cpu / 1e6,
        "GB of disk for messages": 1_000 * 86_400 * disk / 1e9,
        "MB of WAL a second": 1_000 * wal / 1e6,
    }
    return {
        "example": "\n".join([
            "| an example | |", "|---|---|",
            *(f"| {name} | {shown(figure)} |" for name, figure in example.items()),
        ]),
        "sizes": by(
            "sizes", "bytes of payload",
            ("published alone, µs", "alone/cpu", 1), ("published in bulk, µs", "bulk/cpu", 1),
            ("delivered, µs", "deliver/cpu", 1),
        ),
        "bytes": by(
            "sizes", "bytes of payload",
            ("on disk", "disk/bytes", 1), ("WAL, published alone", "alone/wal", 1),
            ("WAL, published in bulk", "bulk/wal", 1), ("WAL, delivered", "deliver/wal", 1),
        ),
        "groups": by(
            "groups", "groups",
            ("published alone, µs", "publish/cpu", 1), ("delivered to one, µs", "deliver/cpu", 1),
        ),
        "topics": by(
            "topics", "topics",
            ("published alone, µs", "alone/cpu", 1), ("delivered, µs", "deliver/cpu", 1),
            ("a claim of all in vain, ms", "empty/cpu", 1e3),
            ("of one in vain, ms", "empty one/cpu", 1e3),
        ),
        "keys": by(
            "keys", "keys",
            ("published in bulk, µs", "publish/cpu", 1), ("delivered, µs", "deliver/cpu", 1),
        ),
        "batches": by("batches", "messages a claim", ("delivered, µs", "deliver/cpu", 1)),
        "retained": by(
            "retained", "messages retained",
            ("published alone, µs", "alone/cpu", 1), ("delivered, µs", "deliver/cpu", 1),
        ),
        "consumers": by("consumers", "consumers", ("messages a second", "rate", 1)),
        "python": "\n".join([
            "| processor time of a message in `run()` | µs |", "|---|---|",
            *(f"| in the {where} | {shown(middle('python', name))} |" for name, where in python),
        ]),
        "memory": by(
            "memory", "topics",
            ("the consumer's process, MB", "process", 1),
            ("its listening session, MB", "listener", 1),
            ("its other sessions, MB", "sessions", 1),
        ),
        "simulated": "\n".join([
            "| a message is handled in | " + " | ".join(
                f"{int(n):,} consumers" if n != "1" else "1 consumer"
                for n in next(iter(rates["simulated"].values()))
            ) + " |",
            "|---|---|---|---|---|", *simulated_rows,
        ]),
    }  # fmt: skip


def shown(figure: float) -> str:
    """Return two significant digits, or whole numbers."""
    return f"{figure:.2g}" if figure < 10 else f"{float(f'{figure:.3g}'):,.0f}"


def written(page: str, rates: dict[str, Any]) -> str:
    """Return a page with its tables replaced by those of the results."""
    for name, table in tables(rates).items():
        place = re.compile(rf"(?<=<!-- scaling: {name} -->\n\n)\|.*?\|\n(?=\n)", re.DOTALL)
        page, times = place.subn(f"{table}\n", page)
        assert times == 1, f"the page has {times} places for {name}"
    return page


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text())["rates"]
    PAGE.write_text(written(PAGE.read_text(), results))
