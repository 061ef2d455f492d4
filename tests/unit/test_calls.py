"""A call of a handler that is ended from outside, and one that raises the same by itself."""

from __future__ import annotations

import asyncio

import pytest

from durable_notify._async.concurrency import call, current_task


async def _waits(_message: object) -> None:
    await asyncio.Event().wait()


async def _raises(_message: object) -> None:
    raise GeneratorExit


async def _close_beside_its_task() -> None:
    """Close a call while another task runs than the worker's, as the garbage collector does."""
    calls = []

    async def work() -> None:
        handling = call(_waits, None, task=current_task())
        handling.send(None)
        calls.append(handling)

    await asyncio.create_task(work())
    calls[0].throw(GeneratorExit())


def test_it_is_closed_while_another_task_runs() -> None:
    """Trap: a TypeError then would be what the handler raised, and its message would fail."""
    with pytest.raises(GeneratorExit):
        asyncio.run(_close_beside_its_task())


def test_it_raises_by_itself() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="raised GeneratorExit"):
            await call(_raises, None, task=current_task())

    asyncio.run(main())
