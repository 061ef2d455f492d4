"""``watch``: the changes of a table, published."""

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
@click.option("--topic", required=True, help="Where the changes are published.")
@click.option(
    "--columns",
    metavar="NAME,...",
    help="Only these columns, and updates that change one of them.",
)
@click.option("--no-old", is_flag=True, help="Updates without the old values.")
@click.option("--remove", is_flag=True, help="Publish its changes no more.")
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

    TABLE is named as in SQL. The messages' key is the primary key. Given again for the same topic,
    what is said now counts. Run it as the owner of the schema durable_notify, with the right to
    make triggers on the table; --remove needs the table's ownership.
    """
    if remove and (columns is not None or no_old):
        raise click.UsageError("--remove takes neither --columns nor --no-old")
    with database.connect("watch") as connection:
        if remove:
            if Bridge().unwatch(connection, table, topic):
                click.echo(f"changes of {table} do not go to topic {topic} any more")
            else:
                click.echo(f"{table} is not watched for topic {topic}.", err=True)
            return
        names = None if columns is None else next(csv.reader([columns], skipinitialspace=True))
        full_name = Bridge().watch(connection, table, topic, columns=names, with_old=not no_old)
    click.echo(f"changes of {full_name} go to topic {topic}")
