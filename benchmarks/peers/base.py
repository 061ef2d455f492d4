"""The interface of a peer, and the tally of its handlers.

A peer is measured in processes of its own: one that publishes, and one or four that consume. A
consumer hands each message, decoded from JSON, to `Tally.handler`, and says when acknowledgements
are confirmed. Times are CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import abc
import asyncio
import importlib.metadata
import random
import time
from collections.abc import Awaitable, Callable, Iterable, MutableSequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

TOPIC = "orders"
BATCH = 1000
MEASURES = ("publish_batch", "publish_single", "consume", "consume4", "consume_await", "wake")
#: How many messages `wake` publishes before those that count.
WARM_WAKES = 10
#: How many messages `publish_single` publishes before those that count.
WARM_SINGLES = 50

Payload = dict[str, Any]
Handler = Callable[[Payload], Awaitable[None]]
#: When something began and when it ended.
Times = tuple[int, int]


def payload(number: int) -> Payload:
    """A typical message: about 120 bytes of JSON."""
    return {
        "order": number,
        "customer": f"customer-{number % 1000}",
        "amount": number * 1.5,
        "note": "x" * 60,
    }


def payloads(first: int, last: int) -> list[Payload]:
    return [payload(number) for number in range(first, last)]


class Publishing(abc.ABC):
    """How a measurement publishes."""

    @abc.abstractmethod
    async def batches(self, messages: int) -> Times:
        """Publish in batches, each confirmed before the next."""

    @abc.abstractmethod
    async def singles(self, messages: int) -> Times:
        """Publish one after the other, each confirmed."""

    @abc.abstractmethod
    async def slowly(self, messages: int) -> list[Times]:
        """Publish with pauses; return the times of each message."""

    @abc.abstractmethod
    async def fill(self, messages: int) -> None:
        """Publish a backlog, not measured."""


class Publisher(Publishing):
    """A connection that publishes; on return a message is durable, in the peer's terms."""

    @abc.abstractmethod
    async def batch(self, payloads: list[Payload]) -> None:
        """Publish many: in one transaction, or with all confirms in flight at once."""

    @abc.abstractmethod
    async def single(self, message: Payload) -> None:
        """Publish one, and return when it is confirmed."""

    async def timed(self, message: Payload) -> Times:
        """Publish one; return when its commit was sent and when it was confirmed.

        A client without transactions sends everything at once: the time before the call.
        """
        before = time.monotonic_ns()
        await self.single(message)
        return before, time.monotonic_ns()

    async def batches(self, messages: int) -> Times:
        batches = [payloads(first, first + BATCH) for first in range(0, messages, BATCH)]
        await self.batch(payloads(0, BATCH))  # warm
        begun = time.monotonic_ns()
        for batch in batches:
            await self.batch(batch)
        return begun, time.monotonic_ns()

    async def singles(self, messages: int) -> Times:
        for message in payloads(0, WARM_SINGLES):
            await self.single(message)
        bodies = payloads(0, messages)
        begun = time.monotonic_ns()
        for message in bodies:
            await self.single(message)
        return begun, time.monotonic_ns()

    async def slowly(self, messages: int) -> list[Times]:
        times = []
        for message in payloads(0, messages):
            await asyncio.sleep(random.uniform(0.02, 0.05))
            times.append(await self.timed(message))
        return times

    async def fill(self, messages: int) -> None:
        for first in range(0, messages, BATCH):
            await self.batch(payloads(first, min(first + BATCH, messages)))


class Peer(abc.ABC):
    """A measured system. Each process creates its own; only the server is shared."""

    #: The server in `servers.py` that it needs.
    server: ClassVar[str]
    #: The packages whose versions to report with its figures.
    packages: ClassVar[tuple[str, ...]]
    #: Its settings, for the report.
    settings: ClassVar[dict[str, Any]]
    #: How many messages make a measurement of about a second. Other measures are not measured.
    messages: ClassVar[dict[str, int]]

    def __init__(self, address: str) -> None:
        self.address = address

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be measured, if it cannot."""
        return None

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {each: importlib.metadata.version(each) for each in cls.packages}

    @abc.abstractmethod
    async def prepare(self) -> None:
        """Create an empty queue: in a new database, or in place of the old one."""

    async def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """Do the server's background work before a backlog is consumed."""

    @abc.abstractmethod
    def publisher(self) -> AbstractAsyncContextManager[Publishing]:
        """Open a connection that publishes."""

    async def open(self, tally: Tally, concurrency: int) -> None:  # noqa: B027 - the same
        """Do what takes long before consuming begins, in each consuming process."""

    async def consume(self, tally: Tally, concurrency: int) -> None:
        """Consume until `tally.finished`, and return once every acknowledgement is confirmed.

        If `concurrency` is more than 1, at most so many messages are handled at once. At 1 the
        handler never waits, and the peer may use whatever makes it fast.
        """
        raise NotImplementedError


class Tally:
    """The result of one consumer process: first message, last acknowledgement, and count."""

    def __init__(
        self,
        measure: str,
        total: int,
        number: int,
        handled: MutableSequence[int],
        stop: Callable[[], bool],
    ) -> None:
        self.name = f"consumer-{number}"
        self.measure = measure
        self.waking = measure == "wake"
        self.total = total
        self.handled = 0
        self.first = 0
        self.acked = 0
        self.entered: dict[int, int] = {}
        self.finished = asyncio.Event()
        self.handler: Handler = {"consume_await": self._wait, "wake": self._wake}.get(
            measure, self._pass
        )
        self._number = number
        self._all = handled
        self._stop = stop

    def confirmed(self) -> None:
        """Record that the acknowledgements sent so far are confirmed."""
        self.acked = time.monotonic_ns()

    async def watch(self, interval: float = 0.005) -> None:
        """Share this process's progress with the others, and finish with them."""
        while not self.finished.is_set():
            self._all[self._number] = self.handled
            if sum(self._all) >= self.total or self._stop():
                self.finished.set()
            await asyncio.sleep(interval)
        self._all[self._number] = self.handled

    def take(self, report: dict[str, Any]) -> None:
        """Take over the result of a program that consumed for this process."""
        self.first, self.acked, self.handled = report["first"], report["acked"], report["handled"]
        self.entered = {int(number): at for number, at in report["entered"].items()}

    def report(self) -> dict[str, Any]:
        """Return the result for the measuring process, as JSON."""
        return {
            "first": self.first,
            "acked": self.acked or time.monotonic_ns(),
            "handled": self.handled,
            "entered": self.entered,
        }

    async def _pass(self, _message: Payload) -> None:
        self.first = self.first or time.monotonic_ns()
        self.handled += 1
        if self.handled == self.total:
            self.finished.set()

    async def _wait(self, _message: Payload) -> None:
        self.first = self.first or time.monotonic_ns()
        await asyncio.sleep(0.001)
        self.handled += 1
        if self.handled == self.total:
            self.finished.set()

    async def _wake(self, message: Payload) -> None:
        self.entered.setdefault(message["order"], time.monotonic_ns())
        self.handled += 1
        if self.handled == self.total:
            self.finished.set()


async def handle(tally: Tally, bodies: Iterable[Payload], concurrency: int) -> None:
    """Handle a batch, in order or so many at once, for a peer that has no workers."""
    waiting = iter(bodies)

    async def work() -> None:
        for body in waiting:
            await tally.handler(body)

    if concurrency == 1:
        await work()
    else:
        await asyncio.gather(*(work() for _ in range(concurrency)))
