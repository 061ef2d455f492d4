"""``retries``: messages that failed, and wait for their next attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from .common import common, confirm, pass_database
from .conditions import check_chosen, choosing, given_conditions
from .errors import Failure
from .listing import Listing
from .params import as_text, error_line, json_line, messages, resolve, shortened, shown, shown_age
from .tables import as_json, print_list

if TYPE_CHECKING:
    from datetime import datetime

    from ..models import PendingRetry
    from .database import Database

__all__ = ["retries"]

_NONE = "No message waits for a retry."

chosen = choosing(
    since="Published (not failed) since then: ISO 8601, or 10m, 2h.",
    until="Published (not failed) before then.",
)


@click.group("retries", invoke_without_command=True, cls=Listing)
@common
@click.option("--group", help="Those of one group only.")
@as_json
@pass_database
def retries(database: Database, group: str | None, as_json: bool) -> None:
    """List the messages that wait for their next attempt, and why; retry them now, or drop them."""
    if click.get_current_context().invoked_subcommand is None:
        _list(database, group, as_json, {})


@retries.command("list")
@common
@click.option("--group", help="Those of one group only.")
@chosen
@as_json
@pass_database
def list_them(database: Database, /, group: str | None, as_json: bool, **conditions: Any) -> None:
    """List the waiting messages that match all conditions, the next due first."""
    _list(database, group, as_json, conditions)


def _list(database: Database, group: str | None, as_json: bool, conditions: dict[str, Any]) -> None:
    with database.connect("retries") as connection:
        given = given_conditions(connection, conditions)
        waiting = Admin().retries(connection, group, **given)
        now = resolve(timedelta(), connection)
    columns = ("group", "topic", "id", "key", "attempts", "due", "error", "payload")
    print_list(waiting, columns, lambda one: _row(one, now), as_json=as_json, empty=_NONE)


def _row(one: PendingRetry, now: datetime) -> tuple[object, ...]:
    attempts = f"{one.attempt} of {one.max_attempts}"
    about = (one.group, one.topic, one.id, one.key, attempts, _due(one.due_at, now))
    return (*about, _error(one), as_text(one.payload))


def _due(moment: datetime, now: datetime) -> str:
    return f"in {shown_age(now, moment)}" if moment > now else "now"


def _error(one: PendingRetry) -> str | None:
    return shortened(error_line(one.error)) if one.error else None


@retries.command("show")
@common
@click.argument("message_id", metavar="ID", type=int)
@click.option("--group", help="That of one group only.")
@pass_database
def show(database: Database, message_id: int, group: str | None) -> None:
    """Show the message ID that waits for a retry, with its whole content and its exception."""
    with database.connect("retries") as connection:
        waiting = Admin().retries(connection, group, ids=[message_id])
    if not waiting:
        raise Failure(f"message {message_id} does not wait for a retry")
    for one in waiting:
        click.echo(shown(f"message {one.id} of {one.topic}, to be retried by {one.group}"))
        click.echo(f"published {one.published_at}, due {one.due_at}")
        click.echo(
            shown(f"key       {one.key or '-'}\nattempts  {one.attempt} of {one.max_attempts}")
        )
        click.echo(f"headers   {json_line(one.headers)}\npayload   {json_line(one.payload)}")
        if one.error:
            text = one.error.get("traceback") or f"{_error(one)}\n"
            click.echo(shown(text), nl=False)


@retries.command("errors")
@common
@click.option("--group", help="Those of one group only.")
@click.option("--topic", help="Those of one topic.")
@as_json
@pass_database
def errors(database: Database, group: str | None, topic: str | None, as_json: bool) -> None:
    """Count the waiting messages by the type of their last exception."""
    with database.connect("retries") as connection:
        counts = Admin().retry_counts(connection, group, topic=topic)
        now = resolve(timedelta(), connection)
    columns = ("group", "topic", "error", "messages", "most attempts", "next due", "example")
    print_list(
        counts, columns,
        lambda one: (
            one.group, one.topic, one.error_type, one.messages, one.max_attempt,
            _due(one.next_due, now), one.example and as_text(one.example),
        ),
        as_json=as_json, empty=_NONE,
    )  # fmt: skip


@retries.command("now")
@common
@click.option("--group", required=True, help="The group in which they failed.")
@chosen
@click.option("--all", "everything", is_flag=True, help="All of the group's.")
@click.option("--why", help="A reason, for the audit.")
@pass_database
def now(
    database: Database, /, group: str, everything: bool, why: str | None, **conditions: Any
) -> None:
    """Redeliver waiting messages at once; their attempts stay counted."""
    with database.connect("retries") as connection:
        given = given_conditions(connection, conditions)
        check_chosen(given, everything)
        done = Admin().retry_now(connection, group, everything=everything, why=why, **given)
    click.echo(f"{messages(done)} of {group} due now")


@retries.command("drop")
@common
@click.option("--group", required=True, help="The group in which they failed.")
@chosen
@click.option("--all", "everything", is_flag=True, help="All of the group's.")
@click.option("--why", help="A reason, for the audit and the dead letters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_database
def drop(
    database: Database,
    /,
    group: str,
    everything: bool,
    why: str | None,
    yes: bool,
    **conditions: Any,
) -> None:
    """Make dead letters of waiting messages, without further attempts."""
    with database.connect("retries") as connection:
        given = given_conditions(connection, conditions)
        check_chosen(given, everything)
        found = len(Admin().retries(connection, group, **given))
        confirm(f"Drop {messages(found)} of {group}?", yes=yes)
        done = Admin().drop_retries(connection, group, everything=everything, why=why, **given)
    click.echo(f"{messages(done)} of {group} dropped; dead-letters redrive takes it back")
