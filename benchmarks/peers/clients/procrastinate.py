"""Procrastinate, on psycopg.

What makes it fast, by its documentation: `batch_defer_async` for many jobs at once
(howto/basics/batch_defer), a worker's `concurrency` (howto/production/concurrency: 30 is its
example). It fetches one job at a time, and finishes one at a time. Jobs that are done are deleted
(howto/production/delete_finished_jobs), as those of the other queues are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.manager import JobManager
from procrastinate.tasks import Task

from benchmarks.peers.base import TOPIC, Payload, Publisher, Tally
from benchmarks.peers.clients.postgres import PostgresPeer, committed

CONCURRENCY = 30


class _Publisher(Publisher):
    def __init__(self, task: Task[Any, Any, Any], connection: psycopg.AsyncConnection) -> None:
        self._task = task
        self._connection = connection
        self._in_transaction = task.configure(connection=connection)

    async def batch(self, payloads: list[Payload]) -> None:
        await self._task.batch_defer_async(*({"message": each} for each in payloads))

    async def single(self, message: Payload) -> None:
        await self._task.defer_async(message=message)

    async def timed(self, message: Payload) -> tuple[int, int]:
        await self._in_transaction.defer_async(message=message)
        return await committed(self._connection.commit)


class Procrastinate(PostgresPeer):
    """Deferring, and a worker."""

    packages: ClassVar[tuple[str, ...]] = ("procrastinate", "psycopg", "psycopg-binary")
    settings: ClassVar[dict[str, Any]] = {
        "concurrency": CONCURRENCY,
        "pool": "its default: 4 to 10 connections",
        "delete_jobs": "always",
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 6_000,
        "publish_single": 800,
        "consume": 700,
        "consume4": 700,
        "consume_await": 700,
        "wake": 60,
    }

    def app(self) -> App:
        logging.getLogger("procrastinate").setLevel(logging.WARNING)
        return App(connector=PsycopgConnector(conninfo=self.address))

    async def prepare(self) -> None:
        async with self.app().open_async() as app:
            await app.schema_manager.apply_schema_async()

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with (
            self.app().open_async() as app,
            await psycopg.AsyncConnection.connect(self.address) as connection,
        ):
            yield _Publisher(self.task(app, None), connection)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        del concurrency  # more at once is not faster
        async with self.app().open_async() as app:
            self.task(app, tally)
            app.job_manager = _Timed(app.connector, tally)
            worker = asyncio.create_task(
                app.run_worker_async(
                    queues=[TOPIC],
                    concurrency=CONCURRENCY,
                    delete_jobs="always",
                    install_signal_handlers=False,
                )
            )
            await tally.finished.wait()
            worker.cancel()  # it finishes what it is at
            await asyncio.gather(worker, return_exceptions=True)

    def task(self, app: App, tally: Tally | None) -> Task[Any, Any, Any]:
        @app.task(name="handle", queue=TOPIC)
        async def handle(message: Payload) -> None:
            if tally is not None:
                await tally.handler(message)

        return handle


class _Timed(JobManager):
    """Notes when acknowledgements are committed."""

    def __init__(self, connector: Any, tally: Tally) -> None:
        super().__init__(connector)
        self._tally = tally

    async def finish_job(self, *arguments: Any, **named: Any) -> None:
        await super().finish_job(*arguments, **named)
        self._tally.confirmed()
