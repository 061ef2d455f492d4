"""Options of every command, before its name or after it; and those of several."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import database
from .errors import Failure
from .params import Moment, resolve, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from .database import Database

__all__ = [
    "common", "confirm", "group_start", "interruptible", "listen_dsn", "pass_database",
    "resolve_start", "to_dsn", "until_empty",
]  # fmt: skip

F = TypeVar("F", bound="Callable[..., Any]")

pass_database = click.make_pass_decorator(database.Database)


def common(function: F) -> F:
    """Add --dsn and -v."""
    function = click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=_show_log,
        help="Show the log on standard error; -vv shows all of it.",
    )(function)  # fmt: skip
    return click.option(
        "--dsn", metavar="DSN", expose_value=False, callback=_find_database,
        help="The database: a libpq URI or connection string.",
    )(function)  # fmt: skip


def _find_database(context: click.Context, _: click.Parameter, dsn: str | None) -> None:
    root = context.find_root()
    if root.obj is None or dsn is not None:
        host = root.obj and root.obj.host
        root.obj = context.obj = database.find(dsn)
        root.obj.host = host


def to_dsn(_: click.Context, __: click.Parameter, dsn: str | None) -> str | None:
    """Return the DSN for listening; no error text quotes it."""
    return None if dsn is None else database.plain_dsn(dsn, "--listen-dsn")


listen_dsn = click.option(
    "--listen-dsn", metavar="DSN", callback=to_dsn,
    help="A direct connection for listening, if --dsn leads through a pooler.",
)  # fmt: skip
group_start = click.option(
    "--start", type=Moment("beginning", "now"), default="beginning", show_default=True,
    help="Where a new group starts: beginning, now, a time, or how long ago (10m, 2h). An existing "
    "group continues at its position.",
)  # fmt: skip
until_empty = click.option(
    "--until-empty", is_flag=True,
    help="End once no messages are left, including the group's retries and messages that its other "
    "consumers hold.",
)  # fmt: skip


def resolve_start(database: Database, start: Any) -> Any:
    """Return a word unchanged, and a time by the database's clock."""
    if isinstance(start, str):
        return start
    with database.connect("start") as connection:
        return resolve(start, connection)


def _show_log(context: click.Context, _: click.Parameter, verbose: int) -> None:
    """Show warnings, or more with -v, on standard error; a host may have set up more."""
    log = logging.getLogger("durable_notify")
    database = context.find_root().obj
    if not (log.hasHandlers() if database and database.host else log.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine())
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.WARNING)
    if verbose:
        log.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {shown(' '.join(record.getMessage().split()))}"
        if record.exc_info and logging.getLogger("durable_notify").isEnabledFor(logging.INFO):
            text += f"\n{shown(self.formatException(record.exc_info))}"
        return text


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM end the block as Ctrl-C does, by KeyboardInterrupt."""
    import signal

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal, unless `yes` was given."""
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise Failure("cancelled; nothing has changed")
