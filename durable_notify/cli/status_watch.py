"""``status --watch``: how far groups have read, refreshed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

import click
import psycopg

from .._core import posix
from ..diagnostics.status import GroupStatus, StatusSnapshot, take_snapshot
from ..dsn import safe_message
from .common import interruptible
from .errors import mute_stdout
from .params import json_line, shown
from .tables import add_row, new_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, RenderableType
    from rich.table import Table

    from .database import Database

__all__ = ["screen", "watch"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Column:
    name: str
    rank: int  # on a narrow terminal those of the lowest rank are shown
    width: int
    cell: Callable[[GroupStatus], object]


def _count(number: int | None, *, exact: bool = True) -> str | None:
    return None if number is None else f"{'' if exact else '~'}{number:,}"


def _rate(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"  # noqa: PLR2004


def _seconds(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{max(0.0, seconds):.1f}s"


_COLUMNS = (
    _Column("topic", 0, 10, lambda s: s.topic),
    _Column("group", 0, 10, lambda s: s.group),
    _Column("lag", 0, 8, lambda s: _count(s.lag, exact=s.exact is not False)),
    _Column("behind", 1, 6, lambda s: _seconds(s.oldest_unsettled_seconds)),
    _Column("in/s", 2, 6, lambda s: _rate(s.rate_in)),
    _Column("out/s", 2, 6, lambda s: _rate(s.rate_out)),
    _Column("deferred", 4, 8, lambda s: _count(s.deferred)),
    _Column("leased", 3, 6, lambda s: _count(s.leased)),
    _Column("dead", 3, 5, lambda s: _count(s.dead_letters)),
    _Column("expired", 5, 7, lambda s: _count(s.expired)),
    _Column("asleep", 5, 6, lambda s: _count(s.asleep)),
)
_NAMES = (0, 1)  # the indexes of topic and group
_WIDE = 80
#: The most rows to fetch; JSON has all.
_MAX_ROWS = 1000
_GAP = 3  # between columns


def watch(database: Database, interval: float, *, as_json: bool) -> None:
    """Show it until q or Ctrl-C, or until the reader of the output ends."""
    from rich.console import Console

    console = Console()
    with interruptible(), contextlib.suppress(KeyboardInterrupt), _readers():
        if as_json:
            for seen, trouble in _snapshots(database, interval, _wait, None):
                if trouble is None:
                    click.echo(json_line(_json(seen)))
                    sys.stdout.flush()
        elif console.is_terminal:
            _on_a_terminal(console, database, interval)
        else:
            console.width = 400
            for seen, trouble in _snapshots(database, interval, _wait):
                console.print(screen(seen, 400, None, trouble))


@contextlib.contextmanager
def _readers() -> Iterator[None]:
    """End quietly if the reader of the output has ended."""
    try:
        yield
    except BrokenPipeError:
        mute_stdout()


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def _on_a_terminal(console: Console, database: Database, interval: float) -> None:
    from rich.live import Live

    with _keys() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        for seen, trouble in _snapshots(database, interval, wait):
            width, height = console.size
            live.update(screen(seen, width, height, trouble), refresh=True)


def _snapshots(
    database: Database,
    interval: float,
    wait: Callable[[float], bool],
    limit: int | None = _MAX_ROWS,
) -> Iterator[tuple[StatusSnapshot, str | None]]:
    """Look at intervals until `wait` is false; reconnect if the connection breaks.

    The first look must succeed. Later ones that fail show the last result, with the error.
    """
    seen: StatusSnapshot | None = None
    while True:
        try:
            with database.connect("status") as connection:
                while True:
                    started = time.monotonic()
                    seen = take_snapshot(connection, seen, limit)
                    yield seen, None
                    if not wait(max(0.05, interval - (time.monotonic() - started))):
                        return
        except psycopg.OperationalError as error:
            if seen is None:
                raise
            yield seen, " ".join(safe_message(error).split())
            if not wait(interval):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for some seconds, and returns False once q was typed."""
    if not (posix.IS_POSIX and sys.stdin.isatty()):
        yield _wait
        return
    descriptor = sys.stdin.fileno()

    def wait(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0:
            if select.select([descriptor], [], [], rest)[0]:
                typed = os.read(descriptor, 100)
                if not typed or b"q" in typed.lower():
                    return False
        return True

    with posix.key_by_key(descriptor):
        yield wait


def screen(
    seen: StatusSnapshot, width: int, height: int | None, trouble: str | None = None
) -> RenderableType:
    """Return what to show, of a width, and no higher than `height`."""
    from rich.console import Group
    from rich.text import Text

    head = f"{seen.at.astimezone():%H:%M:%S}  q: quit"
    if trouble is not None:
        head = f"no news since {seen.at.astimezone():%H:%M:%S}: {trouble}"
    rows = len(seen.groups) + seen.left_out
    # Without the lines around the rows: a table takes four lines more than it has rows.
    room = 10_000 if height is None else max(1, height - 1 - 4)
    if rows > room or seen.left_out:
        room = min(max(1, room - 1), len(seen.groups))
    leases = min(len(seen.leases), max(0, room - min(rows, room) - 4))
    parts: list[RenderableType] = [Text(shown(head), no_wrap=True, overflow="ellipsis")]
    if rows:
        parts.append(_groups(seen.groups, width, min(rows, room)))
    else:
        parts.append(Text("No topics yet."))
    if rows > room:
        parts.append(
            Text(f"and {rows - room} more that lag less", no_wrap=True, overflow="ellipsis")
        )
    if leases:
        parts.append(_leases(seen, width, leases))
    return Group(*parts)


def _groups(groups: list[GroupStatus], width: int, limit: int) -> Table:
    if len(groups) > limit:
        groups = sorted(groups, key=lambda s: -(s.lag or 0))[:limit]
    taken = 0
    columns = set()
    for column in sorted(_COLUMNS, key=lambda c: c.rank):
        taken += column.width + _GAP
        if column.rank and taken > width:
            break
        columns.add(column.name)
    chosen = [column for column in _COLUMNS if column.name in columns]
    cells = [["-" if (c := column.cell(one)) is None else str(c) for column in chosen]
             for one in groups]  # fmt: skip
    widths = [max(map(len, [column.name, *cut])) for column, cut in
              zip(chosen, zip(*cells, strict=True), strict=True)]  # fmt: skip
    # Names take the width that numbers leave, so names are cut, and numbers are not.
    rest = max(8, width - sum(widths[2:]) - _GAP * len(chosen))
    table = new_table()
    for index, column in enumerate(chosen):
        # One line each, so that the height is known.
        table.add_column(
            column.name, no_wrap=True, overflow="ellipsis",
            justify="left" if index in _NAMES else "right",
            max_width=rest // 2 if index in _NAMES else None,
        )  # fmt: skip
    for row in cells:
        add_row(table, *row)
    return table


def _leases(seen: StatusSnapshot, width: int, limit: int) -> Table:
    table = new_table()
    wide = width >= _WIDE
    names = ("group", "topic") if wide else ()
    for name in ("leased to", *names, "messages", "for", "left"):
        right = name in {"messages", "for", "left"}
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", justify="right" if right else "left",
            max_width=None if right else max(8, (width - 40) // (1 + len(names))),
        )  # fmt: skip
    for lease in seen.leases[:limit]:
        left = _seconds(lease.seconds_left) if lease.seconds_left > 0 else "expired"
        where = (lease.group, lease.topic) if wide else ()
        add_row(table, lease.owner, *where, lease.messages, _seconds(lease.seconds), left)
    return table


def _json(seen: StatusSnapshot) -> dict[str, Any]:
    groups = [{**dataclasses.asdict(one), "lag": one.lag} for one in seen.groups]
    return {
        "at": seen.at,
        "groups": groups,
        "leases": list(map(dataclasses.asdict, seen.leases)),
    }
