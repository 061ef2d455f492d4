"""``schedule``: publish messages again and again."""

from __future__ import annotations

import dataclasses
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from .._sync.scheduler import Scheduler
from ..schedules import MISSED, Schedule
from .common import common, pass_database
from .handler import Attribute
from .listing import Listing
from .ndjson import parse_json
from .params import Length, shown
from .tables import as_json, print_list

if TYPE_CHECKING:
    from ..schedules import ScheduleInfo
    from .database import Database

__all__ = ["schedule"]


@click.group("schedule", cls=Listing)
@common
def schedule() -> None:
    """Publish messages again and again: by cron in a time zone, or at intervals."""


@schedule.command("set")
@common
@click.argument("name")
@click.argument("topic")
@click.argument("payload", default="null")
@click.option("--cron", help="When, as in crontab: '30 3 * * MON-FRI'.")
@click.option("--every", type=Length(), help="Or how often: 90s, 10m, 1d.")
@click.option("--time-zone", default="UTC", show_default=True, help="Of --cron: Europe/Berlin.")
@click.option("--key", help="The key of the message.")
@click.option("--missed", type=click.Choice(MISSED), default="once", show_default=True,
              help="What becomes of ticks when nothing was running.")  # fmt: skip
@click.option("--max-missed", type=click.IntRange(1, 1000), default=100, show_default=True,
              help="With --missed all: publish no more than these, the newest.")  # fmt: skip
@pass_database
def set_it(database: Database, /, name: str, topic: str, payload: str, **options: Any) -> None:
    """Set the schedule NAME: publish PAYLOAD, which is JSON, to TOPIC."""
    try:
        content = parse_json(payload)
    except ValueError as error:
        raise click.UsageError(f"PAYLOAD is not JSON: {error}") from None
    given = Schedule(name=name, topic=topic, payload=content, **options)
    with database.connect("schedule") as connection:
        changed = Admin().set_schedule(connection, given)
        (found,) = (one for one in Admin().schedules(connection) if one.name == name)
    state = "is set" if changed else "is unchanged"
    click.echo(f"{shown(name)} {state}; next: {', '.join(_times(found, 3)) or 'never'}")


@schedule.command("list")
@common
@as_json
@pass_database
def list_them(database: Database, as_json: bool) -> None:
    """Show the schedules, and when they run next."""
    with database.connect("schedule") as connection:
        found = Admin().schedules(connection)
    print_list(
        found, ("name", "topic", "when", "next", "last", "of"), _row,
        as_json=as_json, empty="No schedules.",
        fields=lambda one: dataclasses.asdict(one) | {"next": one.next_runs(3)},
    )  # fmt: skip


def _row(one: ScheduleInfo) -> tuple[object, ...]:
    when = f"every {one.every:g}s" if one.cron is None else f"{one.cron} {one.time_zone}"
    following = "paused" if one.paused_at else "\n".join(_times(one, 3)) or "never"
    last = None if one.last_at is None else f"{one.last_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return (one.name, one.topic, when, following, last, one.program)


def _times(one: ScheduleInfo, number: int) -> list[str]:
    """The next ticks, in the zone of the schedule."""
    zone = one.ticks.zone
    return [f"{tick.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}" for tick in one.next_runs(number)]


@schedule.command("pause")
@common
@click.argument("name")
@pass_database
def pause(database: Database, name: str) -> None:
    """Publish no more ticks of the schedule NAME until it is resumed."""
    with database.connect("schedule") as connection:
        Admin().pause_schedule(connection, name)
    click.echo(f"{shown(name)} is paused")


@schedule.command("resume")
@common
@click.argument("name")
@pass_database
def resume(database: Database, name: str) -> None:
    """Continue the schedule NAME with its next tick."""
    with database.connect("schedule") as connection:
        Admin().resume_schedule(connection, name)
    click.echo(f"{shown(name)} is resumed")


@schedule.command("delete")
@common
@click.argument("name")
@pass_database
def delete(database: Database, name: str) -> None:
    """Delete the schedule NAME; what it has published stays."""
    with database.connect("schedule") as connection:
        Admin().delete_schedule(connection, name)
    click.echo(f"{shown(name)} is deleted")


@schedule.command("now")
@common
@click.argument("name")
@pass_database
def now(database: Database, name: str) -> None:
    """Publish the message of the schedule NAME now, beside its ticks."""
    with database.connect("schedule") as connection:
        number = Admin().run_schedule(connection, name)
    click.echo(f"published message {number}")


@schedule.command("run")
@common
@click.argument("schedules", metavar="[MODULE:SCHEDULES]", required=False)
@click.option("--program", help="The name of the program that declares them; by default MODULE.")
@click.option("--once", is_flag=True, help="Publish what is due, and end: for cron.")
@pass_database
def run(database: Database, schedules: str | None, program: str | None, once: bool) -> None:
    """Publish what is due, until stopped. Run as many as you like: each tick is published once.

    MODULE:SCHEDULES is a list of Schedule in your code. They are set first, and those that the same
    program had declared before, and no longer declares, are deleted.
    """
    with database.connect("schedule"):
        pass  # checks its schema before anything begins
    declared: list[Schedule] = []
    if schedules is not None:
        declared = list(Attribute().convert(schedules, None, click.get_current_context()))
        program = program or schedules.partition(":")[0]
    scheduler = Scheduler(database.dsn, declared, program=program)
    if once:
        click.echo(f"published {scheduler.run_once()} messages")
    else:
        scheduler.run()
