"""Charts as SVG, drawn here: no script, and colours by the page's style sheet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

__all__ = ["Chart", "Line", "chart"]

WIDTH, HEIGHT = 600, 120


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: its name, and an SVG path."""

    name: str
    path: str
    last: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws.

    Attributes:
        title: what it shows.
        top: the value at its upper edge.
        since: the time of its left edge, in seconds since 1970.
        until: the time of its right edge.
        lines: its lines.
    """

    title: str
    top: float
    since: float
    until: float
    lines: tuple[Line, ...]


def chart(
    title: str, times: Sequence[float], series: Sequence[tuple[str, Sequence[float | None]]]
) -> Chart | None:
    """Return a chart of values over time; None if there are fewer than two points."""
    if not times or times[-1] <= times[0]:
        return None
    highest = max((value for _, values in series for value in values if value), default=0.0)
    top = _round_up(highest)

    def x(at: float) -> float:
        return (at - times[0]) / (times[-1] - times[0]) * WIDTH

    def y(value: float) -> float:
        return HEIGHT - value / top * HEIGHT

    lines = tuple(
        Line(name, _path(times, values, x, y), values[-1] if values else None)
        for name, values in series
    )
    return Chart(title, top, times[0], times[-1], lines)


def _path(
    times: Sequence[float],
    values: Sequence[float | None],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:
    steps = []
    pen_up = True
    for at, value in zip(times, values, strict=True):
        if value is None:
            pen_up = True
            continue
        steps.append(f"{'M' if pen_up else 'L'}{x(at):.1f} {y(value):.1f}")
        pen_up = False
    return "".join(steps)


def _round_up(value: float) -> float:
    """Return a round number that is no smaller: 1, 2 or 5 times a power of ten."""
    if value <= 1:
        return 1.0
    power = 10 ** (len(str(int(value))) - 1)
    return next(float(step * power) for step in (1, 2, 5, 10) if step * power >= value)
