"""drain(), travel() and reset()."""

from __future__ import annotations

import contextlib
import functools
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import testing
from durable_notify._core import sql
from durable_notify.events import DeadLettered
from tests.support.api import Api, in_thread, with_group
from tests.support.wait import eventually

publisher = dn.Publisher()
Connection = psycopg.Connection[Any]


class Failed(Exception):
    pass


async def drain(api: Api, dsn: str, handler: Any, **options: Any) -> testing.Drained[Any]:
    """Drain topic t into a group by the API of the test."""
    given = {name: options.pop(name) for name in ("skip_delays", "raise_errors") if name in options}
    options = with_group({"group": "g", "topics": ["t"]} | options)
    if api.is_async:
        return await testing.drain_async(dn.AsyncConsumer(dsn, **options), handler, **given)
    call = functools.partial(testing.drain, dn.Consumer(dsn, **options), handler, **given)
    return await in_thread(call)


def nothing(message: Any) -> None:
    """Do nothing: the message is acknowledged."""


def payloads(messages: list[Any]) -> list[Any]:
    return [message.payload for message in messages]


async def test_until_nothing_is_left(api: Api, dsn: str, conn: Connection) -> None:
    publisher.publish_many(conn, "t", range(150))
    seen: list[Any] = []
    drained = await drain(api, dsn, lambda message: seen.append(message.payload))
    assert seen == payloads(drained.handled) == list(range(150))
    assert (drained.retried, drained.dead, drained.errors) == ([], [], [])
    assert await drain(api, dsn, seen.append) == testing.Drained()


async def test_what_the_handler_publishes_is_handled_as_well(
    api: Api, dsn: str, conn: Connection
) -> None:
    publisher.publish(conn, "t", 1)

    def handler(message: Any) -> None:
        if message.payload < 3:
            publisher.publish(conn, f"t.{message.payload}", message.payload + 1)

    drained = await drain(api, dsn, handler, topics=["t", "t.*"])
    assert payloads(drained.handled) == [1, 2, 3]


async def test_errors_are_raised(api: Api, dsn: str, conn: Connection) -> None:
    publisher.publish_many(conn, "t", [1, 2, 3])

    def handler(message: Any) -> None:
        if message.payload == 2:
            raise Failed(message.payload)

    with pytest.raises(Failed):
        await drain(api, dsn, handler)
    # As after a consumer: 1 is settled, 2 is retried, 3 is redelivered as if it had not been claimed.
    drained = await drain(api, dsn, nothing, skip_delays=True)
    assert [(m.payload, m.attempt) for m in drained.handled] == [(3, 1), (2, 2)]


async def test_what_happened_is_counted(api: Api, dsn: str, conn: Connection) -> None:
    publisher.publish_many(conn, "t", ["fails", "rejected", "works", "again"])

    def handler(message: Any) -> Any:
        if message.payload == "fails":
            raise Failed
        if message.payload == "again" and message.attempt == 1:
            raise KeyError("again")
        if message.payload == "rejected":
            raise ValueError

    drained = await drain(
        api, dsn, handler, skip_delays=True, raise_errors=False,
        retry=dn.RetryPolicy(max_attempts=3, base=600), on_error={ValueError: dn.Reject("no")},
    )  # fmt: skip
    assert payloads(drained.handled) == ["works", "again"]
    assert payloads(drained.retried) == ["fails", "again", "fails"]
    assert payloads(drained.dead) == ["rejected", "fails"]
    kinds = [type(error) for error in drained.errors]
    assert sorted(kinds, key=str) == sorted([Failed] * 3 + [KeyError, ValueError], key=str)
    assert len(dn.Admin().dead_letters(conn, "g")) == 2


async def test_delays_stay_unless_they_are_skipped(api: Api, dsn: str, conn: Connection) -> None:
    at = datetime.now(UTC) + timedelta(days=400)
    publisher.publish(conn, "t", "late", deliver_at=at)
    publisher.publish(conn, "t", "later", deliver_at=at + timedelta(days=1))
    publisher.publish(conn, "t", "gone", delay=3600, ttl=1)
    publisher.publish(conn, "t", "now")
    assert payloads((await drain(api, dsn, nothing)).handled) == ["now"]
    testing.travel(conn, hours=2)
    drained = await drain(api, dsn, nothing, skip_delays=True)
    assert payloads(drained.handled) == ["late", "later"]


async def test_a_key_that_waits_for_its_retry(api: Api, dsn: str, conn: Connection) -> None:
    """More of them than one claim looks at."""
    messages = [dn.NewMessage(number, key="k") for number in range(120)]
    publisher.publish_many(conn, "t", messages)
    first = True

    def handler(message: Any) -> None:
        nonlocal first
        if first:
            first = False
            raise Failed

    drained = await drain(api, dsn, handler, raise_errors=False)
    assert payloads(drained.retried) == [0]
    assert drained.handled == []
    drained = await drain(api, dsn, handler, skip_delays=True)
    assert payloads(drained.handled) == list(range(120))


async def test_limits_leases_and_other_consumers_are_waited_for(
    api: Api, dsn: str, conn: Connection
) -> None:
    publisher.publish_many(conn, "t", range(30))
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    dn.Admin().configure(conn, "g", rate_limit=1, exclusive=True)
    conn.execute("SELECT durable_notify.claim('g', '{t}', 1, '1 hour', 'died')")
    assert (await drain(api, dsn, nothing)).handled == []
    drained = await drain(api, dsn, nothing, skip_delays=True)
    assert sorted(payloads(drained.handled)) == list(range(30))


async def test_a_replay_is_finished(api: Api, dsn: str, conn: Connection) -> None:
    publisher.publish_many(conn, "t", range(3))
    await drain(api, dsn, nothing)
    dn.Admin().start_replay(conn, "g", "t", after=0)
    assert payloads((await drain(api, dsn, nothing)).handled) == [0, 1, 2]
    dn.Admin().start_replay(conn, "g", "t", after=0, rate_limit=0.1)
    drained = await drain(api, dsn, nothing, skip_delays=True)
    assert payloads(drained.handled) == [0, 1, 2]


async def test_acknowledged_in_the_handlers_transaction(
    api: Api, dsn: str, conn: Connection
) -> None:
    conn.execute("CREATE TABLE done (job int)")
    publisher.publish_many(conn, "t", [1, 2])
    if api.is_async:

        async def work(message: Any) -> None:
            async with message.transaction() as connection:
                await connection.execute("INSERT INTO done VALUES (%s)", [message.payload])
                if message.attempt == 1:
                    raise Failed
    else:

        def work(message: Any) -> None:  # type: ignore[misc]
            with message.transaction() as connection:
                connection.execute("INSERT INTO done VALUES (%s)", [message.payload])
                if message.attempt == 1:
                    raise Failed

    drained = await drain(api, dsn, work, skip_delays=True, raise_errors=False)
    assert payloads(drained.retried) == [1, 2]
    assert sorted(payloads(drained.handled)) == [1, 2]
    assert conn.execute("SELECT job FROM done ORDER BY job").fetchall() == [(1,), (2,)]


async def test_a_message_that_python_cannot_decode_is_dead(
    api: Api, dsn: str, conn: Connection
) -> None:
    conn.execute("SELECT durable_notify.publish('t', repeat('9', 5000)::jsonb)")
    events: list[Any] = []
    drained = await drain(api, dsn, nothing, on_event=events.append)
    assert [message.id for message in drained.dead] == [1]
    (dead,) = [event for event in events if isinstance(event, DeadLettered)]
    assert (dead.topic, dead.attempt) == ("t", 1)


def test_the_handler_runs_in_the_threads_of_the_test(dsn: str, conn: Connection) -> None:
    publisher.publish(conn, "t", 1)
    threads = {}
    consumer = dn.Consumer(dsn, group="g", topics=["t"])
    testing.drain(consumer, lambda m: threads.update({m.payload: threading.current_thread()}))
    assert threads == {1: threading.current_thread()}


def test_acknowledged_in_a_transaction_of_the_test(dsn: str, conn: Connection) -> None:
    def drain_into(handler: Any, **options: Any) -> list[Any]:
        consumer = dn.Consumer(dsn, group="g", topics=["t"])
        return payloads(testing.drain(consumer, handler, **options).handled)

    publisher.publish(conn, "t", 1)
    with psycopg.connect(dsn) as held:
        assert drain_into(lambda message: message.ack(held)) == [1]
        publisher.publish(conn, "t", 2)
        assert drain_into(nothing) == [2]
        with pytest.raises(RuntimeError, match="an open transaction holds them"):
            drain_into(nothing, skip_delays=True)
        held.rollback()
    assert drain_into(nothing, skip_delays=True) == [1]


def test_acknowledged_and_rolled_back(dsn: str, conn: Connection) -> None:
    """By an error that the handler raises, or that it swallows."""
    publisher.publish_many(conn, "t", ["raised", "swallowed"])

    def handler(message: dn.Message) -> None:
        swallowed = contextlib.suppress(*[Failed] * (message.payload == "swallowed"))
        with swallowed, message.transaction() as connection:
            message.ack(connection)
            if message.attempt == 1:
                raise Failed

    consumer = dn.Consumer(dsn, group="g", topics=["t"], on_error={Failed: dn.Retry(0)})
    drained = testing.drain(consumer, handler, raise_errors=False)
    assert payloads(drained.retried) == payloads(drained.handled) == ["raised", "swallowed"]
    assert len(drained.errors) == 1


async def test_a_consumer_of_a_module_is_drained_again(
    api: Api, dsn: str, conn: Connection
) -> None:
    consumer: Any = (dn.AsyncConsumer if api.is_async else dn.Consumer)(dsn, group="g")
    consumer.on("t")(nothing)
    for payload in ("first", "second"):
        publisher.publish(conn, "t", payload)
        if api.is_async:
            drained = await testing.drain_async(consumer)
        else:
            drained = await in_thread(testing.drain, consumer)
        assert payloads(drained.handled) == [payload]


def test_only_with_a_consumer_that_was_not_started(dsn: str) -> None:
    consumer = dn.Consumer(dsn, group="g", topics=["t"])
    testing.drain(consumer, nothing)
    with pytest.raises(dn.errors.ConsumerClosed, match="that was not started: make a new one"):
        testing.drain(consumer, nothing)
    with pytest.raises(dn.InvalidArgument, match="use AsyncConsumer"):

        async def handler(message: Any) -> None: ...

        testing.drain(dn.Consumer(dsn, group="g", topics=["t"]), handler)


def test_travel_wakes_a_consumer_that_sleeps(dsn: str, conn: Connection) -> None:
    publisher.publish(conn, "t", 1, delay=3600)
    with dn.Consumer(dsn, group="g", topics=["t"], poll_interval=None) as consumer:
        eventually(lambda: consumer.health().state == "sleeping")
        testing.travel(conn, hours=1, seconds=1)
        assert next(consumer).payload == 1


def test_travel_is_part_of_a_transaction(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        publisher.publish(connection, "t", 1, delay=3600)
        (before,) = testing.published(connection, "t")
        testing.travel(connection, days=1, minutes=1)
        (after,) = testing.published(connection, "t")
        assert before.deliver_at is not None
        assert after.deliver_at is not None
        assert before.deliver_at - after.deliver_at == timedelta(days=1, minutes=1)
    with pytest.raises(dn.InvalidArgument, match="goes forward"):
        testing.travel(connection)


def test_every_time_by_which_something_happens_moves(conn: Connection) -> None:
    """A new column of a table is either moved, or only says when something was."""
    says_when = {
        "access.granted_at", "capture.heard_until", "capture.started_at", "cluster_identity.anchored_at",
        "consumer_group.created_at", "consumer_group.paused_at", "group_pattern.created_at",
        "lost_message.at", "replay_job.created_at", "replay_job.ended_at", "subscription.created_at",
        "topic_retention.set_at", "record_age.set_at", "unwanted_partition.recorded_at",
        "schedule.paused_at", "schedule.set_at", "webhook.created_at", "webhook.changed_at",
        "operator_event.set_at", "operator_alarm.since",
    }  # fmt: skip
    query = """
        SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind IN ('r', 'p')
           AND NOT c.relispartition AND a.atttypid = 'timestamptz'::regtype"""
    there = {name for (name,) in conn.execute(query)}
    moved = {f"{table}.{column}" for table, columns in sql._TIMES.items() for column in columns}
    assert there == says_when | moved


@pytest.mark.parametrize("how", ["", "RESTART IDENTITY CASCADE"])
def test_reset_after_a_truncate_of_all_tables(dsn: str, conn: Connection, how: str) -> None:
    publisher.publish(conn, "t", 1)
    testing.drain(dn.Consumer(dsn, group="g", topics=["t"]), nothing)
    query = """
        SELECT string_agg('durable_notify.' || relname, ', ') FROM pg_class
         WHERE relnamespace = 'durable_notify'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"""
    row = conn.execute(query).fetchone()
    assert row is not None
    conn.execute(f"TRUNCATE {row[0]} {how}".encode())
    testing.reset(conn)
    publisher.publish(conn, "t", 2)
    drained = testing.drain(dn.Consumer(dsn, group="g", topics=["t"]), nothing)
    assert payloads(drained.handled) == [2]
    testing.reset(conn)
    assert testing.published(conn, "t") == []


async def test_reset_of_asyncio(aconn: psycopg.AsyncConnection) -> None:
    await dn.AsyncPublisher().publish(aconn, "t", 1, delay=60)
    await testing.travel_async(aconn, minutes=2)
    await testing.reset_async(aconn)
    assert await testing.published_async(aconn, "t") == []
