"""Tasks to enqueue."""

import asyncio
from typing import Any

try:
    from django.tasks import signals, task
    from django.tasks.backends.immediate import ImmediateBackend as Immediate
except ImportError:
    from django_tasks import signals, task
    from django_tasks.backends.immediate import ImmediateBackend as Immediate

__all__ = ["Immediate", "add", "broken", "in_context", "reports", "signals", "waits"]

reports: list[Any] = []


@task
def add(one: int, other: int) -> None:
    reports.append(one + other)


@task(queue_name="slow")
async def waits() -> None:
    await asyncio.sleep(0)
    reports.append("waited")


@task(takes_context=True)
def in_context(context: Any, *, word: str) -> None:
    result = context.task_result
    reports.append((word, context.attempt, result.id, result.status, result.enqueued_at is None))


@task
def broken() -> None:
    raise ValueError("broken")
