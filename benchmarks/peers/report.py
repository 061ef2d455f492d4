"""The report of a run: a line per measurement, JSON, and the tables of docs/performance.md."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
MARKS = ("<!-- peers: python benchmarks/peers/run.py --table -->\n", "<!-- end of peers -->\n")
OURS = "durable_notify"
BUSY = 0.1
WIDTH = 106
#: By peer, its name, what a table adds to it, and whether it runs on PostgreSQL.
NAMES = {
    "durable_notify": ("**durable_notify**", "", True),
    "bare-notify": ("a hand-written NOTIFY and SELECT", "", True),
    "pgqueuer-psycopg": ("PgQueuer on psycopg", "", True),
    "pgqueuer-asyncpg": ("PgQueuer on asyncpg", "", True),
    "procrastinate": ("Procrastinate", "", True),
    "pgmq": ("PGMQ", "", True),
    "river": ("River", ", in Go", True),
    "pg-boss": ("pg-boss", ", in JavaScript", True),
    "graphile-worker": ("Graphile Worker", ", in JavaScript", True),
    "faststream-outbox": ("faststream-outbox", "", True),
    "rabbitmq-classic": ("RabbitMQ", ", classic queue", False),
    "rabbitmq-quorum": ("RabbitMQ with a quorum queue", "", False),
    "nats": ("NATS JetStream without sync", "", False),
    "nats-sync": ("NATS JetStream", ", `sync_interval: always`", False),
    "redis": ("Redis Streams", ", `appendfsync always`", False),
}
#: By measure, its title and what it does.
TITLES = {
    "publish_single": ("Publishing one at a time", "one client waits for each commit"),
    "publish_batch": ("Publishing in batches", "1,000 messages a batch, one client"),
    "consume": ("Consuming", "a backlog through a no-op handler in one process"),
    "consume4": ("Consuming in four processes", "the same in four processes of one group"),
    "consume_await": (
        "Consuming with handlers that wait",
        "one process, each handler sleeps 1 ms, 100 at once",
    ),
    "wake": ("Waking", "an idle consumer, from before the commit is sent to its handler"),
}
MEANING = (
    "Choose by what you need before you choose by speed: durable_notify keeps each message for any"
    " number of groups, and the order of a key, which most of the others do not."
)
RATE_COLUMNS = ("", "messages a second", "lowest to highest", "ours, of it")
WAKE_COLUMNS = ("", "median, ms", "lowest to highest", "99 %, ms", "since confirmed, ms", "lost",
                "ours, of it")  # fmt: skip

Round = dict[str, Any]
ByPeer = dict[str, list[Round]]


def keep(rounds: list[Round], about: dict[str, Any]) -> None:
    """Write a line per round. Only a run of all measures and all peers is kept."""
    name = "peers.json" if about["options"]["flush"] is None else "peers-flush.json"
    lines = ",\n    ".join(json.dumps(each) for each in rounds)
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
        sent, confirmed = (sorted(taken[name]) for name in ("since_sent", "since_confirmed"))
        said = (
            f"since sent {statistics.median(sent):,.0f} us, longest {sent[-1]:,};"
            f" since confirmed {statistics.median(confirmed):,.0f} us"
        )
        if taken["lost"]:
            said += f"; {taken['lost']} did not arrive"
    if taken.get("again"):
        said += f"; {taken['again']} were redelivered"
    if taken["busy_before"] > BUSY:
        said += f"; the machine was busy before ({taken['busy_before']:.0%})"
    return start + said


def table(measure: str, rounds: list[Round]) -> str:
    """Return the table of a measure, the best first."""
    found = by_peer(measure, rounds)
    ours = found.get(OURS, [])
    columns, row_of = (WAKE_COLUMNS, wake_row) if measure == "wake" else (RATE_COLUMNS, rate_row)
    rows = [columns, *(row_of(peer, found[peer], ours) for peer in ranked(measure, found))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = [
        "| " + " | ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ) + " |"
        for row in rows
    ]  # fmt: skip
    failed = {
        each["peer"]: each["error"]
        for each in rounds
        if each["measure"] == measure and "error" in each
    }
    lines += [f"\n{label(peer)} failed: {error}" for peer, error in failed.items()]
    return "\n".join(lines) + "\n"


def label(peer: str) -> str:
    """Return what a table calls it."""
    return "".join(NAMES[peer][:2])


def by_peer(measure: str, rounds: list[Round]) -> ByPeer:
    found: ByPeer = {}
    for each in rounds:
        if each["measure"] == measure and "error" not in each:
            found.setdefault(each["peer"], []).append(each)
    return found


def ranked(measure: str, found: ByPeer) -> list[str]:
    """Return the peers, the best first."""
    figure = figure_of(measure)
    return sorted(found, key=lambda peer: middle(found[peer], figure), reverse=measure != "wake")


def rate_row(peer: str, taken: list[Round], ours: list[Round]) -> Sequence[str]:
    rates = [each["rate"] for each in taken]
    return [
        label(peer),
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        "" if peer == OURS else f"{ratio(taken, ours, figure_of('consume')):.2f}",
    ]


def wake_row(peer: str, taken: list[Round], ours: list[Round]) -> Sequence[str]:
    """Return medians of the rounds; the 99th percentile is of the messages of all rounds."""
    middles = [since_sent(each) for each in taken]
    every = [value for each in taken for value in each["since_sent"]]
    confirmed = [statistics.median(each["since_confirmed"]) for each in taken]
    return [
        label(peer),
        f"{statistics.median(middles) / 1000:.2f}",
        f"{min(middles) / 1000:.2f} to {max(middles) / 1000:.2f}",
        f"{statistics.quantiles(every, n=100, method='inclusive')[98] / 1000:.2f}",
        f"{statistics.median(confirmed) / 1000:.2f}",
        str(sum(each["lost"] for each in taken)),
        "" if peer == OURS else f"{ratio(taken, ours, since_sent):.2f}",
    ]


def ratio(taken: list[Round], ours: list[Round], figure: Callable[[Round], float]) -> float:
    """Return the median of the ratios of rounds that both have."""
    by_round = {each["round"]: figure(each) for each in ours}
    ratios = [by_round[each["round"]] / figure(each) for each in taken if each["round"] in by_round]
    return statistics.median(ratios) if ratios else float("nan")


def middle(taken: list[Round], figure: Callable[[Round], float]) -> float:
    return statistics.median(map(figure, taken))


def since_sent(each: Round) -> float:
    """Return the median of a round, in microseconds."""
    return float(statistics.median(each["since_sent"]))


def figure_of(measure: str) -> Callable[[Round], float]:
    return since_sent if measure == "wake" else lambda each: float(each["rate"])


def better(measure: str, found: ByPeer) -> list[str]:
    """Return those that do better than durable_notify by more than a twentieth, the best first."""
    ours, figure = found.get(OURS, []), figure_of(measure)
    if measure == "wake":
        return [peer for peer in ranked(measure, found) if ratio(found[peer], ours, figure) > 1.05]
    return [peer for peer in ranked(measure, found) if ratio(found[peer], ours, figure) < 0.95]


def conclusion(rounds: list[Round]) -> str:
    """Return what does better than durable_notify: a sentence on PostgreSQL, one on the others."""
    sentences = []
    for where, on_postgres in (("On PostgreSQL", True), ("Of the separate servers", False)):
        ahead = []
        for measure, (title, _) in TITLES.items():
            found = by_peer(measure, rounds)
            there = {peer for peer in found if peer != OURS and NAMES[peer][2] == on_postgres}
            peers = [peer for peer in better(measure, found) if peer in there]
            if peers:
                names = [NAMES[peer][0] for peer in peers]
                who = "all of them" if len(peers) == len(there) > 1 else listed(names)
                ahead.append(f"{title.lower()} ({who})")
        if ahead:
            sentences.append(f"{where}, others are faster at {'; '.join(ahead)}; at nothing else.")
        else:
            sentences.append(f"{where}, nothing is faster at any of these.")
    return " ".join(sentences)


def listed(names: list[str]) -> str:
    return " and ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])


def section(results: dict[str, Any]) -> str:
    """Return the part of docs/performance.md between the marks."""
    about, rounds = results["about"], results["rounds"]
    there = [measure for measure in TITLES if by_peer(measure, rounds)]
    parts = [textwrap.fill(f"{conclusion(rounds)} {MEANING}", WIDTH)]
    for measure in there:
        title, what = TITLES[measure]
        parts.append(f"### {title}\n\n{title}: {what}.\n\n{table(measure, rounds)}")
    busy = [each["busy_before"] for each in rounds if "busy_before" in each]
    disturbed = sum(each > BUSY for each in busy)
    parts.append(
        f"Rounds: {about['options']['rounds']}, on {about['cores']} cores, {about['at'][:10]}."
        f" Other work was seen before {disturbed} of {len(busy)} measurements."
    )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def show_on_page() -> None:
    """Put the saved results into the page."""
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    results = json.loads((RESULTS / "peers.json").read_text())
    PAGE.write_text(before + MARKS[0] + "\n" + section(results) + "\n" + MARKS[1] + after)
