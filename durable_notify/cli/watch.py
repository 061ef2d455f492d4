"""``watch``: publish the changes of a table."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import click

from .._sync.bridge import Bridge
from .common import common, pass_database

if TYPE_CHECKING:
    from .database import Database

__all__ = ["watch"]


@click.command()
@common
@click.argument("table")
@click.option("--topic", required=True, help="The topic to publish to.")
@click.option(
    "--columns",
    metavar="NAME,...",
    help="Only these columns, and updates that change one of them.",
)
@click.option("--no-old", is_flag=True, help="Leave the old values out of updates.")
@click.option("--remove", is_flag=True, help="Stop publishing its changes.")
@pass_database
def watch(
    database: Database,
    *,
    table: str,
    topic: str,
    columns: str | None,
    no_old: bool,
    remove: bool,
) -> None:
    """Publish every insert, update, delete and truncate of a table, in the writer's transaction.

    Name TABLE as in SQL. The messages' key is the primary key. If you run it again for the same
    topic, the last options apply. Run it as the owner of the schema durable_notify, with the right
    to make triggers on the table; --remove needs ownership of the table.
    """
    if remove and (columns is not None or no_old):
        raise click.UsageError("--remove takes neither --columns nor --no-old")
    with database.connect("watch") as connection:
        if remove:
            if Bridge().unwatch(connection, table, topic):
                click.echo(f"changes of {table} no longer go to topic {topic}")
            else:
                click.echo(f"{table} is not watched for topic {topic}.", err=True)
            return
        names = None if columns is None else next(csv.reader([columns], skipinitialspace=True))
        full_name = Bridge().watch(connection, table, topic, columns=names, with_old=not no_old)
    click.echo(f"changes of {full_name} go to topic {topic}")
