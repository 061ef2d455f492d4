"""``ingest``: publish messages of a broker to a topic."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import click

from ..brokers.ingest import AsyncIngest
from .common import common, pass_database
from .params import Length

if TYPE_CHECKING:
    from .database import Database

__all__ = ["ingest"]


@click.command()
@common
@click.argument("queue")
@click.option("--from", "source", metavar="URL", required=True, envvar="DURABLE_NOTIFY_BROKER",
              help="The broker: amqp://, kafka:// or nats://.")  # fmt: skip
@click.option("--to", metavar="TOPIC", required=True, help="The topic to publish to.")
@click.option("--group", default="durable-notify", show_default=True,
              help="Kafka's consumer group, or the name of NATS's durable consumer.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 10_000), default=500, show_default=True,
              metavar="N", help="The maximum of messages in one transaction.")  # fmt: skip
@click.option("--dedup-window", "window", type=Length(), default="1d", show_default=True,
              help="How long a message is known by its id: 90s, 10m, 2h, 1d.")  # fmt: skip
@click.option("--refused", metavar="TOPIC", help="The topic for messages that the database does "
              "not accept under --to, with the reason; TOPIC.refused by default.")  # fmt: skip
@pass_database
def ingest(
    database: Database,
    *,
    queue: str,
    source: str,
    to: str,
    group: str,
    batch: int,
    window: float,
    refused: str | None,
) -> None:
    """Publish messages of QUEUE to a topic, for as long as it runs.

    QUEUE is a RabbitMQ queue, a Kafka topic or a NATS stream. Only committed messages are
    acknowledged to the broker; redelivered ones are published once. SIGTERM and Ctrl-C end it.
    """
    make = functools.partial(
        AsyncIngest, broker_url=source, queue=queue, topic=to, group=group, batch_size=batch,
        dedup_window=window, refused=refused,
    )  # fmt: skip
    make("")  # refuses invalid arguments before it looks for a database
    ingesting = make(database.dsn)
    asyncio.run(ingesting.run())
    more = f", {ingesting.refused} refused" if ingesting.refused else ""
    click.echo(f"ended: {ingesting.published} published{more}", err=True)
