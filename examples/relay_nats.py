"""An order on its way to NATS: published to PostgreSQL, relayed, read from a stream.

    DURABLE_NOTIFY_DSN=postgresql://... DURABLE_NOTIFY_BROKER=nats://localhost \
        python examples/relay_nats.py

A relay runs for as long as it is needed; this one ends once nothing is left to relay.
"""

from __future__ import annotations

import asyncio
import os

import nats
import psycopg

import durable_notify as dn
from durable_notify.brokers.relay import AsyncRelay

DSN = os.environ["DURABLE_NOTIFY_DSN"]
BROKER = os.environ["DURABLE_NOTIFY_BROKER"]


async def main() -> None:
    client = await nats.connect(BROKER)
    streams = client.jetstream()
    await streams.add_stream(name="orders", subjects=["shop.orders.>"])

    # Here it has a transaction of its own; publish in yours, with the order itself.
    with psycopg.connect(DSN) as database:
        dn.Publisher().publish(database, "orders.eu", {"id": 1, "item": "tea"}, key="customer")

    await AsyncRelay(
        DSN,
        broker_url=BROKER,
        group="to-nats",
        topics=["orders.*"],
        routes={"orders.*": {"subject": "shop.{topic}"}},
        until_empty=True,
    ).run()

    reading = await streams.subscribe("shop.orders.>", ordered_consumer=True)
    message = await reading.next_msg()
    print(message.subject, message.data.decode())
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
