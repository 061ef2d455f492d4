# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""What one consumer hears on the process's listening connection, and how it sleeps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..._core.emitter import EventEmitter
from ..._core.pacing import shortest
from ...errors import ListenUnavailable
from ...events import Notified
from ..concurrency import Event
from ..database.connection import HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .listener import Listener

__all__ = ["DEAF_POLL", "LONGEST_SLEEP", "PATIENCE", "REREAD", "Subscription"]

#: How often to look while wake-ups do not arrive, or a topic does not ring, in seconds.
DEAF_POLL = 1.0
#: No wait may be longer than a thread can wait.
LONGEST_SLEEP = 86_400.0
#: After how many attempts to listen a consumer that sleeps quietly does without.
PATIENCE = 3
#: Stands for a ring's payload where nobody has rung, and somebody may have wanted to.
REREAD = ""


class Subscription:
    """What one consumer hears: ``woken`` is set by every ring on one of its channels.

    It is rung for only while it rests. It is also set whenever rings may have been missed: once the
    bells it asked for are armed, after every reconnection, and when a transaction that may not have
    rung has ended.
    """

    def __init__(
        self,
        listener: Listener,
        channels: Mapping[str, str],
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self.channels = dict(channels)  # with the topic of each
        self.heartbeat = heartbeat
        self.quiet = False  # it sleeps, and the database is to be left alone meanwhile
        self._waits = False
        self._ending = False
        self.woken = Event()
        self.when_it_hangs: Callable[[], None] | None = None
        self.teller = EventEmitter(None)
        self._resting: frozenset[str] = frozenset()
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

    @property
    def lost_at(self) -> float | None:
        """When the listening connection was lost that is missed; None: it is there, or not missed.

        While all sleep quietly, nobody makes a new one.
        """
        return None if self.quiet else self._listener.lost_at

    def rest(self) -> None:
        """Have publishers ring from here on.

        It wakes once they do: then read once more, and sleep if there is nothing.
        """
        with self._mutex:
            before, self._resting = self._resting, frozenset(self.channels.values())
        if self._resting != before:
            self._listener.look()

    def rise(self, topics: Iterable[str]) -> None:
        """Read some topics from here on: publishers need not ring for them."""
        with self._mutex:
            before = self._resting
            self._resting = before.difference(topics)
        if self._resting != before:
            self._listener.look()

    @property
    def resting(self) -> frozenset[str]:
        """The topics for which it wants to be rung."""
        return self._resting

    @property
    def armed(self) -> frozenset[str]:
        """The topics whose publishers ring for it: what a read that begins now misses, rings."""
        return self._resting & self._listener.bells.armed

    @property
    def arming(self) -> bool:
        """Whether it will be woken because bells are armed, or could not be."""
        bells = self._listener.bells
        return self.hears and not self._resting <= bells.armed | bells.refused

    @property
    def unarmed(self) -> bool:
        """Whether some of its topics do not ring, now or ever: look at intervals."""
        return not self._resting <= self._listener.bells.armed

    def sleep(
        self,
        poll: float | None,
        idle_poll: float | None,
        *,
        due: float | None = None,
        idle: bool = True,
    ) -> bool:
        """Sleep until woken, something is due or it is time to look; whether it was woken.

        With ``idle_poll``, and nothing under way, it sleeps quietly: nothing is sent on its
        connections until then.

        Raises:
            ListenUnavailable: nothing would ever wake it.
        """
        if idle_poll is not None:
            poll = idle_poll if poll is None else min(poll, idle_poll)
        if self.deaf and poll is None:
            raise ListenUnavailable(
                "wake-ups do not reach the listening connection, and polling is switched off: "
                "give a direct listen_dsn, or allow poll"
            )
        if idle and idle_poll is not None and self._at_rest:
            return self._sleep_quietly(shortest(due, idle_poll, LONGEST_SLEEP))
        if self.unarmed and self.hears:
            poll = shortest(poll, DEAF_POLL)  # whatever was asked for: nothing will ring
        elif not self.hears and poll is not None:
            poll = min(poll, DEAF_POLL)
        return self._wait(shortest(due, poll, LONGEST_SLEEP))

    def _wait(self, seconds: float | None) -> bool:
        self._waits = True
        try:
            self.woken.wait(seconds)
        finally:
            self._waits = False
        return self.woken.is_set()

    @property
    def waits(self) -> bool:
        """Whether nothing was left to read, and nothing has woken it since."""
        return self._waits and not self.woken.is_set()

    @property
    def asleep(self) -> bool:
        """Whether it waits, and publishers ring for each of its topics."""
        # Trap: one that reads some of its topics rests for the others.
        every = frozenset(self.channels.values())
        rung_for = self.hears and self._resting == every and not self.unarmed
        return self.waits and rung_for and self._listener.listens_to(set(self.channels))

    @property
    def _at_rest(self) -> bool:
        """Whether all has been done to be woken, and it has worked or most likely never will."""
        listener = self._listener
        if self.hears:
            return listener.bells.hopeless(self._resting - listener.bells.armed)
        return self.deaf or listener.failures >= PATIENCE

    def _sleep_quietly(self, seconds: float | None) -> bool:
        self.quiet = True
        try:
            return self._wait(seconds)
        finally:
            if not self._ending:
                self.quiet = False
                self._listener.look()  # a heartbeat may be due, or a connection to be made

    def end(self) -> None:
        """Wake for good: a database that sleeps is left asleep."""
        self._ending = True
        self.wake()

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

    def ring(self, rung: dict[str, set[str]]) -> None:
        """Wake: some of its channels have rung. It is not rung for them while it reads."""
        with self._mutex:
            self._resting = self._resting.difference(self.channels[name] for name in rung)
        if self.teller:
            topics = tuple(sorted(filter(None, (self.channels[name] for name in rung))))
            self.teller.tell(Notified(group=self.teller.group, topics=topics))
        self.wake(rung)

    def reread(self, topics: frozenset[str]) -> None:
        """Wake, for there may be something in some of these topics.

        Trap: also where it does not rest just now. It may be about to, after a read that was too
        early, and find its bells still armed.
        """
        if mine := {name: {REREAD} for name, topic in self.channels.items() if topic in topics}:
            self.wake(mine)

    def listen(self, channels: Mapping[str, str]) -> None:
        """Hear more channels; it wakes once the session listens to them."""
        self._listener.extend(self, channels)

    def close(self) -> None:
        self._listener.remove(self)
