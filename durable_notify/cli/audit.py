"""``audit``: what was done to groups by hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .._sync.admin import Admin
from .common import common, pass_database
from .params import as_text, json_line
from .tables import print_table, table_of

if TYPE_CHECKING:
    from .database import Database

__all__ = ["audit"]


@click.command("audit")
@common
@click.option("--group", help="Only changes of this group.")
@click.option("--limit", type=click.IntRange(1), default=100, help="At most that many; 100.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_database
def audit(database: Database, group: str | None, limit: int, as_json: bool) -> None:
    """Show changes made to groups: who, when and why. The newest comes first."""
    with database.connect("audit") as connection:
        entries = Admin().audit(connection, group, limit=limit)
    if as_json:
        click.echo(json_line([dataclasses.asdict(entry) for entry in entries]))
        return
    if not entries:
        click.echo("No changes yet.", err=True)
        return
    columns = ("at", "who", "action", "group", "topic", "messages", "why", "details")
    rows = [
        (
            f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.who, entry.action, entry.group,
            entry.topic, entry.messages, entry.why,
            None if entry.details is None else as_text(entry.details, 60),
        )
        for entry in entries
    ]  # fmt: skip
    print_table(table_of(columns, rows))
