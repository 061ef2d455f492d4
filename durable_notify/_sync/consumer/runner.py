# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Run consumers beside their caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..concurrency import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..concurrency import Task
    from .lifecycle import Lifecycle

__all__ = ["Runner"]


class Runner:
    """Runs consumers, whose handlers are set; if one fails, the others stop.

    Args:
        consumers: with how many messages each handles at once.
    """

    def __init__(self, consumers: Mapping[Lifecycle, int]) -> None:
        self._consumers = dict(consumers)
        self._tasks: list[Task] = []
        self._errors: list[BaseException] = []

    def start(self) -> None:
        """Start all consumers, and then their handlers; if one cannot start, none does."""
        try:
            for consumer in self._consumers:
                consumer.start()
        except BaseException:
            for consumer in self._consumers:
                consumer.close()
            raise
        for consumer, concurrency in self._consumers.items():
            self._tasks.append(spawn(self._run, consumer, concurrency, name="durable_notify run"))

    def _run(self, consumer: Lifecycle, concurrency: int) -> None:
        try:
            consumer._run(concurrency, concurrency)
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

    def join(self) -> None:
        """Wait until all have ended, and raise the first error; if cancelled, end them."""
        try:
            for task in self._tasks:
                task.join()
        except BaseException:
            for task in self._tasks:
                task.stop()
            raise
        if self._errors:
            raise self._errors[0]
