"""Lists of topics and groups: sorted by a column, and continued by key.

A list shows the newest sample, in which rows have moved since the page before. The key of the last
row says where to continue, so rows that came in front of it shift no other row out of sight.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from starlette.exceptions import HTTPException

from .sample import Total

__all__ = ["Listing", "listing"]

#: How many rows a page has.
PAGE = 100
#: What a list is sorted by, unless the address says.
FIRST = "lag"

Value = Callable[[Total], float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list.

    Attributes:
        rows: its rows.
        total: how many the list has.
        sort: what it is sorted by: the name, ascending, or a number, descending.
        after: where the next page begins; None: there is none.
    """

    rows: Sequence[Total]
    total: int
    sort: str
    after: str | None


def listing(
    found: Iterable[Total], numbers: Mapping[str, Value], given: Mapping[str, str]
) -> Listing:
    """Return the page of a list that an address asks for.

    Args:
        found: all rows.
        numbers: by what to sort, besides the name.
        given: ``sort``, and ``after`` of the page before.

    Raises:
        HTTPException: there is no such column, or ``after`` is invalid.
    """
    sort = given.get("sort") or FIRST
    if sort not in {"name", *numbers}:
        raise HTTPException(400, f"Sort by name, {', '.join(numbers)}, not by {sort[:50]!r}.")
    number = numbers.get(sort)

    def key(row: Total) -> tuple[float, str]:
        value = number(row) if number is not None else 0.0
        # What is unknown comes last.
        return (math.inf if value is None else -float(value), row.name)

    rows = sorted(found, key=key)
    first = bisect.bisect_right(rows, _place(given.get("after")), key=key)
    shown = rows[first : first + PAGE]
    more = first + PAGE < len(rows)
    after = "{}:{}".format(*key(shown[-1])) if more else None
    return Listing(shown, len(rows), sort, after)


def _place(after: str | None) -> tuple[float, str]:
    if not after:
        return (-math.inf, "")
    value, _, name = after.partition(":")
    try:
        return (float(value), name)
    except ValueError as error:
        raise HTTPException(400, f"after is where a page ended, not {after[:50]!r}.") from error
