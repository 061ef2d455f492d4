"""The report of a run: a line per measurement, a table per measure, and JSON."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parents[1] / "results"
OURS = "durable_notify"
BUSY = 0.1
RATE_COLUMNS = ("messages/s", "min to max", "ours : it")
WAKE_COLUMNS = (
    "ms since sent", "min to max", "p99",
    "ms since confirmed", "min to max", "p99", "lost", "ours : it",
)  # fmt: skip

Round = dict[str, Any]


def keep(rounds: list[Round], about: dict[str, Any]) -> None:
    """Write a line per round, without the samples of its messages; a short run is not kept."""
    options = about["options"]
    if options["short"]:
        return
    RESULTS.mkdir(exist_ok=True)
    name = "peers.json" if options["flush"] is None else "peers-flush.json"
    figures = [{k: v for k, v in each.items() if not k.startswith("all_")} for each in rounds]
    lines = ",\n    ".join(json.dumps(each) for each in figures)
    head = json.dumps(about, indent=2).replace("\n", "\n  ")
    (RESULTS / name).write_text(f'{{\n  "about": {head},\n  "rounds": [\n    {lines}\n  ]\n}}\n')


def line(taken: Round) -> str:
    """Return the line of one measurement."""
    start = f"{taken['measure']} {taken['round']} {taken['peer']}: "
    if "error" in taken:
        return f"{start}failed: {taken['error']}"
    if "rate" in taken:
        said = f"{taken['rate']:,.0f}/s ({taken['messages']:,} in {taken['seconds']:.1f} s)"
    else:
        sent, confirmed = taken["since_sent"], taken["since_confirmed"]
        said = (
            f"since sent {sent['p50']:,.0f} us, p99 {sent['p99']:,.0f};"
            f" since confirmed {confirmed['p50']:,.0f} us, p99 {confirmed['p99']:,.0f}"
        )
        if taken["lost"]:
            said += f"; {taken['lost']} did not arrive"
    if taken.get("again"):
        said += f"; {taken['again']} were redelivered"
    if taken["busy_before"] > BUSY:
        said += f"; the machine was busy before ({taken['busy_before']:.0%})"
    return start + said


def show(measure: str, rounds: list[Round]) -> None:
    """Print the table of a measure, the best first."""
    good: dict[str, list[Round]] = {}
    for each in rounds:
        if "error" not in each:
            good.setdefault(each["peer"], []).append(each)
    ours = good.get(OURS, [])
    waking = measure == "wake"
    table = Table(title=measure, title_justify="left")
    for name in ("peer", *(WAKE_COLUMNS if waking else RATE_COLUMNS)):
        table.add_column(name, justify="left" if name == "peer" else "right")
    order = (lambda item: middle(item[1], p50)) if waking else (lambda item: -middle(item[1], rate))
    for name, taken in sorted(good.items(), key=order):
        table.add_row(name, *(wake_row if waking else rate_row)(taken, ours))
    for name in sorted({each["peer"] for each in rounds} - good.keys()):
        table.add_row(name, "failed")
    console = Console(width=None if Console().is_terminal else 110)
    console.print(table)
    for each in rounds:
        if "error" in each:
            console.print(f"{each['peer']} failed: {each['error']}", markup=False)
    if any(each.get("busy_before", 0) > BUSY for each in rounds):
        console.print("The machine was busy with something else: do not trust these figures.")


def rate_row(taken: list[Round], ours: list[Round]) -> list[str]:
    """Return the columns of messages a second."""
    rates = [rate(each) for each in taken]
    return [
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        ratio(taken, ours, rate),
    ]


def wake_row(taken: list[Round], ours: list[Round]) -> list[str]:
    """Return medians of the rounds; the 99th percentile is of the messages of all rounds."""
    cells = []
    for name in ("since_sent", "since_confirmed"):
        middles = [each[name]["p50"] for each in taken]
        every = sorted(value for each in taken for value in each[f"all_{name}"])
        cells += [
            f"{statistics.median(middles) / 1000:.2f}",
            f"{min(middles) / 1000:.2f} to {max(middles) / 1000:.2f}",
            f"{statistics.quantiles(every, n=100, method='inclusive')[98] / 1000:.2f}",
        ]
    return [*cells, str(sum(each["lost"] for each in taken)), ratio(taken, ours, p50)]


def ratio(taken: list[Round], ours: list[Round], figure: Any) -> str:
    """Return the median of the ratios of rounds that both have."""
    by_round = {each["round"]: figure(each) for each in ours}
    ratios = [by_round[each["round"]] / figure(each) for each in taken if each["round"] in by_round]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


def middle(taken: list[Round], figure: Any) -> float:
    return statistics.median(figure(each) for each in taken)


def rate(each: Round) -> float:
    return float(each["rate"])


def p50(each: Round) -> float:
    return float(each["since_sent"]["p50"])
