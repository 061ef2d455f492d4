"""Doorbells as tests see and handle them: who has armed which, and who hears what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.support.schedule import Session, Stage
from tests.support.watching import LISTENER

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
    """Those of some topics whose bells are armed: by a session, or by any consumers' listener."""
    params = [list(topics), pid, None if pid else LISTENER]
    return {topic for (topic,) in connection.execute(_ARMED, params)}


def count(connection: psycopg.Connection[Any], pid: int | None = None) -> int:
    """How many bells a session, or the consumers' listeners, have armed."""
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
    """A session that LISTENs; whether it is rung for is another matter."""

    def __init__(self, stage: Stage, *topics: str, arm: bool = False) -> None:
        self.session = stage.session()
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
        """LISTEN to channels by their own names, as programs do that know nothing of topics."""
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


def unannounced(session: Session) -> set[int]:
    """The transactions that may have looked at a bell and not rung it."""
    return {
        int(xid) for xid in session.value("SELECT durable_notify.unnotified_transactions()::text[]")
    }


def still_running(session: Session, xids: Iterable[int]) -> set[int]:
    """Those of some transactions that have not ended."""
    query = "SELECT durable_notify.still_running(%s::xid8[])::text[]"
    return {int(xid) for xid in session.value(query, [str(xid) for xid in xids])}
