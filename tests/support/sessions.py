"""Sessions that a test steps through by hand, so that a schedule is the same at every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from tests.support.wait import BOUND

T = TypeVar("T")
LONG_GONE = "UPDATE durable_notify.lease SET deadline = 'epoch'"


class Message(NamedTuple):
    """A row of `claim`."""

    token: int
    id: int
    topic: str
    key: str | None
    payload: Any
    data: bytes | None
    headers: Any
    published_at: datetime
    attempt: int
    order_key: str | None = None


class Session:
    """One connection, in autocommit mode unless `begin` was called."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.pid = self.connection.info.backend_pid
        self._thread = ThreadPoolExecutor(1)

    def run(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, if it has any."""
        cursor = self.connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *params: Any) -> Any:
        """The one value that a statement returns."""
        ((found,),) = self.run(query, *params)
        return found

    def column(self, query: str, *params: Any) -> list[Any]:
        """The only column of what a statement returns."""
        return [found for (found,) in self.run(query, *params)]

    def start(self, query: str, *params: Any) -> Future[list[tuple[Any, ...]]]:
        """Run a statement that will have to wait, in a thread."""
        return self._thread.submit(self.run, query, *params)

    def do(self, work: Callable[[], T]) -> Future[T]:
        """Run several statements that will have to wait, in a thread."""
        return self._thread.submit(work)

    def begin(self, isolation: str = "read committed") -> None:
        """Start a transaction; above READ COMMITTED its snapshot is taken at once."""
        self.run(f"BEGIN ISOLATION LEVEL {isolation}")
        if isolation != "read committed":
            self.run("SELECT")

    def commit(self) -> None:
        self.run("COMMIT")

    def rollback(self) -> None:
        self.run("ROLLBACK")

    @contextmanager
    def transaction(self, isolation: str = "read committed") -> Iterator[None]:
        """Commit what the block does, or roll it back if it raises."""
        self.begin(isolation)
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def draw_xid(self) -> int:
        """The transaction's xid, which it has from now on if it had none."""
        return int(self.value("SELECT pg_current_xact_id()::text"))

    def publish(self, payload: Any = None, topic: str = "t", key: str | None = None) -> int:
        """Publish; returns the id."""
        message_id = self.value(
            "SELECT durable_notify.publish(%s, %s, %s)", topic, Jsonb(payload), key
        )
        assert isinstance(message_id, int)
        return message_id

    def claim(
        self, most: int = 100, group: str = "g", topics: str = "t", lease: str = "1 hour"
    ) -> list[Message]:
        """Claim from topics whose names have no spaces."""
        query = "SELECT * FROM durable_notify.claim(%s, %s, %s, %s, 'a test')"
        return [Message(*row) for row in self.run(query, group, topics.split(), most, lease)]

    def subscribe(self, group: str = "g", topics: str = "t", start_at: str = "beginning") -> int:
        """Create a group that reads topics; returns its id."""
        query = "SELECT durable_notify.subscribe(%s, %s, %s)"
        group_id = self.value(query, group, topics.split(), start_at)
        assert isinstance(group_id, int)
        return group_id

    def listen(self, topic: str = "t") -> None:
        """Listen to a topic, and have its publishers ring."""
        self.run(f'LISTEN "{self.value("SELECT durable_notify.channel(%s)", topic)}"')
        assert self.value("SELECT durable_notify.arm(%s)", topic)

    def settle(self, token: int, acked: Any = (), retried: Any = (), rejected: Any = ()) -> None:
        """Settle messages, or ids, of a lease."""
        lists = [[getattr(m, "id", m) for m in part] for part in (acked, retried, rejected)]
        self.run(
            "SELECT durable_notify.settle(%s, %s, %s, %s, %s::interval[])",
            token,
            *lists,
            ["0"] * len(lists[1]),
        )

    def ack(self, messages: list[Message]) -> None:
        """Acknowledge what claims returned, lease by lease."""
        for token in dict.fromkeys(m.token for m in messages):
            self.settle(token, [m for m in messages if m.token == token])

    def position(self) -> Position:
        """Return the position of group g in topic t."""
        query = """
            SELECT p.seq, p.s0::text, p.h0, p.s1::text, p.h1, p.p, p.lease_tokens, s.id
              FROM durable_notify.position p
              JOIN durable_notify.subscription s ON s.id = p.subscription_id
              JOIN durable_notify.consumer_group g ON g.id = s.group_id
             WHERE g.name = 'g' AND s.topic = 't'"""
        ((*row,),) = self.run(query)  # exactly one row is ever kept
        return Position(*row)

    def close(self) -> None:
        self.connection.close()
        self._thread.shutdown()


class Position(NamedTuple):
    """A row of `position`."""

    seq: int
    s0: str
    h0: int
    s1: str | None
    h1: int | None
    p: int
    live: list[int]
    subscription_id: int

    @property
    def xmax(self) -> int:
        """The xid at and past which nothing is visible in s0."""
        return int(self.s0.split(":")[1])

    @property
    def running(self) -> list[int]:
        """The xids below it that are not visible either."""
        return [int(xid) for xid in self.s0.split(":")[2].split(",") if xid]


@dataclass
class Sessions:
    """The sessions of one test on one database."""

    dsn: str
    sessions: list[Session] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._watcher = self.session()
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.sessions[1:]:
            session.close()
        # A database with prepared transactions cannot be dropped.
        query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for gid in self._watcher.column(query):
            self._watcher.run(f"ROLLBACK PREPARED '{gid}'")
        self._watcher.close()

    def session(self) -> Session:
        """A new session."""
        session = Session(self.dsn)
        self.sessions.append(session)
        return session

    def take(self, number: int) -> tuple[Session, ...]:
        """Several new sessions."""
        return tuple(self.session() for _ in range(number))

    def reader(self) -> Session:
        """A new session; the group g reads topic t."""
        (session,) = self.readers(1)
        return session

    def readers(self, number: int) -> tuple[Session, ...]:
        """Several new sessions; the group g reads topic t."""
        several = self.take(number)
        several[0].subscribe()
        return several

    def wait_until_blocked(self, session: Session, work: Future[Any]) -> None:
        """Wait until a statement that was started waits for a lock; raises if it ends instead."""
        query = """
            SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE pid = %s AND wait_event_type = 'Lock')"""
        for _ in range(int(BOUND / 0.01)):
            if wait([work], timeout=0.01).done:
                raise AssertionError(f"was not held up, but returned {work.result()}")
            if self._watcher.value(query, session.pid):
                return
        raise AssertionError("neither ended nor waited for a lock")


def ids(messages: list[Message]) -> list[int]:
    """The ids, in order."""
    return [message.id for message in messages]


READ = """
    SELECT window_s0::text, window_h0, window_s1::text, window_h1, id
      FROM durable_notify.read('t', %s::pg_snapshot, %s, %s::pg_snapshot, %s, %s, %s)"""


class SqlReader:
    """Reads topic t by a session, from the beginning or from a given position."""

    def __init__(self, session: Session, s0: str = "3:3:", h0: int = 0) -> None:
        self.session = session
        self.position: tuple[Any, ...] = (s0, h0, None, None, 0)

    def read(self, most: int = 500) -> list[int]:
        """Return the ids after the position, and advance it."""
        found = []
        for *window, message_id in self.session.run(READ, *self.position, most):
            found.append(message_id)
            self.position = (*window, message_id)
        return found

    def rest(self, most: int = 500) -> list[int]:
        """Return everything that follows."""
        found = []
        while batch := self.read(most):
            found += batch
        return found
