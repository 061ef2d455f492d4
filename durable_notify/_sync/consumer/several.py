# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Run several consumers in one process, with one set of signal handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._core.callables import RUNNERS
from ...errors import InvalidArgument
from ..concurrency import on_signals, spawn
from .consumer import Consumer

if TYPE_CHECKING:
    from ..concurrency import Task

__all__ = ["run"]


def run(*consumers: Consumer[Any]) -> None:
    """Run the handlers of several consumers until SIGTERM, SIGINT, or all have stopped.

    All have started before the first message is handled. If one fails, the others stop as by a
    signal, and its error is raised. If several fail, the first error is raised.

    Raises:
        InvalidArgument: a consumer has no handlers, or is of the other half.
        SchemaError, psycopg.Error, BaseException: as for ``start`` and ``run``.
    """
    for consumer in consumers:
        if not isinstance(consumer, Consumer):
            raise InvalidArgument(f"{consumer!r} does not run here: {RUNNERS}")
    if len(set(consumers)) != len(consumers) or not consumers:
        raise InvalidArgument("give each consumer once, and at least one")
    counts = [consumer._prepare(None, None) for consumer in consumers]
    several = _Several(consumers)
    with on_signals(several.stop, several.hurry):
        several.run(counts)


class _Several:
    """Consumers that run together."""

    def __init__(self, consumers: tuple[Consumer[Any], ...]) -> None:
        self._consumers = consumers
        self._errors: list[BaseException] = []

    def stop(self) -> None:
        for consumer in self._consumers:
            consumer.stop()

    def hurry(self) -> None:
        for consumer in self._consumers:
            consumer._dispatcher.hurry()

    def run(self, counts: list[int]) -> None:
        tasks: list[Task] = []
        try:
            for consumer in self._consumers:
                consumer.start()
            for consumer, count in zip(self._consumers, counts, strict=True):
                tasks.append(spawn(self._run, consumer, count, name="durable_notify run"))
            for task in tasks:
                task.join()
        finally:
            self.stop()
            if tasks:
                for task in tasks:
                    task.join()
            else:
                for consumer in self._consumers:
                    consumer.close()
        if self._errors:
            raise self._errors[0]

    def _run(self, consumer: Consumer[Any], count: int) -> None:
        try:
            consumer._run(count, count)
        except BaseException as error:
            self._errors.append(error)
            self.stop()
