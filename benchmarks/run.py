"""Run the benchmarks: ``python benchmarks/run.py [--short] [consuming] [retained] [groups]``.

Each starts a PostgreSQL of its own, measures what it compares in turn, prints medians and spread,
and keeps every round in ``benchmarks/results/NAME.json``. ``--short`` is for seeing that they run.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import consuming, groups, retained

BENCHMARKS = {
    "consuming": (consuming.main, {"messages": 5_000, "rounds": 2}),
    "retained": (retained.main, {"many": 20_000, "rounds": 2, "claims": 20}),
    "groups": (groups.main, {"messages": 2_000, "rounds": 2}),
}


def main() -> None:
    words = sys.argv[1:]
    short = "--short" in words
    wanted = [word for word in words if word != "--short"] or list(BENCHMARKS)
    if unknown := set(wanted) - BENCHMARKS.keys():
        sys.exit(f"no such benchmark: {sorted(unknown)}\n\n{__doc__}")
    for name in wanted:
        function, little = BENCHMARKS[name]
        function(**(little if short else {}))


if __name__ == "__main__":
    main()
