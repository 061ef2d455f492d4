"""``durable-notify publish``: one message, or NDJSON from standard input."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import psycopg

from .._sync.publisher import Publisher
from ..payloads import NewMessage, dedup_of, encode, times_of
from ..topics import check_key, check_topic
from .common import common, interruptible, pass_database
from .errors import Failure, mute_stdout
from .ndjson import BadLine, LineFormat, batches, parse_json, parse_line
from .params import Length, Moment, messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.progress import Progress

    from .database import Connection, Database
    from .ndjson import Batch

__all__ = ["publish"]

#: What PostgreSQL raises for a message that it refuses, such as one that is nested too deep.
_REFUSED = (
    psycopg.DataError, psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex,
)  # fmt: skip


@click.command()
@common
@click.argument("topic")
@click.argument("payload", required=False)
@click.option("--key", help="Messages of one key belong together, and stay in order.")
@click.option(
    "--header", "headers", metavar="NAME=VALUE", multiple=True, help="A header; may be repeated."
)
@click.option("--text", is_flag=True, help="The payload, or each line, is text.")
@click.option(
    "--envelope",
    is_flag=True,
    help='Each line is {"payload": ..., "key": ..., "headers": {...}}; only payload is required.',
)
@click.option("--delay", type=Length(), help="Deliver it that long from now: seconds, or 10m, 2h.")
@click.option("--deliver-at", type=Moment(), help="Deliver it from then on: ISO 8601.")
@click.option("--ttl", type=Length(), help="Deliver it for that long: seconds, or 10m, 2h, 1d.")
@click.option("--expires-at", type=Moment(), help="Do not deliver it from then on: ISO 8601.")
@click.option("--dedup-key", help="Publish it only once under this key, within the window.")
@click.option("--dedup-window", type=Length(), help="The window; 1h by default.")
@click.option("--ids", is_flag=True, help="Print the ids of messages read from standard input too.")
@pass_database
def publish(
    database: Database,
    /,
    *,
    topic: str,
    payload: str | None,
    key: str | None,
    headers: tuple[str, ...],
    text: bool,
    envelope: bool,
    ids: bool,
    **options: Any,
) -> None:
    """Publish a message and print its id.

    PAYLOAD is JSON. Without it, the command reads standard input: one JSON payload a line. It skips
    blank lines. It publishes lines in transactions of up to 1,000, and whenever the input pauses.

    At a bad line it stops: the lines before it are published; it and those after it are not.
    """
    if envelope and (text or payload is not None):
        raise click.UsageError("--envelope is for JSON lines on standard input")
    given = {name: value for name, value in options.items() if value is not None}
    if relative := [name for name, value in given.items() if isinstance(value, timedelta)]:
        option = relative[0].replace("_", "-")
        raise click.UsageError(
            f"--{option} takes a time in ISO 8601; for a time from now use --delay or --ttl"
        )
    line_format = LineFormat(
        check_key(key), _headers(headers), text=text, envelope=envelope, options=given
    )
    check_topic(topic)
    if payload is None:
        with interruptible():
            _publish_lines(database, topic, line_format, ids)
        return
    message = line_format.message(_argument(payload, text))
    encode(message)  # before it looks for a database
    times_of(message)
    dedup_of(message)
    with database.connect("publish") as connection:
        message_id = Publisher().publish(connection, topic, message)
    click.echo(message_id)


def _headers(pairs: Iterable[str]) -> dict[str, str] | None:
    headers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{name!r} has no value: write --header name=value")
        headers[name] = value
    return headers or None


def _argument(payload: str, text: bool) -> Any:
    if text:
        return payload
    try:
        return parse_json(payload)
    except ValueError as error:
        raise Failure(
            f"the payload is not JSON: {error}",
            "Quote it as JSON, as in '{\"id\": 1}' or '\"a string\"', or publish it as text with "
            "--text.",
            exit_code=2,
        ) from None


def _publish_lines(database: Database, topic: str, line_format: LineFormat, ids: bool) -> None:
    if sys.stdin.isatty():
        click.echo("Type one JSON payload a line; end with Ctrl-D.", err=True)
    with database.connect("publish") as connection, _bar() as bar:
        run = _Run(connection, topic, line_format, ids)
        try:
            for batch in batches(sys.stdin.fileno()):
                run.publish(batch)
                bar.advance(bar.task_ids[0], batch.size)
                bar.update(bar.task_ids[0], published=f"{run.published:,}")
        except BadLine as error:
            bar.stop()
            raise Failure(str(error), run.outcome(error.line)) from None
        except KeyboardInterrupt:
            bar.stop()
            raise Failure("interrupted", run.outcome(run.next_line)) from None
        except psycopg.Error:
            bar.stop()
            click.echo(run.outcome(run.next_line), err=True)
            raise
    click.echo(f"published {messages(run.published)}", err=True)


class _Run:
    """What happened to the lines so far."""

    def __init__(
        self, connection: Connection, topic: str, line_format: LineFormat, ids: bool
    ) -> None:
        self._connection = connection
        self._publisher = Publisher()
        self._topic = topic
        self._line_format = line_format
        self._ids = ids
        self.published = 0
        self.next_line = 1  # all before it is published
        self._committing = 0  # how many messages are being committed right now

    def publish(self, batch: Batch) -> None:
        """Publish a batch in a transaction: whole, or up to its first bad line, which is raised."""
        good: list[tuple[int, NewMessage]] = []
        bad: BadLine | None = None
        try:
            for number, line in batch.lines:
                good.append(parse_line(number, line, self._line_format))
        except BadLine as error:
            bad = error
        try:
            self._commit(good)
        except _REFUSED as error:
            bad = self._commit_up_to_bad(good, error)
        if bad is not None:
            raise bad
        self.next_line = batch.lines[-1][0] + 1 if batch.lines else self.next_line

    def _commit(self, lines: Sequence[tuple[int, NewMessage]]) -> None:
        if not lines:
            return
        with self._connection.transaction():
            found = self._publisher.publish_many(
                self._connection, self._topic, [message for _, message in lines]
            )
            self._committing = len(lines)
        self._committing = 0
        self.published += len(lines)
        self.next_line = lines[-1][0] + 1
        if self._ids:
            self._print(found)

    def _commit_up_to_bad(
        self, lines: Sequence[tuple[int, NewMessage]], error: psycopg.Error
    ) -> BadLine:
        """Find the line that PostgreSQL refused, and commit those before it."""
        for index, (number, message) in enumerate(lines):
            try:
                with self._connection.transaction(force_rollback=True):
                    self._publisher.publish_many(self._connection, self._topic, [message])
            except _REFUSED as refused:
                self._commit(lines[:index])
                return BadLine(number, f"PostgreSQL refuses it: {refused.diag.message_primary}")
        raise error

    def _print(self, ids: Iterable[int]) -> None:
        try:
            click.echo("\n".join(map(str, ids)))
        except BrokenPipeError:  # the ids' reader has ended; publishing continues
            mute_stdout()
            self._ids = False

    def outcome(self, line: int) -> str:
        """Return what happened to the lines around the one where it ended."""
        if self._committing:
            return (
                f"{messages(self.published)} published: all before line {self.next_line}. The "
                f"next {self._committing} may be published or not: it ended during their commit. "
                "No line after those is published."
            )
        return (
            f"{messages(self.published)} published: all before line {line}. Line {line} and "
            f"everything after it is not. To continue: tail -n +{line} FILE | the same command"
        )


def _bar() -> Progress:
    """Show the progress, on a terminal."""
    import os
    import stat

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    about = os.fstat(sys.stdin.fileno())
    size = about.st_size if stat.S_ISREG(about.st_mode) else None
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("publishing"), BarColumn(), DownloadColumn(),
        TextColumn("{task.fields[published]} messages"), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal or sys.stdin.isatty(),
    )  # fmt: skip
    bar.add_task("publishing", total=size, published="0")
    return bar
