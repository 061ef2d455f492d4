"""``grant``, ``revoke`` and ``grants``: what roles of the database may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database
from .tables import as_json, print_list

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .database import Database

__all__ = ["grant", "grants", "revoke"]


def _rights(command: Any) -> Any:
    """Add the options that name rights."""
    for option in reversed(
        (
            click.option("--publish", metavar="PATTERN", multiple=True,
                         help="Publish to these topics; may be repeated."),
            click.option("--consume", metavar="PATTERN", multiple=True,
                         help="Consume these topics, in --group; may be repeated."),
            click.option("--group", help="The group in which it consumes, and which it manages."),
            click.option("--read", metavar="PATTERN", multiple=True,
                         help="Read these topics without a group; may be repeated."),
            click.option("--observe", is_flag=True,
                         help="See status, audit, dead letters and retries of everything, without "
                              "payloads."),
            click.option("--insert", is_flag=True,
                         help="Run INSERT statements on the outbox, into all topics."),
            click.option("--maintain", is_flag=True,
                         help="Run maintenance, except for the archive."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _named(rights: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """Return action, patterns and group of each right that was named."""
    if bool(rights["consume"]) != (rights["group"] is not None):
        raise click.UsageError("--consume and --group go together")
    for action in ("publish", "consume", "read"):
        if patterns := rights[action]:
            yield action, patterns, rights["group"] if action == "consume" else None
    for action in ("observe", "insert", "maintain"):
        if rights[action]:
            yield action, (), None


@click.command()
@common
@click.argument("role")
@_rights
@pass_database
def grant(database: Database, /, *, role: str, **rights: Any) -> None:
    """Let a role of the database publish, consume, read, observe or maintain, and no more.

    A pattern is a topic, or stands for topics: orders.*, orders.>, or > for all. Put it in quotes.
    If one of the named rights cannot be granted, none is. The role keeps its earlier grants. Run it
    as the owner of the schema.
    """
    named = list(_named(rights))
    if not named:
        raise click.UsageError(
            "nothing to grant: give --publish, --consume, --read, --observe, --insert or --maintain"
        )
    with database.connect("grant") as connection, connection.transaction():
        for action, patterns, group in named:
            Admin().grant(connection, role, action, patterns, group=group)
    for action, patterns, group in named:
        click.echo(f"{role} may {_shown(action, patterns, group)}")


@click.command()
@common
@click.argument("role")
@_rights
@click.option("--all", "everything", is_flag=True, help="Take back everything that it was granted.")
@pass_database
def revoke(database: Database, /, *, role: str, everything: bool, **rights: Any) -> None:
    """Take back grants of a role. Name patterns and group as they were granted.

    Run it as the owner of the schema.
    """
    named = [] if everything else list(_named(rights))
    if everything == any(rights.values()):
        raise click.UsageError("nothing to revoke: give --all, or what was granted")
    with database.connect("revoke") as connection, connection.transaction():
        taken = Admin().revoke(connection, role) if everything else 0
        for action, patterns, group in named:
            taken += Admin().revoke(connection, role, action, patterns, group=group)
    click.echo(f"{taken} grant{'s' * (taken != 1)} taken back from {role}")


@click.command()
@common
@as_json
@pass_database
def grants(database: Database, *, as_json: bool) -> None:
    """List the grants of all roles."""
    with database.connect("grants") as connection:
        found = Admin().grants(connection)
    print_list(
        found, ("role", "may", "topics", "group", "granted by"),
        lambda one: (one.role, one.action, one.pattern, one.group, one.granted_by),
        as_json=as_json, empty="No grants. The owner of the schema and superusers need none.",
    )  # fmt: skip


def _shown(action: str, patterns: tuple[str, ...], group: str | None) -> str:
    if action == "insert":
        return "insert messages of all topics"
    if action == "observe":
        return "observe everything"
    if action == "maintain":
        return "run maintenance"
    return f"{action} {' '.join(patterns)}" + (f" in group {group}" if group else "")
