"""``operator-events``: publish what happens to groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database
from .listing import Listing
from .params import shown
from .tables import as_json, print_list

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
@as_json
@pass_database
def list_them(database: Database, as_json: bool) -> None:
    """Show which kinds are published, and of which groups."""
    with database.connect("operator-events") as connection:
        found = Admin().operator_events(connection)
    print_list(
        found, ("topic", "of"),
        lambda one: (f"durable_notify.{one.kind}", one.group or "all groups"),
        as_json=as_json, empty="No operator events are published.",
    )  # fmt: skip


def _add_switch(name: str, text: str, *, enabled: bool) -> None:
    """Add the command that switches kinds on, or the one that switches them off."""

    @operator_events.command(name, help=text)
    @common
    @click.argument("kind", type=KINDS)
    @click.option("--group", help="Of this group; otherwise of all.")
    @pass_database
    def switch(database: Database, kind: str, group: str | None) -> None:
        with database.connect("operator-events") as connection:
            changed = Admin().set_operator_events(connection, kind, group=group, enabled=enabled)
        of = "all groups" if group is None else f"group {shown(group)}"
        state = f"published to durable_notify.{kind}" if enabled else "not published"
        click.echo(f"{kind} of {of} is {'now' if changed else 'already'} {state}")


_add_switch("on", "Publish events of a KIND to the topic durable_notify.KIND.", enabled=True)
_add_switch("off", "Publish no more events of a KIND.", enabled=False)
