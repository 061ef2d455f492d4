"""Handlers that take longer than they may."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.api import Api, in_thread, with_group
from tests.support.observe import dead_letters, outstanding, send, value
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


class Hanging:
    """Handlers of either half that hang, on the first attempt, in some manner."""

    def __init__(self, api: Api, manner: str = "plainly") -> None:
        self.api = api
        self.manner = manner
        self.free = threading.Event()
        self.begun: list[tuple[int, int]] = []
        self.ended: list[str] = []
        self.late: list[str] = []

    def __call__(self, message: Any) -> Any:
        self.begun.append((message.id, message.attempt))
        if message.attempt > 1:
            return None
        return self.wait(message) if self.api.is_async else self.wait_now(message)

    async def wait(self, message: Any) -> None:
        try:
            if self.manner == "in a transaction":
                async with message.transaction() as connection:
                    await connection.execute("INSERT INTO effect VALUES (1)")
                    await asyncio.Event().wait()
            elif self.manner == "deaf to being cancelled":
                while not self.free.is_set():
                    try:
                        await asyncio.sleep(0.05)
                    except asyncio.CancelledError:
                        self.ended.append("asked to end")
                await self.settle(message)
            else:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def settle(self, message: Any) -> None:
        try:
            await message.ack()
        except (dn.errors.AlreadySettled, dn.errors.ConsumerClosed) as error:
            self.late.append(str(error))

    def wait_now(self, message: Any) -> None:
        try:
            if self.manner == "in a transaction":
                with message.transaction() as connection:
                    connection.execute("INSERT INTO effect VALUES (1)")
                    self.free.wait()
            else:
                self.free.wait()
                message.ack()
        except (dn.errors.AlreadySettled, dn.errors.ConsumerClosed) as error:
            self.late.append(str(error))

    async def run(self, dsn: str, **options: Any) -> dn.Consumer | dn.AsyncConsumer:
        """Until nothing is left."""
        settings = {
            "group": "g",
            "topics": ["t"],
            "poll_interval": None,
            "until_empty": True,
            "handler_timeout": 0.2,
            "retry": dn.RetryPolicy(base=0.01),
        } | options
        kind: Any = dn.AsyncConsumer if self.api.is_async else dn.Consumer
        consumer = kind(dsn, **with_group(settings))
        run = functools.partial(consumer.run, self)
        await with_timeout(run() if self.api.is_async else in_thread(run))
        return consumer  # type: ignore[no-any-return]


@pytest.mark.parametrize("manner", ["plainly", "in a transaction", "deaf to being cancelled"])
async def test_it_is_given_up(
    api: Api, dsn: str, conn: Connection, manner: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is retried, others are handled meanwhile, and what it says later is refused."""
    conn.execute("CREATE TABLE effect (id int)")
    caplog.set_level(logging.INFO, "durable_notify")
    ids = send(conn, range(3))
    handler = Hanging(api, manner)
    await handler.run(dsn)
    assert sorted(handler.begun) == sorted((i, attempt) for i in ids for attempt in (1, 2))
    assert (outstanding(conn), dead_letters(conn)) == (0, [])
    assert "took longer than handler_timeout" in caplog.text
    handler.free.set()
    if api.is_async and manner != "deaf to being cancelled":
        assert handler.ended == ["cancelled"] * 3
    else:
        assert "it still runs" in caplog.text
        await wait_until(lambda: len(handler.late) == 3)
        assert all("again" in said or "redelivered" in said for said in handler.late)
    assert value(conn, "SELECT count(*) FROM effect") == 0
    assert (outstanding(conn), dead_letters(conn)) == (0, [])


async def test_a_thread_that_still_runs_is_not_called_cancelled(
    dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    ids = send(conn, [1])
    free = threading.Event()
    begun: list[int] = []
    consumer = dn.AsyncConsumer(
        dsn,
        group=dn.Group("g", retry=dn.RetryPolicy(max_attempts=1)),
        poll_interval=None,
        until_empty=True,
        handler_timeout=0.2,
    )

    @consumer.on("t", thread=True)
    def hang(message: dn.AsyncMessage) -> None:
        begun.append(message.id)
        free.wait()

    await with_timeout(consumer.run())
    free.set()
    assert begun == ids
    assert "it still runs, and its outcome will be refused" in caplog.text
    assert "cancelled" not in caplog.text
    assert [letter[0] for letter in dead_letters(conn)] == ids


async def test_it_counts_as_an_attempt(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    handler = Hanging(api)
    await handler.run(dsn, retry=dn.RetryPolicy(max_attempts=1))
    handler.free.set()
    query = "SELECT error ->> 'type' FROM durable_notify.dead_letter"
    assert value(conn, query) == "durable_notify.errors.HandlerTimeout"


async def test_by_the_rules_for_errors(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    handler = Hanging(api)
    await handler.run(dsn, on_error={TimeoutError: dn.Reject("too slow")})
    handler.free.set()
    assert [letter[2] for letter in dead_letters(conn)] == ["too slow"]


async def test_the_next_of_its_key_comes_after_it(api: Api, dsn: str, conn: Connection) -> None:
    rows = [dn.NewMessage(n, key="k") for n in range(2)]
    first, second = dn.Publisher().publish_many(conn, "t", rows)
    handler = Hanging(api)
    await handler.run(dsn)
    handler.free.set()
    assert [i for i, _ in handler.begun] in ([first, first, second, second], [first, first, second])
    assert handler.begun[:2] == [(first, 1), (first, 2)]


async def test_one_that_has_acknowledged_in_its_transaction(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Its transaction decides, however late it ends; and nothing waits for it."""
    hanging, other = send(conn, range(2))
    begun: list[tuple[int, int]] = []
    opened: list[psycopg.Connection[Any]] = []
    free = threading.Event()

    def handle_now(message: Any) -> None:
        begun.append((message.id, message.attempt))
        if message.id == hanging and message.attempt == 1:
            with psycopg.connect(dsn) as connection:
                opened.append(connection)
                message.ack(connection)
                free.wait()
                connection.rollback()

    async def handle(message: Any) -> None:
        begun.append((message.id, message.attempt))
        if message.id == hanging and message.attempt == 1:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await message.ack(connection)
                try:
                    await asyncio.Event().wait()
                finally:
                    await connection.rollback()

    kind: Any = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer = kind(
        dsn, group="g", topics=["t"], poll_interval=None, handler_timeout=0.2, until_empty=True
    )
    run = functools.partial(consumer.run, handle if api.is_async else handle_now)
    task = asyncio.ensure_future(run() if api.is_async else in_thread(run))
    await wait_until(lambda: (other, 1) in begun)
    free.set()
    await with_timeout(task)
    assert begun.count((hanging, 2)) == 1
    assert outstanding(conn) == 0


async def test_one_that_is_fast_enough(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(50))
    handled = []
    kind: Any = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer = kind(
        dsn, group="g", topics=["t"], poll_interval=None, handler_timeout=20.0, until_empty=True
    )
    run = functools.partial(consumer.run, handled.append, concurrency=3)
    await with_timeout(run() if api.is_async else in_thread(run))
    assert len(handled) == 50
    assert outstanding(conn) == 0
