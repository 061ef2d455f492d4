"""Tables on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .params import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

__all__ = ["add_row", "new_table", "print_table", "table_of"]


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
