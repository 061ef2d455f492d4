"""Consuming, message by message through run(), beside a bare paged SELECT of the same rows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from benchmarks.harness import Figure, Report, Worker, machine, server, timed
from durable_notify._async.consumer.consumer import AsyncConsumer
from durable_notify._async.consumer.message import AsyncMessage
from durable_notify._core import sql
from durable_notify._sync.consumer.consumer import Consumer
from durable_notify._sync.consumer.message import Message

_QUERY = (
    "SELECT id, topic, key, payload, data, headers, created_at FROM durable_notify.outbox"
    " WHERE topic = 'orders' AND id > %s ORDER BY id LIMIT %s"
)
_FILL = (
    "INSERT INTO durable_notify.outbox (topic, key, payload)"
    " SELECT '{}', {}, jsonb_build_object('order', i, 'customer',"
    " 'customer-' || i % 1000, 'amount', i * 1.5, 'note', repeat('x', 60))"
    " FROM generate_series(1, {}) AS i"
)
#: The key of a message of each topic, as an expression over i.
TOPICS = {"orders": "NULL", "keyed": "'key-' || i % 1000", "hundred": "'key-' || i % 100"}
#: What is compared: its name, the two rates, and the target.
FIGURES = (
    ("control: the paged SELECT once more", "control", "select", ""),
    ("floor: claim and settle in a loop by hand, of a paged SELECT", "hand", "select", ""),
    ("the same with keys", "hand_keyed", "select", ""),
    ("AsyncConsumer.run, of a paged SELECT", "async", "select", ">= 0.5"),
    ("Consumer.run, of a paged SELECT", "sync", "select", ">= 0.5"),
    ("AsyncConsumer.run in order by 1,000 keys, of a paged SELECT", "keyed", "select", ">= 0.4"),
    ("AsyncConsumer.run in order by 100 keys, of a paged SELECT", "hundred", "select", ""),
    ("concurrency 10, of concurrency 1", "10", "async", ">= 0.9"),
    ("concurrency 100, of concurrency 1", "100", "async", ">= 0.9"),
    ("four processes of a group, of one", "processes", "process", ">= 1"),
)


async def _read(dsn: str, messages: int, page: int) -> None:
    """The bare paged SELECT; psycopg decodes the JSON, as it does for the consumer."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        last = seen = 0
        while rows := await (await connection.execute(_QUERY, (last, page))).fetchall():
            last = rows[-1][0]
            seen += len(rows)
        assert seen == messages


async def _by_hand(dsn: str, messages: int, page: int, topic: str = "orders") -> None:
    """Claim and settle with the same SQL in a bare loop, without any handler."""
    group, seen = uuid.uuid4().hex, 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        subscribe = "SELECT durable_notify.subscribe(%s, %s, 'beginning')"
        await connection.execute(subscribe, (group, [topic]))
        while seen < messages:
            params = (group, [topic], page, 30.0, "by hand", None)
            rows = await (await connection.execute(sql.CLAIM, params)).fetchall()
            for row in rows:
                json.loads(row[4])
            await connection.execute(sql.ACK, (rows[0][0], [row[1] for row in rows]))
            seen += len(rows)


def _options(topic: str, page: int) -> dict[str, Any]:
    """A new group, from the beginning to the end."""
    return {
        "group": uuid.uuid4().hex, "topics": [topic], "batch_size": page, "until_empty": True,
        "poll_interval": None,
    }  # fmt: skip


async def _consume(
    dsn: str, messages: int, page: int, topic: str = "orders", concurrency: int = 1
) -> None:
    """A no-op handles every message."""
    seen = 0

    async def handler(_message: AsyncMessage) -> None:
        nonlocal seen
        seen += 1

    consumer = AsyncConsumer(dsn, **_options(topic, page))
    await consumer.run(handler, concurrency=concurrency)
    assert seen == messages


def _consume_in_threads(dsn: str, messages: int, page: int) -> None:
    seen = 0

    def handler(_message: Message) -> None:
        nonlocal seen
        seen += 1

    Consumer(dsn, **_options("orders", page)).run(handler)
    assert seen == messages


def _share(workers: list[Worker], messages: int) -> float:
    """Consume as so many processes of one group; return the seconds until the last message."""
    group, begun = uuid.uuid4().hex, time.monotonic_ns()
    with ThreadPoolExecutor(len(workers)) as pool:
        said = list(pool.map(lambda worker: worker.tell(group), workers))
    assert sum(one["handled"] for one in said) == messages
    return (max(one["last"] for one in said) - begun) / 1e9


def measure(*, messages: int = 60_000, rounds: int = 10, page: int = 500) -> Report:
    """Compare how long it takes to read so many messages."""
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        for topic, key in TOPICS.items():
            admin.execute(_FILL.format(topic, key, messages).encode())
        admin.execute("VACUUM (ANALYZE) durable_notify.outbox")
        dsn = running.dsn()
        asyncio.run(_read(dsn, messages, page))  # warm
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Worker("drain", dsn)) for _ in range(4)]

            def ours(topic: str, concurrency: int) -> float:
                return timed(lambda: asyncio.run(_consume(dsn, messages, page, topic, concurrency)))

            measured: dict[str, Callable[[], float]] = {
                "select": lambda: timed(lambda: asyncio.run(_read(dsn, messages, page))),
                "control": lambda: timed(lambda: asyncio.run(_read(dsn, messages, page))),
                "hand": lambda: timed(lambda: asyncio.run(_by_hand(dsn, messages, page))),
                "hand_keyed": lambda: timed(
                    lambda: asyncio.run(_by_hand(dsn, messages, page, "keyed"))
                ),
                "async": lambda: ours("orders", 1),
                "10": lambda: ours("orders", 10),
                "100": lambda: ours("orders", 100),
                "sync": lambda: timed(lambda: _consume_in_threads(dsn, messages, page)),
                "keyed": lambda: ours("keyed", 1),
                "hundred": lambda: ours("hundred", 1),
                "process": lambda: _share(workers[:1], messages),
                "processes": lambda: _share(workers, messages),
            }
            rates: dict[str, list[float]] = {name: [] for name in measured}
            for _ in range(rounds):
                for name in random.sample(list(measured), len(measured)):
                    rates[name].append(messages / measured[name]())
        about = machine(admin) | {"messages": messages, "page": page}
    figures = [
        Figure(name, target, [a / b for a, b in zip(rates[one], rates[other], strict=True)])
        for name, one, other, target in FIGURES
    ]
    return Report("consuming", about, figures, rates)
