"""Run consumers beside their caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..concurrency import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..concurrency import Task
    from .lifecycle import AsyncLifecycle

__all__ = ["AsyncRunner"]


class AsyncRunner:
    """Runs consumers, whose handlers are set; if one fails, the others stop.

    Args:
        consumers: with how many messages each handles at once.
    """

    def __init__(self, consumers: Mapping[AsyncLifecycle, int]) -> None:
        self._consumers = dict(consumers)
        self._tasks: list[Task] = []
        self._errors: list[BaseException] = []

    async def start(self) -> None:
        """Start all consumers, and then their handlers; if one cannot start, none does."""
        try:
            for consumer in self._consumers:
                await consumer.start()
        except BaseException:
            for consumer in self._consumers:
                await consumer.close()
            raise
        for consumer, concurrency in self._consumers.items():
            self._tasks.append(spawn(self._run, consumer, concurrency, name="durable_notify run"))

    async def _run(self, consumer: AsyncLifecycle, concurrency: int) -> None:
        try:
            await consumer._run(concurrency, concurrency)
        except BaseException as error:
            # Trap: two of them, SystemExit and KeyboardInterrupt, would end the event loop as well.
            self._errors.append(error)
            self.stop()

    def stop(self) -> None:
        """Stop all consumers."""
        for consumer in self._consumers:
            consumer.stop()

    def hurry(self) -> None:
        """Stop waiting for handlers."""
        for consumer in self._consumers:
            consumer._dispatcher.hurry()

    async def join(self) -> None:
        """Wait until all have ended, and raise the first error; if cancelled, end them."""
        try:
            for task in self._tasks:
                await task.join()
        except BaseException:
            for task in self._tasks:
                await task.stop()
            raise
        if self._errors:
            raise self._errors[0]
