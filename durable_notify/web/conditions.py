"""Which messages a form or an address means: the same for looking and for doing."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException

__all__ = ["Conditions", "moment", "number", "page_after", "page_before"]

_BIGINT = 2**63
#: The most digits of what is below it. Trap: int() of more than 4,300 digits is a ValueError.
_DIGITS = 19


def number(name: str, text: str | None) -> int | None:
    """Return a whole number of a form.

    Raises:
        HTTPException: it is none.
    """
    if not text:
        return None
    digits = text.strip().replace(",", "")
    if not digits.isdecimal() or len(digits) > _DIGITS or int(digits) >= _BIGINT:
        raise HTTPException(400, f"{name} is a whole number, not {text[:100]!r}")
    return int(digits)


def page_before(given: Mapping[str, str]) -> int:
    """Return the id before which a page of a list by id begins.

    Raises:
        HTTPException: it is none.
    """
    found = number("before", given.get("before"))
    return _BIGINT - 1 if found is None else found


def page_after(found: Sequence[Mapping[str, Any]], size: int, name: str = "id") -> int | None:
    """Return the id before which the next page of a list begins; None: there is none.

    Args:
        found: the rows of this page.
        size: how many a whole page has.
        name: the column of the id.
    """
    return found[-1][name] if len(found) == size else None


def moment(name: str, text: str | None) -> datetime | None:
    """Return a time of a form.

    Raises:
        HTTPException: it is none, or has no time zone.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise HTTPException(
            400, f"{name}: {text!r} is not a time; write 2026-01-31T12:00:00+01:00"
        ) from error
    if at.tzinfo is None:
        raise HTTPException(400, f"{name}: {text!r} has no time zone; end it with Z or +01:00")
    return at


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """Dead letters or retries of a group: those that match every condition that is not None."""

    group: str | None = None
    topic: str | None = None
    ids: tuple[int, ...] = ()
    key: str | None = None
    error_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Conditions:
        """Return what a form or an address says.

        Raises:
            HTTPException: a value is invalid.
        """
        ids = [number("id", part) for part in str(given.get("ids") or "").split(",")]
        return cls(
            given.get("group") or None, given.get("topic") or None,
            tuple(one for one in ids if one is not None), given.get("key") or None,
            given.get("error_type") or None, moment("since", given.get("since")),
            moment("until", given.get("until")),
        )  # fmt: skip

    @property
    def params(self) -> tuple[Any, ...]:
        """The arguments of the SQL functions."""
        return (
            self.group, self.topic, list(self.ids) or None, self.key, self.error_type, self.since,
            self.until,
        )  # fmt: skip

    @property
    def chosen(self) -> dict[str, Any]:
        """The arguments of ``Admin``'s methods, without the group."""
        pairs = {
            "topic": self.topic, "ids": list(self.ids) or None, "key": self.key,
            "error_type": self.error_type, "since": self.since, "until": self.until,
        }  # fmt: skip
        return {name: value for name, value in pairs.items() if value is not None}

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form, or the query of an address, that say the same."""
        pairs = {
            "group": self.group, "topic": self.topic, "ids": ",".join(map(str, self.ids)),
            "key": self.key, "error_type": self.error_type,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
        }  # fmt: skip
        return {name: value for name, value in pairs.items() if value}

    @property
    def options(self) -> str:
        """The options of the command line that choose the same for a change."""
        return self.filters if self.chosen else f"{self.filters} --all".strip()

    @property
    def filters(self) -> str:
        """The options of the command line that list the same."""
        words: list[str] = []
        if self.group:
            words += ["--group", self.group]
        if self.topic:
            words += ["--topic", self.topic]
        for one in self.ids:
            words += ["--id", str(one)]
        for option, value in (("--key", self.key), ("--error", self.error_type)):
            if value:
                words += [option, value]
        for option, at in (("--since", self.since), ("--until", self.until)):
            if at:
                words += [option, at.isoformat()]
        return shlex.join(words)
