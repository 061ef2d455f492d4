"""Where relays send to and ingests read from: a queue, topic or stream in each broker."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from durable_notify.brokers.ingest import AsyncIngest
from tests.support.brokers import Nats, RabbitMQ, Redis
from tests.support.kafka import kafka
from tests.support.wait import wait_until, with_timeout


class Arrived(NamedTuple):
    """A message as the broker has it."""

    id: str
    key: str | None
    body: bytes
    headers: dict[str, str]
    content_type: str

    @property
    def payload(self) -> Any:
        return json.loads(self.body)


# An outlet is a queue, topic or stream for the topics `orders.*`; `arrived()` returns all that it
# has got, in order.


class RabbitOutlet:
    too_large = "PRECONDITION_FAILED - message size"  # what it says of a message over 1 MB
    nowhere = "312 NO_ROUTE"  # what it says of one that has no route, under the topic `nowhere`
    deduplicates = False
    cloudevents = "cloudEvents:"

    def __init__(self, server: RabbitMQ) -> None:
        self.url = server.url
        self._queue = f"q-{uuid.uuid4().hex}"
        self.routes = {"orders.*": {"routing_key": f"{self._queue}.{{topic}}"}}
        self._seen: list[Arrived] = []

    async def make(self) -> None:
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(self._queue, durable=True)
            await queue.bind("amq.topic", f"{self._queue}.orders.*")

    async def arrived(self) -> list[Arrived]:
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(self._queue)
            while (message := await queue.get(fail=False)) is not None:
                headers = {name: str(value) for name, value in message.headers.items()}
                self._seen.append(
                    Arrived(
                        message.message_id or "", headers.get("durable-notify-key"), message.body,
                        headers, message.content_type or "",
                    )
                )  # fmt: skip
                await message.ack()
        return self._seen


class RedisOutlet:
    too_large = "invalid bulk length"
    nowhere = "WRONGTYPE"
    deduplicates = False
    cloudevents = "ce_"

    def __init__(self, server: Redis) -> None:
        self.url = server.url
        self._name = uuid.uuid4().hex
        self._stream = f"{self._name}.orders"
        self.routes = {
            "orders.*": {"stream": self._stream},
            "nowhere": {"stream": f"{self._name}.{{topic}}"},
        }

    async def make(self) -> None:
        import redis.asyncio

        async with redis.asyncio.from_url(self.url) as client:
            await client.set(f"{self._name}.nowhere", "not a stream")

    async def arrived(self) -> list[Arrived]:
        import redis.asyncio

        found = []
        async with redis.asyncio.from_url(self.url) as client:
            for _, entry in await client.xrange(self._stream):
                fields = {name.decode(): value for name, value in entry.items()}
                text = {k: v.decode() for k, v in fields.items() if k != "payload"}
                headers = json.loads(text["headers"]) | {"durable-notify-topic": text["topic"]}
                found.append(
                    Arrived(
                        text["id"], text.get("key"), fields["payload"], headers,
                        text["content-type"],
                    )
                )  # fmt: skip
        return found


class NatsOutlet:
    too_large = "maximum payload exceeded"
    nowhere = "no response from stream"
    deduplicates = True
    cloudevents = "ce-"

    def __init__(self, server: Nats) -> None:
        self.url = server.url
        self._name = uuid.uuid4().hex
        self.routes = {
            "orders.*": {"subject": f"{self._name}.{{topic}}"},
            "nowhere": {"subject": f"{{topic}}.{self._name}.{{topic}}"},
        }

    async def make(self) -> None:
        import nats

        client = await nats.connect(self.url)
        await client.jetstream().add_stream(name=self._name, subjects=[f"{self._name}.orders.*"])
        await client.close()

    async def arrived(self) -> list[Arrived]:
        import nats

        client = await nats.connect(self.url, allow_reconnect=False, connect_timeout=1)
        found = []
        try:
            stream = client.jetstream()
            left = (await stream.stream_info(self._name)).state.messages
            reading = await stream.subscribe(f"{self._name}.>", ordered_consumer=True)
            for _ in range(left):
                message = await reading.next_msg(5)
                headers = dict(message.headers or {})
                key = headers.get("durable-notify-key")
                if key is not None and key.startswith('"'):
                    key = json.loads(key)
                found.append(
                    Arrived(
                        headers["Nats-Msg-Id"], key, message.data, headers, headers["content-type"]
                    )
                )
        finally:
            await client.close()
        return found


class KafkaOutlet:
    too_large = "Message size too large"
    nowhere = "nknown topic"
    deduplicates = False  # but for what one and the same producer sends again
    cloudevents = "ce_"

    def __init__(self, server: Any) -> None:
        # A topic that is not there is known to be so at once, and is not made.
        self.url = (
            f"{server.url}?allow.auto.create.topics=false&topic.metadata.propagation.max.ms=100"
        )
        self._servers = server.url.partition("://")[2]
        self._topic = uuid.uuid4().hex
        self._partitions: list[int] = []
        self.routes = {
            "orders.*": {"topic": self._topic},
            "nowhere": {"topic": f"{self._topic}.{{topic}}"},
        }

    async def make(self) -> None:
        from confluent_kafka import Producer

        asking = Producer({"bootstrap.servers": self._servers, "log_level": 0})

        async def it_is_there() -> bool:  # asked for, it is made
            found = (await asyncio.to_thread(asking.list_topics, self._topic, 5)).topics[
                self._topic
            ]
            self._partitions = list(found.partitions)
            return found.error is None and bool(found.partitions)

        await wait_until(it_is_there, 30)

    async def arrived(self) -> list[Arrived]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[Arrived]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self._servers, "group.id": uuid.uuid4().hex, "log_level": 0}
        )
        found = []
        try:
            places = [TopicPartition(self._topic, number, 0) for number in self._partitions]
            left = sum(consumer.get_watermark_offsets(place, timeout=5)[1] for place in places)
            consumer.assign(places)
            while len(found) < left:
                message = consumer.poll(5)
                assert message is not None
                assert message.error() is None, message.error()
                headers = {name: value.decode() for name, value in message.headers()}
                key = message.key()
                found.append(
                    Arrived(
                        headers["durable-notify-id"], key and key.decode(), message.value(),
                        headers, headers["content-type"],
                    )
                )  # fmt: skip
        finally:
            consumer.close()
        return found


OUTLETS: dict[str, Any] = {
    "rabbitmq": (RabbitMQ, RabbitOutlet),
    "redis": (Redis, RedisOutlet),
    "nats": (Nats, NatsOutlet),
    "kafka": (kafka, KafkaOutlet),
}


async def all_arrive(outlet: Any, numbers: set[int]) -> list[Arrived]:
    """Wait until all of some payloads have arrived at least once; returns all that have."""
    found: list[Arrived] = []

    async def they_are_there() -> bool:
        with contextlib.suppress(Exception):  # the broker may be down
            found[:] = await outlet.arrived()
        return numbers <= {one.payload for one in found}

    await wait_until(they_are_there, 60)
    return found


@dataclasses.dataclass
class Given:
    """A message for the broker."""

    body: bytes
    key: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    content_type: str = ""


class RabbitInlet:
    def __init__(self, server: RabbitMQ) -> None:
        self.url, self.queue, self.group = server.url, uuid.uuid4().hex, uuid.uuid4().hex

    async def make(self) -> None:
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(self.queue, durable=True)

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
                    self.queue,
                )  # fmt: skip

    async def left(self) -> int:
        """How many the broker holds that were not acknowledged."""
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            return (
                await channel.declare_queue(self.queue, passive=True)
            ).declaration_result.message_count or 0


class NatsInlet:
    def __init__(self, server: Nats) -> None:
        self.url, self.queue, self.group = server.url, uuid.uuid4().hex, uuid.uuid4().hex

    async def make(self) -> None:
        import nats

        client = await nats.connect(self.url)
        await client.jetstream().add_stream(name=self.queue, subjects=[f"{self.queue}.>"])
        await client.close()

    async def fill(self, *messages: Given) -> None:
        import nats

        client = await nats.connect(self.url)
        for message in messages:
            headers = {**message.headers, "content-type": message.content_type}
            if message.key is not None:
                headers["durable-notify-key"] = message.key
            await client.jetstream().publish(f"{self.queue}.x", message.body, headers=headers)
        await client.close()

    async def left(self) -> int:
        import nats

        client = await nats.connect(self.url)
        try:
            about = await client.jetstream().consumer_info(self.queue, self.group)
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
        self.queue, self.group = self._outlet._topic, uuid.uuid4().hex

    async def make(self) -> None:
        await self._outlet.make()

    async def fill(self, *messages: Given) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._outlet._servers, "log_level": 0})
        for message in messages:
            headers = [(n, v.encode()) for n, v in message.headers.items()]
            headers.append(("content-type", message.content_type.encode()))
            producer.produce(
                self.queue, message.body, message.key and message.key.encode(), headers=headers
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
            places = [TopicPartition(self.queue, number) for number in self._outlet._partitions]
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


def ingest_of(dsn: str, inlet: Any, topic: str = "in", **options: Any) -> AsyncIngest:
    where = {"broker_url": inlet.url, "queue": inlet.queue, "group": inlet.group}
    return AsyncIngest(dsn, topic=topic, **where, **options)


async def nothing_left(inlet: Any) -> bool:
    return bool(await inlet.left() == 0)


@contextlib.asynccontextmanager
async def carrying(carrier: Any) -> AsyncIterator[Any]:
    """Run a relay or an ingest beside the test; stop it at the end, and raise what it raised."""
    running = asyncio.create_task(carrier.run())
    try:
        yield carrier
    finally:
        carrier.stop()
        await with_timeout(running, 60)
