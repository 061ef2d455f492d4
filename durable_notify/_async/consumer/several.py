"""Run several consumers in one process, with one set of signal handlers."""

from __future__ import annotations

from typing import Any

from ..._core.callables import RUNNERS
from ...errors import InvalidArgument
from ..concurrency import on_signals
from .consumer import AsyncConsumer
from .runner import AsyncRunner

__all__ = ["run_async"]


async def run_async(*consumers: AsyncConsumer[Any]) -> None:
    """Run the handlers of several consumers until SIGTERM, SIGINT, or all have stopped.

    All have started before the first message is handled. If one fails, the others stop as by a
    signal, and its error is raised. If several fail, the first error is raised.

    Raises:
        InvalidArgument: a consumer has no handlers, or is of the other half.
        SchemaError, psycopg.Error, BaseException: as for ``start`` and ``run``.
    """
    for consumer in consumers:
        if not isinstance(consumer, AsyncConsumer):
            raise InvalidArgument(f"{consumer!r} does not run here: {RUNNERS}")
    if len(set(consumers)) != len(consumers) or not consumers:
        raise InvalidArgument("give each consumer once, and at least one")
    runner = AsyncRunner({consumer: consumer._prepare(None, None) for consumer in consumers})
    with on_signals(runner.stop, runner.hurry):
        await runner.start()
        await runner.join()
