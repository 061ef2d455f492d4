"""``group``: list groups and change their options."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from ..groups import LIMITS, delays_of, with_retry_policy
from .common import common, confirm, pass_database
from .listing import Listing
from .params import error_line, resolve, shown_age
from .tables import as_json, print_list

if TYPE_CHECKING:
    from ..models import BlockedKey, OpenPublisher
    from .database import Database

__all__ = ["group"]


@click.group("group", cls=Listing)
@common
def group() -> None:
    """List groups, and change them while their consumers run."""


@group.command("list")
@common
@as_json
@pass_database
def list_groups(database: Database, as_json: bool) -> None:
    """List the groups with their options and topics."""
    with database.connect("group") as connection:
        groups = Admin().groups(connection)
    columns = ("group", "order", "attempts", "in flight", "rate", "paused", "topics")
    print_list(
        groups, columns,
        lambda one: (
            one.name,
            one.order_by + (", exclusive" if one.exclusive else ""),
            one.max_attempts,
            one.max_in_flight,
            one.rate_limit,
            "yes" if one.paused_at else "no",
            " ".join([*one.topics, *one.patterns]),
        ),
        as_json=as_json, empty="No groups yet. A consumer creates its own.",
    )  # fmt: skip


def _delays(_: Any, __: Any, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return delays_of(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of seconds, such as 5,300,1800") from error


def _settings(command: Any) -> Any:
    """Add the options of a group."""
    for option in reversed(
        (
            click.option("--order-by", type=click.Choice(["none", "key", "strict"]),
                         help="The order of delivery."),
            click.option("--exclusive/--shared", default=None,
                         help="One consumer at a time, or all of them."),
            click.option("--max-attempts", type=click.IntRange(1),
                         help="After how many attempts a message becomes a dead letter."),
            click.option("--retry-base", type=float,
                         help="Seconds after the first failed attempt."),
            click.option("--retry-factor", type=float,
                         help="The factor of each further delay."),
            click.option("--retry-max", type=float, help="The longest delay, in seconds."),
            click.option("--retry-delays", callback=_delays, metavar="SECONDS,...",
                         help="The delay after each attempt, then the last one; none: by the "
                         "other options."),
            click.option("--on-expiry", type=click.Choice(["drop", "dead_letter"]),
                         help="What to do with expired messages."),
            click.option("--park-limit", type=click.IntRange(1),
                         help="How many messages of a topic may wait for their keys."),
            click.option("--max-in-flight", type=click.IntRange(0),
                         help="The maximum of messages leased at once; 0: no limit."),
            click.option("--rate-limit", type=click.FloatRange(0),
                         help="The maximum of messages delivered a second; 0: no limit."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@group.command("configure")
@common
@click.argument("name")
@_settings
@pass_database
def configure(database: Database, /, name: str, **settings: Any) -> None:
    """Change options of the group NAME; the others stay unchanged."""
    given = {option: value for option, value in settings.items() if value is not None}
    if not given:
        raise click.UsageError("give at least one option to change")
    for limit in LIMITS:
        if given.get(limit) == 0:
            given[limit] = None
    changes: Any = with_retry_policy(given)
    with database.connect("group") as connection:
        Admin().configure(connection, name, **changes)
    click.echo(f"group {name} is changed; running consumers apply it at once")


@group.command("pause")
@common
@click.argument("name")
@pass_database
def pause(database: Database, name: str) -> None:
    """Stop delivery to the group NAME until you resume it."""
    with database.connect("group") as connection:
        Admin().pause(connection, name)
    click.echo(f"group {name} is paused")


@group.command("resume")
@common
@click.argument("name")
@pass_database
def resume(database: Database, name: str) -> None:
    """Resume the paused group NAME, at its position."""
    with database.connect("group") as connection:
        Admin().resume(connection, name)
    click.echo(f"group {name} is resumed")


@group.command("rename")
@common
@click.argument("name")
@click.argument("new_name")
@pass_database
def rename(database: Database, name: str, new_name: str) -> None:
    """Rename the group NAME. Consumers that run under the old name end."""
    with database.connect("group") as connection:
        Admin().rename_group(connection, name, new_name)
    click.echo(f"group {name} is now {new_name}")


@group.command("delete")
@common
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_database
def delete(database: Database, name: str, yes: bool) -> None:
    """Delete the group NAME: its position, retries and dead letters. The messages stay."""
    question = f"Delete group {name}, with its dead letters?"
    confirm(question, yes=yes)
    with database.connect("group") as connection:
        Admin().delete_group(connection, name)
    click.echo(f"group {name} is deleted")


@group.command("unsubscribe")
@common
@click.argument("name")
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--why", help="A reason, for the audit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_database
def unsubscribe(
    database: Database, name: str, topics: tuple[str, ...], why: str | None, yes: bool
) -> None:
    """End the subscriptions of the group NAME to topics or patterns. The messages stay."""
    question = (
        f"Unsubscribe group {name} from {' '.join(topics)}, and delete its dead letters of it?"
    )
    confirm(question, yes=yes)
    with database.connect("group") as connection:
        ended = Admin().unsubscribe(connection, name, topics, why=why)
    click.echo(f"group {name} is unsubscribed from {' '.join(ended) or 'the pattern'}")


@group.command("blocking-publishers")
@common
@click.argument("name")
@as_json
@pass_database
def blocking_publishers(database: Database, name: str, as_json: bool) -> None:
    """Show the publishers in flight that the strict group NAME waits for."""
    with database.connect("group") as connection:
        flying = Admin().blocking_publishers(connection, name)
    columns = ("pid", "database", "prepared", "since", "query since", "state", "query")
    print_list(flying, columns, _cells, as_json=as_json, empty="The group waits for no publisher.")


@group.command("blocked")
@common
@click.argument("name")
@click.option("--topic", help="The keys of one topic.")
@as_json
@pass_database
def blocked(database: Database, name: str, topic: str | None, as_json: bool) -> None:
    """Show the keys of the group NAME of which messages wait, and what they wait for."""
    with database.connect("group") as connection:
        keys = Admin().blocked_keys(connection, name, topic=topic)
        now = resolve(timedelta(), connection)
    print_list(
        keys, ("topic", "key", "waiting", "since", "behind", "which is"),
        lambda one: (
            one.topic, one.key, one.waiting, f"{shown_age(one.since, now)} ago", one.message_id,
            _state(one, now),
        ),
        as_json=as_json, empty="No key waits.",
    )  # fmt: skip


def _state(key: BlockedKey, now: datetime) -> str:
    """Return what the first message of a key waits for, in words."""
    if key.until is None:
        return key.state
    due = f"in {shown_age(now, key.until)}" if key.until > now else "now"
    if key.state == "leased":
        return f"leased by {key.owner}, expires {due}"
    why = f": {error_line(key.error)}" if key.error else ""
    return f"due {due}, a retry, attempt {key.attempt} failed{why}"


def _cells(publisher: OpenPublisher) -> list[object]:
    values = dataclasses.astuple(publisher)
    return [f"{v:%H:%M:%S}" if isinstance(v, datetime) else v for v in values]
