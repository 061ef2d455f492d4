"""An order on its way to Kafka: published to PostgreSQL, relayed, read from a topic.

    DURABLE_NOTIFY_DSN=postgresql://... DURABLE_NOTIFY_BROKER=kafka://localhost:9092 \
        python examples/relay_kafka.py

A relay runs for as long as it is needed; this one ends once nothing is left to relay.
"""

from __future__ import annotations

import asyncio
import os

import psycopg
from confluent_kafka import Consumer

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
        group="to-kafka",
        topics=["orders.*"],
        routes={"orders.*": {"topic": "orders"}},
        until_empty=True,
    ).run()

    consumer = Consumer(
        {
            "bootstrap.servers": BROKER.removeprefix("kafka://"),
            "group.id": "reader",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["orders"])
    record = consumer.poll(30)
    if record is not None:
        print(record.topic(), record.key().decode(), record.value().decode())
    consumer.close()


if __name__ == "__main__":
    asyncio.run(main())
