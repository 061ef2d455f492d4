"""An order on its way to Redis: published to PostgreSQL, relayed, read from a stream.

    DURABLE_NOTIFY_DSN=postgresql://... DURABLE_NOTIFY_BROKER=redis://localhost \
        python examples/relay_redis.py

A relay runs for as long as it is needed; this one ends once nothing is left to relay.
"""

from __future__ import annotations

import asyncio
import os

import psycopg
import redis.asyncio

import durable_notify as dn
from durable_notify.brokers.relay import AsyncRelay

DSN = os.environ["DURABLE_NOTIFY_DSN"]
BROKER = os.environ["DURABLE_NOTIFY_BROKER"]


async def main() -> None:
    # Here it has a transaction of its own; publish in yours, with the order itself.
    with psycopg.connect(DSN) as database:
        dn.Publisher().publish(database, "orders.eu", {"id": 1, "item": "tea"}, key="customer")

    await AsyncRelay(
        DSN,
        broker_url=BROKER,
        group="to-redis",
        topics=["orders.*"],
        routes={"orders.*": {"stream": "orders", "maxlen": "1000000"}},
        until_empty=True,
    ).run()

    async with redis.asyncio.from_url(BROKER) as client:
        for _, entry in await client.xrange("orders"):
            print(entry[b"topic"].decode(), entry[b"payload"].decode())


if __name__ == "__main__":
    asyncio.run(main())
