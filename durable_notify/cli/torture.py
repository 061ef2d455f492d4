"""``torture``: break everything under load, and prove from the history that nothing was lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import common, interruptible
from .tables import as_json, print_table, table_of

if TYPE_CHECKING:
    from ..torture.run import Report

__all__ = ["torture"]

#: How many findings are printed with their events.
SHOWN = 5


@click.command()
@common
@click.option(
    "--seconds", type=float, default=30.0, show_default=True, help="How long to break things."
)
@click.option("--seed", help="Repeat the decisions of a run; each run prints its seed.")
@click.option("--faults", metavar="NAME,...", help="Only these faults; --faults list lists them.")
@click.option(
    "--publishers", type=int, default=2, show_default=True, help="How many processes publish."
)
@click.option("--rate", type=float, default=40.0, show_default=True,
              help="Roughly how many transactions a second each publishes.")  # fmt: skip
@click.option("--bindir", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="The programs of the PostgreSQL to run; default: the embedded one.")  # fmt: skip
@click.option("--keep", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path),
              help="Save the recorded history, a file of JSON lines a process.")  # fmt: skip
@as_json
def torture(
    *, seconds: float, seed: str | None, faults: str | None, publishers: int, rate: float,
    bindir: Path | None, keep: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Break everything at random under load, and check from its history that nothing was lost.

    It uses a PostgreSQL of its own, and removes it afterwards. Publishers and consumers are
    processes, each behind a network of its own. It kills, stops, cuts off and restarts these and
    the server. At the end it drains all topics. Checkers look for messages that were lost, were
    never published, took effect twice, were out of order, or were redelivered after they were
    settled. If one finds something, it prints the part of the history that shows it, and the exit
    status is 1.
    """
    from ..torture.nemesis import FAULTS
    from ..torture.run import Plan
    from ..torture.run import torture as run

    if faults == "list":
        rows = ((name, " ".join((fault.__doc__ or "").split())) for name, fault in FAULTS.items())
        print_table(table_of(("fault", "what it does"), rows))
        return
    names = tuple(FAULTS) if faults is None else tuple(faults.split(","))
    seed = seed or str(random.SystemRandom().randrange(10**9))
    plan = Plan(seed, seconds, names, publishers, rate, bindir=bindir)
    click.echo(f"seed {seed}", err=True)
    with interruptible():
        report = run(plan, keep=keep, say=lambda words: click.echo(words, err=True))
    _print(report, as_json)
    if not report.verdict.good:
        raise SystemExit(1)


def _print(report: Report, as_json: bool) -> None:
    verdict = report.verdict
    if as_json:
        found = [{"checker": f.checker, "text": f.text} for f in verdict.findings]
        about = {"seed": report.plan.seed, "postgresql": report.postgresql, "good": verdict.good}
        click.echo(json.dumps(about | {"figures": verdict.figures, "findings": found}))
        return
    print_table(table_of(("", "messages"), verdict.figures.items()))
    for finding in verdict.findings[:SHOWN]:
        click.echo(f"{finding.checker}: {finding.text}")
        for event in finding.events:
            click.echo(f"  {event}")
    if len(verdict.findings) > SHOWN:
        click.echo(f"and {len(verdict.findings) - SHOWN} more")
    kept = "every promise was kept" if verdict.good else f"{len(verdict.findings)} promises broken"
    click.echo(f"PostgreSQL {report.postgresql}, seed {report.plan.seed}: {kept}")
