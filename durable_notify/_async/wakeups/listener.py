"""The one connection on which a process hears wake-ups."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from ..._core import sql
from ..._core.listener_state import ListenerState
from ..._core.log_throttle import LogThrottle
from ..._core.pacing import backoff, shortest
from ...adapters import PLAIN
from ...dsn import safe_message
from ...events import Disconnected, ListenFailed, ListenVerified, Reconnected, name_of
from ..concurrency import checkpoint, scope, sharing_lock, spawn
from ..database.connection import (
    HEARTBEAT,
    TRANSIENT,
    ReadOnlyServer,
    StatementTimeout,
    can_write,
    connect,
)
from .session import AsyncListeningSession
from .subscription import AsyncSubscription

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..._core.emitter import EventEmitter
    from ..concurrency import Task

__all__ = ["AsyncListener", "listen"]

log = logging.getLogger("durable_notify")

CROWDED = (
    "the queue of notifications is half full: consumers disarm their doorbells and poll. A "
    "listening session stays in a transaction; find it in pg_stat_activity and end it"
)
#: How long the session may take to answer, in seconds; at most a heartbeat.
ANSWER = 10.0


class AsyncListener(AsyncListeningSession):
    """The listening session that all consumers of a process (or event loop) with one DSN share.

    It runs no statement of the user's, and never publishes.
    """

    def __init__(self, dsn: str, heartbeat: float = HEARTBEAT) -> None:
        super().__init__()
        self._dsn = dsn
        self._heartbeat = heartbeat
        self.state = ListenerState()
        self.reconnects = 0
        self._subscriptions: set[AsyncSubscription] = set()
        # The channels' names in the database. Trap: if they were only computed here and differed
        # from the database's, no publisher would ring them, and nothing would report it.
        self._names: dict[str, str] = {}
        self._computed: dict[str, str] = {}  # and the other way round
        self._stopping = False
        self._task: Task | None = None
        self._probe = f"durable_notify?{uuid.uuid4().hex}"
        self._probe_heard = False
        self._could_write = False
        self._checked_at = 0.0
        self._log_throttle = LogThrottle()

    async def start(self) -> None:
        """Connect, and listen from here on.

        Raises:
            psycopg.Error: the first connection failed. The listener retries later ones itself.
        """
        try:
            await self._connect()
        except BaseException:
            self._waiter.close()
            raise
        self._task = spawn(self._run, name="durable_notify listener")

    async def stop(self) -> None:
        """Stop listening, and close the connection."""
        self._stopping = True
        self._waiter.wake()
        if self._task is not None:
            await self._task.join()
        self._waiter.close()

    def notify_changed(self) -> None:
        """Check what the subscriptions want now."""
        self._waiter.wake()

    def add(
        self,
        channels: Mapping[str, str],
        heartbeat: float = HEARTBEAT,
        emitter: EventEmitter | None = None,
    ) -> AsyncSubscription:
        """Listen to channels; set the subscription's ``woken`` once the session does."""
        subscription = AsyncSubscription(
            self.state, channels, heartbeat, changed=self.notify_changed, leave=self.remove
        )
        if emitter:
            subscription.emitter = emitter
            if self.state.hears or self.state.deaf:  # this subscription missed the event
                kind = ListenVerified if self.state.hears else ListenFailed
                emitter.emit(kind(group=emitter.group))
        self._subscriptions.add(subscription)
        self._waiter.wake()
        return subscription

    async def remove(self, subscription: AsyncSubscription) -> None:
        """Remove a subscription; stop after the last one."""
        self._subscriptions.discard(subscription)
        self._waiter.wake()
        await _release(self)

    @property
    def abandoned(self) -> bool:
        return not self._subscriptions

    @property
    def suspended(self) -> bool:
        """Whether all subscriptions are suspended, so that nothing may be sent to the database."""
        return all(subscription.suspended for subscription in list(self._subscriptions))

    @property
    def heartbeat(self) -> float:
        """How often to check that the session still listens: the shortest of the subscriptions'."""
        return min(
            (subscription.heartbeat for subscription in list(self._subscriptions)),
            default=self._heartbeat,
        )

    @property
    def _answer(self) -> float:
        """How long an answer may take."""
        return min(ANSWER, self.heartbeat)

    async def _connect(self) -> None:
        connection = await connect(self._dsn, "listener", self.heartbeat)
        self._could_write = can_write(connection)
        self.state.listening = set()
        self.state.doorbells.reset()
        self._checked_at = time.monotonic()
        await self._attach(connection)

    async def _disconnect(self) -> None:
        self.state.hears = False
        self.state.doorbells.reset()
        await self._detach()

    async def _run(self) -> None:
        try:
            await self._keep_listening()
        finally:
            await self._disconnect()

    async def _keep_listening(self) -> None:
        while not self._stopping:
            try:
                if self._connection is None:
                    await self._connect()
                    self.reconnects += 1
                    log.info("listening again")
                    gone = time.monotonic() - (self.state.lost_at or time.monotonic())
                    self.state.lost_at = None
                    for emitter in self._emitters():
                        emitter.emit(Reconnected(group=emitter.group, seconds=gone))
                await self._check_hearing()
                self.state.failures = 0
                await self._listen()
            except (*TRANSIENT, psycopg.Error, OSError) as error:
                self.state.failures += 1
                self.state.lost_at = self.state.lost_at or time.monotonic()
                delay = backoff(self.state.failures, 0.2, 10.0)
                for emitter in self._emitters():
                    emitter.emit(Disconnected(group=emitter.group, error=name_of(error)))
                if self.suspended:
                    log.info(
                        "the listening connection was lost while all consumers sleep: %s",
                        safe_message(error),
                    )
                else:
                    log.log(
                        self._log_throttle.level("listening", error, time.monotonic()),
                        "the listening connection was lost, next try in %.1f s: %s",
                        delay, safe_message(error),
                    )  # fmt: skip
                await self._disconnect()
                if isinstance(error, (StatementTimeout, psycopg.errors.ConnectionTimeout)):
                    self._on_timeout()
                await self._pause(delay)

    def _emitters(self) -> list[EventEmitter]:
        return [
            subscription.emitter
            for subscription in list(self._subscriptions)
            if subscription.emitter
        ]

    def _on_timeout(self) -> None:
        """End all waits on the consumers' own connections, because the server hangs."""
        for subscription in list(self._subscriptions):
            if subscription.on_timeout is not None:
                subscription.on_timeout()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt to connect, and for as long as all are suspended."""
        until = time.monotonic() + seconds
        while not self._stopping and (self.suspended or time.monotonic() < until):
            left = max(0.0, until - time.monotonic())
            await self._waiter.wait(None if self.suspended else left)

    async def _listen(self) -> None:
        """Receive rings until stopped, or the connection is found dead."""
        while not self._stopping:
            await self._sync_channels()
            await self._sync_doorbells()
            if self._stopping or not self._in_sync():
                continue  # a command's own wait has consumed the wake-up
            now = time.monotonic()
            suspended = self.suspended
            beat = None if suspended else self._checked_at + self.heartbeat
            until = shortest(beat, self.state.doorbells.next_at(retries=not suspended))
            await self._waiter.wait(None if until is None else max(0.0, until - now))
            self._receive()
            await checkpoint()  # the consumers that it has woken claim first
            await self._recheck_unannounced()
            if not self.suspended and time.monotonic() >= self._checked_at + self.heartbeat:
                await self._check_session()

    async def _check_session(self) -> None:
        """Check that the session still listens and has its locks.

        It asks this session: a SELECT 1 elsewhere would not notice a lost registration.
        """
        self._checked_at = time.monotonic()
        present = await self._command(
            _with_list(sql.LISTENER_CHECK, sorted(self.state.doorbells.held))
        )
        if self._could_write and not can_write(self._live()):
            raise ReadOnlyServer  # a primary was fenced while its sessions stayed
        there = {name for name, *_ in present}
        missing = {name for name in self.state.listening if self._called(name) not in there}
        if self.state.doorbells.armed and any(crowded == "t" for *_, crowded in present):
            await self._disarm()  # or arming will be refused next
        elif missing or any(lost == "t" for _, lost, _ in present):
            log.warning(
                "the session had stopped listening to %d channels, or lost its locks", len(missing)
            )
            self.state.listening -= missing
            await self._disarm()
        if self.state.deaf:
            await self._check_hearing()

    def _in_sync(self) -> bool:
        wanted = self._wanted_doorbells()
        if self._wanted() != self.state.listening - {self._probe} or self.state.doorbells.stale:
            return False
        return self.suspended or not self.state.doorbells.to_arm(wanted, time.monotonic())

    def _wanted_doorbells(self) -> set[str]:
        """Return the topics whose doorbells to arm: none unless rings were proven to arrive.

        Trap: through a pooler, another program's session would keep the doorbell armed for ever.
        """
        if not self.state.hears:
            return set()
        return {
            topic for subscription in list(self._subscriptions) for topic in subscription.wanted
        }

    async def _sync_doorbells(self) -> None:
        """Disarm the doorbells of topics that consumers read, and arm those that are wanted.

        LISTEN comes before this. A consumer reads once more after it, and so finds a message that
        was published in between without a ring.
        """
        wanted = self._wanted_doorbells()
        if extra := self.state.doorbells.to_disarm(wanted, time.monotonic()):
            await self._command(_with_list(sql.DISARM_TOPICS, extra))
        missing = self.state.doorbells.to_arm(wanted, time.monotonic())
        if not missing:
            return
        self.state.doorbells.arming(missing)
        try:
            rows = await self._command(_with_list(sql.ARM_TOPICS, missing))
        except psycopg.errors.OutOfMemory as error:
            # The server's lock table is full. Locks taken before that stay taken.
            level = self._log_throttle.level("arming", error, time.monotonic())
            log.log(level, "doorbells could not be armed, consumers poll: %s", safe_message(error))
            await self._disarm()
            missing = sorted(wanted)
            result: dict[str, Any] = {"barred": missing, "silent": [], "unannounced": []}
        else:
            result = json.loads(rows[0][0])
        if result.get("crowded"):
            level = self._log_throttle.level("crowded", None, time.monotonic())
            log.log(level, CROWDED)
        refused = {*result["barred"], *result["silent"]}
        still_refused = self.state.doorbells.refused & refused
        self.state.doorbells.tried(missing, refused, result["unannounced"], time.monotonic())
        for subscription in list(self._subscriptions):
            subscription.recheck(frozenset(missing) - still_refused)

    async def _disarm(self) -> None:
        await self._command(sql.UNLOCK_ALL)
        self.state.doorbells.reset()

    async def _recheck_unannounced(self) -> None:
        """Wake subscriptions once a transaction that may not have rung has ended."""
        looked_at = self.state.doorbells.to_look(time.monotonic())
        if not looked_at:
            return
        rows = await self._command(_with_list(sql.STILL_RUNNING, looked_at))
        running = [row[0] for row in rows]
        if self.state.doorbells.looked(looked_at, running, time.monotonic()):
            for subscription in list(self._subscriptions):
                subscription.recheck(frozenset(subscription.channels.values()))

    async def _sync_channels(self) -> None:
        """LISTEN to new channels, UNLISTEN from others, and wake subscriptions that waited for it.

        Each statement commits before a consumer reads: LISTEN, commit, then read.
        """
        wanted = self._wanted()
        fresh = wanted - self.state.listening
        if fresh:
            await self._ask_for_names(fresh)
        for channel in sorted(fresh):
            await self._command(_identified("LISTEN {}", self._called(channel)))
            self.state.listening.add(channel)
        for channel in sorted(self.state.listening - wanted - {self._probe}):
            await self._command(_identified("UNLISTEN {}", self._called(channel)))
            self.state.listening.discard(channel)
            self._computed.pop(self._names.pop(channel, channel), None)
        if fresh and self.state.hears and await self._rings_would_be_missed(fresh):
            await self._check_hearing()
        for subscription in list(self._subscriptions):
            if not fresh.isdisjoint(subscription.channels):
                subscription.wake()

    def _wanted(self) -> set[str]:
        return set(self._topics())

    def _topics(self) -> dict[str, str]:
        """Return the wanted topics, by the channel names that this process computes."""
        return {
            name: topic
            for subscription in list(self._subscriptions)
            for name, topic in subscription.channels.items()
        }

    def _called(self, channel: str) -> str:
        return self._names.get(channel, channel)

    async def _ask_for_names(self, channels: set[str]) -> None:
        """Ask the database for the names of channels."""
        topics = {name: topic for name, topic in self._topics().items() if name in channels}
        rows = await self._command(_with_list(sql.CHANNELS_OF_TOPICS, list(topics.values())))
        called = {row[0]: row[1] for row in rows}
        self._names.update({name: called[topic] for name, topic in topics.items()})
        self._computed = {called: name for name, called in self._names.items()}

    async def _rings_would_be_missed(self, channels: set[str]) -> bool:
        """Return whether the session misses a channel, by the names that the database uses."""
        topics = [topic for name, topic in self._topics().items() if name in channels]
        return bool(await self._command(_with_list(sql.MISSED_TOPICS, topics)))

    async def _check_hearing(self) -> None:
        """Prove that a ring from another connection arrives here, and would on all wanted channels.

        The test ring has a channel of its own, because other listeners hear the channels of
        topics. The session is asked whether it listens to those, by the names that publishers use.
        """
        await self._command(_identified("LISTEN {}", self._probe))
        self.state.listening.add(self._probe)
        await self._sync_channels()
        topics = [topic for name, topic in self._topics().items() if name in self.state.listening]
        self._probe_heard = False
        async with await connect(self._dsn, "probe", self.heartbeat) as other:
            other.answer = self._answer
            await other.execute(sql.NOTIFY, (self._probe, ""))
            # Ask the server, because a publisher's session computes the channel it rings.
            names = await (await other.execute(sql.RING_CHANNELS, (topics,))).fetchall()
        until = time.monotonic() + self._answer / 2
        self._receive()
        while not self._probe_heard and not self._stopping and time.monotonic() < until:
            await self._waiter.wait(until - time.monotonic())
            self._receive()
        heard = self._probe_heard
        if heard:
            listening = {row[0] for row in await self._command(sql.LISTENING_CHANNELS)}
            heard = listening.issuperset(name for (name,) in names)
        deaf = not heard and not self._stopping
        if deaf and not self.state.deaf:
            log.warning(
                "wake-ups do not reach the listening connection (a pooler in transaction mode does "
                "this): consumers poll. Set a direct listen_dsn"
            )
        if heard:
            # Trap: do this only if the session is this listener's own, not a pooler's.
            await self._command(sql.LISTENER_SETTINGS)
        if (deaf, heard) != (self.state.deaf, self.state.hears) and not self._stopping:
            kind = ListenFailed if deaf else ListenVerified
            for emitter in self._emitters():
                emitter.emit(kind(group=emitter.group))
        self.state.deaf, self.state.hears = deaf, heard
        for subscription in list(self._subscriptions):
            subscription.wake()

    def _dispatch(self) -> None:
        """Read all rings that have arrived, and wake the subscriptions they are for."""
        connection = self._live()
        rung: dict[str, set[str]] = {}
        while (notify := connection.pgconn.notifies()) is not None:
            channel = notify.relname.decode()
            rung.setdefault(self._computed.get(channel, channel), set()).add(notify.extra.decode())
        if self._probe in rung:
            self._probe_heard = True
        for subscription in list(self._subscriptions):
            if mine := {
                channel: rung[channel] for channel in subscription.channels.keys() & rung.keys()
            }:
                self.state.doorbells.rung(subscription.channels[channel] for channel in mine)
                changed = (subscription.channels[name] for name in mine if "!" in mine[name])
                self.state.doorbells.expire(changed)
                subscription.ring(mine)


def _with_list(statement: str, items: list[str]) -> str:
    return SQL(statement).format(Literal(items)).as_string(PLAIN)


def _identified(statement: str, channel: str) -> str:
    return SQL(statement).format(Identifier(channel)).as_string(None)


_shared: dict[tuple[object, str], AsyncListener] = {}


async def listen(
    dsn: str,
    channels: Mapping[str, str],
    heartbeat: float = HEARTBEAT,
    emitter: EventEmitter | None = None,
) -> AsyncSubscription:
    """Subscribe to channels on the one listening connection of this process for a DSN."""
    here = scope()
    async with sharing_lock():
        listener = _shared.get((here, dsn))
        if listener is None:
            listener = AsyncListener(dsn, heartbeat)
            await listener.start()
            _shared[here, dsn] = listener
        return listener.add(channels, heartbeat, emitter)


async def _release(listener: AsyncListener) -> None:
    async with sharing_lock():
        if not listener.abandoned:
            return
        for name in [name for name, other in _shared.items() if other is listener]:
            del _shared[name]
            await listener.stop()
