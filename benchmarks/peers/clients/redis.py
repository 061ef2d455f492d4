"""Redis Streams with redis-py's asyncio client, hiredis and `appendfsync always`.

What makes it fast, by redis-py's README: hiredis, which it uses where it is installed, and
pipelines without MULTI (`transaction=False`); by Redis's page on streams XREADGROUP with COUNT.
XACK takes many ids, and goes in one pipeline with the next XREADGROUP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from redis.asyncio import Redis

from benchmarks.peers.base import TOPIC, Payload, Peer, Publisher, Tally, handle

READ = 1000
LOOPS = 2  # in a process: one reads while the other handles
GROUP = "bench"


class _Publisher(Publisher):
    def __init__(self, client: Redis) -> None:
        self._client = client

    async def batch(self, payloads: list[Payload]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for each in payloads:
                pipeline.xadd(TOPIC, {"payload": json.dumps(each)})
            await pipeline.execute()

    async def single(self, message: Payload) -> None:
        await self._client.xadd(TOPIC, {"payload": json.dumps(message)})


class RedisStreams(Peer):
    """A stream with a consumer group."""

    server: ClassVar[str] = "redis"
    packages: ClassVar[tuple[str, ...]] = ("redis", "hiredis")
    settings: ClassVar[dict[str, Any]] = {
        "appendfsync": "always",
        "read and acknowledged at once": READ,
        "loops in a process": LOOPS,
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 50_000,
        "publish_single": 4_000,
        "consume": 80_000,
        "consume4": 100_000,
        "consume_await": 30_000,
        "wake": 60,
    }

    async def prepare(self) -> None:
        async with Redis.from_url(self.address) as client:
            await client.flushall()
            await client.xgroup_create(TOPIC, GROUP, id="0", mkstream=True)

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        async with Redis.from_url(self.address) as client:
            yield _Publisher(client)

    async def consume(self, tally: Tally, concurrency: int) -> None:
        loops = 1 if tally.waking else LOOPS
        share = max(1, concurrency // loops)
        await asyncio.gather(*(self._loop(tally, share) for _ in range(loops)))

    async def _loop(self, tally: Tally, concurrency: int) -> None:
        async with Redis.from_url(self.address) as client:
            ids: list[bytes] = []
            while ids or not tally.finished.is_set():
                async with client.pipeline(transaction=False) as pipeline:
                    if ids:
                        pipeline.xack(TOPIC, GROUP, *ids)
                    pipeline.xreadgroup(
                        GROUP, tally.name, {TOPIC: ">"}, count=READ, block=None if ids else 200
                    )
                    *acked, streams = await pipeline.execute()
                if acked:
                    tally.confirmed()
                messages = [each for _, stream in streams or () for each in stream]
                ids = [key for key, _ in messages]
                bodies = [json.loads(fields[b"payload"]) for _, fields in messages]
                await handle(tally, bodies, concurrency)
