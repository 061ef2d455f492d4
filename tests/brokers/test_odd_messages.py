"""Odd headers, properties, keys and bodies, in and there and back, through real brokers.

Each arrives unchanged, or its refusal is logged; either way the rest continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import durable_notify as dn
from durable_notify.brokers import nats_headers
from durable_notify.brokers.amqp import connection_class
from durable_notify.brokers.ingest import AsyncIngest
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.payloads import JsonText, NewMessage
from tests.support.broker_io import INLETS, Given, carrying, ingest_of, nothing_left
from tests.support.brokers import Nats, RabbitMQ
from tests.support.kafka import EmulatedKafka, delete_topic, kafka
from tests.support.wait import wait_until

pytestmark = pytest.mark.server

BROKERS = {"rabbitmq": RabbitMQ, "nats": Nats, "kafka": kafka}


@pytest.fixture(scope="module", params=list(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[Any]:
    with BROKERS[request.param]() as server:
        server.kind = request.param
        yield server


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


def rows(dsn: str, topic: str) -> list[tuple[Any, ...]]:
    query = """
        SELECT payload::text, data, key, COALESCE(headers, '{}') FROM durable_notify.outbox
         WHERE topic = %s ORDER BY id"""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query, [topic]).fetchall()


# ------------------------------------------------------------- there and back

TEXT = st.text(max_size=12)
STORED = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.sampled_from(["1.10", "12345678901234567890.10", "-0.0", "1e300", "0.1000", "7"])
VALUES = st.one_of(
    STORED.map(lambda s: JsonText(json.dumps(s, ensure_ascii=False))), NUMBERS.map(JsonText),
    st.sampled_from(["null", "true", "[1.10, {}]", '{"a": [1.50]}']).map(JsonText),
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from([
        "Status", "status", "Nats-Rollup", "CC", "BCC", "traceparent", "Description", "a b", "ä",
        "content-type", "ce_id", "x" * 200, "YP/Q", "timestamp", "type", "A", "a",
    ]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=10),
    STORED.filter(bool),
)  # fmt: skip
KEYS = st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
DEEP = JsonText("[" * 3000 + "]" * 3000)
BODIES = st.one_of(
    VALUES, st.binary(max_size=20), st.just("deep"), st.just(JsonText('"\u2028"')),
)  # fmt: skip
MESSAGES = st.lists(
    st.tuples(BODIES, KEYS, st.dictionaries(NAMES, VALUES, max_size=4)), min_size=10, max_size=60
)


def route_to(broker: Any, topic: str) -> tuple[str, dict[str, str], str]:
    """The URL, where the topic goes, and where it is read."""
    if broker.kind == "rabbitmq":
        return broker.url, {"exchange": "amq.topic", "routing_key": topic}, topic
    if broker.kind == "nats":
        return broker.url, {"subject": f"{topic}.x"}, topic
    return broker.url, {"topic": topic, "key": "{key}"}, topic


async def made(broker: Any, name: str) -> str:
    inlet = INLETS[broker.kind][1](broker)
    if broker.kind == "kafka":
        await inlet.make()
        return str(inlet.queue)
    inlet.queue = name
    await inlet.make()
    if broker.kind == "rabbitmq":
        import aio_pika

        async with await aio_pika.connect(broker.url) as connection:
            queue = await (await connection.channel()).get_queue(name)
            await queue.bind("amq.topic", name)
    return name


#: What a relay renames, since it would steer the broker or its clients.
STEERING = {
    "rabbitmq": lambda name: name in ("CC", "BCC"),
    "nats": lambda name: name.lower() == "status" or name.lower().startswith("nats-"),
    "kafka": lambda _: False,
}


@settings(
    max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(messages=MESSAGES)
def test_there_and_back(dsn: str, broker: Any, messages: list[tuple[Any, Any, Any]]) -> None:
    made = [
        NewMessage(
            DEEP if body == "deep" else body, key=key, headers={**headers, "no": str(number)}
        )
        for number, (body, key, headers) in enumerate(messages)
    ]
    asyncio.run(there_and_back(dsn, broker, made))


async def there_and_back(dsn: str, broker: Any, messages: list[NewMessage]) -> None:
    name = f"p{uuid.uuid4().hex}"
    queue = await made(broker, name)
    url, route, _ = route_to(broker, queue)
    if broker.kind == "kafka":
        url += "?session.timeout.ms=6000"
    with psycopg.connect(dsn) as connection:
        ids = dn.Publisher().publish_many(connection, name, messages)
    group = f"g{name}"
    relay = AsyncRelay(
        dsn,
        broker_url=broker.url,
        group=group,
        topics=[name],
        routes={name: route},
        until_empty=True,
    )
    await relay.run()
    with psycopg.connect(dsn) as connection:
        refused = {one.id: one.reason for one in dn.Admin().dead_letters(connection, group)}
    assert relay.sent + relay.rejected == len(messages)
    assert len(refused) == relay.rejected
    back = f"b{name}"
    taking = AsyncIngest(dsn, broker_url=url, queue=queue, topic=back, group=f"i{name}")
    async with carrying(taking) as ingest:
        await wait_until(lambda: len(rows(dsn, back)) == relay.sent, 60)
        assert ingest.refused == 0
    given = rows(dsn, name)
    expected = [row for number, row in zip(ids, given, strict=True) if number not in refused]
    there = {row[3]["no"]: row for row in rows(dsn, back)}
    assert there.keys() == {row[3]["no"] for row in expected}
    for was in expected:
        same(broker.kind, was, there[was[3]["no"]])
    for reason in refused.values():
        assert any(word in reason for word in ("cannot carry", "header's name")), reason


def same(kind: str, was: Any, found: Any) -> None:
    """Body, key and headers are the same, these as text; those that steer have another name."""
    bodies = {was[:2]}
    if was[0] is not None:  # deep: read as bytes, by a program that is not PostgreSQL
        bodies.add((None, was[0].encode()))
    elif was[1] is not None:  # bytes that are JSON
        with contextlib.suppress(ValueError):
            bodies.add((str(JsonText(was[1].decode())), None))
    assert found[:2] in bodies or json.loads(found[0]) == json.loads(was[1])
    assert found[2] == was[2]
    for name, value in was[3].items():
        if name == "content-type" or name.startswith(("ce_", "durable-notify-")):
            continue
        there = f"x-{name}" if STEERING[kind](name) else name
        got = found[3].get(there)
        if kind == "nats" and isinstance(got, str) and got.startswith('"'):
            got = json.loads(got)  # as its page says
        if isinstance(got, list):  # x-Status beside Status
            continue
        expected = value if isinstance(value, str) else None
        assert got is not None, (name, found[3])
        assert expected is None or got == expected, (name, value, found[3])
        if expected is None:
            assert json.loads(got) == value, (name, value, got)


# ------------------------------------------------------------------ odd headers


async def test_nul_and_what_is_no_utf8(dsn: str, broker: Any) -> None:
    """Nothing is thrown away, and nothing is stuck: what is odd is written out, and said."""
    inlet = INLETS[broker.kind][1](broker)
    await inlet.make()
    odd = {"rabbitmq": rabbit_odd, "nats": nats_odd, "kafka": kafka_odd}[broker.kind]
    await odd(inlet)
    await inlet.fill(Given(b'"last"', "k"))
    async with carrying(ingest_of(dsn, inlet)) as ingest:
        await wait_until(lambda: len(rows(dsn, "in")) == 4, 60)
        assert ingest.refused == 0
    found = {row[0]: row[3] for row in rows(dsn, "in")}
    assert found['"nul-value"']["x"] == "a\\x00b"
    assert "'x' has characters" in found['"nul-value"']["ingest-error"]
    assert found['"nul-name"']["a\\x00b"] == "x"
    assert found['"latin"']["x"] == "M\\xfcl"
    assert found['"last"'] == {}


async def rabbit_odd(inlet: Any) -> None:
    import aio_pika

    async with await aio_pika.connect(inlet.url) as connection:
        channel = await connection.channel()
        for name, headers in (
            ("nul-value", {"x": "a\0b"}), ("nul-name", {"a\0b": "x"}),
        ):  # fmt: skip
            message = aio_pika.Message(json.dumps(name).encode(), headers=headers, message_id=name)
            await channel.default_exchange.publish(message, inlet.queue)
    latin = table(short(b"x"), b"S", struct.pack(">I", 3), b"M\xfcl")
    await raw_publish(inlet.url, inlet.queue, struct.pack(">H", HEADERS) + latin, b'"latin"')


async def nats_odd(inlet: Any) -> None:
    """By the protocol itself: the client would not send them."""
    host, port = inlet.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"headers": true, "verbose": false}\r\n')
    for name, line in (
        ("nul-value", b"x: a\0b"), ("nul-name", b"a\0b: x"), ("latin", b"x: M\xfcl"),
    ):  # fmt: skip
        headers = b"NATS/1.0\r\n" + line + b"\r\n\r\n"
        body = json.dumps(name).encode()
        size = f"HPUB {inlet.queue}.x {len(headers)} {len(headers) + len(body)}\r\n".encode()
        writer.write(size + headers + body + b"\r\n")
    writer.write(b"PING\r\n")
    await reader.readuntil(b"PONG\r\n")
    writer.close()


async def kafka_odd(inlet: Any) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": inlet._outlet._servers, "log_level": 0})
    for name, header in (
        ("nul-value", ("x", b"a\0b")), ("latin", ("x", b"M\xfcl")),
    ):  # fmt: skip
        producer.produce(inlet.queue, json.dumps(name).encode(), b"k", headers=[header])
    # Its client ends a name at NUL.
    producer.produce(inlet.queue, b'"nul-name"', b"k", headers=[("a\\x00b", b"x")])
    await asyncio.to_thread(producer.flush, 20)


async def test_a_status_in_nats(dsn: str) -> None:
    """A header of that name: the client takes the message for the server's word, and drops it."""
    import nats

    with Nats() as server:
        inlet = INLETS["nats"][1](server)
        await inlet.make()
        client = await nats.connect(server.url)
        for number, status in enumerate(("503", "404", "100", "ready")):
            headers = {"Status": status, "Description": "mine"}
            await client.jetstream().publish(
                f"{inlet.queue}.x", str(number).encode(), headers=headers
            )
        await client.close()
        async with carrying(ingest_of(dsn, inlet)):
            await wait_until(lambda: len(rows(dsn, "in")) == 4, 60)
            await wait_until(lambda: nothing_left(inlet), 60)
        assert [row[3] for row in rows(dsn, "in")] == [
            {"Status": status, "Description": "mine"} for status in ("503", "404", "100", "ready")
        ]


def test_headers_of_nats_are_read_whole() -> None:
    raw = b"NATS/1.0\r\nA: 1\r\nA:2\r\na b: \tx \r\nb:\xff\r\nc\r\nStatus: 503\r\n\r\n"
    assert nats_headers._headers_of(raw) == {
        "A": ["1", "2"], "a b": "x", "b": "\\xff", "\0Status": "503",
    }  # fmt: skip


# ---------------------------------------------------------- frames of RabbitMQ


async def raw_publish(url: str, queue: str, properties: bytes, body: bytes) -> None:
    """Publish with properties that no client would write: flags and what follows them."""
    import aiormq
    from pamqp import commands, frame, header

    class Raw(header.ContentHeader):
        def marshal(self) -> bytes:
            return struct.pack(">HxxQ", commands.Basic.frame_id, len(body)) + properties

    connection = await aiormq.connect(url)
    channel = await connection.channel()
    payload = (
        frame.marshal(commands.Basic.Publish(exchange="", routing_key=queue), channel.number)
        + frame.marshal(Raw(), channel.number)
        + frame._marshal(3, channel.number, body)
    )
    await channel.write_queue.put(aiormq.abc.ChannelFrame(payload=payload, should_close=False))
    await channel.queue_declare(queue, passive=True)  # it has come through
    await connection.close()


def short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def table(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack(">I", len(content)) + content


TYPE, HEADERS, ID, STAMP, KIND = 1 << 15, 1 << 13, 1 << 7, 1 << 6, 1 << 5
ODD = {
    "a timestamp in microseconds": (STAMP, struct.pack(">Q", 1700000000000000)),
    "one in nanoseconds": (STAMP, struct.pack(">Q", 1700000000000000000)),
    "the largest": (STAMP, b"\xff" * 8),
    "an id that is no UTF-8": (ID, short(b"M\xfcl\xff")),
    "a content type that is none": (TYPE, short(b"\xff/\xfe")),
    "a type that is none": (KIND, short(b"\xff")),
    "a name that is none": (HEADERS, table(short(b"\xff"), b"S", struct.pack(">I", 1), b"x")),
    "a table in a table": (HEADERS, table(short(b"a"), b"F", table(short(b"\xff"), b"t\x01"))),
    "a timestamp in a table": (HEADERS, table(short(b"a"), b"T", b"\xff" * 8)),
    "a timestamp in an array": (
        HEADERS, table(short(b"a"), b"A", struct.pack(">I", 9), b"T", b"\xff" * 8),
    ),
}  # fmt: skip


@pytest.mark.slow
async def test_what_the_client_cannot_read(dsn: str, rabbit: RabbitMQ) -> None:
    """It would close its connection, at each try: the queue would be stuck for good."""
    inlet = INLETS["rabbitmq"][1](rabbit)
    await inlet.make()
    for name, (flags, content) in ODD.items():
        properties = struct.pack(">H", flags) + content
        await raw_publish(rabbit.url, inlet.queue, properties, json.dumps(name).encode())
    await inlet.fill(Given(b'"last"'))
    async with carrying(ingest_of(dsn, inlet)) as ingest:
        await wait_until(lambda: len(rows(dsn, "in")) == len(ODD) + 1, 60)
        await wait_until(lambda: nothing_left(inlet), 60)
        assert ingest.refused == 0
    found = {json.loads(row[0] or row[1]): row[3] for row in rows(dsn, "in")}
    assert list(found) == [*ODD, "last"]
    assert found["a timestamp in microseconds"] == {"timestamp": "1700000000000000"}
    assert found["a content type that is none"]["content-type"] == "\\xff/\\xfe"
    assert found["a type that is none"] == {"type": "\\xff"}
    assert found["a name that is none"] == {"\\xff": "x"}
    assert json.loads(found["a table in a table"]["a"]) == {"\\xff": True}
    assert found["a timestamp in a table"] == {"a": str(2**64 - 1)}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_any_properties_are_read_or_refused(content: bytes, flags: int) -> None:
    """Whatever bytes stand there: no error but those that the client itself would raise."""
    import aiormq.connection
    import pamqp.decode
    import pamqp.header

    from durable_notify.brokers import amqp

    data = struct.pack(">HHQ", 60, 0, 1) + struct.pack(">H", flags & ~1) + content
    whole = struct.pack(">BHI", 2, 1, len(data)) + data + b"\xce"
    assert connection_class(aiormq, pamqp)
    found = amqp._read(pamqp, whole)
    assert found is not None
    size, channel, frame = found
    assert (size, channel, frame.body_size) == (len(whole), 1, 1)


# ------------------------------------------------------- refused, and what lives


async def test_what_the_topic_does_not_take(dsn: str, broker: Any) -> None:
    """A compacted topic, a message without a key: it ends where an operator finds it, whole."""
    inlet = INLETS[broker.kind][1](broker)
    await inlet.make()
    with psycopg.connect(dsn, autocommit=True) as connection:
        dn.Publisher().publish(connection, "state", 0, key="z")
        dn.Admin().set_retention(connection, "state", compact=True)
    await inlet.fill(Given(b"1", "a"), Given(b"2", None, {"h": "x"}), Given(b"3", "b"))
    async with carrying(ingest_of(dsn, inlet, "state")) as ingest:
        await wait_until(lambda: len(rows(dsn, "state")) == 3, 60)
        await wait_until(lambda: nothing_left(inlet), 60)
        assert (ingest.published, ingest.refused) == (2, 1)
    ((payload, data, key, headers),) = rows(dsn, "state.refused")
    assert (payload, data) == (None, b"2")
    assert key
    assert (headers["h"], headers["ingest-topic"]) == ("x", "state")
    assert "outbox_key_in_a_compacted_topic" in headers["ingest-error"]


async def test_nor_does_the_dead_letter_topic(
    dsn: str, broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it stays with the broker, and the rest continues."""
    inlet = INLETS[broker.kind][1](broker)
    await inlet.make()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.headers ? 'poison' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; "
            "END $$; CREATE TRIGGER refuse BEFORE INSERT ON durable_notify.outbox "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    await inlet.fill(Given(b"1", "k"), Given(b"2", "k", {"poison": "x"}), Given(b"3", "k"))
    async with carrying(ingest_of(dsn, inlet)) as ingest:
        await wait_until(lambda: len(rows(dsn, "in")) == 2, 60)
        await inlet.fill(Given(b"4", "k"))
        await wait_until(lambda: ingest.published == 3, 60)
        assert len(rows(dsn, "in")) == 3
    assert any("not this one" in record.getMessage() for record in caplog.records)
    assert "a message stays with the broker" in caplog.text
    assert caplog.records[0].levelno >= logging.WARNING
    if broker.kind != "kafka":

        async def one_is_left() -> bool:
            return bool(await inlet.left() == 1)

        await wait_until(one_is_left, 60)


async def test_its_queue_is_deleted_and_created_again(dsn: str, broker: Any) -> None:
    """A deploy does that: wait while there is none, then continue."""
    if isinstance(broker, EmulatedKafka):
        pytest.skip("the emulation deletes no topics")
    inlet = INLETS[broker.kind][1](broker)
    await inlet.make()
    await inlet.fill(Given(b"1"))
    async with carrying(ingest_of(dsn, inlet)):
        await wait_until(lambda: len(rows(dsn, "in")) == 1, 60)
        for number in range(2, 4):
            await gone(broker, inlet.queue)
            if number == 3:
                await asyncio.sleep(1)  # long enough to be noticed
            await inlet.make()
            await inlet.fill(*(Given(str(number).encode()) for _ in range(3)))
            await wait_until(lambda many=number * 3 - 2: len(rows(dsn, "in")) == many, 60)


async def gone(broker: Any, queue: str) -> None:
    if broker.kind == "rabbitmq":
        import aio_pika

        async with await aio_pika.connect(broker.url) as connection:
            await (await connection.channel()).queue_delete(queue)
        return
    if broker.kind == "kafka":
        await asyncio.to_thread(delete_topic, broker.url.partition("://")[2], queue)
        return
    import nats

    client = await nats.connect(broker.url)
    await client.jetstream().delete_stream(queue)
    await client.close()
