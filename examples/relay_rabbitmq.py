"""An order on its way to RabbitMQ: published to PostgreSQL, relayed, read from a queue.

    DURABLE_NOTIFY_DSN=postgresql://... DURABLE_NOTIFY_BROKER=amqp://guest:guest@localhost/ \
        python examples/relay_rabbitmq.py

A relay runs for as long as it is needed; this one ends once nothing is left to relay.
"""

from __future__ import annotations

import asyncio
import os

import aio_pika
import psycopg

import durable_notify as dn
from durable_notify.brokers.relay import AsyncRelay

DSN = os.environ["DURABLE_NOTIFY_DSN"]
BROKER = os.environ["DURABLE_NOTIFY_BROKER"]


async def main() -> None:
    async with await aio_pika.connect(BROKER) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("orders", "topic", durable=True)
        queue = await channel.declare_queue("orders.eu", durable=True)
        await queue.bind(exchange, "orders.eu.#")

        # Here it has a transaction of its own; publish in yours, with the order itself.
        with psycopg.connect(DSN) as database:
            dn.Publisher().publish(database, "orders.eu", {"id": 1, "item": "tea"}, key="customer")

        await AsyncRelay(
            DSN,
            broker_url=BROKER,
            group="to-rabbitmq",
            topics=["orders.*"],
            routes={"orders.*": {"exchange": "orders", "routing_key": "{topic}.{key}"}},
            until_empty=True,
        ).run()

        message = await queue.get()
        print(message.routing_key, message.body.decode())
        await message.ack()


if __name__ == "__main__":
    asyncio.run(main())
