"""Consuming, message by message through run(), beside a bare paged SELECT of the same rows."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg

import durable_notify as dn
from benchmarks.common import Figure, fill, machine, report, server, timed

PAGE = 500
QUERY = (
    "SELECT id, topic, key, payload, data, headers, created_at FROM durable_notify.outbox"
    " WHERE topic = 'orders' AND id > %s ORDER BY id LIMIT %s"
)


async def read(dsn: str, messages: int, page: int) -> None:
    """The bare paged SELECT; psycopg decodes the JSON, as it does for the consumer."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        last = seen = 0
        while rows := await (await connection.execute(QUERY, (last, page))).fetchall():
            last = rows[-1][0]
            seen += len(rows)
        assert seen == messages


async def consume(dsn: str, messages: int, page: int) -> None:
    """A new group from the beginning; every message handed to a no-op handler, and settled."""
    seen = 0

    async def handler(_message: dn.AsyncMessage) -> None:
        nonlocal seen
        seen += 1

    consumer = dn.AsyncConsumer(
        dsn, group=uuid.uuid4().hex, topics=["orders"], batch_size=page, until_empty=True, poll=None
    )
    await consumer.run(handler)
    assert seen == messages


def consume_sync(dsn: str, messages: int, page: int) -> None:
    seen = 0

    def handler(_message: dn.Message) -> None:
        nonlocal seen
        seen += 1

    consumer = dn.Consumer(
        dsn, group=uuid.uuid4().hex, topics=["orders"], batch_size=page, until_empty=True, poll=None
    )
    consumer.run(handler)
    assert seen == messages


def main(messages: int = 100_000, rounds: int = 7, page: int = PAGE) -> None:
    ratios: dict[str, list[float]] = {"async": [], "sync": []}
    rates: dict[str, list[float]] = {"select": [], "async": [], "sync": []}
    with server() as postgres, psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        fill(connection, "orders", messages)
        connection.execute("VACUUM (ANALYZE) durable_notify.outbox")
        dsn = postgres.dsn()
        asyncio.run(read(dsn, messages, page))  # warm
        for _ in range(rounds):
            taken: dict[str, Any] = {
                "select": timed(lambda: asyncio.run(read(dsn, messages, page))),
                "async": timed(lambda: asyncio.run(consume(dsn, messages, page))),
                "sync": timed(lambda: consume_sync(dsn, messages, page)),
            }
            for name, seconds in taken.items():
                rates[name].append(messages / seconds)
            for name, values in ratios.items():
                values.append(taken["select"] / taken[name])
        about = machine(connection) | {"messages": messages, "page": page, "rates": rates}
    report(
        "consuming",
        [
            Figure("AsyncConsumer.run beside a paged SELECT", ">= 0.4", ratios["async"]),
            Figure("Consumer.run beside a paged SELECT", ">= 0.4", ratios["sync"]),
        ],
        about,
    )


if __name__ == "__main__":
    main()
