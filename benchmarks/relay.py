"""Compare a relay with the broker's client alone, on the same messages with confirms.

    python -m benchmarks.relay [--messages N] [--rounds N] [rabbitmq redis nats kafka]

The client alone has the messages in memory, and publishes the same bytes, 500 at once, in the
fastest way that its documentation shows; the relay claims them from PostgreSQL, and settles them
there. By turns in one run, on one machine, with a broker that is durable; medians of the rounds.
The client runs twice a round, so that the noise is visible: `control` is one over the other. Kafka
is an emulation (librdkafka's mock cluster), unless Docker answers.
"""

# ruff: noqa: PLC0415, ASYNC110, PLC0206, PERF401

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import PAYLOAD, RESULTS, summary
from durable_notify import schema
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.embedded import Server
from tests.support.broker_io import OUTLETS

BATCH = 500
PUBLISHED = datetime(2026, 1, 1, tzinfo=UTC)


def messages(number: int) -> list[tuple[str, str, bytes]]:
    """The id, key and body of a message."""
    return [
        (
            f"{i}-1790000000000000",
            f"key-{i % 1000}",
            json.dumps(
                {
                    "note": "x" * 60,
                    "order": i,
                    "amount": i * 1.5,
                    "customer": f"customer-{i % 1000}",
                }
            ).encode(),
        )
        for i in range(1, number + 1)
    ]


def headers(key: str, number: str) -> dict[str, str]:
    return {"durable-notify-id": number, "durable-notify-topic": "orders.eu",
            "durable-notify-key": key}  # fmt: skip


def batches(made: list[Any]) -> list[list[Any]]:
    return [made[first : first + BATCH] for first in range(0, len(made), BATCH)]


async def rabbitmq(outlet: Any, made: list[Any]) -> float:
    import aio_pika

    routing_key = outlet.routes["orders.*"]["routing_key"].format(topic="orders.eu")
    async with await aio_pika.connect(outlet.url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange("amq.topic", ensure=False)
        begun = time.perf_counter()
        for batch in batches(made):
            await asyncio.gather(
                *(
                    exchange.publish(
                        aio_pika.Message(
                            body, headers=headers(key, number), content_type="application/json",
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT, message_id=number,
                            timestamp=PUBLISHED,
                        ),
                        routing_key,
                    )
                    for number, key, body in batch
                )
            )  # fmt: skip
        return time.perf_counter() - begun


async def redis(outlet: Any, made: list[Any]) -> float:
    import redis.asyncio

    stream = outlet.routes["orders.*"]["stream"]
    async with redis.asyncio.from_url(outlet.url) as client:
        begun = time.perf_counter()
        for batch in batches(made):
            async with client.pipeline(transaction=True) as pipe:
                for number, key, body in batch:
                    pipe.xadd(
                        stream,
                        {
                            "id": number, "topic": "orders.eu", "payload": body, "key": key,
                            "content-type": "application/json", "headers": "{}",
                            "published_at": "2026-01-01T00:00:00+00:00",
                        },
                    )  # fmt: skip
                await pipe.execute()
        return time.perf_counter() - begun


async def nats(outlet: Any, made: list[Any]) -> float:
    import nats

    subject = outlet.routes["orders.*"]["subject"].format(topic="orders.eu")
    client = await nats.connect(outlet.url)
    stream = client.jetstream()
    begun = time.perf_counter()
    for batch in batches(made):
        confirmed = [
            await stream.publish_async(
                subject, body,
                headers={
                    **headers(key, number), "content-type": "application/json",
                    "Nats-Msg-Id": number,
                },
            )
            for number, key, body in batch
        ]  # fmt: skip
        await asyncio.gather(*confirmed)
    taken = time.perf_counter() - begun
    await client.close()
    return taken


async def kafka(outlet: Any, made: list[Any]) -> float:
    from confluent_kafka import Producer

    topic = outlet.routes["orders.*"]["topic"]
    producer = Producer({"bootstrap.servers": outlet._servers, "enable.idempotence": True})
    confirmed = []
    timestamp = int(PUBLISHED.timestamp() * 1000)
    begun = time.perf_counter()
    for batch in batches(made):
        for number, key, body in batch:
            producer.produce(
                topic, body, key, timestamp=timestamp,
                headers=[
                    ("content-type", b"application/json"),
                    *((n, v.encode()) for n, v in headers(key, number).items()),
                ],
                on_delivery=lambda error, _: confirmed.append(error),
            )  # fmt: skip
        producer.flush()
    taken = time.perf_counter() - begun
    assert confirmed == [None] * len(made)
    return taken


CLIENTS = {"rabbitmq": rabbitmq, "redis": redis, "nats": nats, "kafka": kafka}


async def relayed(dsn: str, outlet: Any, number: int) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        connection.execute("CREATE DATABASE bench")
    there = dsn.replace("/postgres?", "/bench?")
    schema.migrate(there)
    with psycopg.connect(there, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO durable_notify.outbox (topic, key, payload) "
            f"SELECT 'orders.eu', 'key-' || i % 1000, {PAYLOAD} "
            f"FROM generate_series(1, {number}) AS i"
        )
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    relay = AsyncRelay(
        there,
        broker_url=outlet.url,
        group="relay",
        topics=["orders.*", "nowhere"],
        routes=outlet.routes,
    )
    begun = time.perf_counter()
    running = asyncio.create_task(relay.run())
    while relay.sent < number:
        await asyncio.sleep(0.005)
    taken = time.perf_counter() - begun
    relay.stop()
    await running
    return taken


async def measure(broker: str, dsn: str, number: int, rounds: int) -> dict[str, Any]:
    server, outlet_class = OUTLETS[broker]
    found: dict[str, list[float]] = {"client": [], "relay": [], "client again": []}
    with server() as running:
        made = messages(number)
        for turn in range(rounds + 1):
            for what in found:
                outlet = outlet_class(running)
                await outlet.make()
                if what != "relay":
                    taken = await CLIENTS[broker](outlet, made)
                else:
                    taken = await relayed(dsn, outlet, number)
                if turn:  # the first warms up
                    found[what].append(number / taken)
        name = type(running).__name__
    client, relay, again = (statistics.median(found[what]) for what in found)
    shares = {"share": relay / client, "control": again / client}
    print(f"{name:14} client {client:8.0f}/s  relay {relay:8.0f}/s", shares, flush=True)
    return {"broker": name, "messages": number, "rounds": summary(found), **shares}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("brokers", nargs="*", default=list(OUTLETS))
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--keep", action="store_true", help="write results/relay.json")
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with Server(Path(folder) / "pg") as server:
            for broker in given.brokers:
                results.append(
                    asyncio.run(measure(broker, server.dsn(), given.messages, given.rounds))
                )
    if given.keep:
        (RESULTS / "relay.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
