"""``erase``: remove what is kept of a key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._sync.admin.admin import Admin
from ..archive import NdjsonFiles, ParquetFiles
from .common import common, confirm, pass_database
from .params import json_line, shown
from .tables import as_json, print_table, table_of

if TYPE_CHECKING:
    from ..models import Erasure
    from .database import Database

__all__ = ["erase"]

#: What is said of what was only counted.
_NOTES = {
    "leased": "a consumer holds {} of these messages: wait until it has handled them",
    "publishers": "{} transactions were publishing: run it again when they have ended",
    "archiving": "a topic was being archived: run it again after the next round of maintenance",
}


@click.command()
@common
@click.option("--key", required=True, help="The key of the messages.")
@click.option(
    "--topic", "topics", multiple=True, help="Only in this topic or pattern; may be repeated."
)
@click.option("--archive", metavar="DIR", help="Also from the files in this archive.",
              type=click.Path(exists=True, file_okay=False, path_type=Path))  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--why", help="A reason, for the audit: no personal data.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@pass_database
def erase(
    database: Database,
    *,
    key: str,
    topics: tuple[str, ...],
    archive: Path | None,
    dry_run: bool,
    why: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove all messages of a key, for example of a person, and what is kept of them.

    It looks through the outbox in small batches, and removes the messages whether or not they were
    delivered, with their dead letters, retries and records. It cannot be undone.
    """
    if not dry_run:
        confirm(f"Erase all messages of key {shown(key)}? This cannot be undone.", yes=yes)
    wanted = topics or None
    with database.connect("erase") as connection:
        found = Admin().erase(connection, key, topics=wanted, dry_run=dry_run, why=why)
    removed = dict(found.removed)
    if archive is not None and (archived := _from_files(archive, key, wanted, dry_run)):
        removed["archived"] = archived
    if as_json:
        click.echo(json_line({"removed": removed, "counted": dict(found.counted)}))
        return
    print_table(table_of(("place", "erased" if not dry_run else "found"), sorted(removed.items())))
    _say_what_may_stay(found)


def _from_files(folder: Path, key: str, topics: tuple[str, ...] | None, dry_run: bool) -> int:
    erased = 0
    for kind in (NdjsonFiles, ParquetFiles):
        if any(folder.glob(f"*/*.{kind.file.suffix}")):
            erased += kind(folder).erase(key, topics=topics, dry_run=dry_run)
    return erased


def _say_what_may_stay(found: Erasure) -> None:
    for name, note in _NOTES.items():
        if many := found.counted.get(name):
            click.echo(note.format(many), err=True)
