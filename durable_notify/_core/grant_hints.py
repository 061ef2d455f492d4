"""For a right that a role lacks, the command that grants it."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .sqlstate import reported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["allowing", "to_call", "to_consume", "to_read"]

_PUBLISHING = {"publish", "publish_many", "notify", "capture", "capture_begin", "capture_progress"}
_SCHEDULING = {
    "set_schedule", "publish_ticks", "schedules", "run_schedule", "pause_schedule",
    "resume_schedule", "delete_schedule",
}  # fmt: skip
_READING = {"read", "read_from", "latest", "browse", "last_removed", "log_id", "topics"}
_OBSERVING = {
    "status", "leases", "messages_between", "groups", "blocking_publishers",
    "replay_jobs", "dead_letters", "audit_entries", "retention", "retention_blockers",
    "lost_messages", "record_ages", "topic_storage",
    "maintenance_status", "unclaimed_topics", "retries", "retry_counts", "blocked_keys",
    "message_states", "bridges",
}  # fmt: skip
_CONSUMING = {
    "subscribe", "discover", "configure", "pause", "resume", "claim", "settle",
    "unacknowledged", "never_published", "once", "extend",
    "release", "next_due", "renew_active", "resign_active",
    "seek", "start_replay", "advance_replays", "cancel_replay", "redrive", "discard",
    "unsubscribe", "retry_now", "drop_retries",
    "create_webhook", "change_webhook", "rotate_webhook_secret", "delete_webhook", "note_webhook",
    "webhooks",
}  # fmt: skip
_MAINTAINING = {
    "maintain", "maintain_due", "maintain_begin", "maintain_steps", "maintain_step",
    "maintain_alarms", "maintain_end",
}  # fmt: skip


def to_consume(topics: Iterable[str], group: str) -> str:
    """Return the arguments of ``durable-notify grant`` that let a role consume."""
    named = " ".join(f"--consume {shlex.quote(topic)}" for topic in topics)
    return f"{named} --group {shlex.quote(group)}"


def to_read(topics: Iterable[str]) -> str:
    """Return the arguments of ``durable-notify grant`` that let a role read."""
    return " ".join(f"--read {shlex.quote(topic)}" for topic in topics)


def to_call(query: str, params: Sequence[Any]) -> str | None:
    """Return the arguments that let a role run one of our statements; None: only the owner may."""
    called = re.search(r"durable_notify\.(\w+)\(", query)
    name = called[1] if called else ""
    first = params[0] if params and isinstance(params[0], str) else None
    if name in _PUBLISHING:
        return f"--publish {shlex.quote(first or 'TOPIC')}"
    if name in _SCHEDULING:  # the first argument is the schedule's name
        return "--publish TOPIC"
    if name in _CONSUMING:
        return to_consume(["TOPIC"], first or "GROUP")
    if name in _READING:
        return to_read(["TOPIC"])
    if name in _MAINTAINING:
        return "--maintain"
    return "--observe" if name in _OBSERVING else None


@contextmanager
def allowing(asked: Callable[[], tuple[str, str | None]]) -> Iterator[None]:
    """Add to the driver's error how the role gets the right that it lacks.

    ``asked`` returns the role and the arguments of the command. The error passes through.
    For a role without any grant, PostgreSQL itself refuses the schema, with no details. For a role
    with grants, the SQL functions name what is missing.
    """
    try:
        yield
    except Exception as error:
        if reported(error).sqlstate == "42501" and "HINT:" not in str(error):
            role, wanted = asked()
            how = "Run it as the owner of the schema durable_notify."
            if wanted is not None:
                command = f"durable-notify grant {shlex.quote(role)} {wanted}"
                how = f"The owner of the schema durable_notify can allow it: {command}"
            said, *rest = error.args
            fields = isinstance(said, dict)  # pg8000
            error.args = ({**said, "H": how} if fields else f"{said}\nHINT:  {how}", *rest)
        raise
