# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A reader: all messages of some topics, without a group, for caches and live pages."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, overload

import psycopg

from .. import schema
from .._core import sql
from .._core.checkpoints import Checkpoints, closed
from .._core.checks import check_count
from .._core.emitter import EventEmitter
from .._core.grant_hints import allowing, to_read
from .._core.log_throttle import LogThrottle
from .._core.pacing import BusyPoller, backoff
from .._core.position import BEGINNING, Position, decode, encode, is_ahead, misses
from .._core.topic_set import TopicSet, after
from ..codecs import T
from ..deprecated import INTERVALS, old_spelling
from ..dsn import safe_message
from ..durations import check_time, in_seconds
from ..errors import ConsumerClosed, InvalidArgument, UsedAfterFork
from ..models import ReadMessage
from ..options import check_on_event
from ..payloads import Decoder
from ..topics import check_topics, listed, matches
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

    from ..durations import Seconds
    from ..events import OnEvent
    from ..topics import Topic, TopicName
    from .database.connection import TimeoutConnection
    from .wakeups.subscription import Subscription

__all__ = ["Reader"]

log = logging.getLogger("durable_notify")


class Reader(Generic[T]):
    """Reads topics without a group: every reader receives every message, and writes nothing.

    For caches, live pages and other programs that need every message in every process. There is
    nothing to acknowledge. Keep ``message.token`` to continue after that message:

        with Reader(dsn, topics=["prices"], start="latest") as reader:
            for message in reader:
                prices[message.key] = message.payload

    Messages of a topic are delivered by id, and one that commits late when it commits. None is
    skipped, and none is delivered twice. Delayed messages are delivered when they are published;
    expired ones are not delivered.

    Args:
        dsn: a libpq connection string or URI. The reader opens connections of its own.
        topics: the topics it reads, or patterns: ``orders.*``, ``orders.>``. New topics are read
            from their first message.
        start: ``"beginning"`` (all retained messages), ``"now"`` (what commits from here on), a
            time, the token of a message, or ``"latest"``. After a token comes what follows it; a
            topic that the token does not know is read from its beginning. ``"latest"`` delivers
            the latest message of every key, then what follows. For that it reads the whole topics
            once. Earlier messages without a key are skipped. The token of one of these first
            messages stands for the end of them all.
        listen_dsn: a direct connection for listening, if ``dsn`` leads through a pooler.
        poll_interval: how often to poll without a wake-up; None switches polling off.
        idle_poll_interval: replaces ``poll_interval`` for a database that may be suspended: see
            ``ConsumerOptions``.
        heartbeat_interval: how often to check that connections are alive. A read without an answer
            within two heartbeats is retried on another connection.
        batch_size: the most messages to read at once.
        until_empty: stop once nothing is left to read.
        on_event: a function, or several, called with the events of its listening connection
            (``durable_notify.events``), whose group is ``""``.
    """

    @overload
    def __init__(
        self,
        dsn: str,
        *,
        topics: Iterable[Topic[T]],
        start: str | datetime = "beginning",
        listen_dsn: str | None = None,
        poll_interval: Seconds | None = 30.0,
        idle_poll_interval: Seconds | None = None,
        heartbeat_interval: Seconds = HEARTBEAT,
        batch_size: int = 500,
        until_empty: bool = False,
        on_event: OnEvent | Sequence[OnEvent] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Reader[Any],
        dsn: str,
        *,
        topics: Iterable[TopicName],
        start: str | datetime = "beginning",
        listen_dsn: str | None = None,
        poll_interval: Seconds | None = 30.0,
        idle_poll_interval: Seconds | None = None,
        heartbeat_interval: Seconds = HEARTBEAT,
        batch_size: int = 500,
        until_empty: bool = False,
        on_event: OnEvent | Sequence[OnEvent] | None = None,
    ) -> None: ...
    @old_spelling(INTERVALS, positional=("topics",))
    def __init__(
        self,
        dsn: str,
        *,
        topics: Iterable[TopicName],
        start: str | datetime = "beginning",
        listen_dsn: str | None = None,
        poll_interval: Seconds | None = 30.0,
        idle_poll_interval: Seconds | None = None,
        heartbeat_interval: Seconds = HEARTBEAT,
        batch_size: int = 500,
        until_empty: bool = False,
        on_event: OnEvent | Sequence[OnEvent] | None = None,
    ) -> None:
        check_on_event(on_event)
        _check_start(start)
        check_count("batch_size", batch_size, 10_000)
        self._dsn = dsn
        self._listen_dsn = listen_dsn or dsn
        given = listed(topics)
        self._wanted = check_topics(given)
        self._decoder = Decoder(given)
        self._topic_set = TopicSet(self._wanted)
        self._start = start
        known = isinstance(start, str) and start not in ("beginning", "now", "latest")
        self._log = ""  # which log the positions are of
        self._positions: dict[str, Position] = {}
        if known:
            self._log, self._positions = decode(start)  # type: ignore[arg-type]
        self._checkpoints: dict[str, Checkpoints] = {}
        #: Topics of which retention has removed messages that follow the start token, and the id
        #: at which the token stands.
        self.gaps: dict[str, int] = {}
        self._from_token = known
        self._poll = in_seconds("poll_interval", poll_interval, optional=True)
        self._idle_poll = in_seconds("idle_poll_interval", idle_poll_interval, optional=True)
        self._heartbeat = in_seconds("heartbeat_interval", heartbeat_interval)
        self._last = ""  # the topic read last
        self._batch_size = batch_size
        self._until_empty = until_empty
        self._connection: TimeoutConnection | None = None
        self._subscription: Subscription | None = None
        self._ready: deque[tuple[ReadMessage[T] | None, str, Position]] = deque()
        self._stopping = Event()
        self._busy_poller = BusyPoller()
        self._failures = 0
        self._log_throttle = LogThrottle()
        self._emitter = EventEmitter(on_event)
        self._process = os.getpid()

    def __enter__(self) -> Self:
        """Check the schema, start to listen, and fix the position to start from.

        Raises:
            SchemaError: the migrations do not fit this package, or the messages came from another
                cluster; the text says what to run.
            InvalidArgument: the token is invalid, or of another outbox.
            psycopg.Error: the database cannot be reached or used.
        """
        self._check_process()
        if self._subscription is not None or self._stopping.is_set():
            raise ConsumerClosed("a reader starts once: make a new one")
        self._connection = connect(self._dsn, "reader", self._heartbeat)
        try:
            user, wanted = self._connection.info.user, to_read(self._wanted)
            with allowing(lambda: (user, wanted)):
                schema.check(self._connection)
            self._check_log(self._connection)
            # A channel that its encoding lacks would break the shared listening connection.
            fetch(self._connection, "SELECT %s::text[]", (list(self._wanted),))
            self._subscription = listen(
                self._listen_dsn, self._topic_set.channels, self._heartbeat, self._emitter
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

    def _check_process(self) -> None:
        """Raise UsedAfterFork in a process that does not have this reader's threads."""
        if os.getpid() != self._process:
            raise UsedAfterFork("the reader was made before the fork: make a new one here")

    def stop(self) -> None:
        """End the iteration once the messages already read are delivered."""
        self._stopping.set()
        if self._subscription is not None:
            self._subscription.end()

    def close(self) -> None:
        """Stop and close the connections."""
        if os.getpid() != self._process:
            return  # the connections belong to the other process
        self.stop()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
        self._disconnect()

    @property
    def sleeping(self) -> bool:
        """Whether nothing is left to read, and the next message wakes the reader. Thread-safe."""
        return self._subscription is not None and self._subscription.asleep

    @property
    def token(self) -> str:
        """The reader's position: right after the last message it has delivered."""
        return encode(self._log, self._positions)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReadMessage[T]:
        self._check_process()
        if self._subscription is None:
            raise ConsumerClosed("this reader was not entered, or is closed")
        while True:
            while not self._ready:
                if self._stopping.is_set() or not self._fill(self._subscription):
                    raise StopIteration
            message, topic, position = self._ready.popleft()
            self._positions[topic] = position
            if message is not None:  # else it had expired
                return message

    def _fill(self, subscription: Subscription) -> bool:
        """Read more messages or wait for them; return False to end."""
        try:
            if self._connection is None:
                self._connect_again()
            notified = self._topic_set.family in subscription.armed
            look = self._topic_set.mark_ready(subscription.take_notifications())
            if self._stopping.is_set():
                return False  # stop() may have woken it just before
            if look or self._topic_set.look_for_topics(time.monotonic(), notified=notified):
                self._discover()
            for topic in after(self._last, self._topic_set.to_claim()):
                armed = subscription.armed  # before the read: what commits later rings
                if self._read(topic):
                    self._last = topic
                    self._busy_poller.found(len(self._ready), time.monotonic())
                    subscription.disarm([topic])
                    return True
                self._topic_set.mark_empty(armed.intersection([topic]))
            # A topic may have appeared since the last look: without a doorbell, none was announced.
            if self._until_empty and self._topic_set.patterns and self._discover():
                return True
            self._failures = 0
        except TRANSIENT as error:
            self._failures += 1
            delay = backoff(self._failures, 0.1, 10.0)
            level = self._log_throttle.level("reading", error, time.monotonic())
            log.log(level, "reading failed, next try in %.1f s: %s", delay, safe_message(error))
            self._disconnect()
            self._stopping.wait(delay)
            self._topic_set.mark_all()
            return True
        if self._until_empty:
            return False
        self._sleep(subscription)
        return True

    def _sleep(self, subscription: Subscription) -> None:
        pause = self._busy_poller.pause(time.monotonic())
        if pause is not None:
            subscription.woken.wait(pause)
            return
        subscription.arm()
        if subscription.arming:
            # Read once more after arming: a message may have committed just before.
            subscription.woken.wait(DEAF_POLL)
            return
        if not subscription.sleep(self._poll, self._idle_poll):
            self._topic_set.mark_all()

    def _read(self, topic: str) -> bool:
        position = self._positions[topic]
        rows = self._fetch(sql.READ, (topic, *position, self._batch_size))
        known = dict(self._positions)
        for window_s0, window_h0, window_s1, window_h1, expired, *row in rows:
            after = Position(window_s0, window_h0, window_s1, window_h1, row[0])
            if expired:
                self._ready.append((None, topic, after))
            else:
                self._take_in(topic, tuple(row), known, after)
        if rows:
            self._checkpoints[topic].note(row[-1], after)
        return bool(rows)

    def _take_in(
        self, topic: str, row: tuple[Any, ...], known: dict[str, Position], after: Position
    ) -> None:
        message = ReadMessage.of(
            topic, row, lambda: encode(self._log, {**known, topic: after}), self._decoder
        )
        self._ready.append((message, topic, after))

    def _discover(self, *, start: bool = False) -> bool:
        """Find new topics of the patterns, and fix where each starts; return whether any is new."""
        wanted = list(self._topic_set.topics)
        if self._topic_set.patterns:
            rows = self._fetch(sql.TOPICS, ())
            wanted += [
                topic
                for (topic,) in rows
                if any(matches(topic, pattern) for pattern in self._topic_set.patterns)
            ]
        if start:  # those of the token, too, whose messages were all removed
            known = self._positions.keys() - set(wanted)
            wanted += [t for t in known if any(matches(t, p) for p in self._topic_set.patterns)]
        for topic in wanted:
            if topic not in self._positions:
                self._begin(topic, start=start)
            if topic not in self._checkpoints:
                position = self._positions[topic]
                last = closed(position).h0
                published_at = self._published_at(topic, last)
                read = self._from_token and position != BEGINNING
                if read and self._has_gap(topic, published_at):
                    self.gaps[topic] = last
                self._checkpoints[topic] = Checkpoints(position, published_at)
        if (channels := self._topic_set.add(wanted)) and self._subscription is not None:
            self._subscription.listen(channels)
        return bool(channels)

    def _begin(self, topic: str, *, start: bool) -> None:
        wanted = self._start if start and not self._from_token else "beginning"
        if wanted == "beginning":
            self._positions[topic] = BEGINNING
        elif wanted == "latest":
            rows = self._fetch(sql.LATEST, (topic,))
            s0, h0 = rows[0][:2]
            after = self._positions[topic] = Position(s0, h0, None, None, 0)
            # A token from the middle of these would skip the rest, so each stands for all of them.
            for row in rows:
                if row[2] is not None:
                    self._take_in(topic, row[2:], self._positions, after)
        else:
            since = wanted if isinstance(wanted, datetime) else None
            kind = "since" if since else "now"
            rows = self._fetch(sql.READ_FROM, (topic, kind, since))
            s0, h0 = rows[0]
            self._positions[topic] = Position(s0, h0, None, None, 0)

    def _published_at(self, topic: str, message_id: int) -> datetime | None:
        """Return when a message was published; None if it does not exist."""
        if message_id == 0:
            return None
        ((s0, _h0),) = self._fetch(sql.READ_FROM, (topic, "now", None))
        before = Position(s0, message_id - 1, None, None, 0)
        rows = self._fetch(sql.READ, (topic, *before, 1))
        return rows[0][-1] if rows and rows[0][5] == message_id else None

    def _has_gap(self, topic: str, published_at: datetime | None) -> bool:
        """Return whether messages of a topic were removed that come after its position.

        Raises:
            InvalidArgument: the position is ahead of this server: it replaced one that failed.
        """
        rows = self._fetch(sql.LAST_REMOVED, (topic,))
        removed_id, removed_xid, now = rows[0]
        if is_ahead(self._positions[topic], now):
            raise InvalidArgument(
                "the token is ahead of this server, which has lost messages that were read: start "
                "at a time, a little before the last message that it still has"
            )
        position = closed(self._positions[topic])
        if removed_id is not None and misses(position, removed_id, removed_xid):
            return True
        # If the last message read is gone, and not by retention, nothing tells what else is.
        unknown = position.h0 > 0 and published_at is None and (removed_id or 0) < position.h0
        return unknown and not self._has_older(topic, position.h0)

    def _has_older(self, topic: str, message_id: int) -> bool:
        """Return whether an older message exists: if so, this one alone was removed, or a few."""
        rows = self._fetch(sql.READ, (topic, *BEGINNING, 1))
        return bool(rows) and int(rows[0][5]) < message_id

    def _connect_again(self) -> None:
        """Connect to the current server, and find the positions in its log.

        Trap: a promoted standby may lack the messages read last, and reuse their ids.
        """
        self._connection = connect(self._dsn, "reader", self._heartbeat)
        self._connection.answer = 2 * self._heartbeat
        self._check_log(self._connection)
        for topic, checkpoints in self._checkpoints.items():
            for step in checkpoints.back():
                if self._published_at(topic, step.id) == step.published_at:
                    break
            else:
                raise InvalidArgument(
                    "the server has lost all messages that were read lately: start at a time, a "
                    "little before the last message that it still has"
                )
            if step is next(checkpoints.back()):
                self._positions[topic] = closed(self._positions[topic])
            else:
                log.warning(
                    "the server has lost messages of topic %s that were read after message %d: "
                    "continuing after that one", topic, step.id,
                )  # fmt: skip
                checkpoints.forget_after(step)
                self._positions[topic] = step.position

    def _fetch(self, query: Any, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise psycopg.OperationalError("the connection is closed")
        # To find the latest of every key it reads whole topics, which takes time.
        self._connection.answer = None if query is sql.LATEST else 2 * self._heartbeat
        try:
            return fetch(self._connection, query, params)
        except psycopg.DataError as error:
            raise InvalidArgument(f"the token is not one of this database: {error}") from error

    def _check_log(self, connection: Connection[tuple[Any, ...]]) -> None:
        """Raise if the positions are of another log than this connection leads to."""
        ((log_id,),) = fetch(connection, sql.LOG_ID, ())
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


def _check_start(start: str | datetime) -> None:
    if isinstance(start, datetime):
        check_time("start", start)
    elif not isinstance(start, str):
        raise InvalidArgument(f"start must be a word, a token or a datetime, not {start!r}")
