"""What administration reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypedDict

__all__ = ["AuditEntry", "Conditions", "GroupInfo", "InFlight"]


class Conditions(TypedDict, total=False):
    """Which dead letters: those that fit all that are given.

    Attributes:
        topic: of this topic.
        ids: with one of these ids, or this one.
        key: with this key.
        error_type: whose last exception was of this type, as in ``error["type"]``.
        since: dead from then on; aware.
        until: dead before then; aware.
    """

    topic: str | None
    ids: int | Iterable[int] | None
    key: str | None
    error_type: str | None
    since: datetime | None
    until: datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class AuditEntry:
    """What somebody has done to a group: ``who`` logged in, ``acting_as`` whom, when and why."""

    id: int
    at: datetime
    who: str
    acting_as: str
    application: str | None
    action: str
    group_name: str
    topic: str | None
    messages: int | None
    why: str | None
    details: Any


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
