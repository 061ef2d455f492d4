"""What only Kafka itself can show: transactions, idempotence, members that join and are killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.brokers import kafka_topics
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.payloads import NewMessage
from tests.support.broker_io import Given, KafkaInlet, KafkaOutlet, carrying, ingest_of
from tests.support.cli import start
from tests.support.kafka import delete_topic, itself
from tests.support.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def broker() -> Iterator[Any]:
    with itself() as server:
        yield server


@pytest.fixture
async def inlet(broker: Any) -> KafkaInlet:
    made = KafkaInlet(broker)
    await made.make()
    return made


def published(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT payload FROM durable_notify.outbox ORDER BY id")
        return [payload for (payload,) in rows]


def produce(inlet: KafkaInlet, *bodies: bytes, **where: Any) -> Any:
    """Produce records; return the last one, as Kafka has it."""
    from confluent_kafka import Producer

    seen: list[Any] = []
    producer = Producer({"bootstrap.servers": inlet._outlet._servers, "log_level": 0})
    for body in bodies:
        producer.produce(inlet.queue, body, on_delivery=lambda _, m: seen.append(m), **where)
    producer.flush(20)
    return seen[-1]


async def arrive(dsn: str, number: int) -> None:
    await wait_until(lambda: len(published(dsn)) >= number)


async def test_a_transaction_that_is_aborted_is_not_ingested(dsn: str, inlet: KafkaInlet) -> None:
    """One that is open holds back what its partition has behind it, and nothing else."""
    from confluent_kafka import Producer

    producer = Producer(
        {"bootstrap.servers": inlet._outlet._servers, "transactional.id": inlet.group}
    )
    await asyncio.to_thread(producer.init_transactions, 20)

    def write(*bodies: bytes) -> None:
        producer.begin_transaction()
        for body in bodies:
            producer.produce(inlet.queue, body, partition=0)
        producer.flush(20)

    async with carrying(ingest_of(dsn, inlet)):
        write(b"1", b"2")
        producer.abort_transaction(20)
        write(b"3", b"4")
        producer.commit_transaction(20)
        await arrive(dsn, 2)
        write(b"5")
        produce(inlet, b"6", partition=0)
        produce(inlet, b'"elsewhere"', partition=1)
        await arrive(dsn, 3)
        assert published(dsn) == [3, 4, "elsewhere"]
        producer.commit_transaction(20)
        await arrive(dsn, 5)
    assert published(dsn) == [3, 4, "elsewhere", 5, 6]


async def test_members_that_join_and_are_killed(dsn: str, inlet: KafkaInlet) -> None:
    """Partitions move between three members; each record is published once, in order of its key."""
    keys, each = 12, 100
    await inlet.fill(*(Given(str(n).encode(), f"k{n % keys}") for n in range(keys * each)))
    command = [
        "ingest", inlet.queue, "--from", inlet.url, "--to", "in", "--group", inlet.group,
        "--batch", "5",
    ]  # fmt: skip
    first = start(*command, dsn=dsn)
    others = []
    try:
        await arrive(dsn, 50)
        others = [start(*command, dsn=dsn) for _ in range(2)]
        await arrive(dsn, 500)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        await inlet.fill(Given(b"-1", "k0"))
        await arrive(dsn, keys * each + 1)
    finally:
        for process in (first, *others):
            process.kill()
            process.communicate()
    found = published(dsn)
    assert sorted(found) == list(range(-1, keys * each))
    for key in range(keys):
        of_key = [n for n in found if n >= 0 and n % keys == key]
        assert of_key == sorted(of_key)


async def test_what_one_relay_sends_again_arrives_once(dsn: str, broker: Any) -> None:
    """Its producer is idempotent: the broker is killed twice, and nothing is there twice."""
    outlet = KafkaOutlet(broker)
    await outlet.make()
    relay = AsyncRelay(
        dsn, broker_url=outlet.url, group="relay", topics=["orders.*", "nowhere"], routes=outlet.routes,
        batch_size=20, poll_interval=None,
    )  # fmt: skip
    async with carrying(relay):
        for kill in range(3):
            with psycopg.connect(dsn) as connection:
                some = [NewMessage(n, key=f"k{n % 7}") for n in range(kill * 200, kill * 200 + 200)]
                dn.Publisher().publish_many(connection, "orders.eu", some)
            await wait_until(lambda many=kill * 200 + 50: relay.sent > many)
            if kill < 2:
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
        await wait_until(lambda: relay.sent == 600)
    found = [one.payload for one in await outlet.arrived()]
    assert sorted(found) == list(range(600))
    for key in range(7):
        of_key = [n for n in found if n % 7 == key]
        assert of_key == sorted(of_key)


async def test_a_topic_created_again_has_no_more_records_than_were_read(
    dsn: str, broker: Any, inlet: KafkaInlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So none arrives at the place where the member waits: it looks from time to time."""
    monkeypatch.setattr(kafka_topics, "INTERVAL", 0.1)
    produce(inlet, b"1", b"2", partition=0)
    async with carrying(ingest_of(dsn, inlet)):
        await arrive(dsn, 2)
        await asyncio.to_thread(delete_topic, inlet._outlet._servers, inlet.queue)
        await inlet.make()
        produce(inlet, b"3", b"4", partition=0)
        await arrive(dsn, 4)
    assert published(dsn) == [1, 2, 3, 4]


async def test_offsets_of_the_topic_before(dsn: str, inlet: KafkaInlet) -> None:
    """A member committed them after the topic was created again, and died: all is read again."""
    from confluent_kafka import Consumer, TopicPartition

    last = produce(inlet, b"1", b"2", b"3", partition=0)
    member = Consumer({"bootstrap.servers": inlet._outlet._servers, "group.id": inlet.group})
    place = TopicPartition(inlet.queue, 0, last.offset(), "another topic's id")
    member.commit(offsets=[place], asynchronous=False)
    member.close()
    async with carrying(ingest_of(dsn, inlet)):
        await arrive(dsn, 3)
    assert sorted(published(dsn)) == [1, 2, 3]


async def test_headers_that_come_twice(dsn: str, inlet: KafkaInlet) -> None:
    headers = [("a", b"1"), ("a", b"2"), ("n", None), ("content-type", None)]
    produce(inlet, b"1", key=b"k\n", headers=headers)
    async with carrying(ingest_of(dsn, inlet)):
        await arrive(dsn, 1)
    with psycopg.connect(dsn) as connection:
        query = "SELECT key, headers FROM durable_notify.outbox"
        ((key, kept),) = connection.execute(query).fetchall()
    assert key is None
    assert kept["a"] == ["1", "2"]
    assert kept["n"] is None
    assert kept["ingest-key"] == "k\n"
    assert "the key has" in kept["ingest-error"]
