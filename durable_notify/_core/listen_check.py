"""What a listening session asks the database: how channels are called, and whether it hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = ["CHANNELS", "CROWDED", "LISTENING", "MISSED", "NAMES", "PRESENT"]

CROWDED = (
    "the queue of notifications is half full: consumers disarm their doorbells and poll. A "
    "listening session stays in a transaction; see pg_stat_activity"
)

_CHANNEL: LiteralString = (
    "CASE t.topic WHEN '' THEN 'durable_notify' ELSE durable_notify.channel(t.topic) END"
)

#: The channels of topics; "" stands for all topics.
NAMES = f"SELECT t.topic, {_CHANNEL} FROM pg_catalog.unnest({{}}::text[]) AS t (topic)"  # noqa: S608 - so, too

#: The topics whose channels this session does not listen to.
MISSED = (
    "SELECT t.topic FROM pg_catalog.unnest({}::text[]) AS t (topic) WHERE "  # noqa: S608 - of constants
    + _CHANNEL
    + " <> ALL (ARRAY(SELECT pg_catalog.pg_listening_channels()))"
)

#: On which channels another session would ring for topics.
CHANNELS: LiteralString = f"SELECT {_CHANNEL} FROM pg_catalog.unnest(%s::text[]) AS t (topic)"  # noqa: S608 - of constants

LISTENING = "SELECT c.name FROM pg_catalog.pg_listening_channels() AS c (name)"

#: What this session listens to, whether it lacks the lock of a doorbell it has armed, and whether
#: so much is in the queue of notifications that none should be.
PRESENT = (
    "SELECT c.name, b.lost, pg_catalog.pg_notification_queue_usage() > 0.5"
    " FROM pg_catalog.pg_listening_channels() AS c (name),"
    " (SELECT (SELECT pg_catalog.count(DISTINCT pg_catalog.hashtext(t.topic))"
    " FROM pg_catalog.unnest({}::text[]) AS t (topic)) <>"
    " (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l"
    " WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'advisory'"
    " AND l.classid = 1685024362 AND l.mode = 'ShareLock')) AS b (lost)"
)
