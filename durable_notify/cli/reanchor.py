"""``reanchor``: repair positions after a move to another cluster."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from .._sync.admin import Admin
from .common import common, pass_database
from .tables import print_table, table_of

if TYPE_CHECKING:
    from .database import Database

__all__ = ["reanchor"]


@click.command()
@common
@click.option("--why", help="A reason, for the audit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_database
def reanchor(database: Database, *, why: str | None, as_json: bool) -> None:
    """Repair positions after messages came from another cluster: by dump or replication.

    Run it as the owner of the schema, once everything has been copied and nothing copies any
    more. Every group continues with exactly what had not been delivered to it. It rewrites the
    outbox; publishers and consumers wait meanwhile. If there is nothing to repair, it does nothing.
    """
    with database.connect("reanchor") as connection:
        results = Admin().reanchor(connection, why=why)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in results]))
    elif results:
        rows = ((each.group, each.topic, each.unread) for each in results)
        print_table(table_of(("group", "topic", "undelivered"), rows))
    else:
        click.echo("There was nothing to repair, or there is no group.", err=True)
