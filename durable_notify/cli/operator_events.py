"""``operator-events``: publish what happens to groups."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .._sync.admin import Admin
from .common import common, pass_database
from .listing import Listing
from .params import json_line, shown
from .tables import print_table, table_of

if TYPE_CHECKING:
    from .database import Database

__all__ = ["operator_events"]

KINDS = click.Choice(["dead_letter", "loss", "group_failing", "retention_alarm"])


@click.group("operator-events", cls=Listing)
@common
def operator_events() -> None:
    """Publish dead letters, losses and alarms as messages, for handlers and webhooks that alert."""


@operator_events.command("list")
@common
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_database
def list_them(database: Database, as_json: bool) -> None:
    """Show which kinds are published, and of which groups."""
    with database.connect("operator-events") as connection:
        found = Admin().operator_events(connection)
    if as_json:
        click.echo(json_line([dataclasses.asdict(one) for one in found]))
    elif not found:
        click.echo("No operator events are published.", err=True)
    else:
        rows = [(f"durable_notify.{one.kind}", one.group or "all groups") for one in found]
        print_table(table_of(("topic", "of"), rows))


@operator_events.command("on")
@common
@click.argument("kind", type=KINDS)
@click.option("--group", help="Of this group; otherwise of all.")
@pass_database
def switch_on(database: Database, kind: str, group: str | None) -> None:
    """Publish events of a KIND to the topic durable_notify.KIND from now on."""
    _switch(database, kind, group, enabled=True)


@operator_events.command("off")
@common
@click.argument("kind", type=KINDS)
@click.option("--group", help="Of this group; otherwise of all.")
@pass_database
def switch_off(database: Database, kind: str, group: str | None) -> None:
    """Publish no more events of a KIND."""
    _switch(database, kind, group, enabled=False)


def _switch(database: Database, kind: str, group: str | None, *, enabled: bool) -> None:
    with database.connect("operator-events") as connection:
        changed = Admin().set_operator_events(connection, kind, group=group, enabled=enabled)
    of = "all groups" if group is None else f"group {shown(group)}"
    state = "published to durable_notify." + kind if enabled else "not published"
    before = "now" if changed else "already"
    click.echo(f"{kind} of {of} is {before} {state}")
