"""Delays, expiry, deduplication; CloudEvents and trace context."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

import psycopg
import pytest
from cloudevents.v1.conversion import to_dict as event_to_dict
from cloudevents.v1.http import CloudEvent

import durable_notify as dn
from durable_notify.brokers import cloudevents
from durable_notify.integrations.otel import context_of
from tests.support.api import Api, Recorder, maybe_await, running
from tests.support.cli import good, objects, run
from tests.support.injection import plant
from tests.support.observe import asleep, outstanding, value
from tests.support.sessions import Session, Sessions
from tests.support.wait import with_timeout

Connection = psycopg.Connection[Any]
UTC = dt.UTC


@pytest.mark.parametrize("many", [False, True])
async def test_a_delayed_message_wakes_its_consumer(
    api: Api, dsn: str, conn: Connection, many: bool
) -> None:
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen), api.connect(dsn, autocommit=True) as mine:
        await asleep(getattr(consumer, "consumer", consumer))
        before = dt.datetime.now(UTC)
        if many:
            outgoing = [
                dn.NewMessage("later", delay=dt.timedelta(seconds=1.5)),
                dn.NewMessage("at once"),
            ]
            await maybe_await(api.Publisher().publish_many(mine, "t", outgoing))
        else:
            await maybe_await(api.Publisher().publish(mine, "t", "later", delay=1.5))
            await maybe_await(api.Publisher().publish(mine, "t", "at once"))
        await seen.got(2)
    assert [m.payload for m in seen.messages] == ["at once", "later"]
    assert dt.datetime.now(UTC) - before >= dt.timedelta(seconds=1.5)
    assert seen.attempts == [1, 1]


async def test_times_are_stored(api: Api, dsn: str, conn: Connection) -> None:
    at, until = dt.datetime(2040, 1, 1, tzinfo=UTC), dt.datetime(2041, 1, 1, tzinfo=UTC)
    async with api.connect(dsn, autocommit=True) as mine:
        publisher = api.Publisher()
        await maybe_await(publisher.publish(mine, "t", 1, deliver_at=at, expires_at=until))
        await maybe_await(publisher.publish(mine, "t", 2, deliver_at=at, ttl=60))
        await maybe_await(publisher.publish(mine, "t", 3, delay=1000, ttl=dt.timedelta(seconds=60)))
    rows = conn.execute(
        "SELECT deliver_at, expires_at, expires_at - created_at FROM durable_notify.outbox ORDER BY id"
    ).fetchall()
    assert rows[0][:2] == (at, until)
    assert rows[1][:2] == (at, at + dt.timedelta(seconds=60))
    assert abs(rows[2][2] - dt.timedelta(seconds=1060)) < dt.timedelta(seconds=5)


async def test_an_expired_message_does_not_come(api: Api, dsn: str, conn: Connection) -> None:
    async with api.connect(dsn, autocommit=True) as mine:
        past = dt.datetime.now(UTC) - dt.timedelta(seconds=1)
        await maybe_await(api.Publisher().publish(mine, "t", "old", expires_at=past))
        await maybe_await(api.Publisher().publish(mine, "t", "fresh", ttl=60))
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert [m.payload for m in seen.messages] == ["fresh"]
    assert value(conn, "SELECT expired FROM durable_notify.position") == 1
    assert outstanding(conn) == 0


NAIVE = dt.datetime(2040, 1, 1)  # noqa: DTZ001
AWARE = dt.datetime(2040, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "options",
    [
        {"deliver_at": NAIVE}, {"expires_at": NAIVE}, {"deliver_at": AWARE, "delay": 1},
        {"expires_at": AWARE, "ttl": 1}, {"deliver_at": AWARE, "expires_at": AWARE}, {"delay": -1},
        {"ttl": 0}, {"delay": "soon"}, {"delay": float("nan")}, {"ttl": 1e12}, {"dedup_key": ""},
        {"dedup_key": 7}, {"dedup_key": "k", "dedup_window": 0}, {"dedup_key": "x" * 1025},
        {"deliver_at": 3.0},
    ],
)  # fmt: skip
async def test_what_cannot_be(api: Api, dsn: str, conn: Connection, options: Any) -> None:
    async with api.connect(dsn, autocommit=True) as mine:
        with pytest.raises(dn.InvalidArgument):
            await maybe_await(api.Publisher().publish(mine, "t", 1, **options))
        with pytest.raises(dn.InvalidArgument) as caught:
            await maybe_await(
                api.Publisher().publish_many(mine, "t", [0, dn.NewMessage(1, **options)])
            )
        assert "message 1" in caught.value.__notes__[0]
    assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == 0


def test_relative_times_are_checked_in_sql_too(conn: Connection) -> None:
    for options in ("delay => '-1s'", "ttl => '0'", "deliver_at => now(), delay => '1s'",
                    "deliver_at => now(), expires_at => now()", "dedup_key => ''",
                    "dedup_key => 'k', dedup_window => '0'"):  # fmt: skip
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            conn.execute(f"SELECT durable_notify.publish('t', '1', {options})".encode())
    assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == 0


# Only once.


async def test_published_once(api: Api, dsn: str, conn: Connection) -> None:
    async with api.connect(dsn, autocommit=True) as mine:
        publisher = api.Publisher()
        first = await maybe_await(publisher.publish(mine, "t", 1, dedup_key="k"))
        assert await maybe_await(publisher.publish(mine, "t", 2, dedup_key="k")) == first
        other = await maybe_await(publisher.publish(mine, "u", 3, dedup_key="k"))
        many = [dn.NewMessage(4, dedup_key="k"), 5, dn.NewMessage(6, dedup_key="l"),
                dn.NewMessage(7, dedup_key="l", delay=1)]  # fmt: skip
        ids = await maybe_await(publisher.publish_many(mine, "t", many))
        assert ids == [first, ids[1], ids[2], ids[2]]
        assert len({first, other, *ids}) == 4
        conn.execute("UPDATE durable_notify.dedup SET until = 'epoch' WHERE dedup_key = 'k'")
        second = await maybe_await(publisher.publish(mine, "t", 8, dedup_key="k"))
        assert second > max(ids)
        assert await maybe_await(publisher.publish(mine, "t", 9, dedup_key="k")) == second
    payloads = conn.execute("SELECT payload FROM durable_notify.outbox ORDER BY id").fetchall()
    assert [row[0] for row in payloads] == [1, 3, 5, 6, 8]


ONCE = "SELECT durable_notify.publish('t', '1', dedup_key => 'k')"


def race(one: Session, two: Session, sessions: Sessions, *, commit: bool) -> tuple[int, int]:
    one.begin()
    first = one.value(ONCE)
    waiting = two.start(ONCE)
    sessions.wait_until_blocked(two, waiting)
    one.commit() if commit else one.rollback()
    return first, waiting.result()[0][0]


@pytest.mark.parametrize("commit", [True, False])
def test_two_at_once(dsn: str, commit: bool) -> None:
    with Sessions(dsn) as sessions:
        one, two = sessions.take(2)
        first, second = race(one, two, sessions, commit=commit)
        assert (first == second) is commit
        assert one.column("SELECT id FROM durable_notify.outbox") == [second]
        assert one.value(ONCE) == second


def test_looking_first_is_caught(dsn: str) -> None:
    with Sessions(dsn) as sessions:
        one, two = sessions.take(2)
        plant(
            one, "_claim_dedup_key",
            ("IF NOT FOUND THEN", "IF EXISTS (SELECT FROM durable_notify.dedup d WHERE d.topic = _claim_dedup_key.topic AND d.dedup_key = _claim_dedup_key.dedup_key AND d.message_id IS NOT NULL) THEN"),
            ("ON CONFLICT (topic, dedup_key) DO UPDATE SET until = EXCLUDED.until, message_id = NULL\n     WHERE d.until <= pg_catalog.clock_timestamp();", "ON CONFLICT DO NOTHING;"),
            ("INSERT INTO durable_notify.dedup AS d (topic, dedup_key, until)\n    VALUES (_claim_dedup_key.topic, _claim_dedup_key.dedup_key, pg_catalog.clock_timestamp() + dedup_window)", "INSERT INTO durable_notify.dedup AS d (topic, dedup_key, until) SELECT _claim_dedup_key.topic, _claim_dedup_key.dedup_key || pg_catalog.txid_current(), pg_catalog.clock_timestamp()"),
        )  # fmt: skip
        one.begin()
        first = one.value(ONCE)
        second = two.value(ONCE)
        one.commit()
        assert first != second, "the planted fault is gone"


def test_pruned(conn: Connection) -> None:
    for key in "abc":
        conn.execute("SELECT durable_notify.publish('t', '1', dedup_key => %s)", [key])
    conn.execute("UPDATE durable_notify.dedup SET until = 'epoch' WHERE dedup_key < 'c'")
    assert value(conn, "SELECT durable_notify.prune_dedup(1)") == 1
    assert value(conn, "SELECT durable_notify.prune_dedup()") == 1
    assert value(conn, "SELECT dedup_key FROM durable_notify.dedup") == "c"


# The command line.


def test_on_the_command_line(dsn: str, conn: Connection) -> None:
    first = good("publish", "t", "1", "--dedup-key", "k", "--ttl", "1h", dsn=dsn)
    assert good("publish", "t", "2", "--dedup-key", "k", dsn=dsn) == first
    good("publish", "t", "3", "--delay", "2h", "--dedup-window", "10", dsn=dsn)
    line = {"payload": 4, "deliver_at": "2040-01-01T00:00:00Z", "dedup_key": "l"}
    good("publish", "t", "--envelope", dsn=dsn, given=f"{json.dumps(line)}\n{json.dumps(line)}")
    rows = conn.execute(
        "SELECT payload, deliver_at IS NULL, expires_at IS NULL FROM durable_notify.outbox ORDER BY id"
    ).fetchall()
    assert rows == [(1, True, False), (3, False, True), (4, False, True)]
    for options in (["--deliver-at", "2h"], ["--delay", "soon"], ["--delay", "1", "--deliver-at", "2040-01-01"]):  # fmt: skip
        assert run("publish", "t", "1", *options, dsn=dsn).returncode == 2
    bad = run("publish", "t", "--envelope", dsn=dsn, given='{"payload": 1, "deliver_at": 5}')
    assert bad.returncode == 1
    assert "deliver_at" in bad.stderr
    assert objects("") == []


# CloudEvents.

EVENT = {
    "specversion": "1.0", "id": "A-1", "source": "/shop", "type": "com.example.paid",
    "subject": "7", "time": "2026-01-31T09:00:00Z", "datacontenttype": "application/json",
    "myextension": "x", "data": {"order": 1},
}  # fmt: skip


@pytest.mark.parametrize("data", [{"data": {"order": 1}}, {"data_base64": "AP8="}, {}])
async def test_events_go_in_and_out(api: Api, dsn: str, conn: Connection, data: Any) -> None:
    event = {name: of for name, of in EVENT.items() if name != "data"} | data
    async with api.connect(dsn, autocommit=True) as mine:
        await maybe_await(
            api.Publisher().publish(mine, "t", cloudevents.from_event(event, key="k"))
        )
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    (message,) = seen.messages
    assert cloudevents.to_event(message) == event
    assert message.headers["content-type"] == "application/json"
    assert (message.headers["ce_type"], message.key) == ("com.example.paid", "k")


def test_events_of_the_package() -> None:
    event = CloudEvent({"type": "t", "source": "s", "subject": "x"}, {"a": 1})
    outgoing = cloudevents.from_event(event)
    assert outgoing.payload == {"a": 1}
    assert outgoing.headers is not None
    assert outgoing.headers["ce_id"] == event_to_dict(event)["id"]


def test_any_message_is_an_event(conn: Connection, dsn: str) -> None:
    message_id = dn.Publisher().publish(conn, "t.a", [1])
    with dn.Consumer(dsn, group="g", topics=["t.a"], until_empty=True) as consumer:
        for message in consumer:
            event = cloudevents.to_event(message)
            message.ack()
    assert event.pop("time").endswith("Z")
    assert event == {
        "specversion": "1.0", "id": str(message_id), "source": "/t.a", "type": "t.a", "data": [1],
    }  # fmt: skip


@dataclasses.dataclass
class Paid:
    order: int
    at: dt.datetime


def test_a_typed_payload_is_json(conn: Connection, dsn: str) -> None:
    topic = dn.Topic("t.a", Paid)
    at = dt.datetime(2026, 1, 31, 9, tzinfo=dt.UTC)
    dn.Publisher().publish(conn, topic, Paid(7, at))
    with dn.Consumer(dsn, group="g", topics=[topic], until_empty=True) as consumer:
        for message in consumer:
            assert message.payload == Paid(7, at)
            event = cloudevents.to_event(message)
            message.ack()
    assert json.loads(json.dumps(event))["data"] == {"order": 7, "at": "2026-01-31T09:00:00Z"}


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"id": ""}, {"type": 7}, {"specversion": "0.3"}, {"Bad": "x"}, {"a_b": "x"},
        {"data_base64": "AP8="}, {"data": None, "data_base64": "?"}, {"ext": [1]},
        {"time": dt.datetime(2026, 1, 1)},  # noqa: DTZ001
    ],
)  # fmt: skip
def test_not_an_event(change: Any) -> None:
    with pytest.raises(dn.InvalidArgument):
        cloudevents.from_event(EVENT | change)
    with pytest.raises(dn.InvalidArgument, match="mapping"):
        cloudevents.from_event([1])


# Trace context.


async def test_the_span_is_carried(api: Api, dsn: str, conn: Connection) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")
    async with api.connect(dsn, autocommit=True) as mine:
        await maybe_await(api.Publisher().publish(mine, "t", "outside"))
        with tracer.start_as_current_span("publish") as span:
            await maybe_await(api.Publisher().publish(mine, "t", "inside", headers={"a": 1}))
            await maybe_await(api.Publisher(trace=False).publish(mine, "t", "off"))
            own = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
            await maybe_await(
                api.Publisher().publish_many(mine, "t", [dn.NewMessage("own", headers=own)])
            )
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    headers = {m.payload: m.headers for m in seen.messages}
    assert headers["outside"] == headers["off"] == {}
    assert headers["own"] == own
    assert headers["inside"]["a"] == 1
    carried = trace.get_current_span(context_of(headers["inside"])).get_span_context()
    assert carried.span_id == span.get_span_context().span_id
    assert carried.trace_id == span.get_span_context().trace_id
    assert carried.is_remote
