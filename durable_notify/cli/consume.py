"""``durable-notify consume``: print messages, a JSON object a line."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from .._core.signals import handle_signals
from .._sync.consumer.consumer import Consumer
from ..groups import Group
from .common import common, group_start, listen_dsn, pass_database, resolve_start, until_empty
from .errors import Failure
from .handler import Handler, run_handler
from .output import Closed, Output
from .params import AsWritten, json_line
from .service import Observed, health_options

if TYPE_CHECKING:
    from .._sync.consumer.message import Message
    from ..options import ConsumerSettings
    from .database import Database

__all__ = ["consume"]

NAMES = ("id", "topic", "key", "payload", "headers", "published_at", "attempt")


@click.command()
@common
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--group", required=True, help="The consumer group; created when first used.")
@until_empty
@group_start
@click.option("--max", "limit", type=click.IntRange(1), help="End after that many messages.")
@click.option(
    "--lease",
    type=click.FloatRange(0.1, 86400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="After how long the messages of a killed consumer are redelivered.",
)
@listen_dsn
@click.option("--handler", type=Handler(), metavar="MODULE:FUNCTION", help="Call a Python function "
              "with each message instead of printing it: a service.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True,
              help="How many messages the handler gets at once.")  # fmt: skip
@health_options
@pass_database
def consume(
    database: Database,
    *,
    topics: tuple[str, ...],
    group: str,
    until_empty: bool,
    start: Any,
    limit: int | None,
    lease: float,
    listen_dsn: str | None,
    handler: Any,
    concurrency: int,
    observed: Observed,
) -> None:
    """Print messages, a JSON object a line, or call a handler with them.

    A line has id, topic, key, payload, headers, published_at and attempt.

    A message is acknowledged once its line is written; otherwise it is redelivered. A pipe is
    filled at the pace of its reader: `| head -3` takes three. A payload of bytes is
    {"base64": "..."}. SIGTERM, Ctrl-C and the end of the output's reader end it, with exit
    status 0.

    A handler is called with each message. When it returns, the message is acknowledged; when it
    raises, the message is redelivered later. It may be async. On SIGTERM running handlers finish.
    """
    if handler is None and concurrency != 1:
        raise click.UsageError("--concurrency is for a --handler: lines are printed one by one")
    if handler is not None and limit is not None:
        raise click.UsageError("--max is for printing: a handler gets messages until it is stopped")
    joined = Group(group, start=resolve_start(database, start))
    settings: ConsumerSettings = {"lease": lease, "until_empty": until_empty}
    if limit is not None:  # claim no message that will not be printed
        settings["batch_size"] = min(limit, 500)
        settings["prefetch"] = min(limit, 2000)
    settings["on_event"] = observed.on_event
    settings["middleware"] = observed.middleware
    if handler is not None:
        where = {"group": joined, "topics": topics, "listen_dsn": listen_dsn}
        run_handler(database.dsn, handler, concurrency, observed, {**where, **settings})
        return
    consumer = _AsWritten(
        database.dsn, group=joined, topics=topics, listen_dsn=listen_dsn, **settings
    )
    _print(consumer, limit, observed, database.dsn)


def _print(consumer: Consumer, limit: int | None, observed: Observed, dsn: str) -> None:
    output = Output()
    output.when_closed(consumer.stop)
    printer = _Printer(consumer, output, limit)
    # Closed: messages that were not written are released.
    with (
        observed.answering(consumer, dsn=dsn),
        handle_signals(output.stop),  # the consumer has handlers of its own
        suppress(Closed),
    ):
        consumer.run(printer)
    if printer.problem is not None:
        raise Failure(
            f"standard output: {printer.problem}", "Messages that were not written are redelivered."
        )


class _AsWritten(Consumer):
    """Payloads and headers are not decoded: they are printed with every digit, however deep."""

    _decoder_class = AsWritten


class _Printer:
    """Prints messages. A message is acknowledged when this returns."""

    def __init__(self, consumer: Consumer, output: Output, limit: int | None) -> None:
        self._consumer = consumer
        self._output = output
        self._left = limit
        self.problem: OSError | None = None

    def __call__(self, message: Message) -> None:
        if self.problem is not None:
            raise Closed  # half a line may stand there
        line = json_line({name: getattr(message, name) for name in NAMES})
        try:
            self._output.write(f"{line}\n".encode())
        except OSError as error:
            self.problem = error
            raise Closed from error
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._consumer.stop()
