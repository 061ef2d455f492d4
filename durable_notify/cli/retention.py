"""``retention``: when messages of topics are removed."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database
from .errors import Failure
from .params import Length, shown
from .tables import as_json, print_list

if TYPE_CHECKING:
    from ..models import Retention
    from .database import Connection, Database

__all__ = ["lost_messages", "retention", "topics"]

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


class Age(Length):
    """A length of time, or ``forever``."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        return math.inf if value == "forever" else super().convert(value, param, ctx)


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
@click.option("--min-age", type=Length(),
              help="With --settled: keep messages that long at least.")  # fmt: skip
@click.option("--forever", is_flag=True, help="Remove nothing, whatever a pattern says.")
@click.option("--delete", is_flag=True,
              help="Delete the policy of TOPIC: the next pattern applies.")  # fmt: skip
@click.option("--inbox-age", type=Age(),
              help="Without TOPIC: how long once() remembers: 90d, or forever.")  # fmt: skip
@click.option("--audit-age", type=Age(),
              help="Without TOPIC: how long the audit, losses and ended replays stay.")  # fmt: skip
@click.option(
    "--blockers", is_flag=True, help="Show messages that are due for removal and stay, and why."
)
@as_json
@pass_database
def retention(
    database: Database,
    /,
    *,
    topic: str | None,
    delete: bool,
    blockers: bool,
    inbox_age: float | None,
    audit_age: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Set when messages of TOPIC, or of a pattern of topics, are removed. Without TOPIC, list it.

    If several policies match a topic, the most specific applies. The policy of > is the default:
    once every group has settled a message, it is removed 30 days after it was published. Consumers
    remove messages, or durable-notify maintain does.
    """
    names = {"age": "max_age", "size": "max_bytes", "settled": "when_settled",
             "alarm": "alarm_bytes"}  # fmt: skip
    given = {names.get(name, name): value for name, value in options.items()}
    said = given != {**dict.fromkeys(given, None), "when_settled": False, "on_lag": "block",
                     "compact": False, "archive": False, "forever": False}  # fmt: skip
    ages = {kind: age for kind, age in (("inbox", inbox_age), ("audit", audit_age)) if age}
    if (topic is None) == (said or delete):
        raise click.UsageError("give TOPIC and a policy: --age, --size, --settled, --compact or "
                               "--forever; or --delete")  # fmt: skip
    if (said and delete) or (topic is not None and ages):
        raise click.UsageError("--delete takes no other option, and --inbox-age no TOPIC")
    with database.connect("retention") as connection:
        if ages:
            _set_ages(connection, ages)
        elif topic is None and blockers:
            _list_blockers(connection, as_json)
        elif topic is None:
            _list(connection, as_json)
        elif delete:
            if not Admin().delete_retention(connection, topic):
                raise Failure(
                    f"{shown(topic)} has no policy", "durable-notify retention lists them."
                )
            click.echo(f"{shown(topic)} has no policy of its own any more")
        else:
            for warning in Admin().set_retention(connection, topic, **given):
                click.echo(f"warning: {shown(warning)}", err=True)
            click.echo(f"retention of {shown(topic)} is set")


def _set_ages(connection: Connection, ages: dict[str, float]) -> None:
    for kind, age in ages.items():
        Admin().set_record_age(connection, kind, None if age == math.inf else age)
        click.echo(f"records of the {kind} are kept for {_for(age)}")


def _for(age: float | None) -> str:
    """Return an age in words: ``30 days``, ``12:00:00``, ``ever``."""
    if age is None or age == math.inf:
        return "ever"
    return str(timedelta(seconds=age)).removesuffix(", 0:00:00")


def _list_blockers(connection: Connection, as_json: bool) -> None:
    print_list(
        Admin().retention_blockers(connection),
        ("topic", "group", "from id", "up to id", "published", "bytes", "alarm"),
        lambda one: (
            one.topic, one.group or "(to be archived)", one.from_id, one.upto_id,
            f"{one.published_at:%Y-%m-%d %H:%M}", one.bytes, "yes" if one.alarm else "no",
        ),
        as_json=as_json, empty="No removal is held up.",
    )  # fmt: skip


def _list(connection: Connection, as_json: bool) -> None:
    print_list(
        Admin().retention(connection),
        ("topic", "age", "size", "settled", "min age", "on lag", "alarm", "compact", "archive"),
        _row, as_json=as_json, empty="Everything is kept for ever.",
    )  # fmt: skip
    if not as_json:
        for kind, age in Admin().record_ages(connection).items():
            click.echo(f"records of the {kind} are kept for {_for(age)}")


def _row(one: Retention) -> tuple[object, ...]:
    ages = [
        None if age is None else str(timedelta(seconds=age)).removesuffix(", 0:00:00")
        for age in (one.max_age, one.min_age)
    ]
    flags = ["yes" if flag else "no" for flag in (one.when_settled, one.compact, one.archive)]
    return (one.pattern, ages[0], one.max_bytes, flags[0], ages[1], one.on_lag, one.alarm_bytes,
            *flags[1:])  # fmt: skip


@click.command()
@common
@as_json
@pass_database
def topics(database: Database, *, as_json: bool) -> None:
    """Show what each topic takes, the most first, which groups read it and how long it is kept.

    Messages and sizes are estimates, from a sample. Sizes include indexes.
    """
    with database.connect("topics") as connection:
        found = Admin().topics(connection)
        kept: dict[str | None, str] = {
            policy.pattern: _kept(policy) for policy in Admin().retention(connection)
        }
    print_list(
        found, ("topic", "groups", "messages", "size", "oldest", "kept"),
        lambda one: (
            one.topic, one.groups, one.messages, f"{one.bytes / 10**6:,.1f} MB",
            f"{one.oldest:%Y-%m-%d %H:%M}", kept.get(one.pattern, "for ever"),
        ),
        as_json=as_json, empty="There is no message.",
    )  # fmt: skip


def _kept(policy: Retention) -> str:
    """Return a policy in a few words."""
    limits = []
    if policy.max_age is not None:
        limits.append(f"for {_for(policy.max_age)}")
    if policy.max_bytes is not None:
        limits.append(f"up to {policy.max_bytes / 10**6:,.0f} MB")
    if policy.when_settled:
        least = "" if policy.min_age is None else f", {_for(policy.min_age)} at least"
        limits.append(f"until settled{least}")
    if policy.compact:
        limits.append("the latest of each key")
    return " or ".join(limits) or "for ever"


@click.command()
@common
@click.option("--group", help="Only what this group lost.")
@as_json
@pass_database
def lost_messages(database: Database, group: str | None, as_json: bool) -> None:
    """Show what groups lost to retention with --on-lag lose, the newest first."""
    with database.connect("lost-messages") as connection:
        found = Admin().lost_messages(connection, group)
    print_list(
        found, ("at", "group", "topic", "messages", "from id", "to id", "by"),
        lambda one: (
            f"{one.at:%Y-%m-%d %H:%M:%S}", one.group, one.topic, one.messages, one.first_id,
            one.last_id, one.reason,
        ),
        as_json=as_json, empty="Nothing was lost.",
    )  # fmt: skip
