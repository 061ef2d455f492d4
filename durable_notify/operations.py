"""What the operations on groups and messages return that have modules of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime

__all__ = ["Erasure", "OperatorEvents"]


@dataclasses.dataclass(frozen=True, slots=True)
class Erasure:
    """The effect of an erasure: ``removed`` by place; ``counted``: what may still have some."""

    removed: Mapping[str, int]
    counted: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorEvents:
    """A kind of operator events that is published, of a group or of all (None)."""

    kind: str
    group: str | None
    set_at: datetime
    set_by: str
