"""The one connection on which a process hears wake-ups."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection, sql

from .._core.pacing import backoff
from .compat import Event, Waiter, scope, sharing_lock, spawn
from .store import TRANSIENT, connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .compat import Task

__all__ = ["AsyncEar", "AsyncListener", "listen"]

log = logging.getLogger("durable_notify")

#: How often to check that the session still listens, and how long an answer may take, in seconds.
HEARTBEAT = 15.0
ANSWER = 10.0


class AsyncEar:
    """What one consumer hears: ``woken`` is set by every ring on one of its channels.

    It is also set whenever rings may have been missed: after every reconnection, once the session
    listens again.
    """

    def __init__(self, listener: AsyncListener, channels: frozenset[str]) -> None:
        self.channels = channels
        self.woken = Event()
        self._rung: dict[str, set[str]] = {}
        self._in_doubt = True
        self._mutex = threading.RLock()  # a signal's handler may wake as well
        self._listener = listener

    @property
    def deaf(self) -> bool:
        """Whether rings were proven not to arrive."""
        return self._listener.deaf

    @property
    def hears(self) -> bool:
        """Whether rings were proven to arrive on the connection there is now."""
        return self._listener.hears

    def wake(self, rung: dict[str, set[str]] | None = None) -> None:
        """Set ``woken``; without rings, for rings may have been missed."""
        with self._mutex:
            for channel, payloads in (rung or {}).items():
                self._rung.setdefault(channel, set()).update(payloads)
            self._in_doubt |= rung is None
        self.woken.set()

    def heard(self) -> dict[str, set[str]] | None:
        """Return what rang since the last call, channels with payloads; None: perhaps all did."""
        self.woken.clear()  # before reading: a ring meanwhile is about something newer
        with self._mutex:
            rung, self._rung = self._rung, {}
            in_doubt, self._in_doubt = self._in_doubt, False
        return None if in_doubt else rung

    def listen(self, channels: Iterable[str]) -> None:
        """Hear more channels; it wakes once the session listens to them."""
        self._listener.extend(self, channels)

    async def close(self) -> None:
        await self._listener.remove(self)


class AsyncListener:
    """A listening session, shared by all consumers of a process (or event loop) with its DSN.

    Nothing of the user's runs on it, and it never publishes. It is driven by hand, below psycopg's
    ``notifies()``: that would hold the connection's lock while it waits, drop the rest of a batch
    when left, and could not bound how long an answer takes.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ears: set[AsyncEar] = set()
        self._listening: set[str] = set()
        self._waiter = Waiter()
        self._stopping = False
        self._task: Task | None = None
        self._connection: AsyncConnection[Any] | None = None
        self._probe = f"durable_notify?{uuid.uuid4().hex}"
        self._probe_heard = False
        self._checked_at = 0.0
        self.deaf = False
        self.hears = False
        self.reconnects = 0

    async def start(self) -> None:
        """Connect, and listen from here on.

        Raises:
            psycopg.Error: the first connection failed; later ones are tried again by themselves.
        """
        try:
            await self._connect()
        except BaseException:
            self._waiter.close()
            raise
        self._task = spawn(self._run, name="durable_notify listener")

    async def stop(self) -> None:
        self._stopping = True
        self._waiter.wake()
        if self._task is not None:
            await self._task.join()
        self._waiter.close()

    def add(self, channels: Iterable[str]) -> AsyncEar:
        """Listen to channels; the ear's ``woken`` is set once the session does."""
        ear = AsyncEar(self, frozenset(channels))
        self._ears.add(ear)
        self._waiter.wake()
        return ear

    def extend(self, ear: AsyncEar, channels: Iterable[str]) -> None:
        ear.channels |= frozenset(channels)
        self._waiter.wake()

    async def remove(self, ear: AsyncEar) -> None:
        self._ears.discard(ear)
        await _release(self)

    @property
    def abandoned(self) -> bool:
        return not self._ears

    async def _connect(self) -> None:
        connection = await connect(self._dsn, "listener")
        self._connection = connection
        self._listening = set()
        self._waiter.watch(connection.fileno())

    async def _disconnect(self) -> None:
        self.hears = False
        self._waiter.unwatch()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _run(self) -> None:
        try:
            await self._keep_listening()
        finally:
            await self._disconnect()

    async def _keep_listening(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                if self._connection is None:
                    await self._connect()
                    self.reconnects += 1
                    log.info("listening again")
                await self._check_hearing()
                failures = 0
                await self._listen()
            except (*TRANSIENT, psycopg.Error, OSError) as error:
                failures += 1
                delay = backoff(failures, 0.2, 10.0)
                log.warning(
                    "the listening connection was lost, next try in %.1f s: %s", delay, error
                )
                await self._disconnect()
                await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            await self._waiter.wait(left)

    async def _listen(self) -> None:
        """Hear rings until told to stop, or the connection turns out to be dead."""
        while not self._stopping:
            await self._sync_channels()
            if self._stopping or self._wanted() != self._listening - {self._probe}:
                continue  # a command's own wait has taken the wake-up that told of it
            await self._waiter.wait(max(0.0, self._checked_at + HEARTBEAT - time.monotonic()))
            self._receive()
            if time.monotonic() >= self._checked_at + HEARTBEAT:
                # On this session: a SELECT 1 elsewhere would not notice a lost registration.
                present = await self._command("SELECT pg_catalog.pg_listening_channels()")
                if missing := self._listening - {row[0] for row in present}:
                    log.warning("the session had stopped listening to %d channels", len(missing))
                    self._listening -= missing
                if self.deaf:
                    await self._check_hearing()

    async def _sync_channels(self) -> None:
        """LISTEN to what is wanted and not yet heard; wake whoever waited for it.

        Each statement commits by itself before anybody reads: LISTEN, commit, then read.
        """
        wanted = self._wanted()
        fresh = wanted - self._listening
        for channel in sorted(fresh):
            await self._command(_identified("LISTEN {}", channel))
            self._listening.add(channel)
        for channel in sorted(self._listening - wanted - {self._probe}):
            await self._command(_identified("UNLISTEN {}", channel))
            self._listening.discard(channel)
        for ear in list(self._ears):
            if fresh & ear.channels:
                ear.wake()

    def _wanted(self) -> set[str]:
        return {channel for ear in list(self._ears) for channel in ear.channels}

    async def _check_hearing(self) -> None:
        """Prove that a ring from another connection arrives here."""
        await self._command(_identified("LISTEN {}", self._probe))
        self._listening.add(self._probe)
        self._probe_heard = False
        async with await connect(self._dsn, "probe") as other:
            await other.execute("SELECT pg_catalog.pg_notify(%s, '')", (self._probe,))
        until = time.monotonic() + ANSWER / 2
        while not self._probe_heard and not self._stopping and time.monotonic() < until:
            await self._waiter.wait(until - time.monotonic())
            self._receive()
        deaf = not self._probe_heard and not self._stopping
        if deaf and not self.deaf:
            log.warning(
                "wake-ups do not reach the listening connection (a pooler in transaction mode does "
                "this): consumers poll. Give a direct listen_dsn"
            )
        self.deaf, self.hears = deaf, self._probe_heard
        for ear in list(self._ears):
            ear.wake()

    async def _command(self, statement: str) -> list[tuple[str, ...]]:
        """Run one statement; the session is given up where the answer takes too long."""
        connection = self._live()
        connection.pgconn.send_query(statement.encode())
        connection.pgconn.flush()
        until = time.monotonic() + ANSWER
        rows: list[tuple[str, ...]] = []
        while True:
            while not connection.pgconn.is_busy():
                result = connection.pgconn.get_result()
                if result is None:
                    self._checked_at = time.monotonic()
                    self._dispatch()
                    return rows
                if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result)
                rows += [
                    tuple(
                        (result.get_value(row, column) or b"").decode()
                        for column in range(result.nfields)
                    )
                    for row in range(result.ntuples)
                ]
            if time.monotonic() >= until:
                raise psycopg.OperationalError(f"no answer within {ANSWER:.0f} s")
            await self._waiter.wait(until - time.monotonic())
            self._receive()

    def _live(self) -> AsyncConnection[Any]:
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
        while (notify := connection.pgconn.notifies()) is not None:
            rung.setdefault(notify.relname.decode(), set()).add(notify.extra.decode())
        if self._probe in rung:
            self._probe_heard = True
        for ear in list(self._ears):
            if mine := {channel: rung[channel] for channel in ear.channels & rung.keys()}:
                ear.wake(mine)


def _identified(statement: str, channel: str) -> str:
    return sql.SQL(statement).format(sql.Identifier(channel)).as_string(None)


_shared: dict[tuple[object, str], AsyncListener] = {}


async def listen(dsn: str, channels: Iterable[str]) -> AsyncEar:
    """Hear channels on the one listening connection that this process has for a DSN."""
    here = scope()
    async with sharing_lock():
        listener = _shared.get((here, dsn))
        if listener is None:
            listener = AsyncListener(dsn)
            await listener.start()
            _shared[here, dsn] = listener
        return listener.add(channels)


async def _release(listener: AsyncListener) -> None:
    async with sharing_lock():
        if not listener.abandoned:
            return
        for name in [name for name, other in _shared.items() if other is listener]:
            del _shared[name]
            await listener.stop()
