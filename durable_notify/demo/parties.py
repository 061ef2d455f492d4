"""The parties of the demo: a publisher, a plain listener, and the consumer's process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from .._sync.publisher import Publisher
from ..errors import DurableNotifyError
from .names import TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .tally import Arrived

__all__ = ["PlainListener", "Worker", "notify_and_publish"]

CHANNEL = "demo_plain"
LEAVE = "leave"
LONGEST_NOTIFY = 7999  # bytes; PostgreSQL refuses more
PATIENCE = 60.0  # seconds; nothing here takes long unless something is broken


def notify_and_publish(connection: psycopg.Connection[Any], events: Mapping[int, Any]) -> int:
    """Send events both ways in the caller's transaction; return how many NOTIFY cannot carry."""
    payloads = [{"n": number, "event": event} for number, event in events.items()]
    Publisher().publish_many(connection, TOPIC, payloads)
    texts = [json.dumps(payload, ensure_ascii=False) for payload in payloads]
    short = [text for text in texts if len(text.encode()) <= LONGEST_NOTIFY]
    with connection.cursor() as cursor:
        cursor.executemany("SELECT pg_notify(%s, %s)", [(CHANNEL, text) for text in short])
    return len(texts) - len(short)


class PlainListener:
    """An ordinary LISTEN client, which hears what is sent while it is connected."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._thread: threading.Thread | None = None
        self.arrived: list[Arrived] = []

    def come(self) -> None:
        """Connect, and listen from here on."""
        connection = psycopg.connect(self._dsn, autocommit=True)
        connection.execute(f"LISTEN {CHANNEL}".encode())
        self._thread = threading.Thread(target=self._hear, args=(connection,), daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Disconnect once all that was sent until now is heard, as notifications come in order."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, LEAVE))
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        with connection:
            for notify in connection.notifies():
                if notify.payload == LEAVE:
                    return
                message = json.loads(notify.payload)
                self.arrived.append((message["n"], message["event"]))


class Worker:
    """A consumer in a process of its own, and the messages that it reports."""

    def __init__(self, dsn: str, *, until_empty: bool = False, stop_at: int = 0) -> None:
        mode = "until-empty" if until_empty else "stay"
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "durable_notify.demo.worker", dsn, mode, str(stop_at)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which ends it
        )
        self._changed = threading.Condition()
        self._said: set[str] = set()
        self._over = False
        self.pid = self._process.pid
        self.arrived: list[Arrived] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, word: str) -> None:
        """Wait until it has printed a word."""
        self._wait(lambda: word in self._said, word)

    def wait_for_messages(self, number: int) -> None:
        """Wait until it has received so many."""
        self._wait(lambda: len(self.arrived) >= number, f"{number} messages")

    def finish(self) -> None:
        """Wait until it has ended with status 0."""
        with self._changed:
            self._changed.wait_for(lambda: self._over, PATIENCE)
            if not self._over:
                raise DurableNotifyError(f"the consumer did not end within {PATIENCE:g} seconds")
        if status := self._process.wait(PATIENCE):
            raise DurableNotifyError(f"the consumer ended with status {status}")

    def kill(self) -> None:
        """SIGKILL it. What it had printed before still counts."""
        self._process.kill()
        self._process.wait()
        self._thread.join(PATIENCE)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over or done(), PATIENCE)
            if not done():
                raise DurableNotifyError(f"the consumer did not come to this: {what}")

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as lines:
            for line in lines:
                value = json.loads(line)
                with self._changed:
                    if isinstance(value, str):
                        self._said.add(value)
                    else:
                        self.arrived.append((value[0], value[1]))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()
