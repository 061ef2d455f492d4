"""What administration reports."""

from __future__ import annotations

import dataclasses
from datetime import datetime

__all__ = ["GroupInfo", "InFlight"]


@dataclasses.dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group and its options; times in seconds. See ``GroupSettings`` for what each does.

    ``active`` is the active consumer of an exclusive group, until ``active_until`` or its next
    sign of life.
    """

    name: str
    order_by: str
    exclusive: bool
    max_attempts: int
    retry_base: float
    retry_factor: float
    retry_max: float
    on_expiry: str
    park_limit: int
    max_in_flight: int | None
    rate_limit: float | None
    paused_at: datetime | None
    created_at: datetime
    topics: list[str]
    patterns: list[str]
    active: str | None
    active_until: datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class InFlight:
    """A transaction that publishes, and has not ended: a session's, or a prepared one.

    ``state`` and ``query`` of another role's are None without ``pg_read_all_stats``.
    """

    pid: int | None
    database: str
    prepared: str | None
    started_at: datetime | None
    query_started_at: datetime | None
    state: str | None
    query: str | None
