"""``bridge capture``: a channel of NOTIFY made durable."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from ..bridge.capture import Capture, not_promised
from ..topics import check_channel, check_topic
from .common import common, listen_dsn, pass_database
from .params import shown

if TYPE_CHECKING:
    from .database import Database

__all__ = ["capture"]


@click.command()
@common
@click.argument("channel")
@click.option("--topic", required=True, help="Where it is published.")
@click.option("--json", "as_json", is_flag=True,
              help="Publish what is JSON as that, and not as a JSON string.")  # fmt: skip
@click.option("--keep", type=click.IntRange(1), default=10_000, show_default=True, metavar="N",
              help="How many are kept while they cannot be published; more, and it stops listening "
              "until half of them are.")  # fmt: skip
@click.option("--heartbeat", type=click.FloatRange(0.1, 3600), default=15.0, show_default=True,
              metavar="SECONDS", help="How often to check that it still hears.")  # fmt: skip
@click.option("--listen-dsn", metavar="DSN", callback=listen_dsn, help="A direct connection for "
              "listening, where --dsn leads through a pooler.")  # fmt: skip
@pass_database
def capture(
    database: Database,
    *,
    channel: str,
    topic: str,
    as_json: bool,
    keep: int,
    heartbeat: float,
    listen_dsn: str | None,
) -> None:
    """Publish what is sent to CHANNEL with NOTIFY to a topic, for as long as it runs.

    Durable from when it is heard. Not promised: what is sent while nobody listens here, which is
    said with its start and end, on standard error and in `durable-notify audit`; what was heard and
    not yet published, where this process crashes; identical notifications of a transaction, which
    PostgreSQL makes one.

    Several at once: one is active, the others stand by. SIGTERM and Ctrl-C end it once what was
    heard is published; a second time: at once.
    """
    say = functools.partial(click.echo, err=True)
    check_channel(channel)  # before a database is looked for
    check_topic(topic)
    capturing = Capture(
        database.dsn, channel, topic,
        as_json=as_json, max_waiting=keep, heartbeat=heartbeat, listen_dsn=listen_dsn,
        say=lambda words: say(shown(words)),
    )  # fmt: skip
    for line in not_promised(channel):
        say(shown(line))
    capturing.run()
    more = f", {capturing.passed_over} were already" if capturing.passed_over else ""
    say(f"ended: {capturing.published} published{more}")
