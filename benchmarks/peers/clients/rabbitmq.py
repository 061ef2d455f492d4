"""RabbitMQ with aio-pika: a durable classic queue, and a quorum queue of one node.

What makes it fast, by RabbitMQ's page "Consumer Acknowledgements and Publisher Confirms":
publishing with confirms handled asynchronously, in batches; a prefetch in the hundreds; `multiple`,
with which one acknowledgement stands for all up to it. aio-pika's tutorial 7 publishes as tasks
under way at once. Messages are persistent.

AMQP does not confirm acknowledgements. When the last is sent, a request on the same channel is
answered only after the server has taken them all; it need not have synced them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from benchmarks.peers.base import TOPIC, Payload, Peer, Publisher, Tally

PREFETCH = 500
ACKED = 100


class _Publisher(Publisher):
    def __init__(self, channel: AbstractChannel) -> None:
        self._exchange = channel.default_exchange

    async def batch(self, payloads: list[Payload]) -> None:
        await asyncio.gather(*(self.single(each) for each in payloads))

    async def single(self, message: Payload) -> None:
        await self._exchange.publish(
            aio_pika.Message(
                json.dumps(message).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            ),
            TOPIC,
        )


class _Rabbit(Peer):
    server: ClassVar[str] = "rabbitmq"
    packages: ClassVar[tuple[str, ...]] = ("aio-pika", "aiormq", "pamqp")
    kind: ClassVar[str]

    @contextlib.asynccontextmanager
    async def channel(self, *, confirms: bool = True) -> AsyncIterator[AbstractChannel]:
        async with (
            await aio_pika.connect(self.address) as connection,
            connection.channel(publisher_confirms=confirms) as channel,
        ):
            yield channel

    async def prepare(self) -> None:
        async with self.channel() as channel:
            await channel.queue_delete(TOPIC)
            await channel.declare_queue(TOPIC, durable=True, arguments={"x-queue-type": self.kind})

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with self.channel() as channel:
            yield _Publisher(channel)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        async with self.channel(confirms=False) as channel:
            await channel.set_qos(prefetch_count=PREFETCH if concurrency == 1 else concurrency)
            queue = await channel.get_queue(TOPIC)
            unacked: AbstractIncomingMessage | None = None
            count = 0

            async def handle(message: AbstractIncomingMessage) -> None:
                await tally.handler(json.loads(message.body))
                await message.ack()

            async def handle_in_order(message: AbstractIncomingMessage) -> None:
                nonlocal unacked, count
                await tally.handler(json.loads(message.body))
                unacked, count = message, count + 1
                if count % ACKED == 0:
                    await flush()

            async def flush() -> None:
                nonlocal unacked
                message, unacked = unacked, None
                if message is not None:
                    await message.ack(multiple=True)

            tag = await queue.consume(handle_in_order if concurrency == 1 else handle)
            while not tally.finished.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(tally.finished.wait(), 0.02)
                await flush()
            await queue.cancel(tag)
            await channel.set_qos(prefetch_count=PREFETCH)
            tally.confirmed()


class RabbitClassic(_Rabbit):
    """A durable classic queue."""

    kind = "classic"
    settings: ClassVar[dict[str, Any]] = {
        "queue": "classic, durable",
        "prefetch": PREFETCH,
        "acknowledged at once": ACKED,
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 8_000,
        "publish_single": 1_500,
        "consume": 10_000,
        "consume4": 12_000,
        "consume_await": 6_000,
        "wake": 60,
    }


class RabbitQuorum(_Rabbit):
    """A quorum queue, with a quorum of one."""

    kind = "quorum"
    settings: ClassVar[dict[str, Any]] = RabbitClassic.settings | {"queue": "quorum, one node"}
    messages: ClassVar[dict[str, int]] = RabbitClassic.messages
