"""One look at the database for all browsers, and what it was in the last hours."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import psycopg

from .._core import sql
from .._sync.database.connection import TimeoutConnection, settings
from ..adapters import OwnCursor
from ..diagnostics.doctor import diagnose
from ..dsn import safe_message
from ..models import RetentionBlocker, TopicStorage
from .sample import EMPTY, Sample, take_sample

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from ..diagnostics.findings import Finding

__all__ = ["Point", "Sampler", "Series"]

log = logging.getLogger("durable_notify")

#: How often to look while a browser is open, in seconds.
EVERY = 5.0
#: How often to run the doctor, and to look at what topics take and what holds removal back, in
#: seconds.
DOCTOR_EVERY = 60.0
#: How long a statement of a look may take, in milliseconds. Of 300 groups that lag in each of 1,000
#: topics, each elsewhere in 10,000,000 messages, it is 11 seconds.
LOOKING = 60_000
#: How many of what holds removal back are kept.
BLOCKERS = 200
#: How long a page waits for the first look, in seconds.
FIRST = 0.25
#: How long to continue after the last page was asked for, in seconds.
LINGER = 600.0
#: How many points of a chart are kept: of 10 seconds for an hour, of a minute for a day.
RECENT, DAY = 360, 1440
#: The seconds between them, a little less because samples are not on time.
STEP, DAY_STEP = 9.5, 59.5


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """What a topic, a group, or both were at a time."""

    at: float
    lag: int = 0
    oldest: float | None = None
    rate_in: float | None = None
    rate_out: float | None = None


class Series:
    """The points of a chart: the newest ones, and one a minute before them."""

    def __init__(self) -> None:
        self.recent: deque[Point] = deque(maxlen=RECENT)
        self.day: deque[Point] = deque(maxlen=DAY)

    def add(self, point: Point) -> None:
        """Add a point."""
        if not self.recent or point.at - self.recent[-1].at >= STEP:
            self.recent.append(point)
        if not self.day or point.at - self.day[-1].at >= DAY_STEP:
            self.day.append(point)


class Sampler:
    """Takes snapshots while a browser looks, so that the number of browsers costs nothing.

    Args:
        dsn: the database.
    """

    #: For the most series kept; the busiest have them.
    SERIES = 2000

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        #: None: the first look is under way, or failed.
        self.sample: Sample | None = None
        #: What the doctor found; None: it has not looked yet.
        self.findings: list[Finding] | None = None
        #: What each topic takes, by its name, and what holds removal back; None: as findings.
        self.storage: dict[str, TopicStorage] | None = None
        self.blockers: list[RetentionBlocker] | None = None
        #: Why there is no newer sample.
        self.error: str | None = None
        #: By topic and group; None: all.
        self.series: dict[tuple[str | None, str | None], Series] = {}
        self._task: asyncio.Task[None] | None = None
        self._wanted_until = 0.0
        self._doctor_at = float("-inf")
        self._changed = asyncio.Condition()
        self._number = 0
        self._first = asyncio.Event()
        self._soon = asyncio.Event()

    @property
    def seen(self) -> Sample:
        """The newest sample; an empty one before the first."""
        return self.sample or EMPTY

    async def ensure(self) -> None:
        """Start to look, if need be, and wait a moment for the first look."""
        self._wanted_until = time.monotonic() + LINGER
        if self._task is None or self._task.done():
            self._first.clear()
            self.sample = None
            self._task = asyncio.create_task(self._run(), name="durable_notify sampler")
        if not self._first.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), FIRST)

    async def close(self) -> None:
        """Stop."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def changes(self) -> AsyncGenerator[int, None]:
        """Yield a number whenever something may have changed."""
        await self.ensure()
        seen = self._number
        yield seen
        while True:
            async with self._changed:
                while self._number == seen:
                    await self._changed.wait()
            self._wanted_until = time.monotonic() + LINGER
            seen = self._number
            yield seen

    def touch(self) -> None:
        """Look again soon, because a user has changed something."""
        self._soon.set()

    async def _run(self) -> None:
        while time.monotonic() < self._wanted_until:
            began = time.monotonic()
            self._soon.clear()
            self.error = await self._guarded(self._look)
            self._first.set()
            if time.monotonic() - self._doctor_at >= DOCTOR_EVERY:
                # After the look: the first page does not wait for it.
                await self._guarded(self._examine)
                await self._guarded(self._measure)
                self._doctor_at = time.monotonic()
            # At most a tenth of the database's time is spent on looking.
            spent = time.monotonic() - began
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), max(EVERY - spent, spent * 9))

    async def _guarded(self, look: Callable[[], None]) -> str | None:
        """Look in a thread, and tell the pages; return what failed. Nothing ends the sampler."""
        failed = None
        try:
            await asyncio.to_thread(look)
        except (psycopg.Error, OSError) as error:
            failed = safe_message(error) if isinstance(error, psycopg.Error) else str(error)
        except Exception as error:
            log.exception("dashboard: looking at the database failed")
            failed = f"{type(error).__name__}; see the log."
        async with self._changed:
            self._number += 1
            self._changed.notify_all()
        return failed

    def _examine(self) -> None:
        self.findings = [each for each in diagnose(self._dsn) if each.level != "ok"]

    def _measure(self) -> None:
        with self._connected() as connection:
            rows = connection.execute(sql.TOPIC_STORAGE).fetchall()
            self.storage = {each.topic: each for each in (TopicStorage(*row) for row in rows)}
            rows = connection.execute(f"{sql.RETENTION_BLOCKERS} LIMIT {BLOCKERS}").fetchall()
            self.blockers = [RetentionBlocker(*row) for row in rows]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[TimeoutConnection]:
        wanted = settings(self._dsn, "web")
        with TimeoutConnection.connect(self._dsn, cursor_factory=OwnCursor, **wanted) as connection:
            connection.answer = LOOKING / 1000 + 10
            # Trap: behind a pooler, settings of the session would stay for its other clients.
            with connection.transaction():
                connection.execute("SET TRANSACTION READ ONLY")
                connection.execute(f"SET LOCAL statement_timeout = {LOOKING}")
                yield connection

    def _look(self) -> None:
        with self._connected() as connection:
            sample = take_sample(connection, self.sample)
        self._record(sample)
        self.sample = sample

    def _record(self, sample: Sample) -> None:
        at = sample.at.timestamp()
        topics, groups = sample.topics.values(), sample.groups.values()
        oldest = [each.oldest for each in topics if each.oldest is not None]
        self._add((None, None), Point(
            at, sum(each.lag for each in topics), max(oldest, default=None),
            _sum_of_known(each.rate_in for each in topics),
            _sum_of_known(each.rate_out for each in groups),
        ))  # fmt: skip
        for group in groups:
            self._add((None, group.name), Point(at, group.lag, group.oldest, None, group.rate_out))
        for topic in topics:
            point = Point(at, topic.lag, topic.oldest, topic.rate_in, topic.rate_out)
            self._add((topic.name, None), point)

    def _add(self, key: tuple[str | None, str | None], point: Point) -> None:
        if key in self.series or len(self.series) < self.SERIES:
            self.series.setdefault(key, Series()).add(point)


def _sum_of_known(rates: Iterable[float | None]) -> float | None:
    known = [each for each in rates if each is not None]
    return sum(known) if known else None
