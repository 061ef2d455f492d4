"""Consuming, message by message through run(), beside a bare paged SELECT of the same rows."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg

from benchmarks.harness import Figure, Report, machine, server, timed
from durable_notify._async.consumer.consumer import AsyncConsumer
from durable_notify._async.consumer.message import AsyncMessage
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


async def _read(dsn: str, messages: int, page: int) -> None:
    """The bare paged SELECT; psycopg decodes the JSON, as it does for the consumer."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        last = seen = 0
        while rows := await (await connection.execute(_QUERY, (last, page))).fetchall():
            last = rows[-1][0]
            seen += len(rows)
        assert seen == messages


async def _consume(dsn: str, messages: int, page: int, topic: str = "orders") -> None:
    """Consume with a new group from the beginning; a no-op handles every message."""
    seen = 0

    async def handler(_message: AsyncMessage) -> None:
        nonlocal seen
        seen += 1

    consumer = AsyncConsumer(
        dsn,
        group=uuid.uuid4().hex,
        topics=[topic],
        batch_size=page,
        until_empty=True,
        poll_interval=None,
    )
    await consumer.run(handler)
    assert seen == messages


def _consume_in_threads(dsn: str, messages: int, page: int) -> None:
    seen = 0

    def handler(_message: Message) -> None:
        nonlocal seen
        seen += 1

    consumer = Consumer(
        dsn,
        group=uuid.uuid4().hex,
        topics=["orders"],
        batch_size=page,
        until_empty=True,
        poll_interval=None,
    )
    consumer.run(handler)
    assert seen == messages


def measure(*, messages: int = 100_000, rounds: int = 7, page: int = 500) -> Report:
    """Compare how long it takes to read so many messages."""
    rates: dict[str, list[float]] = {"select": [], "async": [], "sync": [], "keyed": []}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        admin.execute(_FILL.format("orders", "NULL", messages).encode())
        admin.execute(_FILL.format("keyed", "'key-' || i % 1000", messages).encode())
        admin.execute("VACUUM (ANALYZE) durable_notify.outbox")
        dsn = running.dsn()
        asyncio.run(_read(dsn, messages, page))  # warm
        for _ in range(rounds):
            taken: dict[str, Any] = {
                "select": timed(lambda: asyncio.run(_read(dsn, messages, page))),
                "async": timed(lambda: asyncio.run(_consume(dsn, messages, page))),
                "sync": timed(lambda: _consume_in_threads(dsn, messages, page)),
                "keyed": timed(lambda: asyncio.run(_consume(dsn, messages, page, "keyed"))),
            }
            for name, seconds in taken.items():
                rates[name].append(messages / seconds)
        about = machine(admin) | {"messages": messages, "page": page}
    names = {
        "async": ("AsyncConsumer.run", ">= 0.4"),
        "sync": ("Consumer.run", ">= 0.4"),
        "keyed": ("the same in order by 1,000 keys", ""),
    }
    figures = [
        Figure(
            f"{names[half][0]}, of a paged SELECT",
            names[half][1],
            [mine / bare for mine, bare in zip(rates[half], rates["select"], strict=True)],
        )
        for half in names
    ]
    return Report("consuming", about, figures, rates)
