"""``bridge``: adopt programs that use LISTEN and NOTIFY."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._sync.bridge import Bridge
from .capture import capture
from .common import common, pass_database
from .errors import Failure
from .listing import Listing
from .tables import as_json, print_list

if TYPE_CHECKING:
    from ..models import BridgeInfo
    from .database import Database

__all__ = ["bridge"]

_SEARCH_PATH = '"$user", public, durable_notify_compat, pg_catalog'


@click.group("bridge", cls=Listing)
@common
def bridge() -> None:
    """Adopt programs that use LISTEN and NOTIFY, step by step; you can undo each step."""


bridge.add_command(capture)


@bridge.command()
@common
@click.argument("topic")
@click.argument("channel", required=False)
@click.option("--remove", is_flag=True, help="Stop notifying the channel.")
@pass_database
def mirror(database: Database, *, topic: str, channel: str | None, remove: bool) -> None:
    """Also notify a channel of every message of a topic, with the raw payload.

    For programs that only LISTEN. A payload of 8000 bytes or more is notified as the message's id.
    Every role that can connect to the database can listen. Run it as the owner of the schema.
    """
    if channel is None and not remove:
        raise click.UsageError("a mirror needs a channel: give TOPIC CHANNEL")
    with database.connect("bridge") as connection, connection.transaction():
        if not remove:
            Bridge().mirror(connection, topic, channel or "")
            click.echo(f"topic {topic} also notifies channel {channel}")
            return
        before = Bridge().unmirror(connection, topic)
        if before is not None and channel not in (None, before):
            raise Failure(
                f"topic {topic} is mirrored to channel {before}, not to {channel}",
                "Nothing was changed. Name that channel, or none.",
            )
    if before is None:
        click.echo(f"Topic {topic} is not mirrored.", err=True)
    else:
        click.echo(f"topic {topic} no longer notifies channel {before}")


@bridge.command()
@common
@click.option(
    "--remove", is_flag=True, help="Remove the schema: pg_notify() is PostgreSQL's own again."
)
@pass_database
def compat(database: Database, *, remove: bool) -> None:
    """Create the schema durable_notify_compat, whose pg_notify() publishes durably.

    Roles with this schema before pg_catalog in their search_path use it without changing their
    statements. Not caught: NOTIFY, pg_catalog.pg_notify() by its full name, functions with their
    own search_path. Run it as the owner of the schema.
    """
    with database.connect("bridge") as connection:
        if remove:
            if Bridge().drop_compat(connection):
                click.echo(
                    "durable_notify_compat is removed: pg_notify() is PostgreSQL's own again"
                )
            else:
                click.echo("There is no durable_notify_compat.", err=True)
            return
        Bridge().create_compat(connection)
    click.echo("durable_notify_compat.pg_notify() is ready. For each role that should use it:")
    click.echo("  durable-notify grant ROLE --publish TOPIC  # a topic has its channel's name")
    click.echo(f"  ALTER ROLE ... SET search_path = {_SEARCH_PATH};")


@bridge.command("list")
@common
@as_json
@pass_database
def list_bridges(database: Database, *, as_json: bool) -> None:
    """List what is mirrored, captured and watched, and the compatibility schema if it exists."""
    with database.connect("bridge") as connection:
        found = Bridge().bridges(connection)
    columns = ("bridge", "from", "to", "columns", "old values")
    print_list(found, columns, _row, as_json=as_json, empty="No bridges.")


def _row(one: BridgeInfo) -> tuple[object, ...]:
    columns = None if one.columns is None else ", ".join(one.columns)
    old = None if one.with_old is None else "yes" if one.with_old else "no"
    return (one.kind, one.source, one.target, columns, old)
