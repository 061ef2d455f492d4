"""Run the benchmarks: ``python benchmarks/run.py [--short] [NAME]...``

Each starts a PostgreSQL of its own with fsync and synchronous_commit on, and measures what it
compares in turn. It prints medians and spread, and writes them to ``benchmarks/results/NAME.json``.
``--short`` only shows that they run, and writes nothing. The peers have a program of their own, see
``benchmarks/peers``; ``benchmarks/charts.py`` draws the results.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import (
    backlog,
    claiming,
    consuming,
    handlers,
    held,
    listeners,
    publishing,
    retention,
    scale_status,
    scaling,
    streams,
    timeline,
    waking,
    web,
)  # fmt: skip
from benchmarks.harness import FLUSH, Report


def flush(**options: object) -> Report:
    """Measure publishing with a flush of 1.5 ms, which simulates a real disk."""
    given = {"clients": (8, 32), "name": "flush", **FLUSH, **options}
    return publishing.measure(**given)  # type: ignore[arg-type]


#: By name: the measurement, and its arguments for --short.
BENCHMARKS = {
    "publishing": (publishing.measure, {"clients": (1, 8), "rounds": 1, "seconds": 1}),
    "bulk": (publishing.measure_bulk, {"rounds": 3, "rows": 1_000}),
    "waking": (waking.measure, {"rounds": 1, "messages": 30}),
    "timeline": (timeline.measure, {"rounds": 1, "messages": 20}),
    "consuming": (consuming.measure, {"messages": 5_000, "rounds": 2}),
    "handlers": (handlers.measure, {"messages": 2_000, "rounds": 2}),
    "flush": (flush, {"clients": (8,), "rounds": 1, "seconds": 1}),
    "listeners": (listeners.measure, {"processes": 2, "rounds": 1, "seconds": 1}),
    "backlog": (backlog.measure, {"many": 20_000, "rounds": 2, "number": 20}),
    "claiming": (claiming.measure, {"times": 20, "rounds": 1, "topics": 50, "retained": 5_000}),
    "open": (held.open_writers, {"rounds": 1, "messages": 20}),
    "held_xmin": (held.xmin, {"seconds": 4, "part": 2}),
    "scaling": (scaling.measure, {"rounds": 1, "scale": 0.1, "retained": (1_000, 10_000)}),
    "status": (scale_status.measure, {"groups": 20, "topics": 50, "messages": 20_000, "rounds": 1}),
    "web": (
        web.measure,
        {"groups": 20, "topics": 50, "messages": 20_000, "dead": 1_000, "rounds": 1},
    ),
    "streams": (streams.measure, {"clients": 50, "seconds": 2}),
    "retention": (retention.measure, {"messages": 200_000, "before_seconds": 3}),
}


def main() -> None:
    words = sys.argv[1:]
    short = "--short" in words
    names = [word for word in words if word != "--short"] or list(BENCHMARKS)
    if unknown := set(names) - BENCHMARKS.keys():
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}\n\n{__doc__}")
    for name in names:
        measure, little = BENCHMARKS[name]
        report = measure(**(little if short else {}))
        report.print()
        if not short:
            report.save()


if __name__ == "__main__":
    main()
