# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Scheduler: publishes the messages of schedules when they are due."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .._core import sql
from ..dsn import safe_message
from ..errors import InvalidArgument
from ..schedules import Schedule
from .admin.schedules import ScheduleAdmin
from .concurrency import Event, on_signals
from .database.callers import fetch
from .database.connection import TRANSIENT, connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..schedules import ScheduleInfo
    from .database.connection import TimeoutConnection

__all__ = ["Scheduler"]

log = logging.getLogger("durable_notify")

#: The longest sleep, in seconds: other processes may set a schedule that is due before.
LONGEST = 30.0
#: The shortest, after another process published, or holds, what is due.
SHORTEST = 0.5


class Scheduler:
    """Publishes what schedules say. Run as many as you like: each tick is published once.

    The process that locks a schedule's row publishes its tick; the row moves to its next tick in
    the same transaction. So there is no leader that could be lost, and a tick is neither published
    twice nor lost, whatever is killed. The database's clock counts. Its role needs the right to
    publish to the topics.

    Args:
        dsn: a libpq connection string or URI. It may lead through a pooler.
        schedules: those that your code declares, set when it starts. Those that ``program``
            declared before, and that are not among them any more, are deleted.
        program: the name of your program; needed with ``schedules``.

    Raises:
        InvalidArgument: a name is given twice, or the program has no name.
    """

    def __init__(
        self, dsn: str, schedules: Iterable[Schedule] = (), *, program: str | None = None
    ) -> None:
        self._dsn = dsn
        self._schedules = list(schedules)
        self._program = program
        self._stopping = Event()
        for one in self._schedules:
            if not isinstance(one, Schedule):
                raise InvalidArgument(f"{one!r} is not a Schedule")
        if len({one.name for one in self._schedules}) < len(self._schedules):
            raise InvalidArgument("two schedules have the same name")
        if self._schedules and not program:
            raise InvalidArgument(
                "give the name of the program that declares these schedules: program=..."
            )

    def stop(self) -> None:
        """Stop after the current transaction."""
        self._stopping.set()

    def run(self) -> None:
        """Publish until ``stop()``, SIGTERM or SIGINT. It outlasts outages."""
        declared = False
        with on_signals(self.stop):
            while not self._stopping.is_set():
                try:
                    with connect(self._dsn, "scheduler") as connection:
                        if not declared:
                            self._declare(connection)
                            declared = True
                        while not self._stopping.is_set():
                            self._stopping.wait(self._publish_due(connection))
                except TRANSIENT as error:
                    log.warning("schedules failed, and will be retried: %s", safe_message(error))
                    self._stopping.wait(1.0)

    def run_once(self) -> int:
        """Set what the code declares, and publish what is due; return how many messages."""
        with connect(self._dsn, "scheduler") as connection:
            self._declare(connection)
            published = 0
            for found in ScheduleAdmin().schedules(connection):
                published += self._publish(connection, found)
            return published

    def _declare(self, connection: TimeoutConnection) -> None:
        """Set the schedules of the code, and delete those that it no longer has."""
        if not self._program:
            return
        admin = ScheduleAdmin()
        with connection.transaction():
            for schedule in self._schedules:
                admin.set_schedule(connection, schedule, program=self._program)
            declared = {schedule.name for schedule in self._schedules}
            for found in admin.schedules(connection):
                if found.program == self._program and found.name not in declared:
                    admin.delete_schedule(connection, found.name)
                    log.info("schedule %s is not declared any more, and was deleted", found.name)

    def _publish_due(self, connection: TimeoutConnection) -> float:
        """Publish what is due; return how long to sleep."""
        pause = LONGEST
        for found in ScheduleAdmin().schedules(connection):
            if found.seconds is None:
                continue
            if found.seconds > 0:
                return min(pause, found.seconds)
            try:
                self._publish(connection, found)
            except Exception as error:
                if connection.closed:
                    raise
                log.warning("schedule %s failed: %s", found.name, safe_message(error))
                continue  # it is looked at again with the others, after the pause
            pause = SHORTEST
        return pause

    def _publish(self, connection: TimeoutConnection, found: ScheduleInfo) -> int:
        if found.seconds is None or found.seconds > 0:
            return 0
        ticks, next_at = found.due()
        params = (found.name, found.next_at, ticks, next_at)
        return len(fetch(connection, sql.PUBLISH_TICKS, params))
