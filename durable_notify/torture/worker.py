"""The processes of a run, ``publisher`` and ``consumer``. Options are a JSON object.

Each records its attempts and their outcomes in a file of its own, a line at a time, so that
SIGKILL loses only the line that is being written.
"""

from __future__ import annotations

import asyncio
import dataclasses
import faulthandler
import json
import logging
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import psycopg

from .._async.consumer.consumer import AsyncConsumer
from .._sync.consumer.consumer import Consumer
from .._sync.publisher import Publisher
from ..errors import SettleError
from ..groups import Group, OrderBy, RetryPolicy
from ..payloads import NewMessage
from .history import Event

__all__ = ["main"]

TOPICS = ("t", "quiet")
RECORD = (
    "INSERT INTO torture.sent"
    " SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[])"
)
EFFECT = "INSERT INTO torture.effect (grp, number, who) VALUES (%s, %s, %s)"
PLAIN = (
    "INSERT INTO durable_notify.outbox (topic, key, payload)"
    " SELECT %s, k, jsonb_build_object('n', n)"
    " FROM unnest(%s::text[], %s::bigint[]) AS m (k, n) RETURNING id"
)
LOST = (psycopg.OperationalError, psycopg.InterfaceError)


class HandlerFailed(Exception):
    """Raised by a handler now and then."""


@dataclasses.dataclass(slots=True)
class Options:
    """The options of a worker."""

    who: str
    dsn: str
    record: str
    seed: str
    first: int = 0  # a publisher's first number
    rate: float = 50.0  # about how many transactions a second
    group: str = ""
    order_by: OrderBy = "none"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    once: bool = False
    work: float = 0.02  # the longest time a handler takes, in seconds
    is_async: bool = False


class Recorder:
    """Writes events to a file."""

    def __init__(self, options: Options) -> None:
        self._options = options
        record = Path(options.record)
        self._file: TextIO = record.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def __call__(self, what: str, **about: Any) -> None:
        event = Event(time.monotonic(), self._options.who, what, **about)
        with self._lock:
            self._file.write(event.line() + "\n")


def publish_for_ever(options: Options) -> None:
    """Publish in all kinds of transactions until killed."""
    rng = random.Random(options.seed)
    record = Recorder(options)
    number = options.first
    while True:
        try:
            with psycopg.connect(options.dsn, connect_timeout=5) as connection:
                while True:
                    numbers = list(range(number, number + rng.choice([1, 1, 2, 5, 20])))
                    number += len(numbers)
                    one_transaction(connection, options, numbers, rng, record)
                    time.sleep(rng.expovariate(options.rate))
        except LOST:
            time.sleep(0.05)


def one_transaction(
    connection: psycopg.Connection[Any],
    options: Options,
    numbers: list[int],
    rng: random.Random,
    record: Recorder,
) -> None:
    """Publish, with rows of its own beside, and commit or roll back."""
    pause, gives_up, form = rng.random() * 0.02, rng.random() < 0.2, rng.randrange(3)
    topic = "quiet" if rng.random() < 0.2 else "t"
    # Each key has one publisher; otherwise the order of two messages would be unknown.
    key = rng.choice([None, f"{options.who} a", f"{options.who} b"])
    record("publishing", numbers=tuple(numbers), note=topic)
    try:
        ids = published(connection, topic, key, numbers, form)
        connection.execute(RECORD, [numbers, ids, [topic] * len(ids), [key] * len(ids)])
        time.sleep(pause)
        if gives_up:
            connection.rollback()
    except LOST:
        record("rolled back", numbers=tuple(numbers))
        raise
    if gives_up:
        record("rolled back", numbers=tuple(numbers))
        return
    try:
        connection.commit()
    except LOST:
        record("unknown", numbers=tuple(numbers))
        raise
    record("committed", numbers=tuple(numbers))


def published(
    connection: psycopg.Connection[Any], topic: str, key: str | None, numbers: list[int], form: int
) -> list[int]:
    """Publish in one of several ways; return the ids."""
    if form == 0:
        rows = connection.execute(PLAIN, [topic, [key] * len(numbers), numbers])
        return [message_id for (message_id,) in rows]
    publisher = Publisher()
    if form == 1:
        return [publisher.publish(connection, topic, {"n": n}, key=key) for n in numbers]
    outgoing = [NewMessage({"n": n}, key) for n in numbers]
    return publisher.publish_many(connection, topic, outgoing)


class Handling:
    """The common part of synchronous and asynchronous handlers: the end of a delivery."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.record = Recorder(options)
        self.random = random.Random(options.seed)

    def begun(self, message: Any) -> tuple[float, str]:
        """Record a delivery; return how long to work, and how to end."""
        self.note("delivered", message)
        chance = self.random.random()
        how = "raise" if chance < 0.03 else "retry" if chance < 0.06 else "ack"
        return self.options.work * self.random.choice([0.0, 0.0, 0.0, 0.1, 1.0]), how

    def note(self, what: str, message: Any, note: str = "") -> None:
        """Record an event of a delivery."""
        self.record(
            what, numbers=(message.payload["n"],), group=self.options.group, message_id=message.id,
            attempt=message.attempt, token=message._lease.token, note=note,
        )  # fmt: skip

    def failed(self, message: Any, how: str, error: BaseException) -> None:
        """Record how settling failed, if it did."""
        if isinstance(error, SettleError):
            self.note("refused", message, how)
        elif not isinstance(error, HandlerFailed):
            self.note("unknown", message, how)

    def handle(self, message: Any) -> None:
        """Handle a message, in a thread."""
        work, how = self.begun(message)
        time.sleep(work)
        try:
            if how == "raise":
                raise HandlerFailed  # noqa: TRY301
            self.note("settling", message, how)
            if how == "retry":
                message.retry(0.05)
            elif self.options.once:
                with message.transaction() as connection:
                    connection.execute(
                        EFFECT, (self.options.group, message.payload["n"], self.options.who)
                    )
            else:
                message.ack()
        except BaseException as error:
            self.failed(message, how, error)
            raise
        self.note("settled", message, how)

    async def handle_async(self, message: Any) -> None:
        """Handle a message, on an event loop."""
        work, how = self.begun(message)
        await asyncio.sleep(work)
        try:
            if how == "raise":
                raise HandlerFailed  # noqa: TRY301
            self.note("settling", message, how)
            if how == "retry":
                await message.retry(0.05)
            elif self.options.once:
                async with message.transaction() as connection:
                    effect = (self.options.group, message.payload["n"], self.options.who)
                    await connection.execute(EFFECT, effect)
            else:
                await message.ack()
        except BaseException as error:
            self.failed(message, how, error)
            raise
        self.note("settled", message, how)


async def consume_async(options: Options, handling: Handling, about: dict[str, Any]) -> None:
    """Consume on an event loop."""

    def tell() -> None:
        for task in asyncio.all_tasks():
            task.print_stack()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    await AsyncConsumer(options.dsn, **about).run(handling.handle_async, concurrency=4)


class Brief(logging.Formatter):
    """Formats a log without tracebacks: most are of handlers that fail on purpose."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return only the exception."""
        return repr(ei[1])


def consume(options: Options) -> None:
    """Consume until stopped; retry if the database is not available at the start."""
    handling = Handling(options)
    retry = RetryPolicy(max_attempts=100_000, base=0.02, max=0.2)
    group = Group(options.group, order_by=options.order_by, retry=retry)
    about = {"group": group, "topics": TOPICS, **options.settings}
    while True:
        try:
            if options.is_async:
                asyncio.run(consume_async(options, handling, about))
            else:
                Consumer(options.dsn, **about).run(handling.handle, concurrency=4)
        except LOST as error:
            handling.record("no database", note=type(error).__name__)
            time.sleep(0.2)
        else:
            return


def main() -> None:
    """Run the role."""
    faulthandler.register(signal.SIGUSR1)  # shows where it hangs
    handler = logging.StreamHandler()
    handler.setFormatter(Brief("%(asctime)s %(process)d %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    role, given = sys.argv[1:]
    options = Options(**json.loads(given))
    if role == "publisher":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        publish_for_ever(options)
    else:
        consume(options)


if __name__ == "__main__":
    main()
