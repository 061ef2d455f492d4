"""A call that is cancelled leaves no transaction open that the program did not begin."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Coroutine, Generator
from typing import Any

import psycopg

import durable_notify as dn
from tests.drivers.kits import Kit, only
from tests.drivers.test_publishing import payloads, publish

Connection = psycopg.Connection[Any]


class Cancelled:
    """Awaits a coroutine, and cancels the task when that waits for the nth time."""

    def __init__(self, work: Coroutine[Any, Any, Any], nth: int) -> None:
        self._work = work
        self._nth = nth

    def __await__(self) -> Generator[Any, Any, None]:
        waits = self._work.__await__()
        step = functools.partial(next, waits)
        for number in itertools.count():
            try:
                waited = step()
            except StopIteration:
                return
            if number == self._nth and (task := asyncio.current_task()):
                task.cancel()
            step = functools.partial(next, waits)
            try:
                yield waited
            except asyncio.CancelledError as error:
                step = functools.partial(waits.throw, error)


# SQLAlchemy closes a connection of asyncpg whose call was cancelled.
@only(lambda kit: kit.name in {"psycopg-async", "asyncpg", "async-connection-psycopg"})
async def test_in_autocommit_mode(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    conn.execute("SELECT durable_notify.subscribe(%s, %s)", [topic, [topic]])
    for nth in itertools.count():
        async with kit.connect(dsn, autocommit=True) as opened:
            try:
                await Cancelled(opened.call(kit.Admin().pause, topic), nth)
                break
            except asyncio.CancelledError:
                await publish(kit, opened, topic, nth)
                assert payloads(conn, topic)[-1:] == [nth]
    assert nth >= 3
    (group,) = [one for one in dn.Admin().groups(conn) if one.name == topic]
    assert group.paused_at is not None
