"""``retention``: when messages of topics are removed."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin import Admin
from .common import common, pass_database
from .errors import Failure
from .params import Length, json_line, shown
from .tables import print_table, table_of

if TYPE_CHECKING:
    from ..models import Retention
    from .database import Database

__all__ = ["lost_messages", "retention"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class Size(click.ParamType[int]):
    """A size: bytes, or as in ``500MB``, ``10GB``."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+) ?([kmgt]?)b?", value.strip().lower())
        if not found:
            self.fail(f"{value!r} is not a size: write bytes, or 500MB, 10GB", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


@click.command()
@common
@click.argument("topic", required=False)
@click.option(
    "--age", type=Length(), help="Remove messages that long after they were published: 12h, 7d, 4w."
)
@click.option(
    "--size",
    type=Size(),
    help="Remove messages once that much of the topic is younger: 500MB, 10GB.",
)
@click.option("--settled", is_flag=True, help="Remove messages once every group has settled them.")
@click.option("--on-lag", type=click.Choice(["block", "lose"]), default="block", show_default=True,
              help="Messages that a group has not settled stay, or are removed and "
              "recorded.")  # fmt: skip
@click.option(
    "--alarm", type=Size(), help="How much a lagging group may keep before that is an alarm."
)
@click.option("--compact", is_flag=True, help="Keep only the latest message of each key.")
@click.option("--archive", is_flag=True, help="Remove only archived messages.")
@click.option("--forever", is_flag=True, help="Delete the policy of TOPIC.")
@click.option(
    "--blockers", is_flag=True, help="Show messages that are due for removal and stay, and why."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_database
def retention(
    database: Database,
    /,
    *,
    topic: str | None,
    forever: bool,
    blockers: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Set when messages of TOPIC, or of a pattern of topics, are removed. Without TOPIC, list it.

    Topics without a policy keep their messages for ever. Consumers remove expired messages, or
    durable-notify maintain does. If several policies match a topic, the most specific applies.
    """
    names = {"age": "max_age", "size": "max_bytes", "settled": "when_settled",
             "alarm": "alarm_bytes"}  # fmt: skip
    given = {names.get(name, name): value for name, value in options.items()}
    said = given != {**dict.fromkeys(given, None), "when_settled": False, "on_lag": "block",
                     "compact": False, "archive": False}  # fmt: skip
    if (topic is None or forever) and said:
        raise click.UsageError("give TOPIC and a policy; --forever takes no other option")
    with database.connect("retention") as connection:
        if topic is None:
            found: Any = (
                Admin().retention_blockers(connection)
                if blockers
                else Admin().retention(connection)
            )
            _show(found, as_json=as_json, blockers=blockers)
        elif forever:
            if not Admin().delete_retention(connection, topic):
                raise Failure(
                    f"{shown(topic)} has no policy", "durable-notify retention lists them."
                )
            click.echo(f"{shown(topic)} is kept, unless a pattern says otherwise")
        elif not said:
            raise click.UsageError(
                "give a policy: --age, --size, --settled or --compact; or --forever"
            )
        else:
            for warning in Admin().set_retention(connection, topic, **given):
                click.echo(f"warning: {shown(warning)}", err=True)
            click.echo(f"retention of {shown(topic)} is set")


def _show(found: list[Any], *, as_json: bool, blockers: bool) -> None:
    if as_json:
        click.echo(json_line([dataclasses.asdict(one) for one in found]))
    elif not found:
        click.echo(
            "No removal is held up." if blockers else "Everything is kept for ever.", err=True
        )
    elif blockers:
        columns = ("topic", "group", "from id", "up to id", "published", "bytes", "alarm")
        lags = [
            (one.topic, one.group or "(to be archived)", one.from_id, one.upto_id,
             f"{one.published_at:%Y-%m-%d %H:%M}", one.bytes, "yes" if one.alarm else "no")
            for one in found
        ]  # fmt: skip
        print_table(table_of(columns, lags))
    else:
        heads = ("topic", "age", "size", "settled", "on lag", "alarm", "compact", "archive")
        print_table(table_of(heads, map(_row, found)))


def _row(one: Retention) -> tuple[object, ...]:
    age = None if one.max_age is None else timedelta(seconds=one.max_age)
    flags = ["yes" if flag else "no" for flag in (one.when_settled, one.compact, one.archive)]
    return (one.pattern, age, one.max_bytes, flags[0], one.on_lag, one.alarm_bytes, *flags[1:])


@click.command()
@common
@click.option("--group", help="Only what this group lost.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_database
def lost_messages(database: Database, group: str | None, as_json: bool) -> None:
    """Show what groups lost to retention with --on-lag lose, the newest first."""
    with database.connect("lost-messages") as connection:
        found = Admin().lost_messages(connection, group)
    if as_json:
        click.echo(json_line([dataclasses.asdict(one) for one in found]))
    elif not found:
        click.echo("Nothing was lost.", err=True)
    else:
        columns = ("at", "group", "topic", "messages", "from id", "to id", "by")
        rows = [
            (f"{one.at:%Y-%m-%d %H:%M:%S}", one.group, one.topic, one.messages, one.first_id,
             one.last_id, one.reason)
            for one in found
        ]  # fmt: skip
        print_table(table_of(columns, rows))
