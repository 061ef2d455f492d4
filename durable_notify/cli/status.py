"""``status``: how far each group has read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database
from .params import json_line, resolve, shown_age
from .tables import add_row, as_json, new_table, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from ..models import OpenPublisher, TopicStatus
    from .database import Database

__all__ = ["status"]

#: The most rows of a table, unless all are asked for.
MAX_ROWS = 100


@click.command()
@common
@as_json
@click.option("--exact", is_flag=True, help="Count all; else more than 10,000 are estimated (~).")
@click.option("--all", "everything", is_flag=True,
              help=f"Show all; else, of more than {MAX_ROWS}, those that lag most.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Refresh it, with rates and leases.")
@click.option("--interval", type=click.FloatRange(0.1, 86_400), metavar="SECONDS",
              help="With --watch: how often; 2.")  # fmt: skip
@pass_database
def status(
    database: Database,
    *,
    as_json: bool,
    exact: bool,
    everything: bool,
    watch: bool,
    interval: float | None,
) -> None:
    """Show how far each group has read each of its topics.

    Lag is what a group has not acknowledged yet: unread messages, deferred ones (that wait for
    another attempt) and leased ones (that consumers hold now). JSON has all rows.
    """
    if watch:
        if exact or everything:
            raise click.UsageError("--exact and --all do not go with --watch")
        from .status_watch import watch as show

        show(database, interval or 2.0, as_json=as_json)
        return
    if interval is not None:
        raise click.UsageError("--interval goes with --watch")
    admin = Admin()
    with database.connect("status") as connection:
        rows = admin.status(
            connection,
            max_count=None if exact else 10_000,
            limit=None if everything or as_json else MAX_ROWS + 1,
        )
        strict = [group.name for group in admin.groups(connection) if group.order_by == "strict"]
        held_up = [
            (name, one) for name in strict for one in admin.blocking_publishers(connection, name)
        ]
        now = resolve(timedelta(), connection)
    if as_json:
        click.echo(json_line([_status_json(row, now) for row in rows]))
    elif not rows:
        click.echo(
            "No topics yet. Publish something: durable-notify publish TOPIC PAYLOAD", err=True
        )
    else:
        hidden = len(rows) > MAX_ROWS and not everything
        print_table(_status_table(_most(rows) if hidden else rows, now))
        if hidden:
            click.echo("These lag most. For all, run: durable-notify status --all")
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


def _most(rows: list[TopicStatus]) -> list[TopicStatus]:
    """Leave out what has nothing, and the one too many that shows that there are more."""
    least = min(rows, key=lambda row: (_lag(row) or 0, row.dead or 0))
    return [row for row in rows if row is not least and (_lag(row) or row.dead)]


def _lag(row: TopicStatus) -> int | None:
    if row.unread is None:
        return None
    return row.unread + (row.deferred or 0) + (row.leased or 0)


def _count(row: TopicStatus, number: int | None) -> str | None:
    return None if number is None else f"{'~' if row.is_exact is False else ''}{number}"


def _status_json(row: TopicStatus, now: datetime) -> dict[str, Any]:
    oldest, unsettled = row.oldest_unread, row.oldest_unsettled
    return {
        "topic": row.topic,
        "group": row.group,
        "last_id": row.last_id,
        "lag": _lag(row),
        "unread": row.unread,
        "exact": row.is_exact,
        "oldest_unread": oldest,
        "oldest_unread_seconds": oldest and max(0.0, (now - oldest).total_seconds()),
        "oldest_unsettled": unsettled,
        "oldest_unsettled_seconds": unsettled and max(0.0, (now - unsettled).total_seconds()),
        "deferred": row.deferred,
        "retrying": row.retrying,
        "parked": row.parked,
        "live_leases": row.leases,
        "leased": row.leased,
        "dead_letters": row.dead,
    }


def _status_table(rows: list[TopicStatus], now: datetime) -> Table:
    table = new_table("topic", "group")
    # Not all that --json has: a terminal of 80 columns must still show topics and groups.
    for name in (
        "last id",
        "lag",
        "unread",
        "oldest unsettled",
        "deferred",
        "leases",
        "leased",
        "dead",
    ):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        counts = (_count(row, _lag(row)), _count(row, row.unread))
        numbers = (row.deferred, row.leases, row.leased, row.dead)
        age = shown_age(row.oldest_unsettled, now)
        add_row(table, row.topic, row.group, row.last_id, *counts, age, *numbers)
    return table
