"""How long to wait and how much to take: pure decisions, without a clock or I/O."""

from __future__ import annotations

import math
import random

__all__ = ["BatchPacer", "Linger", "backoff", "shortest"]


def backoff(attempt: int, base: float, most: float, rng: random.Random | None = None) -> float:
    """Return the delay after a failed attempt (1, 2, ...): doubled each time, with jitter.

    Half of it is fixed, half random ("equal jitter"; Brooker, "Exponential Backoff and Jitter",
    2015), so that what failed together does not come back together.
    """
    full = min(most, base * 2.0 ** min(attempt - 1, 60))
    return full / 2 + full / 2 * (rng or random).random()


def shortest(*times: float | None) -> float | None:
    """Return the shortest of some waits, where None is for ever."""
    known = [time for time in times if time is not None]
    return min(known) if known else None


class BatchPacer:
    """How many messages to claim: about as many as are handled in a quarter of a second.

    A fast handler wants large batches; a slow one must not sit on messages that another consumer
    of the group could be handling.
    """

    TARGET = 0.25

    def __init__(self, least: int, most: int) -> None:
        self._least = min(least, most)
        self._most = most
        self.size = min(max(self._least, 10), most)

    def handled(self, messages: int, seconds: float) -> None:
        """Take note that a batch was handled in that time."""
        if messages <= 0:
            return
        fits = messages * self.TARGET / max(seconds, 1e-6)
        self.size = int(min(self._most, max(self._least, min(fits, self.size * 2))))


class Linger:
    """Whether to look again soon where nothing is left, or to be rung for what comes.

    A wake-up costs its publisher much and comes at once; a look costs its consumer a little and
    finds what has come together. At a steady thousand messages a second a consumer lives from
    looking, at one a second every message rings. Drivers of network cards do so (NAPI).
    """

    #: How long nothing may come before it is better to be rung, in seconds.
    MOST = 0.02
    #: How long to wait before the next look.
    STEP = 0.01
    #: How many messages are expected within ``MOST``, where looking pays.
    ENOUGH = 2.0
    #: Over how long the rate of messages is averaged.
    MEMORY = 0.1

    def __init__(self) -> None:
        self._rate = 0.0
        self._found_at = -math.inf

    def found(self, messages: int, now: float) -> None:
        """Take note that a look has found messages."""
        gap = max(now - self._found_at, 1e-4)
        weight = 1.0 - math.exp(-gap / self.MEMORY)
        self._rate += (messages / gap - self._rate) * weight
        self._found_at = now

    def pause(self, now: float) -> float | None:
        """Return how long to wait for the next look, or None: it is better to be rung."""
        left = self._found_at + self.MOST - now
        if left <= 0 or self._rate * self.MOST < self.ENOUGH:
            return None
        return min(self.STEP, left)
