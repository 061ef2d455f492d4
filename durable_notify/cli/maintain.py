"""``maintain``: run maintenance, from cron or as a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._sync.maintenance import Maintenance
from .common import common, pass_database
from .errors import Failure
from .params import Length, json_line, shown

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from ..archive import Archive
    from .database import Database

__all__ = ["maintain"]


@click.command()
@common
@click.option("--once", is_flag=True, help="Run one round now, and end; the default.")
@click.option(
    "--every", type=Length(), metavar="TIME", help="Keep running, with a round every 60s, 5m, 1h."
)
@click.option("--archive", metavar="DIR", type=click.Path(file_okay=False),
              help="Where to archive messages before they are removed.")  # fmt: skip
@click.option("--format", "file_format", type=click.Choice(["ndjson", "parquet"]), default="ndjson",
              show_default=True, help="The files of the archive.")  # fmt: skip
@click.option("--inbox-age", type=Length(), help="Delete records of once() older than that, "
              "instead of what durable-notify retention shows: 30d.")  # fmt: skip
@click.option(
    "--audit-age", type=Length(), help="The same for the audit, losses and ended replays: 365d."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line a round.")
@pass_database
def maintain(
    database: Database,
    *,
    once: bool,
    every: float | None,
    archive: str | None,
    file_format: str,
    inbox_age: float | None,
    audit_age: float | None,
    as_json: bool,
) -> None:
    """Remove expired messages, compact, archive, and clean up.

    Consumers whose role owns the schema do the same by themselves, except for the archive. Only one
    process runs maintenance at a time; what a round could not do, the next one does.
    """
    if once and every is not None:
        raise click.UsageError("give --once or --every, not both")
    with database.connect("maintain"):
        pass  # checks its schema, and reports errors, before anything begins
    bar = _progress()
    steps: dict[str, int] = {}

    def told(step: str, topic: str | None, done: int) -> None:
        steps[step] = steps.get(step, 0) + done
        name = step if topic is None else f"{step} {shown(topic)}"
        bar.update(shown_task, description=name, completed=steps[step])

    maintenance = _Reporting(
        database.dsn,
        every=0.0 if every is None else every,
        archive=None if archive is None else _files(archive, file_format),
        inbox_age=inbox_age,
        audit_age=audit_age,
        on_step=told,
    )
    maintenance.as_json = as_json
    with bar:
        shown_task = bar.add_task("maintaining", total=None)
        if every is None:
            report = maintenance.run_once()
        else:
            maintenance.run()
            return
    if failed := [name for name in report or {} if name.endswith(" failed")]:
        raise Failure(
            f"some steps of the round failed: {', '.join(failed)}",
            "Fix what the lines above name, and run it again: the other steps were done.",
        )


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:.0f}"),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


class _Reporting(Maintenance):
    """Prints what each round did."""

    as_json = False

    def run_once(self) -> dict[str, int | str] | None:
        report = super().run_once()
        if self.as_json:
            click.echo(json_line(report))
        elif report is None:
            click.echo("nothing was due, or another process runs maintenance", err=True)
        else:
            for name, done in sorted(report.items()):
                click.echo(f"{name}: {shown(done)}")
            if not report:
                click.echo("there was nothing to do", err=True)
        return report


def _files(folder: str | Path, file_format: str) -> Archive:
    from ..archive import NdjsonFiles, ParquetFiles

    return NdjsonFiles(folder) if file_format == "ndjson" else ParquetFiles(folder)
