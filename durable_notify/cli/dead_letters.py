"""``dead-letters``: messages that groups have given up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from .common import common, confirm, pass_database
from .conditions import check_chosen, choosing, given_conditions
from .errors import Failure
from .listing import Listing
from .params import as_text, json_line, messages, shown, shown_age
from .tables import as_json, print_list

if TYPE_CHECKING:
    from ..models import DeadLetter
    from .database import Database

__all__ = ["dead_letters"]

chosen = choosing(since="Given up since then: ISO 8601, or 10m, 2h.", until="Given up before then.")


@click.group("dead-letters", invoke_without_command=True, cls=Listing)
@common
@click.option("--group", help="Those of one group only.")
@as_json
@pass_database
def dead_letters(database: Database, group: str | None, as_json: bool) -> None:
    """List the messages that groups have given up, and why; redrive or discard them."""
    if click.get_current_context().invoked_subcommand is None:
        _list(database, group, as_json, {})


@dead_letters.command("list")
@common
@click.option("--group", help="Those of one group only.")
@chosen
@as_json
@pass_database
def list_them(database: Database, /, group: str | None, as_json: bool, **conditions: Any) -> None:
    """List the dead letters that match all conditions."""
    _list(database, group, as_json, conditions)


def _list(database: Database, group: str | None, as_json: bool, conditions: dict[str, Any]) -> None:
    with database.connect("dead-letters") as connection:
        given = given_conditions(connection, conditions)
        letters = Admin().dead_letters(connection, group, **given)
    now = datetime.now(UTC)
    columns = ("group", "topic", "id", "key", "attempts", "given up", "reason", "payload")
    print_list(
        letters, columns, lambda one: _row(one, now), as_json=as_json, empty="No dead letters."
    )


def _row(letter: DeadLetter, now: datetime) -> tuple[object, ...]:
    age = f"{shown_age(letter.dead_at, now)} ago"
    about = (letter.group, letter.topic, letter.id, letter.key, letter.attempt)
    return (*about, age, letter.reason, as_text(letter.payload))


@dead_letters.command("show")
@common
@click.argument("message_id", metavar="ID", type=int)
@click.option("--group", help="That of one group only.")
@pass_database
def show(database: Database, message_id: int, group: str | None) -> None:
    """Show the dead letter of the message ID with its whole content and its exception."""
    with database.connect("dead-letters") as connection:
        letters = Admin().dead_letters(connection, group, ids=[message_id])
    if not letters:
        raise Failure(f"message {message_id} is not a dead letter")
    for letter in letters:
        click.echo(shown(f"message {letter.id} of {letter.topic}, given up by {letter.group}"))
        click.echo(f"published {letter.published_at}, given up {letter.dead_at}")
        about = (
            f"key       {letter.key or '-'}\nattempts  {letter.attempt}\nreason    {letter.reason}"
        )
        click.echo(shown(about))
        click.echo(f"headers   {json_line(letter.headers)}\npayload   {json_line(letter.payload)}")
        if letter.error:
            click.echo(shown(letter.error.get("traceback", "")), nl=False)


@dead_letters.command("redrive")
@common
@click.option("--group", required=True, help="The group that gave them up.")
@chosen
@click.option("--all", "everything", is_flag=True, help="All of the group's.")
@click.option("--why", help="A reason, for the audit.")
@pass_database
def redrive(
    database: Database, /, group: str, everything: bool, why: str | None, **conditions: Any
) -> None:
    """Send dead letters to their group again, as first attempts."""
    with database.connect("dead-letters") as connection:
        given = given_conditions(connection, conditions)
        check_chosen(given, everything)
        done = Admin().redrive(connection, group, everything=everything, why=why, **given)
    click.echo(f"{messages(done)} sent to {group} again")


@dead_letters.command("discard")
@common
@click.option("--group", required=True, help="The group that gave them up.")
@chosen
@click.option("--all", "everything", is_flag=True, help="All of the group's.")
@click.option("--why", help="A reason, for the audit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_database
def discard(
    database: Database,
    /,
    group: str,
    everything: bool,
    why: str | None,
    yes: bool,
    **conditions: Any,
) -> None:
    """Delete dead letters of a group."""
    with database.connect("dead-letters") as connection:
        given = given_conditions(connection, conditions)
        check_chosen(given, everything)
        found = len(Admin().dead_letters(connection, group, **given))
        question = f"Discard {messages(found)} of {group}?"
        confirm(question, yes=yes)
        done = Admin().discard(connection, group, everything=everything, why=why, **given)
    click.echo(f"{messages(done)} of {group} discarded")
