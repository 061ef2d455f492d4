"""Where ingests read from: a place in each broker, made for a test and filled."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from typing import Any

from tests.support.brokers import Nats, RabbitMQ, kafka
from tests.support.outlets import KafkaOutlet


@dataclasses.dataclass
class Given:
    """A message for the broker."""

    body: bytes
    key: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    content_type: str = ""


class RabbitInlet:
    def __init__(self, server: RabbitMQ) -> None:
        self.url, self.place, self.group = server.url, uuid.uuid4().hex, uuid.uuid4().hex

    async def make(self) -> None:
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(self.place, durable=True)

    async def fill(self, *messages: Given) -> None:
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            for message in messages:
                key = {} if message.key is None else {"durable-notify-key": message.key}
                await channel.default_exchange.publish(
                    aio_pika.Message(
                        message.body, headers={**message.headers, **key},
                        content_type=message.content_type or None,
                        message_id=uuid.uuid4().hex,
                        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    ),
                    self.place,
                )  # fmt: skip

    async def left(self) -> int:
        """How many the broker holds that were not acknowledged."""
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            return (
                await channel.declare_queue(self.place, passive=True)
            ).declaration_result.message_count or 0


class NatsInlet:
    def __init__(self, server: Nats) -> None:
        self.url, self.place, self.group = server.url, uuid.uuid4().hex, uuid.uuid4().hex

    async def make(self) -> None:
        import nats

        client = await nats.connect(self.url)
        await client.jetstream().add_stream(name=self.place, subjects=[f"{self.place}.>"])
        await client.close()

    async def fill(self, *messages: Given) -> None:
        import nats

        client = await nats.connect(self.url)
        for message in messages:
            headers = {**message.headers, "content-type": message.content_type}
            if message.key is not None:
                headers["durable-notify-key"] = message.key
            await client.jetstream().publish(f"{self.place}.x", message.body, headers=headers)
        await client.close()

    async def left(self) -> int:
        import nats

        client = await nats.connect(self.url)
        try:
            about = await client.jetstream().consumer_info(self.place, self.group)
            return int((about.num_pending or 0) + (about.num_ack_pending or 0))
        except nats.js.errors.NotFoundError:
            return -1  # it is not known to the broker yet
        finally:
            await client.close()


class KafkaInlet:
    def __init__(self, server: Any) -> None:
        self._outlet = KafkaOutlet(server)
        # The emulation keeps who has left a group in it for as long as a session lasts.
        self.url = f"{server.url}?session.timeout.ms=6000"
        self.place, self.group = self._outlet._topic, uuid.uuid4().hex

    async def make(self) -> None:
        await self._outlet.make()

    async def fill(self, *messages: Given) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._outlet._servers, "log_level": 0})
        for message in messages:
            headers = [(n, v.encode()) for n, v in message.headers.items()]
            headers.append(("content-type", message.content_type.encode()))
            producer.produce(
                self.place, message.body, message.key and message.key.encode(), headers=headers
            )
        await asyncio.to_thread(producer.flush, 20)

    async def left(self) -> int:
        return await asyncio.to_thread(self._left)

    def _left(self) -> int:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self._outlet._servers,
                "group.id": self.group,
                "log_level": 0,
            }
        )
        try:
            places = [TopicPartition(self.place, number) for number in self._outlet._partitions]
            done = sum(max(place.offset, 0) for place in consumer.committed(places, timeout=10))
            ends = [consumer.get_watermark_offsets(place, timeout=5)[1] for place in places]
            return sum(ends) - done
        finally:
            consumer.close()


INLETS: dict[str, Any] = {
    "rabbitmq": (RabbitMQ, RabbitInlet),
    "nats": (Nats, NatsInlet),
    "kafka": (kafka, KafkaInlet),
}
