# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Maintenance: rounds of many small steps, by one process at a time."""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import socket
from typing import TYPE_CHECKING, Any

import psycopg

from .._core import sql
from ..archive import ArchivedMessage
from ..dsn import safe_message
from ..durations import in_seconds
from ..errors import InvalidArgument
from .concurrency import Event, aside, checkpoint, on_signals
from .database.callers import fetch
from .database.connection import TRANSIENT, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..archive import Archive
    from ..durations import Seconds
    from .database.connection import ConnectionRegistry, TimeoutConnection
    from .database.queries import Queries

__all__ = ["Maintenance", "keep_up"]

log = logging.getLogger("durable_notify")

#: How often a round is due, in seconds.
EVERY = 60.0
#: How many messages to read from the log at once, to archive them.
PAGE = 1000

#: How often to report that this process is alive while an archive writes, in seconds.
BEAT = 5.0


class _TakenOver(Exception):
    """Another process maintains now, and continues what this one had started."""


class Maintenance:
    """Maintains the schema: retention, compaction, archiving and cleaning up.

    Only one process maintains a database at a time; if it dies, another takes over. For the
    owner of the schema, and roles that were granted ``maintain``. Its connection may lead through
    a pooler.

    Args:
        dsn: a libpq connection string or URI. A round opens a connection of its own.
        every: how long after a round the next is due, in any process; 0: at once.
        archive: receives messages before they are removed, if their policy says so. For the
            owner of the schema.
        inbox_age: for how long ``once`` remembers a message, at least; None: as
            ``Admin.set_record_age`` has it.
        audit_age: for how long the audit, losses and ended replays are kept; None: as
            ``Admin.set_record_age`` has it.
        on_step: called after each step with its name, its topic and how much it did.
    """

    def __init__(
        self,
        dsn: str,
        *,
        every: Seconds = EVERY,
        archive: Archive | None = None,
        inbox_age: Seconds | None = None,
        audit_age: Seconds | None = None,
        on_step: Callable[[str, str | None, int], Any] | None = None,
    ) -> None:
        if archive is not None and not hasattr(archive, "begin"):
            raise InvalidArgument(
                f"archive needs a method begin(topic, from_id, below): {archive!r}"
            )
        self._dsn = dsn
        self._every = in_seconds("every", every, zero=True)
        self._archive = archive
        self._ages = (
            in_seconds("inbox_age", inbox_age, optional=True),
            in_seconds("audit_age", audit_age, optional=True),
        )
        self._on_step = on_step
        self._stopping = Event()
        self._registry: ConnectionRegistry | None = None
        # Identifies this process among those that maintain.
        self._worker = f"{socket.gethostname()}:{os.getpid()} {secrets.token_hex(8)}"

    def stop(self) -> None:
        """Stop after the current step."""
        self._stopping.set()

    def run(self) -> None:
        """Maintain until ``stop()``, SIGTERM or SIGINT. It outlasts outages."""
        with on_signals(self.stop):
            while not self._stopping.is_set():
                try:
                    self.run_once()
                except TRANSIENT as error:
                    log.warning("maintenance failed, and will be retried: %s", safe_message(error))
                self._stopping.wait(_pause(max(1.0, self._every)))

    def run_once(self) -> dict[str, int | str] | None:
        """Run a round, if one is due and no other process runs it.

        Returns:
            How much each step did, or why it failed (``"remove failed"``); None: nothing was due,
            or another process runs a round.

        Raises:
            psycopg.Error: the database cannot be reached or used. The next round continues.
        """
        with connect(self._dsn, "maintenance") as connection:
            if self._registry is not None:
                self._registry.add(connection)
            if not (fetch(connection, sql.MAINTAIN_BEGIN, (self._worker, self._every)))[0][0]:
                return None
            report: dict[str, int | str] = {}
            for step, topic in fetch(connection, sql.MAINTAIN_STEPS, ()):
                if not self._repeat(connection, step, topic, report):
                    return report
                if step == "watermark" and self._archive is not None:
                    try:
                        self._archive_all(connection, self._archive, report)
                    except _TakenOver:
                        log.warning("another process has taken over maintenance")
                        return report
            for alarm in fetch(connection, sql.MAINTAIN_ALARMS, ()):
                log.warning("group %r lags and keeps %s bytes of topic %r", *alarm)
                report[f"alarm {alarm[2]}"] = f"group {alarm[0]} keeps {alarm[1]} bytes"
            fetch(connection, sql.MAINTAIN_END, (self._worker, json.dumps(report)))
        for name, done in report.items():
            level = logging.WARNING if name.endswith("failed") else logging.INFO
            log.log(level, "maintenance: %s: %s", name, done)
        return report

    def _repeat(
        self,
        connection: TimeoutConnection,
        step: str,
        topic: str | None,
        report: dict[str, int | str],
    ) -> bool:
        """Repeat a step until nothing is left to do; return whether to continue the round."""
        while not self._stopping.is_set():
            try:
                params = (self._worker, step, topic, *self._ages)
                done = (fetch(connection, sql.MAINTAIN_STEP, params))[0][0]
            except TRANSIENT:
                if connection.closed:
                    raise
                return True  # a lock was not available: the next round tries again
            except psycopg.Error as error:
                report[f"{step} failed"] = safe_message(error)
                return True  # the other steps continue
            if done is None:
                return False
            if self._on_step is not None:
                self._on_step(step, topic, done)
            if done <= 0:
                return True
            report[step] = int(report.get(step, 0)) + done
            checkpoint()
        return False

    def _archive_all(
        self, connection: TimeoutConnection, archive: Archive, report: dict[str, int | str]
    ) -> None:
        if (tidy := getattr(archive, "tidy", None)) is not None:
            tidy()
        try:
            topics = fetch(connection, sql.ARCHIVED_TOPICS, ())
        except psycopg.errors.InsufficientPrivilege:
            report["archive failed"] = "only the owner of the schema may archive: it reads messages"
            return
        for (topic,) in topics:
            try:
                while not self._stopping.is_set():
                    archived = self._archive_chunk(connection, archive, topic)
                    if archived == 0:
                        break
                    report["archive"] = int(report.get("archive", 0)) + archived
                    if self._on_step is not None:
                        self._on_step("archive", topic, archived)
            except _TakenOver:
                raise
            except Exception as error:
                if connection.closed:
                    raise
                # An error of the archive: the messages stay, the other topics continue.
                log.warning("archiving topic %r failed: %s", topic, safe_message(error))
                report["archive failed"] = safe_message(error)

    def _archive_chunk(self, connection: TimeoutConnection, archive: Archive, topic: str) -> int:
        """Archive the next chunk; return how many messages it had.

        Raises:
            _TakenOver: another process maintains now. Nothing of the chunk was recorded.
        """
        from_id, below = (fetch(connection, sql.PLAN_ARCHIVE, (topic,)))[0]
        if below is None:
            return 0
        stretch = (topic, from_id, below)

        def still_ours() -> None:
            """Report that this process is alive, so that no other takes over."""
            if not (fetch(connection, sql.STILL_ARCHIVING, (self._worker, *stretch)))[0][0]:
                raise _TakenOver

        def beat() -> None:
            fetch(connection, sql.STILL_ARCHIVING, (self._worker, *stretch))

        chunk = aside(archive.begin, *stretch, meanwhile=beat, every=BEAT)
        written, next_id = 0, from_id
        try:
            while page := fetch(connection, sql.ARCHIVE_PAGE, (topic, next_id, below, PAGE)):
                messages = [ArchivedMessage(*row) for row in page]
                aside(chunk.write, messages, meanwhile=beat, every=BEAT)
                written, next_id = written + len(page), page[-1][0] + 1
                still_ours()
            # Trap: also after the last page, the empty one. The chunk is complete only if no other
            # process has archived and removed some of it before this one read it.
            still_ours()
            aside(chunk.finish, meanwhile=beat, every=BEAT)
        except BaseException:
            chunk.abandon()
            raise
        if not (fetch(connection, sql.ADVANCE_ARCHIVE, (*stretch, self._worker)))[0][0]:
            raise _TakenOver  # what the archive has is complete, and the other writes the same
        return max(written, 1)


def _pause(every: float) -> float:
    """Return how long to wait, with jitter. A round that is not due costs one query."""
    return every * random.uniform(0.5, 1.0)  # noqa: S311


def keep_up(
    queries: Queries,
    dsn: str,
    stopping: Event,
    suspended: Callable[[], bool],
    every: float = EVERY,
) -> None:
    """Maintain beside a consumer, if its role may and no other process does."""
    maintenance = Maintenance(dsn, every=every)
    maintenance._registry = queries.registry
    maintenance._stopping = stopping
    while not stopping.wait(_pause(every)):
        if suspended():
            continue  # the database may be suspended: do not wake it
        try:
            due = queries.maintenance_due(every)
            if due is None:
                log.info("this role may not run maintenance: it is not granted maintain")
                return
            if due:
                maintenance.run_once()
        except TRANSIENT as error:
            log.info("maintenance failed, and will be retried: %s", safe_message(error))
        except Exception as error:
            log.warning("maintenance failed, and will be retried: %s", safe_message(error))
