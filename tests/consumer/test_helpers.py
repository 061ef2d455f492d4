"""The helpers of these tests: what fails while handlers wait is said at once."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.support.api import Api, running
from tests.support.observe import send
from tests.support.wait import with_timeout


async def test_a_failure_does_not_wait_for_handlers(
    api: Api, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    send(conn, [1, 2])
    begun = asyncio.Event()

    async def waits(_message: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def fails() -> None:
        async with running(api.consumer(dsn), waits, concurrency=2):
            await begun.wait()
            raise AssertionError("the first failure")

    with pytest.raises(AssertionError, match="the first failure"):
        await with_timeout(fails(), 15)
