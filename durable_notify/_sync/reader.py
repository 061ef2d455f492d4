# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A reader: everything of some topics, without a group, for caches and live pages."""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from .. import schema
from .._core.checkpoints import Checkpoints, closed
from .._core.emitter import EventEmitter
from .._core.grant_hints import allowing, to_read
from .._core.log_throttle import LogThrottle
from .._core.pacing import BusyPoller, backoff
from .._core.position import BEGINNING, Place, decode, encode
from .._core.topic_set import TopicSet, after
from ..dsn import said
from ..errors import ConsumerClosed, InvalidArgument
from ..models import ReadMessage
from ..options import check_on_event, check_reading, check_waiting
from ..topics import check_topics, matches
from .concurrency import Event
from .database.callers import fetch
from .database.connection import HEARTBEAT, TRANSIENT, connect
from .wakeups.listener import listen
from .wakeups.subscription import DEAF_POLL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from psycopg import Connection

    from ..events import OnEvent
    from .database.connection import TimeoutConnection
    from .wakeups.subscription import Subscription

__all__ = ["Reader"]

log = logging.getLogger("durable_notify")

# JSON as text, as consumers read it.
_READ = (
    "SELECT window_s0::text, window_h0, window_s1::text, window_h1, expired, id, key,"
    " payload::text, data, headers::text, published_at"
    " FROM durable_notify.read(%s, %s::pg_snapshot, %s, %s::pg_snapshot, %s, %s, %s)"
)
_START = "SELECT s0::text, h0 FROM durable_notify.read_from(%s, %s, %s::timestamptz)"
_LATEST = (
    "SELECT s0::text, h0, id, key, payload::text, data, headers::text, published_at"
    " FROM durable_notify.latest(%s)"
)


class Reader:
    """Reads topics without a group: every reader gets everything, and nothing is written.

    For caches, live pages and whatever wants all messages in every process. There is nothing to
    acknowledge. Where to go on is the reader's own business: keep ``message.token``::

        with Reader(dsn, ["prices"], start="latest") as reader:
            for message in reader:
                prices[message.key] = message.payload

    Messages of a topic come by id, a late commit when it commits: nothing is left out, nothing
    comes twice. Delayed messages come when they are published; expired ones do not.

    Args:
        dsn: a libpq connection string or URI. The reader opens connections of its own.
        topics: the topics it reads, or patterns: ``orders.*``, ``orders.>``. New topics are picked
            up when they appear, from their first message.
        start: ``"beginning"`` (all that is retained), ``"now"`` (what commits from here on), a
            time, the token of a message (what follows it; topics the token does not know from
            their beginning), or ``"latest"``: first the latest message of every key, then what
            follows. That reads the topics whole once; messages without a key come only afterwards,
            and tokens of these first messages stand for the end of them all.
        listen_dsn: a direct connection for listening, where ``dsn`` leads through a pooler.
        poll: how often to look without a wake-up, in seconds; None switches it off.
        idle_poll: instead of ``poll``, where the database is to sleep: see ``ConsumerOptions``.
        heartbeat: how often connections show that they are alive; a read that is not answered
            within two heartbeats is tried again on another connection.
        batch_size: the most messages read at once.
        until_empty: end once nothing is left.
        on_event: a function, or several, called with the events of its listening connection
            (``durable_notify.events``), whose group is ``""``.
    """

    def __init__(
        self,
        dsn: str,
        topics: Iterable[str],
        *,
        start: str | datetime = "beginning",
        listen_dsn: str | None = None,
        poll: float | None = 30.0,
        idle_poll: float | None = None,
        heartbeat: float = HEARTBEAT,
        batch_size: int = 500,
        until_empty: bool = False,
        on_event: OnEvent | Sequence[OnEvent] | None = None,
    ) -> None:
        check_on_event(on_event)
        check_reading(start, poll, batch_size)
        check_waiting(idle_poll, heartbeat)
        self._dsn = dsn
        self._listen_dsn = listen_dsn or dsn
        self._wanted = check_topics(topics)
        self._attention = TopicSet(self._wanted)
        self._start = start
        known = isinstance(start, str) and start not in ("beginning", "now", "latest")
        self._log = ""  # which log the places are of
        self._places: dict[str, Place] = {}
        if known:
            self._log, self._places = decode(start)  # type: ignore[arg-type]
        self._trails: dict[str, Checkpoints] = {}
        self._from_token = known
        self._poll = poll
        self._idle_poll = idle_poll
        self._heartbeat = heartbeat
        self._last = ""  # the topic read last
        self._batch_size = batch_size
        self._until_empty = until_empty
        self._connection: TimeoutConnection | None = None
        self._ear: Subscription | None = None
        self._ready: deque[tuple[ReadMessage | None, str, Place]] = deque()
        self._stopping = Event()
        self._linger = BusyPoller()
        self._failures = 0
        self._complaints = LogThrottle()
        self._teller = EventEmitter(on_event)

    def __enter__(self) -> Self:
        """Check the schema, begin to listen, and fix where to start.

        Raises:
            SchemaError: the migrations do not fit this package, or the messages came from another
                cluster; the text says what to run.
            InvalidArgument: the token is not one, or of another outbox.
            psycopg.Error: the database cannot be reached or used.
        """
        if self._ear is not None or self._stopping.is_set():
            raise ConsumerClosed("a reader starts once: make a new one")
        self._connection = connect(self._dsn, "reader", self._heartbeat)
        try:
            user, wanted = self._connection.info.user, to_read(self._wanted)
            with allowing(lambda: (user, wanted)):
                schema.check(self._connection)
            self._check_log(self._connection)
            # What its encoding lacks would be in the way of others on the listening connection.
            fetch(self._connection, "SELECT %s::text[]", (list(self._wanted),))
            self._ear = listen(
                self._listen_dsn, self._attention.channels, self._heartbeat, self._teller
            )
            self._discover(start=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stop(self) -> None:
        """End the iteration once what was read is handed out."""
        self._stopping.set()
        if self._ear is not None:
            self._ear.end()

    def close(self) -> None:
        """Stop, and close the connections."""
        self.stop()
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()
        self._disconnect()

    @property
    def sleeping(self) -> bool:
        """Whether nothing is left to read, and the next message wakes it. From any thread."""
        return self._ear is not None and self._ear.asleep

    @property
    def token(self) -> str:
        """Where the reader stands, right after the last message it has handed out."""
        return encode(self._log, self._places)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReadMessage:
        if self._ear is None:
            raise ConsumerClosed("this reader was not entered, or is closed")
        while True:
            while not self._ready:
                if self._stopping.is_set() or not self._fill(self._ear):
                    raise StopIteration
            message, topic, place = self._ready.popleft()
            self._places[topic] = place
            if message is not None:  # else it had expired
                return message

    def _fill(self, ear: Subscription) -> bool:
        """Read more, or wait for it; False: it is to end."""
        try:
            if self._connection is None:
                self._connect_again()
            told = "" in ear.armed
            heard = self._attention.heard(ear.heard())
            if self._stopping.is_set():
                return False  # stop() may have woken it just before
            if heard or self._attention.look_for_topics(time.monotonic(), told=told):
                self._discover()
            for topic in after(self._last, self._attention.to_claim()):
                rings = ear.armed  # before the read: what comes later is heard of
                if self._read(topic):
                    self._last = topic
                    self._linger.found(len(self._ready), time.monotonic())
                    ear.rise([topic])
                    return True
                self._attention.exhausted(rings.intersection([topic]))
            self._failures = 0
        except TRANSIENT as error:
            self._failures += 1
            delay = backoff(self._failures, 0.1, 10.0)
            level = self._complaints.level("reading", error, time.monotonic())
            log.log(level, "reading failed, next try in %.1f s: %s", delay, said(error))
            self._disconnect()
            self._stopping.wait(delay)
            self._attention.all()
            return True
        if self._until_empty:
            return False
        self._sleep(ear)
        return True

    def _sleep(self, ear: Subscription) -> None:
        pause = self._linger.pause(time.monotonic())
        if pause is not None:
            ear.woken.wait(pause)
            return
        ear.rest()
        if ear.arming:
            ear.woken.wait(DEAF_POLL)  # and read once more, which is what the bell needs
            return
        if not ear.sleep(self._poll, self._idle_poll):
            self._attention.all()

    def _read(self, topic: str) -> bool:
        place = self._places[topic]
        rows = self._fetch(_READ, (topic, *place, self._batch_size))
        known = dict(self._places)
        for window_s0, window_h0, window_s1, window_h1, expired, *row in rows:
            after = Place(window_s0, window_h0, window_s1, window_h1, row[0])
            if expired:
                self._ready.append((None, topic, after))
            else:
                self._take_in(topic, tuple(row), known, after)
        if rows:
            self._trails[topic].note(row[-1], after)
        return bool(rows)

    def _take_in(
        self, topic: str, row: tuple[Any, ...], known: dict[str, Place], after: Place
    ) -> None:
        message = ReadMessage.of(topic, row, lambda: encode(self._log, {**known, topic: after}))
        self._ready.append((message, topic, after))

    def _discover(self, *, start: bool = False) -> None:
        """Find new topics of the patterns, and fix where each begins."""
        wanted = list(self._attention.topics)
        if self._attention.patterns:
            rows = self._fetch("SELECT topic FROM durable_notify.topics()", ())
            wanted += [
                topic
                for (topic,) in rows
                if any(matches(topic, pattern) for pattern in self._attention.patterns)
            ]
        for topic in wanted:
            if topic not in self._places:
                self._begin(topic, start=start)
            if topic not in self._trails:
                place = self._places[topic]
                published_at = self._published_at(topic, closed(place).h0)
                self._trails[topic] = Checkpoints(place, published_at)
        if (channels := self._attention.add(wanted)) and self._ear is not None:
            self._ear.listen(channels)

    def _begin(self, topic: str, *, start: bool) -> None:
        wanted = self._start if start and not self._from_token else "beginning"
        if wanted == "beginning":
            self._places[topic] = BEGINNING
        elif wanted == "latest":
            rows = self._fetch(_LATEST, (topic,))
            s0, h0 = rows[0][:2]
            after = self._places[topic] = Place(s0, h0, None, None, 0)
            # A token given out in their midst would leave out the rest: it stands for all of them.
            for row in rows:
                if row[2] is not None:
                    self._take_in(topic, row[2:], self._places, after)
        else:
            since = wanted if isinstance(wanted, datetime) else None
            kind = "since" if since else "now"
            rows = self._fetch(_START, (topic, kind, since))
            s0, h0 = rows[0]
            self._places[topic] = Place(s0, h0, None, None, 0)

    def _published_at(self, topic: str, message_id: int) -> datetime | None:
        """When a message was published; None where there is none of this id."""
        if message_id == 0:
            return None
        ((s0, _h0),) = self._fetch(_START, (topic, "now", None))
        before = Place(s0, message_id - 1, None, None, 0)
        rows = self._fetch(_READ, (topic, *before, 1))
        return rows[0][-1] if rows and rows[0][5] == message_id else None

    def _connect_again(self) -> None:
        """Connect to the server there is now, and find the places in its log.

        Trap: a standby that was promoted may lack what was read last, and use its ids again.
        """
        self._connection = connect(self._dsn, "reader", self._heartbeat)
        self._connection.answer = 2 * self._heartbeat
        self._check_log(self._connection)
        for topic, trail in self._trails.items():
            for step in trail.back():
                if self._published_at(topic, step.id) == step.published_at:
                    break
            else:
                raise InvalidArgument(
                    "the server has lost everything that was read lately: start at a time, a "
                    "little before the last message that is known to be there"
                )
            if step is next(trail.back()):
                self._places[topic] = closed(self._places[topic])
            else:
                log.warning(
                    "the server has lost messages of topic %s that were read after message %d: "
                    "continuing after that one", topic, step.id,
                )  # fmt: skip
                trail.forget_after(step)
                self._places[topic] = step.place

    def _fetch(self, query: Any, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise psycopg.OperationalError("the connection is closed")
        # The latest of every key are found by reading whole topics, which takes its time.
        self._connection.answer = None if query is _LATEST else 2 * self._heartbeat
        try:
            return fetch(self._connection, query, params)
        except psycopg.DataError as error:
            raise InvalidArgument(f"the token is not one of this database: {error}") from error

    def _check_log(self, connection: Connection[tuple[Any, ...]]) -> None:
        """Raise where the places are of another log than this connection leads to."""
        ((log_id,),) = fetch(connection, "SELECT durable_notify.log_id()::text", ())
        if self._log not in ("", log_id):
            raise InvalidArgument(
                "the token belongs to another outbox: start at a time, a little before the last "
                "message that was read"
            )
        self._log = log_id

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
