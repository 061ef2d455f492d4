"""Draw the results: ``python benchmarks/charts.py`` (needs ``pip install matplotlib``).

Reads ``benchmarks/results/*.json`` and writes ``docs/images/*.svg``: medians, with a line from the
lowest to the highest round.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

sys.path[0] = str(Path(__file__).resolve().parents[1])  # in place of this folder

from benchmarks.peers.report import by_peer, ranked  # noqa: E402

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "durable_notify"  # the same figures give the same file

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
OURS = "#2f6fab"
OTHERS = "#b9c2cc"
VARIANTS = ("plain", "ours, no consumer", "ours", "plain, read beside", "row NOTIFY")
COLOURS = ("#7f8a96", "#7fb2dd", OURS, OTHERS, "#d98c5f")


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def save(figure: Any, name: str) -> None:
    figure.savefig(IMAGES / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def publishing(name: str, title: str) -> None:
    """Draw rates of publishing, by number of clients."""
    rates = load(name)["rates"]
    clients = sorted({int(key.rsplit("/", 1)[1]) for key in rates})
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for number, (variant, colour) in enumerate(zip(VARIANTS, COLOURS, strict=True)):
        rounds = [rates[f"{variant}/{client}"]["rate"] for client in clients]
        middles = [each["median"] for each in rounds]
        places = [place + (number - 2) * 0.16 for place in range(len(clients))]
        ends = [
            [each["median"] - each["lowest"] for each in rounds],
            [each["highest"] - each["median"] for each in rounds],
        ]
        axes.bar(places, middles, 0.15, label=variant, color=colour, yerr=ends, ecolor="#555")
    axes.set_xticks(range(len(clients)), [f"{client} clients" for client in clients])
    axes.set_ylabel("transactions a second")
    axes.set_title(title)
    axes.legend(fontsize=8)
    save(figure, name)


def peers(measure: str, title: str) -> None:
    """Draw the rates of ours and the peers, the best on top."""
    found = by_peer(measure, load("peers")["rounds"])
    rates = {
        peer: [each["rate"] for each in found[peer]] for peer in reversed(ranked(measure, found))
    }
    middles = [statistics.median(each) for each in rates.values()]
    ends = [
        [middle - min(each) for middle, each in zip(middles, rates.values(), strict=True)],
        [max(each) - middle for middle, each in zip(middles, rates.values(), strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(rates) + 1))
    colours = [OURS if peer == "durable_notify" else OTHERS for peer in rates]
    axes.barh(list(rates), middles, color=colours, xerr=ends, ecolor="#555")
    axes.set_xlabel("messages a second")
    axes.set_title(title)
    save(figure, f"peers-{measure}")


def main() -> None:
    publishing("publishing", "Publishing, one row a transaction")
    publishing("flush", "The same with a flush of 1.5 ms")
    peers("consume", "Consuming, message by message, acknowledged durably")


if __name__ == "__main__":
    main()
