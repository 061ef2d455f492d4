"""Captures that run in a thread of the test's process, of either half."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from durable_notify.bridge.capture import AsyncCapture, Capture
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]
_SESSIONS = """
    SELECT pid FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'durable_notify capture %'
       AND application_name ~ '[0-9]$'"""


class Running:
    """A running capture, and what it says."""

    def __init__(self, api: str, dsn: str, channel: str, topic: str, **options: Any) -> None:
        self.said: list[str] = []
        self.error: BaseException | None = None
        self.capture: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made = threading.Event()
        kind: Any = {"sync": Capture, "async": AsyncCapture}[api]
        options = {"heartbeat_interval": 2.0, "say": self.said.append} | options

        async def run_async() -> None:
            self._loop = asyncio.get_running_loop()
            self.capture = kind(dsn, channel=channel, topic=topic, **options)
            self._made.set()
            await self.capture.run()

        def run_sync() -> None:
            self.capture = kind(dsn, channel=channel, topic=topic, **options)
            self._made.set()
            self.capture.run()

        def run() -> None:
            try:
                asyncio.run(run_async()) if api == "async" else run_sync()
            except BaseException as error:
                self.error = error
            self._made.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._made.wait()

    def listens(self, times: int = 1) -> None:
        """Wait until it listens for so many times."""

        def it_listens() -> bool:
            assert self._thread.is_alive(), self.error
            return sum(words.startswith("listening") for words in self.said) >= times

        eventually(it_listens)

    def stands_by(self) -> None:
        def it_stands_by() -> bool:
            assert self._thread.is_alive(), self.error
            return any("standing by" in words for words in self.said)

        eventually(it_stands_by)

    def stop(self) -> None:
        """Tell it to end, and wait for that; what it ended with is raised."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.capture.stop)
        else:
            self.capture.stop()
        self.ended()

    def ended(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@contextmanager
def capturing(api: str, dsn: str, channel: str, topic: str, **options: Any) -> Iterator[Running]:
    """Run a capture; it listens in here, unless it stands by, and is stopped at the end."""
    running = Running(api, dsn, channel, topic, **options)
    try:
        yield running
    finally:
        if running._thread.is_alive():
            running.capture._grace = 0.0  # a test that fails need not wait
            running.stop()


def notify(connection: Connection, channel: str, *payloads: str) -> None:
    """Send as programs that know nothing of this library do."""
    for payload in payloads:
        connection.execute("SELECT pg_notify(%s, %s)", [channel, payload])


def durably(connection: Connection, channel: str, *payloads: str) -> None:
    """Send with notify()."""
    for payload in payloads:
        connection.execute("SELECT durable_notify.notify(%s, %s)", [channel, payload])


def messages(connection: Connection, topic: str) -> list[Any]:
    """The payloads of a topic, in their order."""
    query = "SELECT payload FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    return [payload for (payload,) in connection.execute(query, [topic])]


def arrive(connection: Connection, topic: str, payloads: Iterable[Any]) -> None:
    """Wait until a topic has just these payloads, in this order."""
    wanted = list(payloads)

    def they_have_arrived() -> bool:
        return len(messages(connection, topic)) >= len(wanted)

    eventually(they_have_arrived)
    assert messages(connection, topic) == wanted


def listening_sessions(connection: Connection) -> list[int]:
    """The process ids of the captures' listening sessions."""
    return [pid for (pid,) in connection.execute(_SESSIONS)]


def end_listening(connection: Connection) -> None:
    """End the listening sessions of captures, as an administrator would."""
    for pid in listening_sessions(connection):
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])


def gaps(connection: Connection) -> list[tuple[Any, Any, str]]:
    """The gaps in the audit, (since, until, why), in their order."""
    query = """
        SELECT (details ->> 'since')::timestamptz, (details ->> 'until')::timestamptz, why
          FROM durable_notify.audit WHERE action = 'capture gap' ORDER BY id"""
    return list(connection.execute(query))


def now(connection: Connection) -> Any:
    """The database's time."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def listen(connection: Connection, channel: str) -> None:
    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
