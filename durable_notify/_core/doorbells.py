"""The doorbells that a listening session has armed, and what it waits for; no I/O.

A sleeping consumer holds its topics' doorbells *armed*: publishers ring while one is.
Transactions that published before that did not ring. They are *unannounced*, and watched until
they end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["ArmedTopics"]

#: How soon to retry to arm a topic, at first and at most, in seconds.
RETRY = (0.005, 2.0)
#: How soon to check whether unannounced transactions have ended, at first and at most, in seconds.
LOOK = (0.001, 1.25)
#: How long a doorbell that is not wanted stays armed, in seconds. A consumer that reads a single
#: message wants it again within that time, so it need not disarm and arm. A second ring ends it.
GRACE = 0.008


class ArmedTopics:
    """Holds the doorbells of one listening session, by topic. One thread writes; others read."""

    def __init__(self) -> None:
        self.armed: frozenset[str] = frozenset()
        self.refused: frozenset[str] = frozenset()  # could not be armed, or never ring
        self._spare: dict[str, float] = {}  # armed and not wanted, with the time to disarm
        self._stale: set[str] = set()  # armed by another policy, to be disarmed first
        self._retries: dict[str, tuple[float, float]] = {}  # time of the next try, and its delay
        self._arming: frozenset[str] = frozenset()  # an attempt to arm them is in progress
        self._unannounced: set[str] = set()
        self._look_at = 0.0
        self._delay = LOOK[0]

    def reset(self) -> None:
        """Clear all, for a new session."""
        self.armed = self.refused = frozenset()
        self._spare.clear()
        self._stale.clear()
        self._retries.clear()
        self._arming = frozenset()
        self._unannounced.clear()

    def rung(self, topics: Iterable[str]) -> None:
        """Disarm soon the topics that rang and are not wanted: they receive many messages."""
        for topic in self._spare.keys() & set(topics):
            self._spare[topic] = 0.0

    def expire(self, topics: Iterable[str]) -> None:
        """Mark topics whose policy has changed, because they have to be armed again.

        This includes topics that are being armed: the attempt may still use the old policy.
        """
        stale = (self.armed | self._arming).intersection(topics)
        self._stale |= stale
        self.armed -= stale

    @property
    def held(self) -> frozenset[str]:
        """The topics whose locks the session has, by any policy."""
        return self.armed | self._stale

    @property
    def stale(self) -> bool:
        """Whether some topics have to be disarmed, because their policy has changed."""
        return bool(self._stale)

    def hopeless(self, topics: Iterable[str]) -> bool:
        """Whether topics have been refused for so long that they will most likely never ring."""
        return all(self._retries.get(topic, (0.0, 0.0))[1] >= RETRY[1] for topic in topics)

    def to_disarm(self, wanted: Collection[str], now: float) -> list[str]:
        """Return topics that are armed and no longer wanted, and count them as disarmed.

        They count so before they are: a consumer that sees one armed may go to sleep.
        """
        unwanted = self.armed.difference(wanted)
        self._spare = {t: self._spare.get(t, now + GRACE) for t in unwanted}
        extra = [topic for topic, at in self._spare.items() if at <= now]
        for topic in extra:
            del self._spare[topic]
        self.armed = self.armed.difference(extra)
        extra += self._stale
        self._stale.clear()
        for topic in self.refused.difference(wanted):
            del self._retries[topic]
        self.refused = frozenset(self._retries)
        return sorted(extra)

    def to_arm(self, wanted: Collection[str], now: float) -> list[str]:
        """Return topics that are wanted and not armed, without those that must wait for a retry."""
        missing = frozenset(wanted) - self.armed - self._stale
        return sorted(t for t in missing if t not in self._retries or self._retries[t][0] <= now)

    def arming(self, topics: Iterable[str]) -> None:
        """Record which topics are being armed, until ``tried``."""
        self._arming = frozenset(topics)

    def tried(
        self,
        topics: Iterable[str],
        refused: Collection[str],
        unannounced: Iterable[str],
        now: float,
    ) -> None:
        """Record the result of an attempt to arm topics."""
        for topic in topics:
            if topic in refused:
                _, last = self._retries.get(topic, (0.0, RETRY[0] / 2))
                delay = min(RETRY[1], last * 2)
                self._retries[topic] = (now + delay, delay)
            else:
                self._retries.pop(topic, None)
        self.refused = frozenset(self._retries)
        self._arming = frozenset()
        self._stale -= self.refused  # these are not locked
        self.armed = (self.armed | frozenset(topics)) - self.refused - self._stale
        if fresh := set(unannounced) - self._unannounced:
            self._unannounced |= fresh
            self._delay = LOOK[0]
            self._look_at = now + self._delay

    def to_look(self, now: float) -> list[str]:
        """Return the unannounced transactions, if it is time to check which have ended."""
        return sorted(self._unannounced) if now >= self._look_at else []

    def looked(self, looked_at: Iterable[str], running: Iterable[str], now: float) -> bool:
        """Record which are still running; return whether one has ended, and may have published.

        The others are checked less and less often: most end soon, some stay open for hours.
        """
        ended = set(looked_at).difference(running)
        self._unannounced -= ended
        self._delay = min(LOOK[1], self._delay * 2)
        self._look_at = now + self._delay
        return bool(ended)

    def next_at(self, *, retries: bool = True) -> float | None:
        """Return when the next retry or check is due."""
        times = [*self._spare.values()]
        times += [at for at, _ in self._retries.values()] if retries else []
        if self._unannounced:
            times.append(self._look_at)
        return min(times, default=None)
