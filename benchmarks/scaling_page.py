"""Write the tables of ``docs/scaling.md`` from ``results/scaling.json``: run this file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
RESULTS = Path(__file__).parent / "results" / "scaling.json"


#: Tables with a row for each value: the figures' name, the head of the first column, and for each
#: other column its name, the path of a figure, and its unit.
BY: dict[str, tuple[str, str, list[tuple[str, str, float]]]] = {
    "sizes": ("sizes", "bytes of payload", [
        ("published alone, µs", "alone/cpu", 1), ("published in bulk, µs", "bulk/cpu", 1),
        ("delivered, µs", "deliver/cpu", 1),
    ]),
    "bytes": ("sizes", "bytes of payload", [
        ("on disk", "disk/bytes", 1), ("WAL, published alone", "alone/wal", 1),
        ("WAL, published in bulk", "bulk/wal", 1), ("WAL, delivered", "deliver/wal", 1),
    ]),
    "groups": ("groups", "groups", [
        ("published alone, µs", "publish/cpu", 1), ("delivered to one, µs", "deliver/cpu", 1),
    ]),
    "topics": ("topics", "topics", [
        ("published alone, µs", "alone/cpu", 1), ("delivered, µs", "deliver/cpu", 1),
        ("a claim of all in vain, ms", "empty/cpu", 1e3),
        ("of one in vain, ms", "empty one/cpu", 1e3),
    ]),
    "keys": ("keys", "keys", [
        ("published in bulk, µs", "publish/cpu", 1), ("delivered, µs", "deliver/cpu", 1),
    ]),
    "batches": ("batches", "messages a claim", [("delivered, µs", "deliver/cpu", 1)]),
    "retained": ("retained", "messages retained", [
        ("published alone, µs", "alone/cpu", 1), ("delivered, µs", "deliver/cpu", 1),
    ]),
    "consumers": ("consumers", "consumers", [("messages a second", "rate", 1)]),
    "memory": ("memory", "topics", [
        ("the consumer's process, MB", "process", 1),
        ("its listening session, MB", "listener", 1),
        ("its other sessions, MB", "sessions", 1),
    ]),
}  # fmt: skip


def tables(rates: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page, of the results file's rates."""
    python = {where: _middle(rates, "python", name)
              for name, where in (("python", "process"), ("backends", "database"))}  # fmt: skip
    simulated = rates["simulated"]
    numbers = [int(number) for number in next(iter(simulated.values()))]
    heads = [f"{number:,} consumer{'s' * (number != 1)}" for number in numbers]
    return {name: _by(rates, *what) for name, what in BY.items()} | {
        "example": _table(("an example", ""), _example(rates)),
        "python": _table(
            ("processor time of a message in `run()`", "µs"),
            {f"in the {where}": (figure,) for where, figure in python.items()},
        ),
        "simulated": _table(
            ("a message is handled in", *heads),
            {handled: tuple(of_it.values()) for handled, of_it in simulated.items()},
        ),
    }


def _middle(rates: Any, *names: str) -> float:
    for name in names:
        rates = rates[name]
    return float(rates["median"])


def _table(heads: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> str:
    lines = ["| " + " | ".join(heads).rstrip() + " |", "|---" * len(heads) + "|"]
    if heads[-1] == "":
        lines[0] = f"| {heads[0]} | |"
    lines += [f"| {name} | " + " | ".join(map(shown, row)) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def _by(rates: dict[str, Any], what: str, head: str, columns: list[tuple[str, str, float]]) -> str:
    rows = {}
    for value in rates[what]:
        label = "none" if value == "None" else f"{int(value):,}"
        rows[label] = tuple(
            _middle(rates, what, value, *path.split("/")) / unit for _, path, unit in columns
        )
    return _table((head, *(name for name, _, _ in columns)), rows)


def _example(rates: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    alone, wal, disk = (
        _middle(rates, "sizes", "1000", *path)
        for path in (("alone", "cpu"), ("alone", "wal"), ("disk", "bytes"))
    )
    few_a_claim = _middle(rates, "batches", "10", "deliver", "cpu")
    return {
        "cores of the database": ((1_000 * alone + 3_000 * few_a_claim) / 1e6,),
        "cores of all consumers, without the handlers' own": (
            3_000 * _middle(rates, "python", "python") / 1e6,
        ),
        "GB of disk for messages": (1_000 * 86_400 * disk / 1e9,),
        "MB of WAL a second": (1_000 * wal / 1e6,),
    }


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
