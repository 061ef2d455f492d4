"""Compare a relay with the broker's client alone, on the same messages with confirms.

    python -m benchmarks.relay [--messages N] [--rounds N] [rabbitmq redis nats kafka]

By turns in one run, on one machine, with a broker that is durable; medians of the rounds:

- The client alone has the messages in memory, and publishes the same bytes, 500 at once, in the
  fastest way that its documentation shows. It decodes, filters and remembers nothing.
- By hand is the same client in a loop that selects the next 500 rows by id, sends them, and updates
  the id up to which it has sent. It knows neither transactions that commit late nor other relays.
- The relay claims the messages, in order by 1,000 keys, and settles each once it is confirmed.

The client runs twice a round, so that the noise is visible: `control` is one over the other. `cpu`
are shares of the processor time of the process, which other work disturbs less. Kafka is one broker
of Apache Kafka's own, if Java and Maven are there, else an emulation.
"""

# ruff: noqa: PLC0415, ASYNC110, PLC0206, PERF401

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
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


Pages = AsyncIterator[list[Any]]
#: Seconds by the clock, and of the processor.
Taken = tuple[float, float]


def taken(since: Taken = (0.0, 0.0)) -> Taken:
    return time.perf_counter() - since[0], time.process_time() - since[1]


async def in_memory(made: list[Any]) -> Pages:
    for first in range(0, len(made), BATCH):
        yield made[first : first + BATCH]


async def by_hand(dsn: str) -> Pages:
    """Yield the rows of the outbox, and record up to which id they were sent."""
    page = (
        "SELECT id, key, payload::text, created_at FROM durable_notify.outbox"
        f" WHERE topic = 'orders.eu' AND id > %s ORDER BY id LIMIT {BATCH}"
    )
    last = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("CREATE TABLE sent AS SELECT 0::bigint AS id")
        while rows := await (await connection.execute(page, (last,))).fetchall():
            yield [
                (f"{number}-{round(at.timestamp() * 1_000_000)}", key, text.encode())
                for number, key, text, at in rows
            ]
            last = rows[-1][0]
            await connection.execute("UPDATE sent SET id = %s", (last,))


async def rabbitmq(outlet: Any, pages: Pages) -> Taken:
    import aio_pika

    routing_key = outlet.routes["orders.*"]["routing_key"].format(topic="orders.eu")
    async with await aio_pika.connect(outlet.url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange("amq.topic", ensure=False)
        begun = taken()
        async for batch in pages:
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
        return taken(begun)


async def redis(outlet: Any, pages: Pages) -> Taken:
    import redis.asyncio

    stream = outlet.routes["orders.*"]["stream"]
    async with redis.asyncio.from_url(outlet.url) as client:
        begun = taken()
        async for batch in pages:
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
        return taken(begun)


async def nats(outlet: Any, pages: Pages) -> Taken:
    import nats

    subject = outlet.routes["orders.*"]["subject"].format(topic="orders.eu")
    client = await nats.connect(outlet.url)
    stream = client.jetstream()
    begun = taken()
    async for batch in pages:
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
    found = taken(begun)
    await client.close()
    return found


async def kafka(outlet: Any, pages: Pages) -> Taken:
    from confluent_kafka import Producer

    topic = outlet.routes["orders.*"]["topic"]
    producer = Producer({"bootstrap.servers": outlet._servers, "enable.idempotence": True})
    producer.list_topics(topic)
    confirmed = []
    timestamp = int(PUBLISHED.timestamp() * 1000)
    begun = taken()
    async for batch in pages:
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
    found = taken(begun)
    assert not any(confirmed)
    return found


CLIENTS = {"rabbitmq": rabbitmq, "redis": redis, "nats": nats, "kafka": kafka}


def new_database(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        connection.execute("CREATE DATABASE bench")
    there = dsn.replace("/postgres?", "/bench?")
    schema.migrate(there)
    return there


def publish(dsn: str, number: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO durable_notify.outbox (topic, key, payload) "
            f"SELECT 'orders.eu', 'key-' || i % 1000, {PAYLOAD} "
            f"FROM generate_series(1, {number}) AS i"
        )


async def relayed(dsn: str, outlet: Any, number: int) -> Taken:
    relay = AsyncRelay(
        dsn,
        broker_url=outlet.url,
        group="relay",
        topics=["orders.*", "nowhere"],
        routes=outlet.routes,
    )
    running = asyncio.create_task(relay.run())
    while relay.sent < 1:  # it has started, as the clients have connected
        await asyncio.sleep(0.005)
    await asyncio.to_thread(publish, dsn, number)
    begun = taken()
    while relay.sent < 1 + number:
        await asyncio.sleep(0.005)
    found = taken(begun)
    relay.stop()
    await running
    return found


async def once(what: str, broker: str, dsn: str, outlet: Any, number: int) -> Taken:
    await outlet.make()
    there = new_database(dsn)
    publish(there, 1 if what == "relay" else number)
    if what == "relay":
        return await relayed(there, outlet, number)
    pages = by_hand(there) if what == "by hand" else in_memory(messages(number))
    return await CLIENTS[broker](outlet, pages)


async def measure(broker: str, dsn: str, number: int, rounds: int) -> dict[str, Any]:
    server, outlet_class = OUTLETS[broker]
    found: dict[str, list[float]] = {"client": [], "by hand": [], "relay": [], "client again": []}
    cpu: dict[str, list[float]] = {what: [] for what in found}
    with server() as running:
        for turn in range(rounds + 1):
            for what in found:
                seconds, processor = await once(what, broker, dsn, outlet_class(running), number)
                if turn:  # the first warms up
                    found[what].append(number / seconds)
                    cpu[what].append(number / processor)
        name = type(running).__name__
    shares = shares_of(found) | {"cpu": shares_of(cpu)}
    rates = {what: round(statistics.median(rates)) for what, rates in found.items()}
    print(f"{name:14}", rates, shares, flush=True)
    return {"broker": name, "messages": number, "rounds": summary(found), **shares}


def shares_of(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Return the shares that the relay has of the client alone, and of the loop by hand."""
    client, hand, relay, again = (statistics.median(each) for each in rates.values())
    shares = {
        "share": relay / client, "by hand": hand / client, "of by hand": relay / hand,
        "control": again / client,
    }  # fmt: skip
    return {what: round(share, 3) for what, share in shares.items()}


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
