"""How the commands are listed: each with its whole first sentence, under headings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Listing"]

#: More than any first sentence has: click cuts what does not fit into the line.
_WHOLE = 1000


class Listing(click.Group):
    """Commands that are listed in full."""

    #: The names of the commands under each heading; without any, they are in one list.
    headings: Mapping[str, Sequence[str]] | None = None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names of the commands, and what each does."""
        width = max(map(len, self.commands))
        headings = self.headings or {"Commands": self.list_commands(ctx)}
        for heading, names in headings.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (name.ljust(width), self.commands[name].get_short_help_str(_WHOLE))
                        for name in names
                    ]
                )
