"""Run the benchmarks: ``python benchmarks/run.py [--short] [NAME]...``

Each starts a PostgreSQL of its own, measures what it compares in turn, prints medians and spread,
and keeps every round in ``benchmarks/results/NAME.json``. ``--short`` is for seeing that they run.
Those of ``durable-notify bench`` are among them. The peers have a program of their own, see
``benchmarks/peers``; ``benchmarks/charts.py`` draws what was kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import groups, held, listeners, retained, retention
from benchmarks.common import RESULTS
from durable_notify.bench import MEASUREMENTS
from durable_notify.bench.harness import FLUSH
from durable_notify.bench.publishing import measure as publishing


def flush(**options: object) -> object:
    """Publishing with a flush of 1.5 ms, which stands for a real disk."""
    return publishing(**{"clients": (8, 32), "name": "flush", **FLUSH, **options})  # type: ignore[arg-type]


BENCHMARKS = MEASUREMENTS | {
    "flush": (flush, {"clients": (8,), "rounds": 1, "seconds": 1}),
    "listeners": (listeners.measure, {"processes": 2, "rounds": 1, "seconds": 1}),
    "retained": (retained.measure, {"many": 20_000, "rounds": 2, "claims": 20}),
    "backlog": (retained.backlog, {"many": 20_000, "rounds": 2, "claims": 20}),
    "groups": (groups.measure, {"messages": 2_000, "rounds": 2}),
    "open": (held.open_writers, {"rounds": 1, "messages": 20}),
    "held_xmin": (held.xmin, {"seconds": 4, "part": 2}),
    "retention": (retention.measure, {"messages": 200_000, "before_seconds": 3}),
}


def main() -> None:
    words = sys.argv[1:]
    short = "--short" in words
    wanted = [word for word in words if word != "--short"] or list(BENCHMARKS)
    if unknown := set(wanted) - BENCHMARKS.keys():
        sys.exit(f"no such benchmark: {sorted(unknown)}\n\n{__doc__}")
    for name in wanted:
        function, little = BENCHMARKS[name]
        report = function(**(little if short else {}))
        for figure in report.figures:
            spread = f"{min(figure.rounds):.3f} to {max(figure.rounds):.3f}"
            wanted_is = f"; wanted {figure.target}" if figure.target else ""
            unit = f" {figure.unit}" if figure.unit else ""
            print(
                f"{name}: {figure.name}: {figure.median:.3f}{unit} ({spread}{wanted_is})",
                flush=True,
            )
        if not short:
            report.save(RESULTS)


if __name__ == "__main__":
    main()
