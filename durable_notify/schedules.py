"""Schedules: what is published again and again, and when. Times are computed here, without I/O."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from .durations import in_seconds
from .errors import InvalidArgument
from .payloads import NewMessage, encode, stored
from .topics import check_topic

if TYPE_CHECKING:
    from .durations import Seconds
    from .payloads import Encoded
    from .topics import TopicName

__all__ = ["Schedule", "ScheduleInfo", "Ticks"]

MISSED = ("skip", "once", "all")

#: The most messages that a schedule makes up for.
MAX_MISSED = 1000

#: How late a tick may be and still be published although missed ones are skipped.
LATE = timedelta(minutes=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A message that is published again and again.

    Args:
        name: its name, in the whole database.
        topic: a topic, or a ``Topic``, whose type the payload must have.
        payload: any JSON value.
        cron: when, as in crontab: minute, hour, day, month, weekday. Needs the extra ``cron``.
        every: or how often: a second or more.
        time_zone: of ``cron``: the name of a zone, such as ``Europe/Berlin``.
        key: of the message.
        headers: of the message; ``schedule`` and ``scheduled_for`` are added.
        missed: what becomes of ticks when no process was running: ``"once"``: one message for all;
            ``"skip"``: none, if a tick is more than a minute late; ``"all"``: the newest
            ``max_missed``.
        max_missed: how many missed ticks ``"all"`` publishes; 1000 at most.

    Raises:
        InvalidArgument: the arguments contradict each other, or cron or zone cannot be read.
        PayloadError: the payload or a header is not JSON, or not of the topic's type.
    """

    name: str
    topic: TopicName
    payload: Any = None
    cron: str | None = None
    every: Seconds | None = None
    time_zone: str = "UTC"
    key: str | None = None
    headers: Mapping[str, Any] | None = None
    missed: str = "once"
    max_missed: int = 100

    def __post_init__(self) -> None:
        check_topic(self.topic)
        if self.missed not in MISSED:
            raise InvalidArgument(f'missed is "skip", "once" or "all", not {self.missed!r}')
        if not isinstance(self.max_missed, int) or not 1 <= self.max_missed <= MAX_MISSED:
            raise InvalidArgument(f"max_missed is 1 to {MAX_MISSED}, not {self.max_missed!r}")
        self.ticks.next(datetime.now(UTC))
        if self.encoded().data is not None:
            raise InvalidArgument("the payload of a schedule is JSON, not bytes")

    @property
    def ticks(self) -> Ticks:
        """When it is published."""
        return Ticks(self.cron, in_seconds("every", self.every, optional=True), self.time_zone)

    def encoded(self) -> Encoded:
        """Return the message as it is sent."""
        return encode(stored(self.topic, NewMessage(self.payload, self.key, self.headers)))


class Ticks:
    """The times of a schedule.

    They are as with cron of Debian when clocks change:

    - A time that does not exist is moved to the moment of the change; one that exists twice is the
      first of the two. So what runs once a day, does.
    - An hour or minute that is ``*`` or ``*/N`` follows real time.
    """

    def __init__(self, cron: str | None, every: float | None, time_zone: str) -> None:
        if (cron is None) == (every is None):
            raise InvalidArgument("a schedule has either cron or every")
        if every is not None and every < 1:
            raise InvalidArgument(f"every is 1 second or more, not {every!r}")
        self._cron = cron
        self._every = None if every is None else timedelta(seconds=every)
        try:
            self.zone = ZoneInfo(time_zone)
        except (KeyError, ValueError, OSError, TypeError) as error:
            raise InvalidArgument(f"there is no time zone {time_zone!r}") from error

    def next(self, after: datetime, first: datetime | None = None) -> datetime | None:
        """Return the first tick after a moment; None: there is none within 50 years.

        Args:
            after: the moment.
            first: a tick from which intervals count; None: they begin at the moment.
        """
        if self._every is not None:
            start = after if first is None else first
            return start + self._every * max(1, (after - start) // self._every + 1)
        found = next(self._iterate(after), None)
        # "Now" has a floor, also if a library's time zones should disagree with themselves.
        if found is not None and found <= after:
            raise InvalidArgument(f"cron {self._cron!r} does not advance after {after}")
        return found

    def newest(self, first: datetime, upto: datetime, limit: int) -> list[datetime]:
        """Return the newest ticks from one of them on, up to a moment, in order."""
        if self._every is not None:
            last = (upto - first) // self._every
            return [first + self._every * n for n in range(max(0, last - limit + 1), last + 1)]
        # Backwards, since a year may have passed; it may begin within the minute of the moment.
        past = self._iterate(upto + timedelta(minutes=1), reverse=True)
        found = itertools.takewhile(lambda tick: tick > first, past)
        newest = list(itertools.islice((tick for tick in found if tick <= upto), limit))[::-1]
        return newest if len(newest) == limit else [first, *newest]

    def _iterate(self, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise InvalidArgument(
                'cron needs cronsim: pip install "durable-notify[cron]", or give every'
            ) from None
        try:
            times = CronSim(str(self._cron), start.astimezone(self.zone), reverse=reverse)
        except CronSimError as error:
            raise InvalidArgument(f"cron {self._cron!r} cannot be read: {error}") from error
        return (tick.astimezone(UTC) for tick in times)


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as the database has it; ``seconds``: until the next tick, negative if late."""

    name: str
    topic: str
    payload: Any
    key: str | None
    headers: Any
    cron: str | None
    every: float | None
    time_zone: str
    missed: str
    max_missed: int
    program: str | None
    next_at: datetime | None
    last_at: datetime | None
    last_id: int | None
    paused_at: datetime | None
    seconds: float | None

    @property
    def ticks(self) -> Ticks:
        """When it is published."""
        return Ticks(self.cron, self.every, self.time_zone)

    def next_runs(self, number: int) -> list[datetime]:
        """Return the next ticks, as of ``next_at``; none if it is paused."""
        found: list[datetime] = []
        tick = None if self.paused_at else self.next_at
        while tick is not None and len(found) < number:
            found.append(tick)
            tick = self.ticks.next(tick, tick)
        return found

    def due(self) -> tuple[list[datetime], datetime | None]:
        """Return which ticks are to be published now, and the next one after them."""
        if self.next_at is None or self.seconds is None or self.seconds > 0:
            return [], self.next_at
        now = self.next_at - timedelta(seconds=self.seconds)
        ticks = self.ticks.newest(self.next_at, now, self.max_missed if self.missed == "all" else 1)
        if self.missed == "skip" and now - ticks[-1] > LATE:
            ticks = []
        return ticks, self.ticks.next(now, self.next_at)
