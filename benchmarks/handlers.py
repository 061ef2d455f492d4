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


class Counting(dn.Middleware):
    """A middleware as a user writes it."""

    def __init__(self) -> None:
        self.running = 0

    def handling(self, call: dn.Handling) -> Generator[None]:
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
            "group": uuid.uuid4().hex, "batch_size": page, "until_empty": True, "poll": None,
            "order_by": "none", "maintenance": False,
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


def measure(*, messages: int = 20_000, rounds: int = 9, page: int = 500) -> Report:
    """Compare the CPU time of consuming so many messages."""
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        fill(admin, "orders", messages)
        admin.execute("VACUUM (ANALYZE) durable_notify.outbox")
        names = list(VARIANTS)
        for number in range(rounds + 1):  # the first warms up
            for name in names[number % len(names) :] + names[: number % len(names)]:
                run = _Run(running.dsn(), page)
                before = time.process_time()
                VARIANTS[name](run)
                seconds = time.process_time() - before
                assert run.seen == messages
                if number:
                    taken[name].append(seconds / messages * 1e6)
        about = machine(admin) | {"messages": messages, "page": page}
    figures = [
        Figure(
            f"CPU of {what}, of a plain handler",
            target,
            [mine / bare for mine, bare in zip(taken[name], taken[base], strict=True)],
        )
        for name, (what, base, target) in FIGURES.items()
    ]
    return Report("handlers", about, figures, {"microseconds a message": taken})
