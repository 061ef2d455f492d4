"""``migrate``, ``embedded`` and ``demo``: a database to work on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import embedded as servers
from .. import schema
from .common import common, interruptible, pass_database
from .listing import Listing

if TYPE_CHECKING:
    from .database import Database

__all__ = ["demo", "embedded", "migrate"]


@click.command()
@common
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it.")
@click.option("--revision", default="head", show_default=True, help="Migrate up to this revision.")
@click.option(
    "--downgrade",
    metavar="REVISION",
    help="Go back to a revision; base removes the schema and all messages.",
)
@click.option("--yes", is_flag=True, help="Do not ask before a downgrade.")
@pass_database
def migrate(
    database: Database, *, sql: bool, revision: str, downgrade: str | None, yes: bool
) -> None:
    """Create the schema durable_notify, or bring it up to date. If it is, nothing changes."""
    if downgrade is not None and (sql or revision != "head"):
        raise click.UsageError("--downgrade takes neither --sql nor --revision")
    if sql:
        click.echo(schema.migration_sql(revision), nl=False)
    elif downgrade is None:
        schema.migrate(database.dsn, revision)
        at = schema.SCHEMA_VERSION if revision == "head" else revision
        click.echo(f"The schema durable_notify is at {at}.", err=True)
    else:
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("a downgrade may delete messages: confirm it with --yes")
        if not yes:
            click.confirm("A downgrade may delete messages. Continue?", abort=True, err=True)
        schema.downgrade(database.dsn, downgrade)
        gone = downgrade == "base"
        click.echo(
            f"The schema durable_notify is {'removed' if gone else f'at {downgrade}'}.", err=True
        )


@click.group(cls=Listing)
@common
def embedded() -> None:
    """Your own PostgreSQL, in your data folder (or DURABLE_NOTIFY_HOME)."""


@embedded.command("status")
def embedded_status() -> None:
    """Show where it is and whether it runs."""
    found = servers.shared_status()
    click.echo(f"folder   {found.folder}")
    click.echo(f"running  {f'yes, process {found.pid}' if found.running else 'no'}")
    click.echo(f"dsn      {found.dsn}")


@embedded.command("start")
def embedded_start() -> None:
    """Start it, unless it runs, and print its DSN."""
    click.echo(servers.shared_dsn())


@embedded.command("stop")
def embedded_stop() -> None:
    """Stop it; its data stays, and the next command that needs it starts it again."""
    click.echo("stopped" if servers.shared_stop() else "it was not running", err=True)


@click.command()
@common
@click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take the commits of this git repository.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the lines of this file.",
)
@click.option("--events", type=click.IntRange(12, 100_000), default=2000, show_default=True,
              help="The maximum of events to take.")  # fmt: skip
def demo(repository: Path | None, file: Path | None, events: int) -> None:
    """Watch messages survive what loses them with plain LISTEN/NOTIFY; takes half a minute.

    It uses a PostgreSQL of its own, and removes it afterwards. It publishes real events, beside a
    plain listener that is away for a part of the time. It kills the consumer and PostgreSQL with
    SIGKILL, replays messages, and counts what arrived. The events are the commits of the git
    repository in this folder, or what you name.

    Exit status 1 if durable_notify lost a message.
    """
    from ..demo import run

    if repository and file:
        raise click.UsageError("give --repository or --file")
    with interruptible():
        status = run(repository=repository, file=file, limit=events)
    if status:
        raise click.exceptions.Exit(status)
