"""Capture: publish the notifications of a channel to a topic."""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

from .. import schema
from .._core import sql
from .._core.capture_buffer import CaptureBuffer, Gap, Heard, Mark
from .._core.checks import check_count
from .._core.log_throttle import LogThrottle
from .._core.pacing import backoff
from ..deprecated import old_spelling
from ..dsn import safe_message
from ..durations import in_seconds
from ..errors import CaptureIncomplete, ListenUnavailable
from ..topics import check_channel, check_topic
from .concurrency import Event, Waiter, on_signals, spawn
from .database.connection import (
    HEARTBEAT,
    TRANSIENT,
    AsyncConnectionRegistry,
    AsyncReconnectingConnection,
    StatementTimeout,
    connect,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from .._core.capture_buffer import Item
    from ..durations import Seconds
    from ..topics import TopicName
    from .database.connection import AsyncTimeoutConnection

__all__ = ["AsyncCapture"]

log = logging.getLogger("durable_notify")

#: The most notifications to publish in a transaction.
BATCH = 500
#: How long the listening session may take to answer, in seconds; at most a heartbeat.
ANSWER = 10.0
#: How often to record the progress while notifications arrive, in seconds.
BUSY_BEAT = 1.0
#: How often a capture that stands by tries to become the active one, in seconds.
STAND_BY = 1.0
#: After how many silent heartbeats an active capture counts as dead.
SILENCE = 4

#: The first key of two-key advisory locks of captures: 'dntl'; docs/how-it-works.md lists all.
LOCKS = 1685024364


class AsyncCapture:
    """Publishes the notifications of a channel to a topic, in order, for as long as it runs.

    A notification is durable only after the capture has heard and published it. If the capture
    does not listen for a time, it reports this gap, with start and end, in the log and in the
    audit. It does not publish again what ``durable_notify.notify()`` has published to the topic.
    Of several captures of a channel to a topic one is active, and the others stand by.

    Args:
        dsn: the database.
        channel: any name, 1 to 63 bytes.
        topic: where to publish; the payload is a JSON string.
        as_json: publish a payload that is valid JSON as JSON.
        max_waiting: how many notifications to buffer while they cannot be published. Beyond
            that, it stops listening until half of them are published.
        heartbeat_interval: how often to check that it still hears.
        grace: how long to try, after ``stop``, to publish what was heard.
        listen_dsn: a direct connection for listening, if ``dsn`` leads through a pooler.
        say: called with a message for people when the state changes.
    """

    #: Counts of notifications that it published, of those that notify() had published, and of
    #: gaps.
    published = passed_over = gaps = 0

    # The listening side.
    _session = (0, "")
    _has_heard = False  # something since the last beat
    _beat_at = 0.0
    _was_settled = False
    _heard_all = False
    # The publishing side.
    _by_notify = False
    _batch = 0
    _since: str | None = None

    @old_spelling({"heartbeat": "heartbeat_interval"}, positional=("channel", "topic"))
    def __init__(
        self,
        dsn: str,
        *,
        channel: str,
        topic: TopicName,
        as_json: bool = False,
        max_waiting: int = 10_000,
        heartbeat_interval: Seconds = HEARTBEAT,
        grace: Seconds = 10.0,
        listen_dsn: str | None = None,
        say: Callable[[str], object] = log.info,
    ) -> None:
        self.channel = check_channel(channel)
        self.topic = check_topic(topic)
        check_count("max_waiting", max_waiting)
        self._dsn = dsn
        self._listen_dsn = listen_dsn or dsn
        self._as_json = as_json
        self._heartbeat = in_seconds("heartbeat_interval", heartbeat_interval)
        self._answer = min(ANSWER, self._heartbeat)
        self._grace = in_seconds("grace", grace, zero=True)
        self._say = say
        self._writer = uuid.uuid4().hex
        self._probe = f"durable_notify?{self._writer}"
        self._log_throttle = LogThrottle()
        self._waiter = Waiter()
        registry = AsyncConnectionRegistry()
        self._publishing = AsyncReconnectingConnection(
            dsn, "capture publisher", registry, self._heartbeat, 2 * self._heartbeat
        )
        self._asking = AsyncReconnectingConnection(
            dsn, "capture probe", registry, self._heartbeat, self._answer
        )
        self._connection: AsyncTimeoutConnection | None = None
        self._awaited: tuple[str, Mark | None] | None = None
        self._hears_until: datetime | None = None
        self._why = "no capture was running"
        self._buffer = CaptureBuffer(max_waiting)  # between the two sides
        self._more = Event()
        self._hurry = Event()
        self._stopped_at: float | None = None
        self._passed: dict[int, float] = {}  # ids of messages, and when they were passed over

    async def run(self) -> None:
        """Capture until stopped; SIGTERM and SIGINT stop it, unless the application handles them.

        Raises:
            InvalidArgument: the topic is mirrored to the channel.
            ListenUnavailable: notifications do not arrive here.
            CaptureIncomplete: not all that was heard could be published.
            SchemaError: the migrations do not fit this package.
            psycopg.Error: the database cannot be reached or used.
        """
        try:
            with on_signals(self.stop):
                await self._check()
                listening = spawn(self._keep_listening, name="durable_notify capture")
                try:
                    await self._keep_publishing()
                finally:
                    self._stopped_at = self._stopped_at or time.monotonic()
                    self._waiter.wake()
                    await listening.join()
        finally:
            await self._disconnect()
            await self._publishing.close()
            await self._asking.close()
            self._waiter.close()

    def stop(self) -> None:
        """Stop once what was heard is published; called a second time, stop at once."""
        if self._stopped_at is not None:
            self._grace = 0.0
        else:
            self._stopped_at = time.monotonic()
        self._hurry.set()
        self._waiter.wake()

    @property
    def _stopping(self) -> bool:
        return self._stopped_at is not None

    async def _check(self) -> None:
        async with await connect(self._dsn, "start", self._heartbeat) as connection:
            await schema.check_async(connection)
        await self._begin()

    async def _begin(self) -> datetime | None:
        """Return until when other captures have heard the channel; refuse a mirrored topic."""
        params = (self.topic, self.channel, self._writer)
        ((until, by_notify),) = await self._asking.fetch(sql.CAPTURE_BEGIN, params)
        self._by_notify = by_notify
        heard: datetime | None = until
        return heard

    # Listening.

    async def _keep_listening(self) -> None:
        failures = 0
        try:
            while not self._stopping:
                try:
                    await self._connect()
                    await self._prove_that_it_hears()
                    if await self._become_active():
                        await self._start_listening()
                        failures = 0
                        await self._listen()
                except (*TRANSIENT, psycopg.Error, OSError) as error:
                    if not self._was_settled:
                        raise
                    failures += 1
                    await self._lost(error, backoff(failures, 0.2, 10.0))
        finally:
            self._heard_all = True
            self._more.set()

    async def _lost(self, error: Exception, delay: float) -> None:
        self._why = " ".join(safe_message(error).split())
        level = self._log_throttle.level("listening", error, time.monotonic())
        log.log(
            level, "not listening to channel %s, next try in %.1f s: %s",
            self.channel, delay, self._why,
        )  # fmt: skip
        await self._disconnect()
        await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            await self._waiter.wait(left)

    async def _connect(self) -> None:
        purpose = f"capture {self._heartbeat:g}"
        connection = await connect(self._listen_dsn, purpose, self._heartbeat)
        connection.answer = self._answer
        # Trap: leaving psycopg's notifies() drops the rest of a batch, so this works below it.
        connection.pgconn.notify_handler = self._note
        self._connection = connection

    async def _disconnect(self) -> None:
        self._waiter.unwatch()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _prove_that_it_hears(self) -> None:
        """Check that a notification from another connection arrives, before anything else.

        Trap: through a pooler the lock would stay for ever, in another program's session.
        """
        await self._execute(SQL("LISTEN {}").format(Identifier(self._probe)))
        try:
            await self._await_ring(self._ring_from_elsewhere, None)
        except StatementTimeout as error:
            if self._was_settled:
                raise
            raise ListenUnavailable(
                "notifications do not arrive on the listening connection (a pooler in transaction "
                "mode does this): give a direct listen_dsn"
            ) from error
        self._was_settled = True
        await self._execute(sql.CAPTURE_SETTINGS, (str(max(1, round(self._heartbeat))),) * 2)

    async def _become_active(self) -> bool:
        """Take the lock of this channel and topic, or stand by until it is free; False: stopped."""
        name = f"{self.channel} {self.topic}"
        told = False
        while not self._stopping:
            if (await self._execute(sql.TRY_CAPTURE_LOCK, (LOCKS, name)))[0][0]:
                self._session = (await self._execute(sql.THIS_SESSION))[0]
                return True
            if not told:
                self._say(f"another capture of channel {self.channel} is active: standing by")
                told = True
            try:
                await self._execute(sql.END_DEAD_CAPTURE, (LOCKS, name, *self._session, SILENCE))
            except psycopg.errors.InsufficientPrivilege as error:
                level = self._log_throttle.level("ending", error, time.monotonic())
                log.log(
                    level,
                    "the active capture is silent, and could not be ended: %s",
                    safe_message(error),
                )
            await self._pause(STAND_BY * random.uniform(0.5, 1.0))  # noqa: S311
        return False

    async def _start_listening(self) -> None:
        heard_by_others = await self._begin()
        before = time.monotonic()
        ((snapshot, _),) = await self._execute(sql.SNAPSHOT)
        self._buffer.add(Mark(snapshot, before, None))
        await self._execute(SQL("LISTEN {}").format(Identifier(self.channel)))
        at = await self._beat()
        known = [time for time in (self._hears_until, heard_by_others) if time is not None]
        self._hears_until = at
        self._say(f"listening to channel {self.channel}, publishing to topic {self.topic}")
        if known:
            self._report(Gap(max(known), at, self._why))
        self._more.set()

    def _report(self, gap: Gap) -> None:
        self.gaps += 1
        self._buffer.add(gap)
        log.warning(
            "gap: notifications of channel %s from %s to %s may be lost: %s",
            self.channel, gap.since.isoformat(), gap.until.isoformat(), gap.why,
        )  # fmt: skip

    async def _listen(self) -> None:
        """Listen until stopped, or the session is lost, or too much waits to be published."""
        while not self._stopping:
            if self._buffer.full:
                await self._wait_for_room()
                return
            beat = min(BUSY_BEAT, self._heartbeat) if self._has_heard else self._heartbeat
            left = self._beat_at + beat - time.monotonic()
            if left > 0:
                await self._waiter.wait(left)
                self._receive()
            else:
                self._hears_until = await self._beat()
        # This notification of its own arrives after all that was sent until now.
        self._hears_until = await self._beat()
        await self._execute("UNLISTEN *")

    async def _wait_for_room(self) -> None:
        self._why = f"{self._buffer.limit} notifications waited to be published"
        log.warning(
            "stopped listening to channel %s: %s; it resumes once half of them are published",
            self.channel, self._why,
        )  # fmt: skip
        await self._disconnect()
        while not self._stopping and not self._buffer.roomy:
            await self._waiter.wait(None)

    async def _beat(self) -> datetime:
        """Record that all notifications committed until now are heard; return the time.

        It sends a notification of its own, which arrives after all that was sent before.
        """
        before = time.monotonic()
        ((snapshot, at),) = await self._execute(sql.SNAPSHOT)
        self._has_heard = False
        await self._await_ring(self._ring, Mark(snapshot, before, at))
        self._beat_at = time.monotonic()
        heard: datetime = at
        return heard

    async def _await_ring(self, ring: Callable[[str], Any], mark: Mark | None) -> None:
        """Send a notification to this session, and add the mark when it arrives."""
        name = uuid.uuid4().hex
        self._awaited = (name, mark)
        await ring(name)
        until = time.monotonic() + self._answer
        while self._awaited is not None:
            if time.monotonic() >= until:
                raise StatementTimeout(
                    f"a notification of its own did not arrive within {self._answer:g} s"
                )
            await self._waiter.wait(until - time.monotonic())
            self._receive()

    async def _ring(self, name: str) -> None:
        await self._execute(sql.NOTIFY, (self._probe, name))

    async def _ring_from_elsewhere(self, name: str) -> None:
        """Send a notification from another connection, to prove that those arrive."""
        await self._asking.fetch(sql.NOTIFY, (self._probe, name))
        self._receive()

    async def _execute(self, query: Any, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement on the listening session."""
        connection = self._live()
        self._waiter.unwatch()  # psycopg watches the socket meanwhile
        cursor = await connection.execute(query, params or None)
        rows = await cursor.fetchall() if cursor.description else []
        self._waiter.watch(connection.fileno())
        self._receive()
        return rows

    def _live(self) -> AsyncTimeoutConnection:
        if self._connection is None or self._connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the connection is closed")
        return self._connection

    def _receive(self) -> None:
        pgconn = self._live().pgconn
        pgconn.consume_input()  # raises OperationalError if the server is gone
        while (notify := pgconn.notifies()) is not None:
            self._note(notify)

    def _note(self, notify: Any) -> None:
        """Add a notification to the buffer, in order."""
        channel, payload = (
            part.decode(errors="backslashreplace") for part in (notify.relname, notify.extra)
        )
        if channel == self.channel:
            self._buffer.add(Heard(payload, notify.be_pid))
            self._has_heard = True
        elif channel == self._probe and self._awaited is not None:
            name, mark = self._awaited
            if name != payload:
                return
            self._awaited = None
            if mark is not None:
                self._buffer.add(mark)
        self._more.set()

    # Publishing.

    async def _keep_publishing(self) -> None:
        while True:
            self._more.clear()
            ended = self._heard_all
            items = self._buffer.take(BATCH)
            if items:
                await self._publish(items)
                self._buffer.done(items)
                self._waiter.wake()  # there is room
            elif ended:
                return
            else:
                await self._more.wait()

    async def _publish(self, items: list[Item]) -> None:
        first = items[0]
        if isinstance(first, Gap):
            await self._note_heard(first.until, first.since, first.why)
        elif isinstance(first, Mark):
            self._since = first.snapshot
            # Trap: what was passed over later than that may be invisible in the snapshot.
            self._passed = {i: at for i, at in self._passed.items() if at >= first.after}
            if first.at is not None:
                await self._note_heard(first.at)
        else:
            heard = [item for item in items if isinstance(item, Heard)]
            await self._publish_heard(await self._new(heard) if self._by_notify else heard)

    async def _note_heard(
        self, until: datetime, gap_since: datetime | None = None, why: str | None = None
    ) -> None:
        params = (self.topic, self.channel, self._writer, until, gap_since, why)
        await self._fetch(sql.CAPTURE_PROGRESS, params)

    async def _new(self, heard: list[Heard]) -> list[Heard]:
        """Leave out what notify() has already published to this topic."""
        params = (self.topic, self.channel, self._since, list(self._passed), *_columns(heard))
        rows = await self._fetch(sql.ALREADY_PUBLISHED, params)
        for _, ids in rows:
            self._passed |= dict.fromkeys(ids, time.monotonic())
        places = {place for place, _ in rows}
        self.passed_over += len(places)
        return [one for place, one in enumerate(heard, 1) if place not in places]

    async def _publish_heard(self, heard: list[Heard]) -> None:
        if not heard:
            return
        self._batch += 1  # the number prevents a second publish if an answer was lost
        columns = _columns(heard)
        params = (self.topic, self.channel, self._writer, self._batch, *columns, self._as_json)
        await self._fetch(sql.CAPTURE, params)
        self.published += len(heard)

    async def _fetch(self, query: Any, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a statement, and retry it until it succeeds."""
        failures = 0
        while True:
            try:
                return await self._publishing.fetch(query, params)
            except (*TRANSIENT, psycopg.Error, OSError) as error:
                failures += 1
                delay = backoff(failures, 0.2, 5.0)
                level = self._log_throttle.level("publishing", error, time.monotonic())
                log.log(
                    level, "%d notifications of channel %s wait, next try in %.1f s: %s",
                    self._buffer.waiting, self.channel, delay, safe_message(error),
                )  # fmt: skip
                await self._wait_to_retry(delay, error)

    async def _wait_to_retry(self, delay: float, error: Exception) -> None:
        """Wait before a retry; raise if it was stopped and the grace time is over."""
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            self._hurry.clear()
            if self._stopped_at is not None:
                left = min(left, self._stopped_at + self._grace - time.monotonic())
                if left <= 0:
                    raise CaptureIncomplete(
                        f"{self._buffer.waiting} notifications of channel {self.channel} were "
                        f"heard and could not be published: {safe_message(error)}"
                    ) from error
            await self._hurry.wait(left)


def _columns(heard: list[Heard]) -> tuple[list[str], list[int]]:
    return [one.payload for one in heard], [one.pid for one in heard]
