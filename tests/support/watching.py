"""What can be seen of consumers in the database, without asking them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._sync.wakeups import listener as sync_listener
from tests.support.halves import until

_IDLE = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity c, pg_stat_activity l
         WHERE c.datname = current_database() AND c.state = 'idle'
           AND c.application_name = 'durable_notify consumer ' || %s
           AND c.query LIKE '%%next_due%%'
           AND l.datname = current_database() AND l.state = 'idle'
           AND l.application_name = 'durable_notify listener'
           AND EXISTS (SELECT FROM pg_locks b WHERE b.pid = l.pid AND b.classid = 1685024362
                          AND b.locktype = 'advisory' AND b.mode = 'ShareLock'))"""
_SESSIONS = """
    SELECT pid FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE %s"""
LISTENER = "durable_notify listener"
WORKERS = "durable_notify consumer %"

Connection = psycopg.Connection[Any]


def send(connection: Connection, payloads: Iterable[Any], topic: str = "t") -> list[int]:
    """Publish in one transaction; returns the ids."""
    return dn.Publisher().publish_many(connection, topic, payloads)


def value(connection: Connection, query: str, *params: Any) -> Any:
    """The one value a query returns."""
    row = connection.execute(query.encode(), params or None).fetchone()
    assert row is not None
    return row[0]


async def asleep(consumer: Any) -> None:
    """Wait until a consumer of this process is rung for by all its topics and has found nothing.

    What is published from here on it can only learn of by a wake-up. One that has all that it can
    begin sleeps, too.
    """

    def listens_and_sleeps() -> bool:
        if getattr(consumer, "_out", 0) and consumer._to_claim() == 0:
            return True
        ear = consumer._ear
        if ear is None or not ear.hears or ear.arming or ear.unarmed:
            return False
        # Trap: one that reads some of its topics rests for the others.
        if ear.resting != frozenset(ear.channels.values()):
            return False
        if not ear.channels.keys() <= ear._listener._listening:
            return False
        event = ear.woken
        waiters = event._event._waiters if hasattr(event, "_event") else event._waiters
        return bool(waiters) and not event.is_set()

    await until(listens_and_sleeps)


def beat(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have every listening session be looked at so often, whatever its consumers ask for."""
    for listener in (async_listener.AsyncListener, sync_listener.Listener):
        monkeypatch.setattr(listener, "heartbeat", seconds)


async def idle(connection: Connection, group: str = "g") -> None:
    """Wait until a consumer of another process listens and has found nothing, ever."""

    def listens_and_has_found_nothing() -> bool:
        return bool(value(connection, _IDLE, group))

    await until(listens_and_has_found_nothing)


def sessions(connection: Connection, application: str) -> list[int]:
    """The process ids of sessions with such an application_name."""
    return [pid for (pid,) in connection.execute(_SESSIONS, [application])]


def terminate(connection: Connection, application: str) -> list[int]:
    """End sessions with such an application_name; returns their process ids."""
    pids = sessions(connection, application)
    for pid in pids:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    return pids


def leased(connection: Connection) -> int:
    """How many messages are held under a lease and not settled."""
    return int(
        value(
            connection,
            "SELECT COALESCE(sum(cardinality(ids)), 0) - (SELECT count(*) "
            "FROM durable_notify.settlement s JOIN durable_notify.lease USING (token)) "
            "FROM durable_notify.lease",
        )
    )


def outstanding(connection: Connection) -> int:
    """How many messages some group has not settled: waiting, deferred or leased."""
    query = "SELECT sum(unread + deferred + leased) FROM durable_notify.status()"
    return int(value(connection, query) or 0)


def dead_letters(connection: Connection) -> list[tuple[int, int, str]]:
    """(id, attempt, reason) of each dead letter."""
    query = "SELECT message_id, attempt, reason FROM durable_notify.dead_letter ORDER BY 1"
    return list(connection.execute(query))
