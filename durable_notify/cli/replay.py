"""``replay``, ``seek`` and ``replay-job``: redeliver messages to a group."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin import Admin
from .common import common, confirm, pass_database
from .errors import Failure
from .listing import Listing
from .params import Moment, json_line, resolve
from .tables import print_table, table_of

if TYPE_CHECKING:
    from ..models import ReplayJob
    from .database import Database

__all__ = ["replay", "replay_job", "seek"]


@click.command()
@common
@click.option("--group", required=True, help="The group to rewind.")
@click.option("--topic", required=True, help="The topic in which to rewind it.")
@click.option("--from-beginning", is_flag=True, help="Redeliver all messages that are retained.")
@click.option("--since", type=Moment(), help="Redeliver messages published since then: ISO 8601, "
              "or how long ago, as in 10m, 2h, 1d.")  # fmt: skip
@click.option("--after", type=click.IntRange(0, 2**63 - 1), metavar="ID",
              help="Redeliver messages with higher ids.")  # fmt: skip
@click.option("--why", help="A reason, for the audit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only print how many messages there are.")
@pass_database
def replay(
    database: Database,
    *,
    group: str,
    topic: str,
    from_beginning: bool,
    since: Any,
    after: int | None,
    why: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Rewind a group, so that messages are redelivered to it.

    It prints their number first. On a terminal it then asks; otherwise it does it.
    """
    if from_beginning + (since is not None) + (after is not None) != 1:
        raise click.UsageError("give one of --from-beginning, --since TIME and --after ID")
    admin = Admin()
    with database.connect("replay") as connection:
        position: dict[str, Any] = {"after": 0 if from_beginning else after}
        if since is not None:
            position = {"since": resolve(since, connection)}
        count = admin.replay(connection, group, topic, **position, dry_run=True)
        verb = "would be" if dry_run else "are" if count != 1 else "is"
        click.echo(f"{count} message{'s' * (count != 1)} of {topic} {verb} redelivered to {group}")
        sys.stdout.flush()
        if dry_run or not count:
            return
        # Not in one transaction with the counting: the group's consumers would wait meanwhile.
        confirm("Continue?", yes=yes)
        done = admin.replay(connection, group, topic, **position, why=why)
    if done != count:
        click.echo(f"{done} messages, because more were consumed meanwhile")


@click.command("seek")
@common
@click.option("--group", required=True, help="The group to move.")
@click.option("--topic", required=True, help="The topic in which to move it.")
@click.option("--after", type=click.IntRange(0, 2**63 - 1), metavar="ID",
              help="Deliver messages with higher ids next.")  # fmt: skip
@click.option("--since", type=Moment(), help="Deliver messages published since then next: ISO "
              "8601, or how long ago, as in 10m, 2h, 1d.")  # fmt: skip
@click.option("--now", is_flag=True, help="Skip all committed messages.")
@click.option("--drop-waiting", is_flag=True, help="Also skip messages up to there that wait for "
              "another attempt or their key, and cancel running replays.")  # fmt: skip
@click.option("--why", help="A reason, for the audit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only print what would be redelivered or skipped.")
@pass_database
def seek(
    database: Database,
    *,
    group: str,
    topic: str,
    after: int | None,
    since: Any,
    now: bool,
    drop_waiting: bool,
    why: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Move a group's position in a topic, back or forward.

    Messages in flight are not lost: they are delivered when they commit. On a terminal it asks
    first. To end a replay that fails again and again: durable-notify group pause, then --now
    --drop-waiting once its consumers hold no more messages, then durable-notify group resume.
    """
    if (after is not None) + (since is not None) + now != 1:
        raise click.UsageError("give one of --after ID, --since TIME and --now")
    admin = Admin()
    with database.connect("seek") as connection:
        position: dict[str, Any] = {
            "after": after, "now": now, "drop_waiting": drop_waiting, "why": why
        }  # fmt: skip
        if since is not None:
            position["since"] = resolve(since, connection)
        found = admin.seek(connection, group, topic, **position, dry_run=True)
        question = f"{found.redelivered} would be redelivered, {found.skipped} skipped. Continue?"
        if dry_run:
            click.echo(f"{found.redelivered} would be redelivered, {found.skipped} skipped")
            return
        confirm(question, yes=yes)
        done = admin.seek(connection, group, topic, **position)
    click.echo(f"{done.redelivered} redelivered, {done.skipped} skipped")


@click.group("replay-job", cls=Listing)
@common
def replay_job() -> None:
    """Redeliver selected messages to a group, while new ones keep arriving."""


def _json(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None


@replay_job.command("start")
@common
@click.option("--group", required=True, help="The group that receives them.")
@click.option("--topic", required=True, help="Their topic.")
@click.option("--after", type=click.IntRange(0, 2**63 - 1), metavar="ID", help="Higher ids only.")
@click.option("--upto", type=click.IntRange(0, 2**63 - 1), metavar="ID", help="This id and lower.")
@click.option("--since", type=Moment(), help="Published since then: ISO 8601, or 10m, 2h, 1d ago.")
@click.option("--until", type=Moment(), help="Published before then.")
@click.option("--key", "keys", multiple=True, help="With this key; may be repeated.")
@click.option(
    "--headers", callback=_json, metavar="JSON", help="Whose headers contain this object."
)
@click.option(
    "--payload", callback=_json, metavar="JSON", help="Whose payload contains this value."
)
@click.option("--path", help="In whose payload this SQL/JSON path finds something.")
@click.option("--rate-limit", type=float, metavar="N", help="The maximum of messages a second.")
@click.option("--why", help="A reason, for the audit.")
@click.option("--dry-run", is_flag=True, help="Only print how many messages match.")
@click.option("--follow", is_flag=True, help="Wait until it is done, and show its progress.")
@pass_database
def start(
    database: Database,
    /,
    *,
    group: str,
    topic: str,
    rate_limit: float | None,
    why: str | None,
    dry_run: bool,
    follow: bool,
    **conditions: Any,
) -> None:
    """Start a replay; the group's consumers carry it out."""
    admin = Admin()
    with database.connect("replay-job") as connection:
        given = {name: value for name, value in conditions.items() if value not in (None, ())}
        for name in {"since", "until"} & given.keys():
            given[name] = resolve(given[name], connection)
        total = admin.start_replay(connection, group, topic, dry_run=True, **given)
        if dry_run:
            click.echo(f"{total} messages of {topic} would be redelivered to {group}")
            return
        job = admin.start_replay(connection, group, topic, rate_limit=rate_limit, why=why, **given)
    click.echo(f"replay {job}: {total} messages of {topic} are redelivered to {group}")
    if follow:
        _follow(database, job)


def _follow(database: Database, job: int) -> None:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with (
        database.connect("replay-job") as connection,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        shown = bar.add_task(f"replay {job}", total=None)
        while (found := _one(Admin().replay_jobs(connection), job)).state == "running":
            bar.update(shown, total=found.total, completed=found.done)
            time.sleep(0.5)
    click.echo(f"replay {job} is {found.state}: {found.done} of {found.total}")


def _one(jobs: list[ReplayJob], job: int) -> ReplayJob:
    for found in jobs:
        if found.id == job:
            return found
    raise Failure(f"there is no replay {job}")


@replay_job.command("list")
@common
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_database
def list_jobs(database: Database, as_json: bool) -> None:
    """List replays, the newest first."""
    with database.connect("replay-job") as connection:
        jobs = Admin().replay_jobs(connection)
    if as_json:
        click.echo(json_line([dataclasses.asdict(job) for job in jobs]))
        return
    if not jobs:
        click.echo("No replays.", err=True)
        return
    columns = ("id", "group", "topic", "state", "done", "of", "rate", "why")
    rows = [
        (job.id, job.group, job.topic, job.state, job.done, job.total, job.rate_limit, job.why)
        for job in jobs
    ]
    print_table(table_of(columns, rows))


@replay_job.command("cancel")
@common
@click.argument("job", metavar="ID", type=int)
@pass_database
def cancel(database: Database, job: int) -> None:
    """End the replay ID; messages that it has not delivered yet are not redelivered."""
    with database.connect("replay-job") as connection:
        done = Admin().cancel_replay(connection, job)
    if not done:
        raise Failure(f"replay {job} is not running")
    click.echo(f"replay {job} is cancelled")
