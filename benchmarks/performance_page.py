"""Write the tables of ``docs/performance.md`` from the files of ``results``: run this file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
RESULTS = Path(__file__).parent / "results"


class Table(NamedTuple):
    """A table of figures: a column's beginning and a row's end are the name of one."""

    results: str
    head: str
    columns: dict[str, str]
    rows: dict[str, str]
    target: bool = True


CLIENTS = {"1 client": "1 client: ", "8": "8 clients: ", "32": "32 clients: ", "64": "64 clients: "}
PUBLISHING = {
    "ours, no consumer": "no consumer, of plain",
    "ours, 21 consumers asleep on other topics": "consumers asleep on others, of plain",
    "ours, a consumer beside": "consumer beside, of plain",
    "the same, of plain with a reader beside": "consumer beside, of plain with a reader beside",
    "the same table and indexes, no trigger": "no trigger, of plain",
    "ours, no consumer, of that": "no consumer, of no trigger",
    "a NOTIFY for each row": "a row NOTIFY, of plain",
    "control: plain again": "plain again, of plain",
    "NOTIFYs per 1,000 messages": "NOTIFYs per 1,000 messages",
}
MEASURED = {"measured": ""}
TABLES = {
    "publishing": Table("publishing", "of plain", CLIENTS, PUBLISHING),
    "flush": Table(
        "flush", "of plain, flush of 1.5 ms", {"8 clients": "8 clients: ", "32": "32 clients: "},
        PUBLISHING,
    ),
    "bulk": Table(
        "bulk", "10,000 rows in one statement, of plain", MEASURED,
        {
            "ours, a consumer asleep": "10,000 rows in one statement, of plain",
            "the same table and indexes, no trigger": "no trigger, of plain",
            "control: plain again": "plain again, of plain",
            "rings of the statement": "rings of a statement",
            "rings of the consumer": "rings of the consumer, which frees keys meanwhile",
        },
    ),
    "waking": Table(
        "waking", "of bare", {"median": "50th percentile", "99th percentile": "99th percentile"},
        {name: name + ": idle wake-up, {}, of bare" for name in ("ours", "control")},
    ),
    "consuming": Table(
        "consuming", "of a paged SELECT", MEASURED,
        {
            "control: the SELECT once more": "control: the paged SELECT once more",
            "claim and settle in a loop by hand": (
                "floor: claim and settle in a loop by hand, of a paged SELECT"
            ),
            "the same, in order by 1,000 keys": "the same with keys",
            "`AsyncConsumer.run`": "AsyncConsumer.run, of a paged SELECT",
            "`Consumer.run`": "Consumer.run, of a paged SELECT",
            "`AsyncConsumer.run`, in order by 1,000 keys": (
                "AsyncConsumer.run in order by 1,000 keys, of a paged SELECT"
            ),
            "the same, by 100 keys": "AsyncConsumer.run in order by 100 keys, of a paged SELECT",
        },
    ),
    "concurrency": Table(
        "consuming", "messages a second", MEASURED,
        {name: name for name in (
            "concurrency 10, of concurrency 1", "concurrency 100, of concurrency 1",
            "four processes of a group, of one",
        )},
    ),
    "timeline": Table(
        "timeline", "until",
        {"`AsyncConsumer`": "async: ", "`Consumer`": "sync: ", "bare": "bare: "},
        {
            "the notification is read": "heard", "the claim, or the SELECT, begins": "claim begun",
            "it is answered": "claim answered", "the handler begins": "handler", "in total": "all",
        },
        target=False,
    ),
    "claiming": Table(
        "claiming", "processor time of a backend", MEASURED,
        {name: f"CPU of a backend, {name}" for name in (
            "a SELECT of 1", "empty claim, order none", "claim of 1, order none",
            "settle of 1, order none", "claim of 1, order key", "claim of 100, plain, order none",
            "claim of 100, keyed, order key", "claim of 1, of 1,000 topics",
            "empty claim, of 1,000 topics",
        )},
        target=False,
    ),
    "status": Table(
        "status", "at most", {name: name for name in ("none read", "each stopped elsewhere")},
        {
            "`status()`": "status(), {}", "`durable-notify status`": "durable-notify status, {}",
            "a scrape of Prometheus": "a scrape, {}", "`durable-notify doctor`": "doctor, {}",
        },
    ),
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    """Return the figures of a results file by their names."""
    figures = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
    return {figure["name"]: figure for figure in figures}


def text(table: Table) -> str:
    """Return a table, as Markdown."""
    figures = load(table.results)
    heads = [table.head, *table.columns, *(["target"] if table.target else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row, end in table.rows.items():
        names = [
            end.format(column) if "{}" in end else column + end for column in table.columns.values()
        ]
        found = [figures[name] for name in names if name in figures]
        if not found:
            continue
        cells = [cell(figures[name]) if name in figures else "" for name in names]
        if table.target:
            targets = [figure["target"].removeprefix(">= ").removeprefix("<= ") for figure in found]
            cells.append(", ".join(dict.fromkeys(targets)))
        lines.append("| " + " | ".join([row, *cells]).rstrip() + " |")
    return "\n".join(lines)


def cell(figure: dict[str, Any]) -> str:
    """Return a figure with the spread of its rounds."""
    unit = f" {figure['unit']}" if figure["unit"] else ""
    digits = 1 if figure["median"] >= 10 else 2
    middle, low, high = (f"{figure[name]:.{digits}f}" for name in ("median", "lowest", "highest"))
    return f"{middle}{unit} ({low} to {high})" if low != high else f"{middle}{unit}"


def written(page: str) -> str:
    """Return the page with its tables replaced by those of the results."""
    for name, table in TABLES.items():
        place = re.compile(rf"(?<=<!-- figures: {name} -->\n\n)\|.*?\|\n(?=\n)", re.DOTALL)
        lines = f"{text(table)}\n"
        page, times = place.subn(lines.replace("\\", r"\\"), page)
        assert times == 1, f"the page has {times} places for {name}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
