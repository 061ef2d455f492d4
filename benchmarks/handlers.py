"""Typed handlers by topic, within a middleware, beside a plain handler of the same messages.

It counts the CPU time of the consuming process. Each round runs all variants, in changing order.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Generator
from typing import Any

import msgspec
import psycopg
import pydantic

import durable_notify as dn
from benchmarks.harness import Figure, Report, fill, machine, server
from durable_notify.groups import Group
from durable_notify.middleware import Handling


class Counting(dn.Middleware):
    """A middleware as a user writes it."""

    def __init__(self) -> None:
        self.running = 0

    def handling(self, call: Handling) -> Generator[None]:
        self.running += len(call.messages)
        try:
            yield
        finally:
            self.running -= len(call.messages)


class Order(pydantic.BaseModel):
    order: int | None = None
    customer: str
    amount: float
    note: str


class OrderStruct(msgspec.Struct):
    customer: str
    amount: float
    note: str
    order: int | None = None


class _Run:
    """One consumer, from the beginning to the end of the topic."""

    def __init__(self, dsn: str, page: int) -> None:
        self._options: dict[str, Any] = {
            "group": Group(uuid.uuid4().hex, order_by="none"), "batch_size": page,
            "until_empty": True, "poll_interval": None, "maintenance": False,
        }  # fmt: skip
        self._dsn = dsn
        self.seen = 0

    async def _handle(self, _message: dn.AsyncMessage) -> None:
        self.seen += 1

    def _handle_now(self, _message: dn.Message) -> None:
        self.seen += 1

    def plain(self) -> None:
        consumer = dn.AsyncConsumer(self._dsn, topics=["orders"], **self._options)
        asyncio.run(consumer.run(self._handle))

    def plain_in_threads(self) -> None:
        dn.Consumer(self._dsn, topics=["orders"], **self._options).run(self._handle_now)

    def routed(self, topic: str | dn.Topic[Any], *middleware: dn.Middleware) -> None:
        consumer = dn.AsyncConsumer(self._dsn, middleware=middleware, **self._options)
        consumer.on(topic)(self._handle)
        asyncio.run(consumer.run())

    def routed_in_threads(self, topic: str | dn.Topic[Any], *middleware: dn.Middleware) -> None:
        consumer = dn.Consumer(self._dsn, middleware=middleware, **self._options)
        consumer.on(topic)(self._handle_now)
        consumer.run()


_PYDANTIC = dn.Topic("orders", Order)
_MSGSPEC = dn.Topic("orders", OrderStruct)
VARIANTS: dict[str, Callable[[_Run], None]] = {
    "plain": _Run.plain,
    "by topic": lambda run: run.routed("orders"),
    "middleware": lambda run: run.routed("orders", Counting()),
    "pydantic": lambda run: run.routed(_PYDANTIC),
    "typed": lambda run: run.routed(_PYDANTIC, Counting()),
    "msgspec": lambda run: run.routed(_MSGSPEC, Counting()),
    "plain sync": _Run.plain_in_threads,
    "typed sync": lambda run: run.routed_in_threads(_PYDANTIC, Counting()),
}
FIGURES = {
    "by topic": ("a handler by topic", "plain", ""),
    "middleware": ("the same within a middleware", "plain", ""),
    "pydantic": ("a handler of a pydantic model", "plain", ""),
    "typed": ("the same within a middleware", "plain", "<= 1.10"),
    "msgspec": ("a handler of a msgspec struct within a middleware", "plain", "<= 1.10"),
    "typed sync": ("Consumer: of a pydantic model within a middleware", "plain sync", "<= 1.10"),
}


def _cpu(dsn: str, name: str, messages: int, page: int) -> float:
    """Return the microseconds of CPU time that a message takes."""
    run = _Run(dsn, page)
    before = time.process_time()
    VARIANTS[name](run)
    seconds = time.process_time() - before
    assert run.seen == messages
    return seconds / messages * 1e6


def measure(*, messages: int = 4_000, rounds: int = 31, page: int = 500) -> Report:
    """Compare the CPU time of consuming so many messages, each variant right beside a plain one."""
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    ratios: dict[str, list[float]] = {name: [] for name in FIGURES}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        dsn = running.dsn()
        fill(admin, "orders", messages)
        admin.execute("VACUUM (ANALYZE) durable_notify.outbox")
        for name in VARIANTS:
            _cpu(dsn, name, messages, page)  # warm
        for number in range(rounds):
            for name, (_, base, _) in FIGURES.items():
                pair = (name, base) if number % 2 else (base, name)
                found = {each: _cpu(dsn, each, messages, page) for each in pair}
                for each, value in found.items():
                    taken[each].append(value)
                ratios[name].append(found[name] / found[base])
        about = machine(admin) | {"messages": messages, "page": page}
    figures = [
        Figure(f"CPU of {what}, of a plain handler", target, ratios[name])
        for name, (what, _, target) in FIGURES.items()
    ]
    return Report("handlers", about, figures, {"microseconds a message": taken})
