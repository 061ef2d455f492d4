"""One look at the database for all browsers, and what it was in the last hours."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import psycopg

from .._sync.database.connection import TimeoutConnection, settings
from ..adapters import OwnCursor
from ..diagnostics.doctor import diagnose
from ..diagnostics.status import StatusSnapshot, take_snapshot
from ..dsn import safe_message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ..diagnostics.findings import Finding

__all__ = ["Point", "Sampler", "Series"]

log = logging.getLogger("durable_notify")

#: How often to look while a browser is open, in seconds.
EVERY = 5.0
#: How often to run the doctor, in seconds.
DOCTOR_EVERY = 60.0
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
    """Takes snapshots while anybody looks, so that the number of browsers costs nothing.

    Args:
        dsn: the database.
    """

    #: For the most series kept; the busiest have them.
    SERIES = 2000

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.snapshot: StatusSnapshot | None = None
        self.findings: list[Finding] = []
        #: Why there is no newer snapshot.
        self.error: str | None = None
        #: By topic and group; None: all.
        self.series: dict[tuple[str | None, str | None], Series] = {}
        self._task: asyncio.Task[None] | None = None
        self._wanted_until = 0.0
        self._doctor_at = float("-inf")
        self._changed = asyncio.Condition()
        self._number = 0
        self._first = asyncio.Event()

    async def ensure(self) -> None:
        """Start to look, if need be, and wait for the first snapshot or the first error."""
        self._wanted_until = time.monotonic() + LINGER
        if self._task is None or self._task.done():
            self._first.clear()
            self._task = asyncio.create_task(self._run(), name="durable_notify sampler")
        await self._first.wait()

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

    async def touch(self) -> None:
        """Look again at once, because a user has changed something."""
        await self._sample()

    async def _run(self) -> None:
        while time.monotonic() < self._wanted_until:
            began = time.monotonic()
            await self._sample()
            self._first.set()
            # At most a tenth of the database's time is spent on looking.
            spent = time.monotonic() - began
            await asyncio.sleep(max(EVERY - spent, spent * 9))

    async def _sample(self) -> None:
        try:
            snapshot = await asyncio.to_thread(self._look)
        except (psycopg.Error, OSError) as error:
            self.error = safe_message(error) if isinstance(error, psycopg.Error) else str(error)
        else:
            self.error = None
            self.snapshot = snapshot
            self._record(snapshot)
        async with self._changed:
            self._number += 1
            self._changed.notify_all()

    def _look(self) -> StatusSnapshot:
        """Look, in a thread: the code is the command line's."""
        before = self.snapshot
        if time.monotonic() - self._doctor_at >= DOCTOR_EVERY:
            self._doctor_at = time.monotonic()
            self.findings = [each for each in diagnose(self._dsn) if each.level != "ok"]
        wanted = settings(self._dsn, "web")
        with TimeoutConnection.connect(self._dsn, cursor_factory=OwnCursor, **wanted) as connection:
            connection.answer = 30.0
            connection.execute("SET default_transaction_read_only = on")
            connection.execute("SET statement_timeout = '20s'")
            return take_snapshot(connection, before)

    def _record(self, snapshot: StatusSnapshot) -> None:
        at = snapshot.at.timestamp()
        totals: dict[tuple[str | None, str | None], list[Point]] = {}
        topics: dict[str, Point] = {}
        for one in snapshot.groups:
            # What is published is counted once a topic, however many groups read it.
            topics[one.topic] = Point(at, 0, None, one.rate_in, None)
            if one.group is None:
                continue
            read = Point(at, one.lag or 0, one.oldest_unsettled_seconds, None, one.rate_out)
            for topic in (one.topic, None):
                for group in (one.group, None):
                    totals.setdefault((topic, group), []).append(read)
        for name, published in topics.items():
            totals.setdefault((name, None), []).append(published)
            totals.setdefault((None, None), []).append(published)
        for key, points in totals.items():
            if key in self.series or len(self.series) < self.SERIES:
                self.series.setdefault(key, Series()).add(_sum(at, points))


def _sum(at: float, points: list[Point]) -> Point:
    def added(name: str) -> float | None:
        values = [getattr(each, name) for each in points if getattr(each, name) is not None]
        return sum(values) if values else None

    oldest = [each.oldest for each in points if each.oldest is not None]
    return Point(
        at, sum(each.lag for each in points), max(oldest, default=None),
        added("rate_in"), added("rate_out"),
    )  # fmt: skip
