"""How long to wait and how much to claim; decisions without a clock or I/O."""

from __future__ import annotations

import math
import random

__all__ = ["BatchSizer", "BusyPoller", "Patience", "RingPacer", "backoff", "shortest"]


def backoff(attempt: int, base: float, maximum: float, rng: random.Random | None = None) -> float:
    """Return the delay after a failed attempt (1, 2, ...): doubled each time, with jitter.

    Half of it is fixed, half random ("equal jitter"; Brooker, "Exponential Backoff and Jitter",
    2015), so that what failed together is not retried together.
    """
    full = min(maximum, base * 2.0 ** min(attempt - 1, 60))
    return full / 2 + full / 2 * (rng or random).random()


def shortest(*times: float | None) -> float | None:
    """Return the shortest of some waits; None means for ever."""
    known = [time for time in times if time is not None]
    return min(known) if known else None


class BatchSizer:
    """Decides how many messages to claim: as many as can start at once, more if handlers are fast.

    A fast handler needs large batches: about what it handles in a quarter of a second. A slow one
    must not hold messages that another consumer of the group could handle. Its speed is unknown
    until it has handled some, and after a pause.
    """

    TARGET = 0.25
    #: The weight of the newest value in the mean.
    WEIGHT = 0.2

    def __init__(self, least: int, maximum: int) -> None:
        self._max_size = maximum
        self._calls = 1
        self._rested_at = -math.inf
        self._mean: float | None = None  # the time per message, since the last rest
        self._capacity = least  # how many messages handlers can take at once
        self.least = min(least, maximum)
        self.size = self.least
        self.ahead = True  # whether to claim a batch before the one before is handled

    def can_begin(self, messages: int, calls: int = 1) -> None:
        """Record how many messages can start at once, in how many calls."""
        self._capacity = messages
        self.least = min(messages, self._max_size)
        self.size = self.least
        self._calls = calls

    def took(self, messages: int, seconds: float, claimed_at: float) -> None:
        """Record that a call has handled messages in that time.

        Trap: when nothing is left to claim, many may still be buffered. Their speed says nothing
        about the messages after the pause.
        """
        if claimed_at < self._rested_at:
            return
        each = max(seconds, 1e-6) / messages
        mean = self._mean
        self._mean = each if mean is None else mean + (each - mean) * self.WEIGHT

    def claimed(self, *, full: bool) -> None:
        """Record a claim; ``full``: there may be more."""
        fits = self._fits
        self.size = int(min(self._max_size, max(self.least, min(fits, self.size * (1 + full)))))

    @property
    def _fits(self) -> float:
        """How many messages are handled in the time that a batch should last."""
        return self.least if self._mean is None else self.TARGET * self._calls / self._mean

    @property
    def low_water(self) -> int:
        """How many messages are left when the next batch should be claimed.

        Half a batch. If batches may not be as large as handlers are fast, up to a whole one:
        otherwise they would wait for the claim. None, unless the next may be claimed ahead.
        """
        if not self.ahead:
            return 0
        return int(min(self.size, max(self.size // 2, self._fits // 2)))

    def rest(self, now: float) -> None:
        """Record that nothing is left: share the next messages with other consumers that wait."""
        self._mean = None
        self._rested_at = now
        self.size = self.least

    def to_claim(self, begun: int, queued: int, waiting: int) -> int:
        """Return how many messages to claim; 0: there are enough.

        Args:
            begun: how many are being handled.
            queued: how many could start, and have not.
            waiting: these and those that wait for their keys.
        """
        idle = self._capacity - begun - queued  # Trap: a claim may bring fewer than can be handled
        if self.size == self.least:
            return min(max(idle, 0), self._max_size)
        return self.size if idle > 0 or waiting <= self.low_water else 0


class BusyPoller:
    """Decides, when nothing is left, whether to poll again soon or to sleep until a ring.

    A wake-up costs its publisher much, and arrives at once. A poll costs its consumer little, and
    finds all that has arrived since. At a steady thousand messages a second a consumer polls; at
    one a second every message rings. Network drivers do the same (NAPI).
    """

    #: After how long without messages it is better to sleep, in seconds.
    MAX_GAP = 0.02
    #: How long to wait before the next poll.
    STEP = 0.01
    #: How many messages within ``MAX_GAP`` make polling worthwhile.
    ENOUGH = 2.0
    #: The period over which the rate of messages is averaged.
    MEMORY = 0.1

    def __init__(self) -> None:
        self._rate = 0.0
        self._found_at = -math.inf

    def found(self, messages: int, now: float) -> None:
        """Record that a claim has found messages."""
        gap = max(now - self._found_at, 1e-4)
        weight = 1.0 - math.exp(-gap / self.MEMORY)
        self._rate += (messages / gap - self._rate) * weight
        self._found_at = now

    def pause(self, now: float) -> float | None:
        """Return how long to wait for the next poll, or None: it is better to sleep."""
        left = self._found_at + self.MAX_GAP - now
        if left <= 0 or self._rate * self.MAX_GAP < self.ENOUGH:
            return None
        return min(self.STEP, left)


class Patience:
    """Decides how long to wait for what is due, if it was due before and could not be claimed.

    An open transaction may have locked it, or another consumer may have it. Each time the wait
    doubles: it comes at most as much too late as it has taken already, and 3 seconds at most.
    """

    MAX = 3.0

    def __init__(self) -> None:
        self._factor = 1.0

    def found(self) -> None:
        """Record that a claim has found messages."""
        self._factor = 1.0

    def missed(self) -> None:
        """Record that the time came, and no wake-up before it."""
        self._factor = min(self._factor * 2, 2.0**20)

    def wait(self, due: float | None) -> float | None:
        """Return how long to wait for what is due in so many seconds; None: nothing is."""
        if due is None or due >= self.MAX:
            self._factor = 1.0
            return due
        return min(self.MAX, due * self._factor)


class RingPacer:
    """Decides how soon to look after a wake-up, if many in a row have brought nothing.

    Its group may be paused or full, other consumers of the group may be faster, or the wake-ups are
    forged. Trap: the consumer may be needed for the next message; so it waits a moment at most.
    """

    #: So many in vain are answered at once.
    FREE = 50
    MIN, MAX = 0.01, 0.25

    def __init__(self) -> None:
        self._vain = 0

    def looked(self, *, rung: bool, found: bool) -> None:
        """Record a claim: whether wake-ups caused it, and whether it has found messages."""
        self._vain = self._vain + 1 if rung and not found else 0

    @property
    def pause(self) -> float:
        """How long to wait before the next claim."""
        over = self._vain - self.FREE
        return min(self.MAX, self.MIN * 2.0 ** min(over, 20)) if over > 0 else 0.0
