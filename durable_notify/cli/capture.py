"""``bridge capture``: make a channel of NOTIFY durable."""

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
@click.option("--topic", required=True, help="The topic to publish to.")
@click.option("--json", "as_json", is_flag=True,
              help="Publish JSON payloads as JSON, not as a JSON string.")  # fmt: skip
@click.option("--keep", type=click.IntRange(1), default=10_000, show_default=True, metavar="N",
              help="How many notifications to keep while they cannot be published. Past that, it "
              "stops listening until half of them are published.")  # fmt: skip
@click.option("--heartbeat-interval", type=click.FloatRange(0.1, 3600), default=15.0,
              show_default=True, metavar="SECONDS",
              help="How often to check that it still hears.")  # fmt: skip
@listen_dsn
@pass_database
def capture(
    database: Database,
    *,
    channel: str,
    topic: str,
    as_json: bool,
    keep: int,
    heartbeat_interval: float,
    listen_dsn: str | None,
) -> None:
    """Publish what is sent to CHANNEL with NOTIFY to a topic, for as long as it runs.

    A notification is durable once it is heard here. What is sent while no capture listens is lost.
    It reports such a gap with start and end, on standard error and in `durable-notify audit`. If
    this process crashes, what it heard and has not published yet is lost. PostgreSQL merges
    identical notifications of a transaction into one.

    If several run at once, one is active and the others stand by. SIGTERM and Ctrl-C end it once it
    has published what it heard; a second signal ends it at once.
    """
    say = functools.partial(click.echo, err=True)
    check_channel(channel)  # before a database is looked for
    check_topic(topic)
    capturing = Capture(
        database.dsn, channel=channel, topic=topic, as_json=as_json, max_waiting=keep,
        heartbeat_interval=heartbeat_interval, listen_dsn=listen_dsn,
        say=lambda words: say(shown(words)),
    )  # fmt: skip
    for line in not_promised(channel):
        say(shown(line))
    capturing.run()
    more = f", {capturing.passed_over} were already" if capturing.passed_over else ""
    say(f"ended: {capturing.published} published{more}")
