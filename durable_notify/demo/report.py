"""The demo's text and its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .tally import count

if TYPE_CHECKING:
    from .tally import Results

__all__ = ["Narrator", "show"]


class Narrator:
    """Prints what happens, as it happens; readable without colours too."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._steps = 0

    def title(self, text: str) -> None:
        self.console.print(Text("durable-notify demo", style="bold"))
        self.console.print(Text(text))

    def step(self, text: str) -> None:
        """Begin a step."""
        self._steps += 1
        self.console.print()
        self.console.print(Text(f"{self._steps}. {text}", style="bold cyan"))

    def say(self, text: str) -> None:
        """Print the result."""
        self.console.print(Text(f"   {text}"))


def show(console: Console, results: Results) -> int:
    """Print what each side received, and return the exit status."""
    sent = results.sent
    plain, durable = count(sent, results.plain), count(sent, results.durable)
    replayed = {number for number, _ in results.replayed} & results.to_replay
    rows: list[tuple[str, object, object]] = [
        ("published (committed)", len(sent.committed), len(sent.committed)),
        ("rolled back", len(sent.rolled_back), len(sent.rolled_back)),
        ("undone as PostgreSQL was killed", len(sent.in_flight), len(sent.in_flight)),
        ("received", plain.received, durable.received),
        ("lost", plain.lost, durable.lost),
        ("delivered again", plain.again, durable.again),
        ("rolled back or undone, but delivered", plain.strays, durable.strays),
        ("altered", plain.altered, durable.altered),
        ("replayed", "cannot", f"{len(replayed)} of {len(results.to_replay)}"),
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("messages")
    table.add_column("plain LISTEN/NOTIFY", justify="right")
    table.add_column("durable_notify", justify="right")
    for name, left, right in rows:
        style = "bold" if name == "lost" else ""
        table.add_row(name, str(left), str(right), style=style)
    console.print()
    console.print(table)
    good = durable.kept_its_promise and len(replayed) == len(results.to_replay)
    for line in _explanations(results, durable.again):
        console.print(Text(f"- {line}"))
    console.print()
    if good:
        console.print(Text("durable_notify lost nothing.", style="bold green"))
        return 0
    console.print(Text("FAILED: durable_notify broke its promise.", style="bold red"))
    return 1


def _explanations(results: Results, again: int) -> list[str]:
    lines = ["Lost by LISTEN: what was sent while its client was away."]
    if results.too_long:
        lines.append(f"{results.too_long} events were over the 8,000 bytes that NOTIFY can carry.")
    if again:
        lines.append(
            f"Delivered again: {again} that the killed consumer had handled, but not acknowledged. "
            "At least once means this; acknowledge in your own transaction for exactly once in "
            "effect."
        )
    return lines
