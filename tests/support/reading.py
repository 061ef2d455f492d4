"""Readers of either half, driven from a test's event loop."""

from __future__ import annotations

from typing import Any, Self

import durable_notify as dn
from tests.support.halves import Half, in_thread, soon


class Reading:
    """A reader of either half."""

    def __init__(self, half: Half, dsn: str, *topics: str, **options: Any) -> None:
        make = dn.AsyncReader if half.is_async else dn.Reader
        self.half = half
        self.reader: Any = make(dsn, topics or ("t",), **{"poll": None, **options})

    async def __aenter__(self) -> Self:
        if self.half.is_async:
            await self.reader.__aenter__()
        else:
            await in_thread(self.reader.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        await (self.reader.close() if self.half.is_async else in_thread(self.reader.close))

    async def next(self) -> Any:
        if self.half.is_async:
            return await soon(anext(self.reader, None))
        return await soon(in_thread(next, self.reader, None))

    async def take(self, number: int) -> list[Any]:
        return [await self.next() for _ in range(number)]

    async def rest(self) -> list[Any]:
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found


async def everything(half: Half, dsn: str, *topics: str, **options: Any) -> list[Any]:
    async with Reading(half, dsn, *topics, until_empty=True, **options) as reading:
        return await reading.rest()
