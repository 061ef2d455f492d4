"""The options of a consumer, checked."""

from __future__ import annotations

import dataclasses
import os
import socket
from datetime import datetime
from typing import Literal, TypedDict

from .errors import InvalidArgument
from .topics import check_group, check_topics

__all__ = ["ConsumerOptions", "ConsumerSettings", "Start"]

_LONGEST = 1e9  # seconds, about 30 years; a thread can wait for 290 years at most

Start = Literal["beginning", "now"] | datetime


class ConsumerSettings(TypedDict, total=False):
    """What may be given to a consumer beside its group and topics; see ``ConsumerOptions``."""

    start: Start
    lease: float
    batch_size: int
    prefetch: int
    poll: float | None
    max_attempts: int | None
    retry_base: float
    retry_max: float
    until_empty: bool
    owner: str


@dataclasses.dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """What a consumer was asked to do. Times are in seconds.

    Args:
        group: the consumer group; created when first used.
        topics: what the group consumes; added to it where they are new.
        start: where a new group starts in a topic: ``"beginning"`` (all that is retained),
            ``"now"`` (what commits from here on), or a time. A group that exists goes on where
            it was.
        lease: how long a batch stays this consumer's after its last sign of life.
        batch_size: the most messages in one claim.
        prefetch: the most messages held unsettled, buffered ones included.
        poll: how often to look without a wake-up, as a safety net; None switches it off.
        max_attempts: after how many a message becomes a dead letter, set for the whole group; None
            leaves the group's setting as it is (20 where it is new).
        retry_base: the delay after a first failed attempt; doubled for each further one.
        retry_max: the longest such delay.
        until_empty: end once nothing is left: nothing waiting, leased or deferred.
        owner: who holds the leases, for people who look; default ``host:pid``.
    """

    group: str
    topics: tuple[str, ...]
    start: Start = "beginning"
    lease: float = 30.0
    batch_size: int = 500
    prefetch: int = 2000
    poll: float | None = 30.0
    max_attempts: int | None = None
    retry_base: float = 1.0
    retry_max: float = 300.0
    until_empty: bool = False
    owner: str = dataclasses.field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")

    def __post_init__(self) -> None:
        check_group(self.group)
        check_topics(self.topics)
        if not isinstance(self.owner, str) or "\x00" in self.owner:
            raise InvalidArgument(f"owner is a str without NUL, not {self.owner!r}")
        if isinstance(self.start, datetime):
            if self.start.tzinfo is None:
                raise InvalidArgument("start has no time zone: give an aware datetime")
        elif self.start not in ("beginning", "now"):
            raise InvalidArgument(f'start is "beginning", "now" or a datetime, not {self.start!r}')
        for name in ("lease", "poll", "retry_base", "retry_max"):
            _check_seconds(name, getattr(self, name), optional=name == "poll")
        _check_count("batch_size", self.batch_size, 10_000)
        _check_count("prefetch", self.prefetch, 1_000_000)
        if self.max_attempts is not None:
            _check_count("max_attempts", self.max_attempts, 2**31 - 1)


def _check_seconds(name: str, value: float | None, *, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= _LONGEST:
        raise InvalidArgument(f"{name} is a positive number of seconds, not {value!r}")


def _check_count(name: str, value: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidArgument(f"{name} is a whole number from 1 to {most}, not {value!r}")
