"""A right that a role lacks, by the command that grants it."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["allowing", "to_call", "to_consume", "to_read"]

_PUBLISHING = {"publish", "publish_many", "notify", "capture", "capture_begin", "capture_progress"}
_READING = {"read", "read_from", "latest", "log_id", "topics"}
_OBSERVING = {
    "status", "leases", "messages_between", "groups", "blocking_publishers",
    "replay_jobs", "dead_letters", "audit_entries", "retention", "retention_blockers",
    "lost_messages",
}  # fmt: skip
_CONSUMING = {
    "subscribe", "discover", "configure", "pause", "resume", "claim", "claim_alone", "settle",
    "unacknowledged", "never_published", "once", "extend",
    "release", "next_due", "renew_active", "resign_active",
    "seek", "start_replay", "advance_replays", "cancel_replay", "redrive", "discard",
}  # fmt: skip


def to_consume(topics: Iterable[str], group: str) -> str:
    """Return what ``durable-notify grant`` is told so that a role may consume."""
    named = " ".join(f"--consume {shlex.quote(topic)}" for topic in topics)
    return f"{named} --group {shlex.quote(group)}"


def to_read(topics: Iterable[str]) -> str:
    """Return what ``durable-notify grant`` is told so that a role may read."""
    return " ".join(f"--read {shlex.quote(topic)}" for topic in topics)


def to_call(query: str, params: Sequence[Any]) -> str | None:
    """Return what it is told so that a role may run a statement of ours; None: only the owner."""
    called = re.search(r"durable_notify\.(\w+)\(", query)
    name = called[1] if called else ""
    first = params[0] if params and isinstance(params[0], str) else None
    if name in _PUBLISHING:
        return f"--publish {shlex.quote(first or 'TOPIC')}"
    if name in _CONSUMING:
        return to_consume(["TOPIC"], first or "GROUP")
    if name in _READING:
        return to_read(["TOPIC"])
    return "--observe" if name in _OBSERVING else None


@contextmanager
def allowing(asked: Callable[[], tuple[str, str | None]]) -> Iterator[None]:
    """Have the driver's error of a right that is missing say how the role gets it.

    ``asked`` returns the role and what the command is to be told.
    It stays the driver's error. Without a grant, PostgreSQL itself refuses the schema, and says no
    more than that; what the role was granted something for, the database half refuses by name.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "sqlstate", None) == "42501" and "HINT:" not in str(error):
            role, wanted = asked()
            how = "Run it as the owner of the schema durable_notify."
            if wanted is not None:
                command = f"durable-notify grant {shlex.quote(role)} {wanted}"
                how = f"The owner of the schema durable_notify can allow it: {command}"
            error.args = (f"{error}\nHINT:  {how}",)
        raise
