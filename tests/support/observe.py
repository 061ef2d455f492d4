"""What can be seen in the database of consumers, listening sessions and doorbells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._sync.wakeups import listener as sync_listener
from tests.support.sessions import Session, Sessions
from tests.support.wait import wait_until

_IDLE = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity c, pg_stat_activity l
         WHERE c.datname = current_database() AND c.state = 'idle'
           AND c.application_name = 'durable_notify consumer g'
           AND c.query LIKE '%next_due%'
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
    """Wait until a consumer, or a reader, of this process has found nothing and waits to be woken.

    What is published from here on it can only learn of by a wake-up.
    """

    def sleeps() -> bool:
        if hasattr(consumer, "sleeping"):
            return bool(consumer.sleeping)
        return bool(consumer.health().state == "sleeping")

    await wait_until(sleeps)


def listener_of(consumer: Any) -> Any:
    """The listening session of a consumer or reader, which others may share."""
    return consumer._subscription._changed.__self__


def beat(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the heartbeat of every listening session, whatever its consumers ask for."""
    for listener in (async_listener.AsyncListener, sync_listener.Listener):
        monkeypatch.setattr(listener, "heartbeat", seconds)


async def idle(connection: Connection) -> None:
    """Wait until a consumer of group g, of another process, listens and has found nothing, ever."""

    def listens_and_has_found_nothing() -> bool:
        return bool(value(connection, _IDLE))

    await wait_until(listens_and_has_found_nothing)


def backends(connection: Connection, application: str) -> list[int]:
    """The process ids of sessions with such an application_name."""
    return [pid for (pid,) in connection.execute(_SESSIONS, [application])]


def terminate(connection: Connection, application: str) -> list[int]:
    """End sessions with such an application_name; returns their process ids."""
    pids = backends(connection, application)
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
    """How many messages some group has not settled: unread, deferred or leased."""
    query = "SELECT sum(unread + deferred + leased) FROM durable_notify.status()"
    return int(value(connection, query) or 0)


def dead_letters(connection: Connection) -> list[tuple[int, int, str]]:
    """(id, attempt, reason) of each dead letter."""
    query = "SELECT message_id, attempt, reason FROM durable_notify.dead_letter ORDER BY 1"
    return list(connection.execute(query))


KEY = 1685024362
"""The first half of every doorbell's advisory lock; the second is the topic's hash."""

_ARMED = """
    SELECT t.topic FROM unnest(%s::text[]) AS t (topic)
     WHERE EXISTS (
        SELECT FROM pg_locks l
          JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database()
         WHERE l.locktype = 'advisory' AND l.classid = 1685024362 AND l.granted
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.objid = (hashtext(t.topic)::bigint & 4294967295)::oid
           AND l.mode = 'ShareLock' AND (a.pid = %s OR a.application_name = %s))"""
_COUNT = """
    SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.classid = 1685024362
       AND a.datname = current_database() AND (a.pid = %s OR a.application_name = %s)"""


def armed(
    connection: psycopg.Connection[Any], topics: Iterable[str], pid: int | None = None
) -> set[str]:
    """Those of some topics whose doorbells are armed: by a session, or by any consumers' listener."""
    params = [list(topics), pid, None if pid else LISTENER]
    return {topic for (topic,) in connection.execute(_ARMED, params)}


def count_armed(connection: psycopg.Connection[Any], pid: int | None = None) -> int:
    """How many doorbells a session, or the consumers' listeners, have armed."""
    row = connection.execute(_COUNT, [pid, None if pid else LISTENER]).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def barred(session: Session, topic: str) -> Iterator[None]:
    """Hold a topic's key exclusively, as a stranger may."""
    session.run("SELECT pg_advisory_lock(%s, hashtext(%s))", KEY, topic)
    yield
    session.run("SELECT pg_advisory_unlock(%s, hashtext(%s))", KEY, topic)


class Listener:
    """A session that LISTENs; with `arm` publishers ring for it, too."""

    def __init__(self, sessions: Sessions, *topics: str, arm: bool = False) -> None:
        self.session = sessions.session()
        self._heard: list[tuple[str, str]] = []
        self.session.connection.add_notify_handler(
            lambda notify: self._heard.append((notify.channel, notify.payload))
        )
        self._end = f"end {self.session.pid}"
        self.session.run(f'LISTEN "{self._end}"')
        self.listen(*topics)
        if arm:
            self.arm(*topics)

    def listen(self, *topics: str) -> None:
        """LISTEN to topics; '' stands for the channel on which all are named."""
        for topic in topics:
            name = self.session.value("SELECT durable_notify.channel(%s)", topic)
            quoted = (name if topic else "durable_notify").replace('"', '""')
            self.session.run(f'LISTEN "{quoted}"')

    def hear(self, *channels: str) -> None:
        """LISTEN to channels by their own names, as programs do that do not know topics."""
        for channel in channels:
            self.session.run('LISTEN "{}"'.format(channel.replace('"', '""')))

    def arm(self, *topics: str) -> None:
        """Have the publishers of topics ring from here on."""
        for topic in topics:
            assert self.session.value("SELECT durable_notify.arm(%s)", topic)

    def heard(self) -> list[tuple[str, str]]:
        """What has been notified since the last call: (channel, payload), in order.

        Notifications come in the order of their commits: what stands before one of our own, which
        is the last one, is all there is.
        """
        self.session.run("SELECT pg_notify(%s, '')", self._end)
        while (self._end, "") not in self._heard:
            self.session.run("SELECT")
        *heard, _last = self._heard
        self._heard.clear()
        return heard

    def payloads(self) -> list[str]:
        """What has been notified since the last call, on any channel."""
        return [payload for _, payload in self.heard()]


def unannounced(session: Session) -> set[int]:
    """The transactions that may have looked at a doorbell and not rung it."""
    return {
        int(xid) for xid in session.value("SELECT durable_notify.unnotified_transactions()::text[]")
    }


def still_running(session: Session, xids: Iterable[int]) -> set[int]:
    """Those of some transactions that have not ended."""
    query = "SELECT durable_notify.still_running(%s::xid8[])::text[]"
    return {int(xid) for xid in session.value(query, [str(xid) for xid in xids])}
