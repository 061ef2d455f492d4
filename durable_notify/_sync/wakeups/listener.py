# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""The one connection on which a process hears wake-ups."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import Connection, sql

from ..._core.doorbells import ArmedTopics
from ..._core.listen_check import CHANNELS, CROWDED, LISTENING, MISSED, NAMES, PRESENT
from ..._core.log_throttle import LogThrottle
from ..._core.pacing import backoff, shortest
from ...adapters import PLAIN
from ...dsn import said
from ...events import Disconnected, ListenFailed, ListenVerified, Reconnected, name_of
from ..concurrency import Waiter, scope, sharing_lock, spawn
from ..database.connection import (
    HEARTBEAT,
    TRANSIENT,
    ReadOnlyServer,
    StatementTimeout,
    can_write,
    connect,
)
from .subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..._core.emitter import EventEmitter
    from ..concurrency import Task

__all__ = ["Listener", "listen"]

log = logging.getLogger("durable_notify")

#: How long the session may take for an answer, in seconds; no longer than from beat to beat.
ANSWER = 10.0


class Listener:
    """A listening session, shared by all consumers of a process (or event loop) with its DSN.

    Nothing of the user's runs on it, and it never publishes. It is driven by hand, below psycopg's
    ``notifies()``: that would hold the connection's lock while it waits, drop the rest of a batch
    when left, and could not bound how long an answer takes.
    """

    def __init__(self, dsn: str, heartbeat: float = HEARTBEAT) -> None:
        self._dsn = dsn
        self._heartbeat = heartbeat
        self._ears: set[Subscription] = set()
        self._listening: set[str] = set()
        # What the database calls the channels. Trap: computed here alone, a name that is another
        # there is never rung, and nothing says so.
        self._names: dict[str, str] = {}
        self._waiter = Waiter()
        self._stopping = False
        self._task: Task | None = None
        self._connection: Connection[Any] | None = None
        self._probe = f"durable_notify?{uuid.uuid4().hex}"
        self._probe_heard = False
        self._could_write = False
        self._checked_at = 0.0
        self.bells = ArmedTopics()
        self._complaints = LogThrottle()
        self.deaf = False
        self.hears = False
        self.failures = 0  # so many attempts to listen have failed, one after the other
        self.reconnects = 0
        self.lost_at: float | None = None  # since when there is no connection

    def start(self) -> None:
        """Connect, and listen from here on.

        Raises:
            psycopg.Error: the first connection failed; later ones are tried again by themselves.
        """
        try:
            self._connect()
        except BaseException:
            self._waiter.close()
            raise
        self._task = spawn(self._run, name="durable_notify listener")

    def stop(self) -> None:
        self._stopping = True
        self._waiter.wake()
        if self._task is not None:
            self._task.join()
        self._waiter.close()

    def listens_to(self, channels: set[str]) -> bool:
        """Whether the session listens to all of these."""
        return channels <= self._listening

    def look(self) -> None:
        """Take notice of what the ears want."""
        self._waiter.wake()

    def add(
        self,
        channels: Mapping[str, str],
        heartbeat: float = HEARTBEAT,
        teller: EventEmitter | None = None,
    ) -> Subscription:
        """Listen to channels; the ear's ``woken`` is set once the session does."""
        ear = Subscription(self, channels, heartbeat)
        if teller:
            ear.teller = teller
            if self.hears or self.deaf:  # it was told of before there was this ear
                teller.tell((ListenVerified if self.hears else ListenFailed)(group=teller.group))
        self._ears.add(ear)
        self._waiter.wake()
        return ear

    def extend(self, ear: Subscription, channels: Mapping[str, str]) -> None:
        ear.channels = {**ear.channels, **channels}
        self._waiter.wake()

    def remove(self, ear: Subscription) -> None:
        self._ears.discard(ear)
        self._waiter.wake()
        _release(self)

    @property
    def abandoned(self) -> bool:
        return not self._ears

    @property
    def quiet(self) -> bool:
        """Whether the database is to be left alone: all who listen sleep quietly."""
        return all(ear.quiet for ear in list(self._ears))

    @property
    def heartbeat(self) -> float:
        """How often to check that the session still listens: as often as anybody wants."""
        return min((ear.heartbeat for ear in list(self._ears)), default=self._heartbeat)

    @property
    def _answer(self) -> float:
        """How long an answer may take."""
        return min(ANSWER, self.heartbeat)

    def _connect(self) -> None:
        connection = connect(self._dsn, "listener", self.heartbeat)
        self._connection = connection
        self._could_write = can_write(connection)
        self._listening = set()
        self.bells.reset()
        self._checked_at = time.monotonic()
        self._waiter.watch(connection.fileno())

    def _disconnect(self) -> None:
        self.hears = False
        self.bells.reset()
        self._waiter.unwatch()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _run(self) -> None:
        try:
            self._keep_listening()
        finally:
            self._disconnect()

    def _keep_listening(self) -> None:
        while not self._stopping:
            try:
                if self._connection is None:
                    self._connect()
                    self.reconnects += 1
                    log.info("listening again")
                    gone = time.monotonic() - (self.lost_at or time.monotonic())
                    self.lost_at = None
                    for teller in self._tellers():
                        teller.tell(Reconnected(group=teller.group, seconds=gone))
                self._check_hearing()
                self.failures = 0
                self._listen()
            except (*TRANSIENT, psycopg.Error, OSError) as error:
                self.failures += 1
                self.lost_at = self.lost_at or time.monotonic()
                delay = backoff(self.failures, 0.2, 10.0)
                for teller in self._tellers():
                    teller.tell(Disconnected(group=teller.group, error=name_of(error)))
                if self.quiet:
                    log.info(
                        "the listening connection was lost while all consumers sleep: %s",
                        said(error),
                    )
                else:
                    log.log(
                        self._complaints.level("listening", error, time.monotonic()),
                        "the listening connection was lost, next try in %.1f s: %s",
                        delay, said(error),
                    )  # fmt: skip
                self._disconnect()
                if isinstance(error, (StatementTimeout, psycopg.errors.ConnectionTimeout)):
                    self._tell_it_hangs()
                self._pause(delay)

    def _tellers(self) -> list[EventEmitter]:
        """Return who is to be told of events: those of the ears there are."""
        return [ear.teller for ear in list(self._ears) if ear.teller]

    def _tell_it_hangs(self) -> None:
        """The server hangs: nobody is to wait for it on the connections beside this one."""
        for ear in list(self._ears):
            if ear.when_it_hangs is not None:
                ear.when_it_hangs()

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt to connect, in any case until somebody does not sleep."""
        until = time.monotonic() + seconds
        while not self._stopping and (self.quiet or time.monotonic() < until):
            left = max(0.0, until - time.monotonic())
            self._waiter.wait(None if self.quiet else left)

    def _listen(self) -> None:
        """Hear rings until told to stop, or the connection turns out to be dead."""
        while not self._stopping:
            self._sync_channels()
            self._sync_bells()
            if self._stopping or not self._in_sync():
                continue  # a command's own wait has taken the wake-up that told of it
            now = time.monotonic()
            quiet = self.quiet
            beat = None if quiet else self._checked_at + self.heartbeat
            until = shortest(beat, self.bells.next_at(retries=not quiet))
            self._waiter.wait(None if until is None else max(0.0, until - now))
            self._receive()
            self._look_for_unannounced()
            if not self.quiet and time.monotonic() >= self._checked_at + self.heartbeat:
                self._check_session()

    def _check_session(self) -> None:
        """See whether the session still has what it was given.

        On this session: a SELECT 1 elsewhere would not notice a lost registration.
        """
        self._checked_at = time.monotonic()
        present = self._command(_with_list(PRESENT, sorted(self.bells.held)))
        if self._could_write and not can_write(self._live()):
            raise ReadOnlyServer  # a primary fenced under its sessions
        there = {name for name, *_ in present}
        missing = {name for name in self._listening if self._called(name) not in there}
        if self.bells.armed and any(crowded == "t" for *_, crowded in present):
            self._disarm()  # and find that none can be armed
        elif missing or any(lost == "t" for _, lost, _ in present):
            log.warning(
                "the session had stopped listening to %d channels, or lost its locks", len(missing)
            )
            self._listening -= missing
            self._disarm()
        if self.deaf:
            self._check_hearing()

    def _in_sync(self) -> bool:
        wanted = self._wanted_bells()
        if self._wanted() != self._listening - {self._probe} or self.bells.stale:
            return False
        return self.quiet or not self.bells.to_arm(wanted, time.monotonic())

    def _wanted_bells(self) -> set[str]:
        """Return the topics to be rung for; only where that was proven to be heard.

        Trap: through a pooler the bell of somebody else's session would stay armed for ever.
        """
        if not self.hears:
            return set()
        return {topic for ear in list(self._ears) for topic in ear.resting}

    def _sync_bells(self) -> None:
        """Disarm the bells of those that read, and arm those of whoever rests.

        LISTEN stands before this. Who rests reads once more after it, which is what makes a
        message found that was published in between without a ring.
        """
        wanted = self._wanted_bells()
        if extra := self.bells.to_disarm(wanted, time.monotonic()):
            self._command(_with_list("SELECT durable_notify._disarm_topics({})", extra))
        missing = self.bells.to_arm(wanted, time.monotonic())
        if not missing:
            return
        self.bells.arming(missing)
        try:
            rows = self._command(_with_list("SELECT durable_notify._arm_topics({})", missing))
        except psycopg.errors.OutOfMemory as error:
            # The server's table of locks is full. What was taken of it before that stays taken.
            level = self._complaints.level("arming", error, time.monotonic())
            log.log(level, "doorbells could not be armed, consumers poll: %s", said(error))
            self._disarm()
            missing = sorted(wanted)
            result: dict[str, Any] = {"barred": missing, "silent": [], "unannounced": []}
        else:
            result = json.loads(rows[0][0])
        if result.get("crowded"):
            level = self._complaints.level("crowded", None, time.monotonic())
            log.log(level, CROWDED)
        refused = {*result["barred"], *result["silent"]}
        self.bells.tried(missing, refused, result["unannounced"], time.monotonic())
        for ear in list(self._ears):
            ear.reread(frozenset(missing))

    def _disarm(self) -> None:
        self._command("SELECT pg_catalog.pg_advisory_unlock_all()")
        self.bells.reset()

    def _look_for_unannounced(self) -> None:
        """Have those who rest read again once a transaction that may not have rung has ended."""
        looked_at = self.bells.to_look(time.monotonic())
        if not looked_at:
            return
        query = "SELECT pg_catalog.unnest(durable_notify.still_running({}::xid8[]))"
        rows = self._command(_with_list(query, looked_at))
        running = [row[0] for row in rows]
        if self.bells.looked(looked_at, running, time.monotonic()):
            for ear in list(self._ears):
                ear.reread(frozenset(ear.channels.values()))

    def _sync_channels(self) -> None:
        """LISTEN to what is wanted and not yet heard; wake whoever waited for it.

        Each statement commits by itself before anybody reads: LISTEN, commit, then read.
        """
        wanted = self._wanted()
        fresh = wanted - self._listening
        if fresh:
            self._ask_for_names(fresh)
        for channel in sorted(fresh):
            self._command(_identified("LISTEN {}", self._called(channel)))
            self._listening.add(channel)
        for channel in sorted(self._listening - wanted - {self._probe}):
            self._command(_identified("UNLISTEN {}", self._called(channel)))
            self._listening.discard(channel)
            self._names.pop(channel, None)
        if fresh and self.hears and self._rings_would_be_missed(fresh):
            self._check_hearing()
        for ear in list(self._ears):
            if not fresh.isdisjoint(ear.channels):
                ear.wake()

    def _wanted(self) -> set[str]:
        return set(self._topics())

    def _topics(self) -> dict[str, str]:
        """Return the topics that are wanted, by what is taken here for their channels' names."""
        return {name: topic for ear in list(self._ears) for name, topic in ear.channels.items()}

    def _called(self, channel: str) -> str:
        return self._names.get(channel, channel)

    def _ask_for_names(self, channels: set[str]) -> None:
        """Ask the database what it calls channels."""
        topics = {name: topic for name, topic in self._topics().items() if name in channels}
        rows = self._command(_with_list(NAMES, list(topics.values())))
        called = {row[0]: row[1] for row in rows}
        self._names.update({name: called[topic] for name, topic in topics.items()})

    def _rings_would_be_missed(self, channels: set[str]) -> bool:
        """Whether the session does not listen to all channels, as the database calls them."""
        topics = [topic for name, topic in self._topics().items() if name in channels]
        return bool(self._command(_with_list(MISSED, topics)))

    def _check_hearing(self) -> None:
        """Prove that a ring from another connection arrives here, and would on all that is needed.

        What is proven to arrive is a ring on a channel of its own: others hear those of topics.
        That the session listens to those, as the one who rings calls them, it is asked for.
        """
        self._command(_identified("LISTEN {}", self._probe))
        self._listening.add(self._probe)
        self._sync_channels()
        topics = [topic for name, topic in self._topics().items() if name in self._listening]
        self._probe_heard = False
        with connect(self._dsn, "probe", self.heartbeat) as other:
            other.answer = self._answer
            other.execute("SELECT pg_catalog.pg_notify(%s, '')", (self._probe,))
            # Who rings decides on which channel: the names are those of its session.
            names = (other.execute(CHANNELS, (topics,))).fetchall()
        until = time.monotonic() + self._answer / 2
        self._receive()
        while not self._probe_heard and not self._stopping and time.monotonic() < until:
            self._waiter.wait(until - time.monotonic())
            self._receive()
        heard = self._probe_heard
        if heard:
            listening = {row[0] for row in self._command(LISTENING)}
            heard = listening.issuperset(name for (name,) in names)
        deaf = not heard and not self._stopping
        if deaf and not self.deaf:
            log.warning(
                "wake-ups do not reach the listening connection (a pooler in transaction mode does "
                "this): consumers poll. Set a direct listen_dsn"
            )
        if heard:
            # It is idle by nature, and who arms looks at what is there once it has. Trap: only
            # where the session is ours, not behind a pooler.
            self._command(
                "SELECT pg_catalog.set_config('idle_session_timeout', '0', false),"
                " pg_catalog.set_config('default_transaction_isolation', 'read committed', false)"
            )
        if (deaf, heard) != (self.deaf, self.hears) and not self._stopping:
            kind = ListenFailed if deaf else ListenVerified
            for teller in self._tellers():
                teller.tell(kind(group=teller.group))
        self.deaf, self.hears = deaf, heard
        for ear in list(self._ears):
            ear.wake()

    def _command(self, statement: str) -> list[tuple[str, ...]]:
        """Run one statement; the session is given up where the answer takes too long."""
        connection = self._live()
        connection.pgconn.send_query(statement.encode())
        connection.pgconn.flush()
        until = time.monotonic() + (answer := self._answer)
        rows: list[tuple[str, ...]] = []
        error: psycopg.Error | None = None
        while True:
            while not connection.pgconn.is_busy():
                result = connection.pgconn.get_result()
                if result is None:
                    self._dispatch()
                    if error is not None:
                        raise error
                    return rows
                if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                    error = psycopg.errors.error_from_result(result)
                rows += [
                    tuple(
                        (result.get_value(row, column) or b"").decode()
                        for column in range(result.nfields)
                    )
                    for row in range(result.ntuples)
                ]
            if time.monotonic() >= until:
                raise StatementTimeout(f"no answer within {answer:g} s")
            self._waiter.wait(until - time.monotonic())
            self._receive()

    def _live(self) -> Connection[Any]:
        if self._connection is None or self._connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the connection is closed")
        return self._connection

    def _receive(self) -> None:
        self._live().pgconn.consume_input()  # raises OperationalError where the server is gone
        self._dispatch()

    def _dispatch(self) -> None:
        """Wake whoever a ring is for. All that has arrived is read, whoever stops listening."""
        connection = self._live()
        rung: dict[str, set[str]] = {}
        known = {called: name for name, called in self._names.items()}
        while (notify := connection.pgconn.notifies()) is not None:
            channel = notify.relname.decode()
            rung.setdefault(known.get(channel, channel), set()).add(notify.extra.decode())
        if self._probe in rung:
            self._probe_heard = True
        for ear in list(self._ears):
            if mine := {channel: rung[channel] for channel in ear.channels.keys() & rung.keys()}:
                self.bells.rung(ear.channels[channel] for channel in mine)
                changed = (ear.channels[name] for name in mine if "!" in mine[name])
                self.bells.expire(changed)
                ear.ring(mine)


def _with_list(statement: str, items: list[str]) -> str:
    return sql.SQL(statement).format(sql.Literal(items)).as_string(PLAIN)


def _identified(statement: str, channel: str) -> str:
    return sql.SQL(statement).format(sql.Identifier(channel)).as_string(None)


_shared: dict[tuple[object, str], Listener] = {}


def listen(
    dsn: str,
    channels: Mapping[str, str],
    heartbeat: float = HEARTBEAT,
    teller: EventEmitter | None = None,
) -> Subscription:
    """Hear channels on the one listening connection that this process has for a DSN."""
    here = scope()
    with sharing_lock():
        listener = _shared.get((here, dsn))
        if listener is None:
            listener = Listener(dsn, heartbeat)
            listener.start()
            _shared[here, dsn] = listener
        return listener.add(channels, heartbeat, teller)


def _release(listener: Listener) -> None:
    with sharing_lock():
        if not listener.abandoned:
            return
        for name in [name for name, other in _shared.items() if other is listener]:
            del _shared[name]
            listener.stop()
