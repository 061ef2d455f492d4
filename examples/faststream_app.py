"""FastStream: what has committed is published to its broker, and its handlers publish in turn.

pip install durable-notify "faststream[nats,cli]"
durable-notify migrate
export DURABLE_NOTIFY_DSN=postgresql://... NATS=nats://localhost:4222
faststream run --app-dir examples faststream_app:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from faststream import FastStream
from faststream.nats import NatsBroker, NatsMessage

import durable_notify as dn

DSN = os.environ["DURABLE_NOTIFY_DSN"]
broker = NatsBroker(os.environ.get("NATS", "nats://localhost:4222"))
publisher = dn.AsyncPublisher()
handover = dn.AsyncConsumer(DSN, group="to-nats")


@handover.on("shipments")
async def hand_over(message: dn.AsyncMessage) -> None:
    """Publish to the broker; the message is acknowledged when this returns."""
    headers = {"message-id": str(message.id)}  # a subscriber may receive it twice
    await broker.publish(message.payload, message.topic, headers=headers)


@broker.subscriber("shipments")
async def on_shipment(order: dict[str, Any], message: NatsMessage) -> None:
    """Store a parcel, and publish about it in the same transaction: once, by the id."""
    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        await publisher.publish(
            connection, "parcels", order, dedup_key=message.headers["message-id"]
        )


@asynccontextmanager
async def handing_over() -> AsyncIterator[None]:
    async with handover.running():
        yield


app = FastStream(broker, lifespan=handing_over)
