"""``bench``: measure what this library costs."""

from __future__ import annotations

from pathlib import Path

import click

from .common import common, interruptible
from .tables import print_table, table_of

__all__ = ["bench"]


@click.command()
@common
@click.argument("names", metavar="[MEASUREMENT]...", nargs=-1)
@click.option("--short", is_flag=True, help="Only check that it runs; the figures mean little.")
@click.option("--json", "folder", metavar="FOLDER",
              type=click.Path(file_okay=False, path_type=Path),
              help="Save every round as JSON, one file a measurement.")  # fmt: skip
def bench(names: tuple[str, ...], short: bool, folder: Path | None) -> None:
    """Measure publishing, waking and consuming on this machine, beside the same work without us.

    It runs PostgreSQL servers of its own, with fsync and synchronous_commit on, and removes them
    afterwards. The candidates take turns; the table has the median of the rounds and their spread.
    Measurements: publishing, bulk, waking, consuming; all of them take about ten minutes.
    """
    from ..bench import MEASUREMENTS

    if unknown := set(names) - MEASUREMENTS.keys():
        known = ", ".join(MEASUREMENTS)
        raise click.UsageError(
            f"no such measurement: {', '.join(sorted(unknown))}; choose from {known}"
        )
    for name in names or MEASUREMENTS:
        measure, little = MEASUREMENTS[name]
        click.echo(f"measuring {name} ...", err=True)
        with interruptible():
            report = measure(**(little if short else {}))
        rows = [
            (f.name, f"{f.median:.3f}{f.unit and ' ' + f.unit}",
             f"{min(f.rounds):.3f} to {max(f.rounds):.3f}", f.target)
            for f in report.figures
        ]  # fmt: skip
        print_table(table_of((name, "median", "rounds", "target"), rows))
        about = ", ".join(f"{key} {value}" for key, value in report.about.items())
        click.echo(about, err=True)
        if folder is not None:
            click.echo(f"saved in {report.save(folder)}", err=True)
