"""One consumer's share of the process's listening connection, and how it sleeps."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ..._core.emitter import EventEmitter
from ..._core.pacing import shortest
from ...errors import ListenUnavailable
from ...events import Notified
from ...topics import ANY_TOPIC
from ..concurrency import Event
from ..database.connection import HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..._core.listener_state import ListenerState

__all__ = ["DEAF_POLL", "LONGEST_SLEEP", "PATIENCE", "RECHECK", "AsyncSubscription"]

#: How often to poll while wake-ups do not arrive, or a topic does not ring, in seconds.
DEAF_POLL = 1.0
#: After which time the doorbell of all topics is armed again, if it rang for others, in seconds.
REARM = 2.0
#: The longest wait that a thread supports.
LONGEST_SLEEP = 86_400.0
#: After how many attempts to listen a suspended consumer stops trying.
PATIENCE = 3
#: Stands for the payload of a ring that a publisher may have been unable to send.
RECHECK = ""


class AsyncSubscription:
    """Receives the rings of one consumer's channels; each one sets ``woken``.

    Publishers ring only while it is armed. ``woken`` is also set whenever rings may have been
    missed: once its doorbells are armed, after every reconnection, and when a transaction that
    may not have rung has ended.

    Args:
        state: that of the listening session.
        channels: what to listen to, with the topic of each.
        heartbeat: how often to check that the session still listens, in seconds.
        changed: called when this subscription wants something else.
        leave: called when this subscription has ended.
    """

    def __init__(
        self,
        state: ListenerState,
        channels: Mapping[str, str],
        heartbeat: float = HEARTBEAT,
        *,
        changed: Callable[[], None],
        leave: Callable[[AsyncSubscription], Any],
    ) -> None:
        self._state = state
        self._changed = changed
        self._leave = leave
        self.channels = dict(channels)
        self.heartbeat = heartbeat
        self.suspended = False  # it sleeps, and sends nothing to the database meanwhile
        self.woken = Event()
        self.on_timeout: Callable[[], None] | None = None  # called when the server hangs
        self.emitter = EventEmitter(None)
        self.concerns: Callable[[Mapping[str, set[str]]], bool] = lambda _: True
        self._ending = False
        self._sleeping = False
        self._wanted: frozenset[str] = frozenset()
        self._rung: dict[str, set[str]] = {}
        self._in_doubt = True
        self._rearm_at = 0.0  # when to arm the doorbell of all topics again
        self._mutex = threading.RLock()  # a signal's handler may wake as well

    @property
    def deaf(self) -> bool:
        """Whether rings were proven not to arrive."""
        return self._state.deaf

    @property
    def hears(self) -> bool:
        """Whether rings were proven to arrive on the connection there is now."""
        return self._state.hears

    @property
    def lost_at(self) -> float | None:
        """When the listening connection was lost; None: it exists, or is not needed now.

        While all subscriptions are suspended, the listener makes no new one.
        """
        return None if self.suspended else self._state.lost_at

    # What publishers ring for

    def arm(self) -> None:
        """Have publishers ring from here on.

        ``woken`` is set once they do: then read once more, and sleep if there is nothing.
        """
        with self._mutex:
            before, quiet = self._wanted, time.monotonic() < self._rearm_at
            self._wanted = frozenset(
                topic for name, topic in self.channels.items() if name != ANY_TOPIC or not quiet
            )
        if self._wanted != before:
            self._changed()

    def disarm(self, topics: Iterable[str]) -> None:
        """Have publishers stop ringing for some topics, because the consumer reads them now."""
        with self._mutex:
            before = self._wanted
            self._wanted = before.difference(topics)
        if self._wanted != before:
            self._changed()

    @property
    def wanted(self) -> frozenset[str]:
        """The topics whose doorbells the listener should arm."""
        return self._wanted

    @property
    def armed(self) -> frozenset[str]:
        """The topics whose publishers ring if a read that begins now misses their message."""
        return self._wanted & self._state.doorbells.armed

    @property
    def arming(self) -> bool:
        """Whether ``woken`` will be set because doorbells are armed, or could not be."""
        doorbells = self._state.doorbells
        return self.hears and not self._wanted <= doorbells.armed | doorbells.refused

    @property
    def some_unarmed(self) -> bool:
        """Whether some of its topics do not ring, now or ever, so that it has to poll."""
        return not self._wanted <= self._state.doorbells.armed

    @property
    def _arming_finished(self) -> bool:
        """Whether arming has ended: it has worked, or most likely never will."""
        state = self._state
        if state.hears:
            return state.doorbells.hopeless(self._wanted - state.doorbells.armed)
        return state.deaf or state.failures >= PATIENCE

    # Sleeping

    async def sleep(
        self,
        poll: float | None,
        idle_poll: float | None,
        *,
        due: float | None = None,
        idle: bool = True,
    ) -> bool:
        """Sleep until woken, something is due or it is time to poll; return whether it was woken.

        With ``idle_poll``, and nothing in progress, it is suspended: it sends nothing on its
        connections meanwhile.

        Raises:
            ListenUnavailable: no wake-up can arrive, and polling is switched off.
        """
        if idle_poll is not None:
            poll = idle_poll if poll is None else min(poll, idle_poll)
        if self.deaf and poll is None:
            raise ListenUnavailable(
                "wake-ups do not reach the listening connection, and polling is switched off: "
                "give a direct listen_dsn, or allow poll_interval"
            )
        if idle and idle_poll is not None and self._arming_finished:
            return await self._sleep_suspended(shortest(due, idle_poll, LONGEST_SLEEP) or 0.0)
        if self.some_unarmed and self.hears:
            poll = shortest(poll, DEAF_POLL)  # even if polling is switched off: nothing will ring
        elif not self.hears and poll is not None:
            poll = min(poll, DEAF_POLL)
        return await self._wait(shortest(due, poll, LONGEST_SLEEP) or 0.0)

    async def _sleep_suspended(self, seconds: float) -> bool:
        self.suspended = True
        try:
            return await self._wait(seconds)
        finally:
            if not self._ending:
                self.suspended = False
                self._changed()  # a heartbeat or a reconnection may be due

    async def _wait(self, seconds: float) -> bool:
        self._sleeping = True
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                by_pattern = ANY_TOPIC in self.channels
                if await self.woken.wait(min(left, REARM / 4) if by_pattern else left):
                    break
                if self._rearm_at:
                    self.arm()
        finally:
            self._sleeping = False
        return self.woken.is_set()

    @property
    def waits(self) -> bool:
        """Whether nothing was left to read, and nothing has woken it since."""
        return self._sleeping and not self.woken.is_set()

    @property
    def asleep(self) -> bool:
        """Whether it waits, and publishers ring for each of its topics."""
        # Trap: one that reads some of its topics is armed for the others.
        every = self._wanted == frozenset(self.channels.values()) and not self.some_unarmed
        return self.waits and every and self.hears and self.channels.keys() <= self._state.listening

    # Waking

    def end(self) -> None:
        """Wake for the last time, without waking a suspended database."""
        self._ending = True
        self.wake()

    def wake(self, rung: dict[str, set[str]] | None = None) -> None:
        """Set ``woken``; without ``rung``, because rings may have been missed."""
        with self._mutex:
            for channel, payloads in (rung or {}).items():
                self._rung.setdefault(channel, set()).update(payloads)
            self._in_doubt |= rung is None
        self.woken.set()

    def take_notifications(self) -> dict[str, set[str]] | None:
        """Return channels and payloads rung since the last call; None: perhaps all rang."""
        self.woken.clear()  # before reading: a ring meanwhile announces something newer
        with self._mutex:
            rung, self._rung = self._rung, {}
            in_doubt, self._in_doubt = self._in_doubt, False
        return None if in_doubt else rung

    def ring(self, rung: dict[str, set[str]]) -> None:
        """Wake, because some of its channels rang; publishers do not ring while it reads them.

        If only topics rang that its patterns do not match, it sleeps on, and arms the doorbell of
        all topics later: otherwise each of their publishers would ring.
        """
        with self._mutex:
            self._wanted = self._wanted.difference(self.channels[name] for name in rung)
        if not self.concerns(rung):
            self._rearm_at = time.monotonic() + REARM
            return
        if self.emitter:
            topics = tuple(sorted(self.channels[name] for name in rung if name != ANY_TOPIC))
            self.emitter.emit(Notified(group=self.emitter.group, topics=topics))
        self.wake(rung)

    def recheck(self, topics: frozenset[str]) -> None:
        """Wake, because some of these topics may have messages.

        Trap: wake it even if it is not armed now. It may be about to arm, after a read that was
        too early, and find its doorbells still armed.
        """
        if mine := {name: {RECHECK} for name, topic in self.channels.items() if topic in topics}:
            self.wake(mine)

    # Channels

    def listen(self, channels: Mapping[str, str]) -> None:
        """Listen to more channels; ``woken`` is set once the session does."""
        self.channels = {**self.channels, **channels}
        self._changed()

    async def close(self) -> None:
        """End the subscription."""
        await self._leave(self)
