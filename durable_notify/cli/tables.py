"""Lists on standard output: as a table, or as JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from .params import json_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.table import Table

__all__ = ["add_row", "as_json", "new_table", "print_list", "print_table", "table_of"]

#: The option of commands that print a table.
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_list(
    found: Sequence[Any],
    columns: Iterable[str],
    row: Callable[[Any], Iterable[object]],
    *,
    as_json: bool,
    empty: str,
    fields: Callable[[Any], dict[str, Any]] = dataclasses.asdict,
) -> None:
    """Print objects.

    Args:
        found: the objects.
        columns: the columns of the table.
        row: returns the cells of an object.
        as_json: whether to print JSON instead.
        empty: what to say, on standard error, instead of a table without rows.
        fields: returns an object as JSON has it.
    """
    if as_json:
        click.echo(json_line([fields(one) for one in found]))
    elif not found:
        click.echo(empty, err=True)
    else:
        print_table(table_of(columns, map(row, found)))


def new_table(*columns: str) -> Table:
    """Return an empty table with these columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row; None is shown as a dash."""
    from rich.text import Text

    # Text, so that brackets in names and payloads are not markup.
    table.add_row(*(Text("-" if cell is None else shown(cell)) for cell in cells))


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # do not cut or wrap lines for programs
        console.width = 400
    console.print(table)


def table_of(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Return a table of these columns and rows."""
    table = new_table(*columns)
    for row in rows:
        add_row(table, *row)
    return table
