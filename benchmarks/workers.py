"""The processes beside the one that measures: ``ROLE DSN OPTIONS``.

They say a line of JSON when they are ready, and one for each word they are told on standard input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import psycopg

from benchmarks import stamping, streamed
from benchmarks.harness import asleep, say, words
from durable_notify._async.consumer.consumer import AsyncConsumer
from durable_notify._async.consumer.message import AsyncMessage
from durable_notify.groups import Group

#: How to publish a message and notify its listener by hand.
BARE_PUBLISH = (
    "WITH new AS (INSERT INTO bare (payload) VALUES (%s) RETURNING id)"
    " SELECT pg_notify('bare', id::text) FROM new"
)
PUBLISH = "INSERT INTO durable_notify.outbox (topic, payload) VALUES (%s, %s)"


async def consume(dsn: str, topics: list[str], group: str) -> None:
    """Handle messages; on ``count``, print how many, and the rings of publishers and of settles."""
    handled = 0
    latencies: list[int] = []

    async def handler(message: AsyncMessage) -> None:
        nonlocal handled
        handled += 1
        if isinstance(message.payload, dict) and "at" in message.payload:
            latencies.append(time.monotonic_ns() - message.payload["at"])

    consumer = AsyncConsumer(
        dsn, group=Group(group, start="now"), topics=topics, poll_interval=None
    )
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher:
        for topic in topics[:1]:
            await watcher.execute(f'LISTEN "durable_notify:{topic}"')
        running = asyncio.ensure_future(consumer.run(handler))
        await asleep(consumer)
        told = await words()
        say("ready")
        while await told.readline():
            hints = [ring.payload async for ring in watcher.notifies(timeout=0)]
            freed = hints.count("0")  # settles that free a key; publishers send an id
            rings = {"rings": len(hints) - freed, "freed": freed}
            say({"handled": handled, "latencies": latencies, **rings})
            handled, latencies = 0, []
        consumer.stop()
        await running


async def bare(dsn: str) -> None:
    """LISTEN, and SELECT what was notified, by hand; tell on ``count`` what the latencies were."""
    latencies: list[int] = []
    told = await words()
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as working,
    ):
        await listening.execute("LISTEN bare")

        async def listen() -> None:
            async for notify in listening.notifies():
                query = "SELECT id, payload FROM bare WHERE id = %s"
                row = await (await working.execute(query, (int(notify.payload),))).fetchone()
                assert row is not None
                latencies.append(time.monotonic_ns() - row[1]["at"])

        task = asyncio.ensure_future(listen())
        say("ready")
        while await told.readline():
            say({"latencies": list(latencies)})
            latencies.clear()
        task.cancel()


async def read(dsn: str) -> None:
    """Keep up with the plain table by a paged SELECT, 200 times a second."""
    told = asyncio.ensure_future((await words()).read())
    seen = last = 0
    query = "SELECT id, topic, key, payload, headers FROM plain WHERE id > %s ORDER BY id LIMIT 500"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        say("ready")
        while not told.done():
            rows = await (await connection.execute(query, (last,))).fetchall()
            seen += len(rows)
            last = rows[-1][0] if rows else last
            if len(rows) < 500:
                await asyncio.sleep(0.005)


def publish(dsn: str, kind: str) -> None:
    """For each line ``N``, publish so many messages with pauses, and print when it is done."""
    rng = random.Random(7)
    with psycopg.connect(dsn, autocommit=True) as connection:
        say("ready")
        for line in sys.stdin:
            for _ in range(int(line)):
                time.sleep(rng.uniform(0.02, 0.05))
                payload = json.dumps({"at": time.monotonic_ns()})
                if kind == "bare":
                    connection.execute(BARE_PUBLISH, (payload,))
                else:
                    connection.execute(PUBLISH, ("orders", payload))
            time.sleep(0.2)
            say("published")


async def drain(dsn: str) -> None:
    """For each name of a group, handle its backlog, and print how much, and when the last was."""
    told = await words()
    say("ready")
    while group := (await told.readline()).decode().strip():
        times: list[int] = []
        consumer = AsyncConsumer(
            dsn, group=group, topics=["orders"], until_empty=True, poll_interval=None
        )
        await consumer.run(lambda _message, times=times: times.append(time.monotonic_ns()))
        say({"handled": len(times), "last": max(times, default=0)})


async def sleep(dsn: str, topics: list[str], group: str) -> None:
    """Sleep on some topics."""
    told = await words()
    async with AsyncConsumer(dsn, group=group, topics=topics, poll_interval=None) as consumer:
        await asleep(consumer)
        say("ready")
        await told.read()


def main() -> None:
    role, dsn, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if role == "publish":
        publish(dsn, **options)
    elif role == "stamp":
        stamping.main(dsn, **options)
    else:
        roles: dict[str, Any] = {
            "consume": consume, "bare": bare, "read": read, "sleep": sleep, "drain": drain,
            "serve": streamed.serve, "follow": streamed.follow,
        }  # fmt: skip
        asyncio.run(roles[role](dsn, **options))


if __name__ == "__main__":
    main()
