"""``reanchor``: repair positions after a move to another cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database
from .tables import as_json, print_list

if TYPE_CHECKING:
    from .database import Database

__all__ = ["reanchor"]


@click.command()
@common
@click.option("--why", help="A reason, for the audit.")
@as_json
@pass_database
def reanchor(database: Database, *, why: str | None, as_json: bool) -> None:
    """Repair positions after messages came from another cluster: by dump or replication.

    Run it as the owner of the schema, once everything has been copied and nothing copies any
    more. Every group continues with exactly what had not been delivered to it. It rewrites the
    outbox; publishers and consumers wait meanwhile. If there is nothing to repair, it does nothing.
    """
    with database.connect("reanchor") as connection:
        results = Admin().reanchor(connection, why=why)
    print_list(
        results, ("group", "topic", "unread"), lambda one: (one.group, one.topic, one.unread),
        as_json=as_json, empty="There was nothing to repair, or there is no group.",
    )  # fmt: skip
