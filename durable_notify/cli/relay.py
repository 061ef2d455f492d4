"""``relay``: forward topics to a broker."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import click

from ..brokers.relay import AsyncRelay
from ..brokers.routes import parse_routes
from ..groups import Group
from .common import common, group_start, listen_dsn, pass_database, resolve_start, until_empty
from .webhook import webhook_of, webhook_options

if TYPE_CHECKING:
    from .database import Database

__all__ = ["relay"]


@click.command()
@common
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--to", metavar="URL", required=True, envvar="DURABLE_NOTIFY_BROKER",
              help="The broker: amqp://, kafka://, nats://, redis:// or https://.")  # fmt: skip
@click.option("--group", required=True, help="The consumer group; created when first used.")
@click.option("--map", "routes", multiple=True, metavar="TOPIC=FIELD:VALUE,...",
              help="The broker's fields for a topic, or the topics of a pattern; the first that "
              "matches applies. {topic}, {key} and {id} are replaced.")  # fmt: skip
@click.option("--cloudevents", is_flag=True,
              help="Send each message as a CloudEvent in the JSON format.")  # fmt: skip
@webhook_options
@group_start
@click.option("--batch", type=click.IntRange(1, 1000), metavar="N",
              help="The maximum of messages in one batch; two batches are in flight. "
              "500, or 100 to a webhook.")  # fmt: skip
@click.option("--lease", type=click.FloatRange(0.1, 86400), default=30.0, show_default=True,
              metavar="SECONDS",
              help="After how long the messages of a killed relay are redelivered.")  # fmt: skip
@until_empty
@listen_dsn
@pass_database
def relay(
    database: Database,
    /,
    *,
    topics: tuple[str, ...],
    to: str,
    group: str,
    routes: tuple[str, ...],
    cloudevents: bool,
    start: Any,
    batch: int | None,
    lease: float,
    until_empty: bool,
    listen_dsn: str | None,
    **webhook: Any,
) -> None:
    """Forward messages to a broker, as a consumer group, for as long as it runs.

    A message is settled once the broker has confirmed it. A message that the broker refuses becomes
    a dead letter with the broker's error. While the broker is down, nothing is lost and no attempt
    is counted. Messages of one key arrive in order. SIGTERM and Ctrl-C end it.
    """
    given = parse_routes(routes)  # before it looks for a database
    size: Any = {} if batch is None else {"batch_size": batch}
    make: Any = functools.partial(
        AsyncRelay, broker_url=to, topics=topics, routes=given,
        cloudevents=cloudevents, webhook=webhook_of(**webhook),
        listen_dsn=listen_dsn, lease=lease, until_empty=until_empty,
        **size,
    )  # fmt: skip
    make("", group=group)  # refuses invalid arguments
    relaying = make(database.dsn, group=Group(group, start=resolve_start(database, start)))
    asyncio.run(relaying.run())
    more = f", {relaying.rejected} rejected" if relaying.rejected else ""
    click.echo(f"ended: {relaying.sent} sent{more}", err=True)
