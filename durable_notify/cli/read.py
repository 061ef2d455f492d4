"""``durable-notify read``: print every message of some topics, without a group."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from .._sync.reader import Reader
from .common import common, listen_dsn, pass_database, resolve_start
from .errors import Failure
from .output import Closed, Output
from .params import Moment, json_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from .database import Database

__all__ = ["read"]

NAMES = ("id", "topic", "key", "payload", "headers", "published_at", "token")


@click.command()
@common
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--from", "start", type=Moment("beginning", "now", "latest"), default="beginning",
              show_default=True, help="Where to start: beginning, now, latest (the latest message "
              "of every key, then what follows), a time, or how long ago (10m, 2h).")  # fmt: skip
@click.option("--after", "token", metavar="TOKEN", help="Start right after the message with this "
              "token.")  # fmt: skip
@click.option("--until-empty", is_flag=True, help="End once no messages are left.")
@listen_dsn
@pass_database
def read(
    database: Database,
    *,
    topics: tuple[str, ...],
    start: Any,
    token: str | None,
    until_empty: bool,
    listen_dsn: str | None,
) -> None:
    """Print all messages of topics, a JSON object a line, without a group.

    A line has id, topic, key, payload, headers, published_at and token. Nothing is acknowledged,
    and every reader receives every message. To continue later, use --after with the last token. A
    topic may be a pattern, as in 'orders.*' or 'orders.>'.
    """
    start = token if token is not None else resolve_start(database, start)
    reader = Reader(
        database.dsn, topics=topics, start=start, listen_dsn=listen_dsn, until_empty=until_empty
    )
    output = Output()
    output.when_closed(reader.stop)
    try:
        with _ended_by_signals(reader, output), suppress(Closed), reader:
            for message in reader:
                line = json_line({name: getattr(message, name) for name in NAMES})
                output.write(f"{line}\n".encode())
    except BrokenPipeError:
        return
    except OSError as error:
        raise Failure(f"standard output: {error}") from error


@contextmanager
def _ended_by_signals(reader: Reader, output: Output) -> Iterator[None]:
    """End it gracefully at the first SIGTERM or SIGINT, and at once at the second."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        # In a thread: this one may be holding the very locks that stop() takes.
        output.stop()
        threading.Thread(target=reader.stop).start()

    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
