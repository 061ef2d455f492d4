"""Hubs in the test's own event loop, to hold and to step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
import pytest_asyncio

from durable_notify.web import StreamAccess
from durable_notify.web.streaming.cursor import Cursor
from durable_notify.web.streaming.hub import Hub
from durable_notify.web.streaming.hubs import Hubs
from durable_notify.web.streaming.place import Place
from tests.support.wait import with_timeout

ALL = StreamAccess((">",))


class Browser:
    """A client that keeps what it got, and the id of the last event, as an EventSource does."""

    def __init__(self, hubs: Hubs, topics: tuple[str, ...], access: StreamAccess = ALL) -> None:
        self.hubs = hubs
        self.topics = topics
        self.access = access
        self.got: list[int] = []
        self.named: list[str] = []
        self.token: str | None = None
        self.cursor: Cursor | None = None
        self._batches: Any = None
        self._stack = AsyncExitStack()

    async def connect(self, start: Any = "now", hubs: Hubs | None = None) -> None:
        """Connect, with its token if it has one."""
        await self.leave()
        wanted = Place.of(self.token, self.topics) if self.token else start
        lent = (hubs or self.hubs).cursor(self.topics, wanted, self.access)
        self.cursor = await self._stack.enter_async_context(lent)
        self._batches = await self._stack.enter_async_context(aclosing(self.cursor.batches()))

    async def leave(self) -> None:
        await self._stack.aclose()

    async def receive(self, most: int | None = None) -> None:
        """Take a batch, or the first events of it: the connection breaks within it."""
        batch = await with_timeout(anext(self._batches))
        for event in batch[:most]:
            self.named.append(event.name)
            if event.name == "message":
                self.got.append(json.loads(event.data)["id"])
            self.token = event.token or self.token
        if most is not None:
            await self.leave()

    async def until_live(self) -> None:
        assert self.cursor is not None
        while not self.cursor.is_live:
            await self.receive()

    async def until(self, count: int) -> None:
        while len(self.got) < count:
            await self.receive()

    async def is_quiet(self) -> bool:
        """Whether nothing more comes now."""
        assert self.cursor is not None
        await self.until_live()
        try:
            async with asyncio.timeout(0.05):
                await self.receive()
        except TimeoutError:
            return True
        return False


@pytest_asyncio.fixture
async def hubs(dsn: str) -> AsyncIterator[Hubs]:
    """An application's hubs."""
    found = Hubs(dsn, 1_000_000, 100)
    yield found
    await found.close()


@pytest_asyncio.fixture
async def replica(dsn: str) -> AsyncIterator[Hubs]:
    """The hubs of another process of the same application."""
    found = Hubs(dsn, 1_000_000, 100)
    yield found
    await found.close()


class Gate:
    """Holds what the hubs' readers read back from their rings."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before the rings; it is open."""
    found = Gate()
    append = Hub._append

    async def held(self: Hub, frame: Any) -> None:
        await found.open.wait()
        await append(self, frame)

    monkeypatch.setattr(Hub, "_append", held)
    return found
