"""Listeners that note the moments of each message; see ``timeline``."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import psycopg

from benchmarks.harness import asleep, say, words
from durable_notify._async.consumer.consumer import AsyncConsumer
from durable_notify._async.wakeups.session import AsyncListeningSession
from durable_notify._sync.consumer.consumer import Consumer
from durable_notify._sync.wakeups.session import ListeningSession
from durable_notify.groups import Group


class Moments:
    """The times of the moments of each message: heard, claim begun, claim answered, handler."""

    def __init__(self) -> None:
        self._heard = 0
        self._claimed = [0, 0, 0]
        self._all: list[list[int]] = []

    def watch(self, session: Any) -> None:
        """Note when a listening session is about to read what has arrived."""
        receive = session._receive

        def stamped(self_: Any) -> None:
            self._heard = time.monotonic_ns()
            receive(self_)

        session._receive = stamped

    def begin(self) -> tuple[int, int]:
        """Return when the last ring was heard, and the time now."""
        return (self._heard, time.monotonic_ns())

    def answered(self, begun: tuple[int, int]) -> None:
        """Note that a claim has brought a message."""
        self._claimed = [*begun, time.monotonic_ns()]

    def handle(self, _message: Any) -> None:
        """The handler."""
        self._all.append([*self._claimed, time.monotonic_ns()])

    def report(self) -> None:
        """Tell all, and forget them."""
        say(self._all)
        self._all.clear()


def in_threads(dsn: str, kind: str) -> None:
    """Consume with threads."""
    moments = Moments()
    moments.watch(ListeningSession)
    consumer = Consumer(dsn, group=Group(kind, start="now"), topics=[kind], poll_interval=None)
    claim = consumer._queries.claim

    def stamped(*given: Any) -> Any:
        begun = moments.begin()
        if rows := claim(*given):
            moments.answered(begun)
        return rows

    consumer._queries.claim = stamped  # type: ignore[method-assign]
    running = threading.Thread(target=consumer.run, args=(moments.handle,))
    running.start()
    while consumer.health().state != "sleeping":
        time.sleep(0.01)
    say("ready")
    while sys.stdin.readline():
        moments.report()
    consumer.stop()
    running.join()


async def in_tasks(dsn: str, kind: str) -> None:
    """Consume with asyncio."""
    moments = Moments()
    moments.watch(AsyncListeningSession)
    consumer = AsyncConsumer(dsn, group=Group(kind, start="now"), topics=[kind], poll_interval=None)
    claim = consumer._queries.claim

    async def stamped(*given: Any) -> Any:
        begun = moments.begin()
        if rows := await claim(*given):
            moments.answered(begun)
        return rows

    consumer._queries.claim = stamped  # type: ignore[method-assign]
    running = asyncio.ensure_future(consumer.run(moments.handle))
    await asleep(consumer)
    told = await words()
    say("ready")
    while await told.readline():
        moments.report()
    consumer.stop()
    await running


async def by_hand(dsn: str) -> None:
    """LISTEN, and SELECT what was notified, with psycopg alone."""
    moments = Moments()
    told = await words()
    query = "SELECT id, payload FROM bare WHERE id = %s"
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as working,
    ):
        await listening.execute("LISTEN bare")

        async def listen() -> None:
            async for notify in listening.notifies():
                now = time.monotonic_ns()
                cursor = await working.execute(query, (int(notify.payload),))
                row = await cursor.fetchone()
                moments.answered((now, now))
                moments.handle(row)

        task = asyncio.ensure_future(listen())
        say("ready")
        while await told.readline():
            moments.report()
        task.cancel()


def main(dsn: str, kind: str) -> None:
    if kind == "sync":
        in_threads(dsn, kind)
    else:
        asyncio.run(in_tasks(dsn, kind) if kind == "async" else by_hand(dsn))
