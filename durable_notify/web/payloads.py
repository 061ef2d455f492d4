"""Payloads as the pages show them: masked first, then cut."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from .masking import MASKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .access import Access
    from .masking import Masks

__all__ = ["Shown", "shown", "shown_error", "shown_reason"]

#: How many characters of a payload a list shows, and how many a page does.
SHORT, LONG = 200, 50_000


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A payload and its headers.

    Attributes:
        whole: all of it; bytes in base64.
        headers: the headers, as JSON.
        is_bytes: whether bytes were published, and not JSON.
        is_hidden: whether the user may not see it.
        is_left_out: whether it is too large for a list.
        bytes: its size as stored.
    """

    whole: str
    headers: dict[str, str]
    is_bytes: bool
    is_hidden: bool
    is_left_out: bool
    bytes: int | None

    @property
    def short(self) -> str:
        """Its beginning, for a list."""
        return self.whole if len(self.whole) <= SHORT else f"{self.whole[:SHORT]}..."

    @property
    def long(self) -> str:
        """Its beginning, for a page."""
        return self.whole[:LONG]

    @property
    def is_cut(self) -> bool:
        """Whether the page shows only its beginning."""
        return len(self.whole) > LONG


def shown(masks: Masks, access: Access, row: Mapping[str, Any]) -> Shown:
    """Return what a user sees of a message: a row with payload, data, headers and bytes."""
    size = row["bytes"]
    if not access.payloads:
        return Shown(MASKED, {}, False, True, False, size)
    given = json.loads(masks.text(row["headers"]) or "{}")
    named = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
             for name, value in given.items()}  # fmt: skip
    if row["payload"] is None and row["data"] is None:
        # The database left it out: it is large, or the dashboard's role may not see it.
        hidden = size is None
        return Shown(MASKED if hidden else "", named, False, hidden, not hidden, size)
    if row["data"] is not None:
        # Masks name fields, and bytes have none: what is masked might be in them.
        whole = MASKED if masks else base64.b64encode(row["data"]).decode()
        return Shown(whole, named, True, bool(masks), False, size)
    return Shown(masks.text(row["payload"]) or "", named, False, False, False, size)


def shown_error(access: Access, error: str | None) -> dict[str, Any] | None:
    """Return an error that a group keeps; its text may quote the payload."""
    if error is None:
        return None
    decoded: dict[str, Any] = json.loads(error)
    return decoded if access.payloads else {"type": decoded.get("type")}


def shown_reason(access: Access, reason: str | None) -> str | None:
    """Return why a message was given up; what follows a colon may quote the payload."""
    if reason is None or access.payloads:
        return reason
    return reason.partition(":")[0]
