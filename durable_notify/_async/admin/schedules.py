"""Schedules as rows: set, listed, paused, run now."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ..._core import sql
from ...errors import InvalidArgument
from ...payloads import readable
from ...schedules import ScheduleInfo
from ...topics import check_topic
from ..database.callers import fetch_alone

if TYPE_CHECKING:
    from ...schedules import Schedule
    from ..database.callers import Publishable

__all__ = ["AsyncScheduleAdmin"]


class AsyncScheduleAdmin:
    """The part of ``AsyncAdmin`` for schedules.

    For the owner of the schema, and roles that may publish to the topic of the schedule. Running
    schedulers see a change within half a minute.
    """

    async def set_schedule(
        self, connection: Publishable, schedule: Schedule, *, program: str | None = None
    ) -> bool:
        """Set a schedule, or replace the one of its name; return False if nothing changed.

        Its next tick changes only with its times. A pause stays.

        Args:
            connection: the schedule is part of its transaction.
            schedule: the schedule.
            program: whose code declares it; a ``Scheduler`` says this.
        """
        row = schedule.encoded()
        next_at = schedule.ticks.next((await fetch_alone(connection, sql.NOW, ()))[0][0])
        every = schedule.every
        if every is not None and not isinstance(every, timedelta):
            every = timedelta(seconds=every)
        params = (
            schedule.name, check_topic(schedule.topic), row.payload, schedule.cron, every,
            schedule.time_zone, next_at, row.key, row.headers, schedule.missed,
            schedule.max_missed, program,
        )  # fmt: skip
        return bool((await fetch_alone(connection, sql.SET_SCHEDULE, params))[0][0])

    async def schedules(self, connection: Publishable) -> list[ScheduleInfo]:
        """Return the schedules whose topics you may publish to, the next one first."""
        rows = await fetch_alone(connection, sql.SCHEDULES, ())
        return [
            ScheduleInfo(name, topic, readable(payload), key, readable(headers), *rest)
            for name, topic, payload, key, headers, *rest in rows
        ]

    async def pause_schedule(self, connection: Publishable, name: str) -> None:
        """Publish no more ticks of a schedule until ``resume_schedule``.

        Raises:
            InvalidArgument: there is no schedule of this name.
        """
        await fetch_alone(connection, sql.PAUSE_SCHEDULE, (name,))

    async def resume_schedule(self, connection: Publishable, name: str) -> None:
        """Continue a schedule with its next tick; those within the pause are not made up for.

        Raises:
            InvalidArgument: there is no schedule of this name.
        """
        now = (await fetch_alone(connection, sql.NOW, ()))[0][0]
        for found in await self.schedules(connection):
            if found.name == name:
                next_at = found.ticks.next(now, found.next_at)
                await fetch_alone(connection, sql.RESUME_SCHEDULE, (name, next_at))
                return
        raise InvalidArgument(f"there is no schedule {name!r}")

    async def delete_schedule(self, connection: Publishable, name: str) -> None:
        """Delete a schedule; what it has published stays.

        Raises:
            InvalidArgument: there is no schedule of this name.
        """
        await fetch_alone(connection, sql.DELETE_SCHEDULE, (name,))

    async def run_schedule(self, connection: Publishable, name: str) -> int:
        """Publish the message of a schedule now, beside its ticks; return its id.

        Raises:
            InvalidArgument: there is no schedule of this name.
        """
        return int((await fetch_alone(connection, sql.RUN_SCHEDULE, (name,)))[0][0])
