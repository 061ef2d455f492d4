"""``wakeups``: how a topic wakes its consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .._sync.admin.admin import Admin
from .common import common, pass_database

if TYPE_CHECKING:
    from .database import Database

__all__ = ["wakeups"]


@click.command()
@common
@click.argument("topic")
@click.argument("policy", required=False)
@pass_database
def wakeups(database: Database, *, topic: str, policy: str | None) -> None:
    """Set how a topic wakes its consumers: when_waiting, always or never.

    when_waiting: only while one waits, the default. always: for listeners that cannot arm its
    doorbell. never: consumers poll once a second, for publishers with PREPARE TRANSACTION. Without
    a policy it prints the current one.
    """
    with database.connect("wakeups") as connection:
        if policy is None:
            click.echo(Admin().notify_policy(connection, topic))
        else:
            Admin().set_notify_policy(connection, topic, policy)
