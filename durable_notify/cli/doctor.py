"""``doctor``: check a database."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from .common import common, pass_database, to_dsn
from .params import json_line, shown

if TYPE_CHECKING:
    from ..diagnostics.findings import Finding
    from .database import Database

__all__ = ["doctor"]

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}


@click.command()
@common
@click.option("--listen-dsn", callback=to_dsn, metavar="DSN",
              help="Where consumers listen, if elsewhere.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an array of findings.")
@pass_database
def doctor(database: Database, *, listen_dsn: str | None, as_json: bool) -> None:
    """Check the database: list each problem, why it matters and how to fix it.

    It changes nothing, and takes a few seconds at most. Exit status 1 if it finds an error.
    """
    from ..diagnostics.doctor import diagnose

    findings = diagnose(database.dsn, listen_dsn)
    if as_json:
        click.echo(json_line([dataclasses.asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            _print(finding)
    if any(finding.level == "error" for finding in findings):
        sys.stdout.flush()
        raise click.exceptions.Exit(1)


def _print(finding: Finding) -> None:
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.name}: {shown(finding.what)}")
    for line in (finding.why, finding.remedy):
        if line:
            click.echo(f"{'':<8} {shown(line)}")
