"""``status`` and ``replay``: how far groups have read, and rewinding them."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin import Admin
from .common import common, pass_database
from .errors import Failure
from .params import Moment, json_line, resolve, shown_age
from .tables import add_row, new_table, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from ..models import OpenPublisher
    from ..payloads import TopicStatus
    from .database import Database

__all__ = ["replay", "status"]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@common
@as_json
@click.option("--exact", is_flag=True, help="Count all; else more than 10,000 are estimated (~).")
@click.option("--watch", is_flag=True, help="Refresh it, with rates and leases.")
@click.option("--interval", type=click.FloatRange(0.1, 86_400), metavar="SECONDS",
              help="With --watch: how often; 2.")  # fmt: skip
@pass_database
def status(
    database: Database, *, as_json: bool, exact: bool, watch: bool, interval: float | None
) -> None:
    """Show how far each group has read each of its topics.

    Lag is what a group has not acknowledged yet: unread messages, deferred ones (that wait for
    another attempt) and leased ones (that consumers hold now).
    """
    if watch:
        if exact:
            raise click.UsageError("--exact does not go with --watch")
        from .status_watch import watch as show

        show(database, interval or 2.0, as_json=as_json)
        return
    if interval is not None:
        raise click.UsageError("--interval goes with --watch")
    admin = Admin()
    with database.connect("status") as connection:
        rows = admin.status(connection, **({"max_count": None} if exact else {}))
        strict = [group.name for group in admin.groups(connection) if group.order_by == "strict"]
        held_up = [(name, one) for name in strict for one in admin.waiting_for(connection, name)]
        now = resolve(timedelta(), connection)
    if as_json:
        click.echo(json_line([_status_json(row, now) for row in rows]))
    elif not rows:
        click.echo(
            "No topics yet. Publish something: durable-notify publish TOPIC PAYLOAD", err=True
        )
    else:
        print_table(_status_table(rows, now))
        for name, one in held_up:
            click.echo(_held_up(name, one, now))


def _held_up(group: str, publisher: OpenPublisher, now: datetime) -> str:
    who = f"process {publisher.pid}"
    if publisher.prepared is not None:
        who = f"prepared transaction {publisher.prepared!r}"
    return (
        f"Strict group {group} waits for {who} in database {publisher.database}, which publishes "
        f"since {shown_age(publisher.started_at, now)}; its query began "
        f"{shown_age(publisher.query_started_at, now)} ago: {publisher.query or 'unknown'}"
    )


def _lag(row: TopicStatus) -> int | None:
    if row.unread is None:
        return None
    return row.unread + (row.deferred or 0) + (row.leased or 0)


def _count(row: TopicStatus, number: int | None) -> str | None:
    return None if number is None else f"{'~' if row.is_exact is False else ''}{number}"


def _status_json(row: TopicStatus, now: datetime) -> dict[str, Any]:
    oldest = row.oldest_unread
    return {
        "topic": row.topic,
        "group": row.group_name,
        "last_id": row.last_id,
        "lag": _lag(row),
        "unread": row.unread,
        "exact": row.is_exact,
        "oldest_unread": oldest,
        "oldest_unread_seconds": oldest and max(0.0, (now - oldest).total_seconds()),
        "deferred": row.deferred,
        "live_leases": row.leases,
        "leased": row.leased,
        "dead_letters": row.dead,
    }


def _status_table(rows: list[TopicStatus], now: datetime) -> Table:
    table = new_table("topic", "group")
    for name in (
        "last id",
        "lag",
        "unread",
        "oldest unread",
        "deferred",
        "leases",
        "leased",
        "dead",
    ):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        numbers = (row.deferred, row.leases, row.leased, row.dead)
        age = shown_age(row.oldest_unread, now)
        cells = [row.last_id, _count(row, _lag(row)), _count(row, row.unread), age, *numbers]
        add_row(table, row.topic, row.group_name, *cells)
    return table


@click.command()
@common
@click.option("--group", required=True, help="The group to rewind.")
@click.option("--topic", required=True, help="The topic in which to rewind it.")
@click.option("--from-beginning", is_flag=True, help="Redeliver all messages that are retained.")
@click.option("--since", type=Moment(), help="Redeliver messages published since then: ISO 8601, "
              "or how long ago, as in 10m, 2h, 1d.")  # fmt: skip
@click.option("--after", type=click.IntRange(0, 2**63 - 1), metavar="ID",
              help="Redeliver messages with higher ids.")  # fmt: skip
@click.option("--why", help="Kept in the audit.")
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
        place: dict[str, Any] = {"after": 0 if from_beginning else after}
        if since is not None:
            place = {"since": resolve(since, connection)}
        count = admin.replay(connection, group, topic, **place, dry_run=True)
        verb = "would be" if dry_run else "are" if count != 1 else "is"
        click.echo(f"{count} message{'s' * (count != 1)} of {topic} {verb} redelivered to {group}")
        sys.stdout.flush()
        if dry_run or not count:
            return
        # Not in one transaction with the counting: the group's consumers would wait meanwhile.
        if not yes and sys.stdin.isatty() and not click.confirm("Continue?", err=True):
            raise Failure("cancelled; nothing has changed")
        done = admin.replay(connection, group, topic, **place, why=why)
    if done != count:
        click.echo(f"{done} messages, because more were consumed meanwhile")
