"""NATS JetStream with nats-py: files synced every 2 minutes, its default, or always.

What makes it fast, by NATS's documentation: atomic batches ("Atomic batch publish", since 2.12; at
most 1,000 messages by default), which the server syncs and confirms as one, and pull consumers that
fetch more than one at a time ("Consumers": "allows for higher throughput"); for the wake-up a push
consumer with a callback. nats-py has the headers of such a batch, and no call for it. Publishing
each message asynchronously was half as fast, and a twentieth with `sync_interval: always`.

With the default, what is confirmed may not survive a power failure ("Persistence and fsync" there).
Each message is acknowledged by itself; the last with `ack_sync`, which the server answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, Header, StorageType
from nats.js.errors import NotFoundError

from benchmarks.peers.base import TOPIC, Payload, Peer, Publisher, Tally, handle

FETCH = 1000
LOOPS = 2  # in a process: one fetches while the other handles
GROUP = "bench"


class _Publisher(Publisher):
    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._stream = connection.jetstream()

    async def batch(self, payloads: list[Payload]) -> None:
        batch = uuid.uuid4().hex
        *bodies, last = (json.dumps(each).encode() for each in payloads)
        for number, body in enumerate(bodies, 1):
            headers = {Header.BATCH_ID: batch, Header.BATCH_SEQUENCE: str(number)}
            await self._connection.publish(TOPIC, body, headers=headers)
        headers = {Header.BATCH_ID: batch, Header.BATCH_SEQUENCE: str(len(payloads))}
        await self._stream.publish(TOPIC, last, headers=headers | {Header.BATCH_COMMIT: "1"})

    async def single(self, message: Payload) -> None:
        await self._stream.publish(TOPIC, json.dumps(message).encode())


class Nats(Peer):
    """Synced every 2 minutes: the server's default."""

    server: ClassVar[str] = "nats"
    packages: ClassVar[tuple[str, ...]] = ("nats-py",)
    settings: ClassVar[dict[str, Any]] = {
        "sync_interval": "2m, the default: not synced when confirmed",
        "fetch": FETCH,
        "loops in a process": LOOPS,
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 30_000,
        "publish_single": 4_000,
        "consume": 30_000,
        "consume4": 30_000,
        "consume_await": 20_000,
        "wake": 60,
    }

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Client]:
        connection = await nats.connect(self.address)
        try:
            yield connection
        finally:
            await connection.close()

    async def prepare(self) -> None:
        async with self.connection() as connection:
            stream = connection.jetstream()
            with contextlib.suppress(NotFoundError):
                await stream.delete_stream(TOPIC)
            await stream.add_stream(
                name=TOPIC, subjects=[TOPIC], storage=StorageType.FILE, allow_atomic=True
            )
            settings = ConsumerConfig(durable_name=GROUP, max_ack_pending=10_000)
            await stream.add_consumer(TOPIC, settings)

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with self.connection() as connection:
            yield _Publisher(connection)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        async with self.connection() as connection:
            stream = connection.jetstream()
            if tally.waking:
                await self._push(stream, tally)
                return
            share = max(1, concurrency // LOOPS)
            await asyncio.gather(*(self._pull(stream, tally, share) for _ in range(LOOPS)))

    async def _pull(self, stream: JetStreamContext, tally: Tally, concurrency: int) -> None:
        subscription = await stream.pull_subscribe_bind(GROUP, TOPIC)
        while not tally.finished.is_set():
            try:
                messages = await subscription.fetch(FETCH, timeout=1)
            except TimeoutError:
                continue
            await handle(tally, [json.loads(each.data) for each in messages], concurrency)
            for message in messages[:-1]:
                await message.ack()
            await messages[-1].ack_sync(timeout=30)
            tally.confirmed()

    async def _push(self, stream: JetStreamContext, tally: Tally) -> None:
        async def handle(message: Msg) -> None:
            await tally.handler(json.loads(message.data))
            await message.ack()

        await stream.subscribe(TOPIC, durable="push", cb=handle, manual_ack=True)
        await tally.finished.wait()


class NatsSync(Nats):
    """Synced before each confirmation."""

    server = "nats-sync"
    settings: ClassVar[dict[str, Any]] = Nats.settings | {"sync_interval": "always"}
    messages: ClassVar[dict[str, int]] = Nats.messages | {"publish_single": 1_500}
