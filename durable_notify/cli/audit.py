"""``audit``: what was done to groups by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database
from .params import as_text
from .tables import as_json, print_list

if TYPE_CHECKING:
    from .database import Database

__all__ = ["audit"]


@click.command("audit")
@common
@click.option("--group", help="Only changes of this group.")
@click.option("--limit", type=click.IntRange(1), default=100, help="At most that many; 100.")
@as_json
@pass_database
def audit(database: Database, group: str | None, limit: int, as_json: bool) -> None:
    """Show changes made to groups: who, when and why. The newest comes first."""
    with database.connect("audit") as connection:
        entries = Admin().audit(connection, group, limit=limit)
    print_list(
        entries, ("at", "who", "action", "group", "topic", "messages", "why", "details"),
        lambda entry: (
            f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.who, entry.action, entry.group,
            entry.topic, entry.messages, entry.why,
            None if entry.details is None else as_text(entry.details),
        ),
        as_json=as_json, empty="No changes are recorded.",
    )  # fmt: skip
