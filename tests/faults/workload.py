"""A publisher, and consumers of both halves, that run while something goes wrong around them.

The publisher writes a row of its own beside each message, in the same transaction; each handler
writes what it got in the transaction in which it acknowledges. So the database itself can be asked
at the end what was committed, whether all of it was handled, and whether anything was twice.
Polling is off: they are woken, or what they wait for is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import random
import threading
from collections.abc import Callable
from typing import Any, Self

import psycopg
from psycopg import sql

import durable_notify as dn
from durable_notify.payloads import NewMessage
from tests.support.api import with_group
from tests.support.observe import outstanding
from tests.support.wait import eventually

DDL = """
    CREATE TABLE business (number bigint PRIMARY KEY, message_id bigint NOT NULL, key text);
    CREATE TABLE handled (
        n bigint GENERATED ALWAYS AS IDENTITY, half text, message_id bigint, attempt int)"""
BUSINESS = "INSERT INTO business SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[])"
HANDLED = "INSERT INTO handled (half, message_id, attempt) VALUES (%s, %s, %s)"
OPTIONS: dict[str, Any] = {
    "group": "g", "topics": ["t"], "poll_interval": None, "lease": 2.0, "batch_size": 20, "prefetch": 40,
    "retry": dn.RetryPolicy(max_attempts=1_000_000, base=0.05, max=0.5),
}  # fmt: skip


def make_worker(dsn: str, name: str = "worker") -> None:
    """A role that is no superuser, so that limits and time-outs are for it, too."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        role = sql.Identifier(name)
        if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
            conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        for grant in (
            "USAGE ON SCHEMA durable_notify, public",
            "ALL ON ALL TABLES IN SCHEMA durable_notify, public",
            "ALL ON ALL SEQUENCES IN SCHEMA durable_notify, public",
            "ALL ON ALL FUNCTIONS IN SCHEMA durable_notify",
        ):
            conn.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), role))


class CapturedLog(logging.Handler):
    """What the library logs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def warnings(self) -> list[str]:
        """Warnings and errors, except those of handlers that fail."""
        return [
            text
            for record in self.records
            if record.levelno >= logging.WARNING
            and "handler of" not in (text := record.getMessage())
        ]


class Workload:
    """Runs all of them, each in a thread; they stop when the block is left."""

    def __init__(self, dsn: str, *, seed: str = "", pause: float = 0.003, **options: Any) -> None:
        self.dsn = dsn
        self.options = with_group(OPTIONS | options)
        self.said = CapturedLog()
        self.committed: set[int] = set()
        self.rolled_back: set[int] = set()
        self.unknown: set[int] = set()
        self.errors: list[Exception] = []  # what publishers got
        self.failed_handlers: list[BaseException] = []
        self.ended: list[BaseException] = []  # what ended a consumer that was not to end
        self._stops: list[Callable[[], Any]] = []
        self._count: dict[str, int] = {}
        self._random = random.Random(seed)
        self._pause = pause
        self._stop = threading.Event()
        self._publisher = threading.Thread(target=self._publish, name="publisher")
        self._others = [
            threading.Thread(target=self._consume, args=(half,), name=half)
            for half in ("sync", "async")
        ]

    def __enter__(self) -> Self:
        log = logging.getLogger("durable_notify")
        log.addHandler(self.said)
        for thread in (*self._others, self._publisher):
            thread.start()
        self.progress(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._publisher.join()
        for stop in self._stops:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                stop()
        for thread in self._others:
            thread.join(30)
        logging.getLogger("durable_notify").removeHandler(self.said)
        if any(thread.is_alive() for thread in self._others):
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError("a consumer does not stop")

    def progress(self, more: int = 20) -> None:
        """Wait until so many more messages were published, and so many handled by each half."""
        published, handled = len(self.committed), dict(self._count)

        def all_of_them_get_on() -> bool:
            assert not self.ended, f"a consumer gave up: {self.ended}"
            return len(self.committed) >= published + more and all(
                self._count.get(api.name, 0) > handled.get(api.name, 0) for api in self._others
            )

        eventually(all_of_them_get_on, 30)

    def drain(self, admin: psycopg.Connection[Any], timeout: float = 60.0) -> None:
        """Publish no more, and wait until the group has settled everything."""
        self._stop.set()
        self._publisher.join()

        def nothing_is_left() -> bool:
            assert not self.ended, f"a consumer gave up: {self.ended}"
            return outstanding(admin) == 0

        eventually(nothing_is_left, timeout)

    def judge(self, admin: psycopg.Connection[Any]) -> None:
        """Nothing lost, nothing twice, nothing half written, keys in their order."""
        assert not self.ended, f"a consumer gave up: {self.ended}"
        business = {
            number: (message_id, key)
            for number, message_id, key in admin.execute("SELECT * FROM business")
        }
        assert self.committed <= business.keys(), "told it has committed, and not there"
        assert not self.rolled_back & business.keys(), "told it has failed, and there"
        outbox = admin.execute(
            "SELECT (payload #>> '{}')::bigint, id, key FROM durable_notify.outbox"
        )
        assert {number: (i, key) for number, i, key in outbox} == business, "half written"
        published = dict(business.values())
        handled = [i for (i,) in admin.execute("SELECT message_id FROM handled ORDER BY n")]
        lost = published.keys() - set(handled)
        assert not lost, f"{len(lost)} of {len(published)} lost: {sorted(lost)[:5]}"
        assert set(handled) <= published.keys(), "handled and never committed"
        twice = len(handled) - len(set(handled))
        assert not twice, f"{twice} of {len(handled)} twice in effect"
        for key in {key for key in published.values() if key is not None}:
            of_key = [i for i in handled if published[i] == key]
            assert of_key == sorted(of_key), f"out of order: {key}"
        print(
            f"{len(published)} committed, {len(self.rolled_back)} failed, {len(self.unknown)} "
            f"unknown, {len(self.failed_handlers)} handlers failed, "
            f"{len(self.said.warnings())} warnings"
        )

    def _publish(self) -> None:
        number = 0
        publisher = dn.Publisher()
        while not self._stop.is_set():
            numbers: list[int] = []
            at_commit = False
            try:
                with psycopg.connect(self.dsn, connect_timeout=5) as conn:
                    while not self._stop.is_set():
                        first, number = number, number + self._random.choice([1, 1, 2, 5])
                        numbers = list(range(first, number))
                        keys = [self._key() for _ in numbers]
                        messages = [
                            NewMessage(n, key=key) for n, key in zip(numbers, keys, strict=True)
                        ]
                        ids = publisher.publish_many(conn, "t", messages)
                        conn.execute(BUSINESS, [numbers, ids, keys])
                        at_commit = True
                        conn.commit()
                        at_commit = False
                        self.committed.update(numbers)
                        numbers = []
                        self._stop.wait(self._pause)
            except Exception as error:
                self.errors.append(error)
                # What breaks while it commits may have committed; what is refused has not.
                state = getattr(error, "sqlstate", None)
                refused = state is not None and not state.startswith("57P")
                (self.unknown if at_commit and not refused else self.rolled_back).update(numbers)
            self._stop.wait(0.02)

    def _key(self) -> str | None:
        return self._random.choice([None, "a", "b", "c"])

    def _consume(self, api: str) -> None:
        self._count.setdefault(api, 0)
        try:
            if api == "sync":
                consumer = dn.Consumer(self.dsn, **self.options)
                self._stops.append(consumer.stop)
                consumer.run(self._handle, concurrency=2)
            else:
                asyncio.run(self._consume_async())
        except BaseException as error:
            self.ended.append(error)

    async def _consume_async(self) -> None:
        consumer = dn.AsyncConsumer(self.dsn, **self.options)
        loop = asyncio.get_running_loop()
        self._stops.append(lambda: loop.call_soon_threadsafe(consumer.stop))
        await consumer.run(self._ahandle, concurrency=2)

    def _handle(self, message: dn.Message) -> None:
        try:
            # Trap: a connection's own context manager leaves it open where its commit is refused.
            with contextlib.closing(psycopg.connect(self.dsn, connect_timeout=5)) as mine:
                mine.execute(HANDLED, ["sync", message.id, message.attempt])
                message.ack(mine)
                mine.commit()
        except Exception as error:
            self.failed_handlers.append(error)
            raise
        self._count["sync"] += 1

    async def _ahandle(self, message: dn.AsyncMessage) -> None:
        try:
            connect = psycopg.AsyncConnection.connect(self.dsn, connect_timeout=5)
            mine = await connect
            try:
                await mine.execute(HANDLED, ["async", message.id, message.attempt])
                await message.ack(mine)
                await mine.commit()
            finally:
                await mine.close()
        except Exception as error:
            self.failed_handlers.append(error)
            raise
        self._count["async"] += 1
