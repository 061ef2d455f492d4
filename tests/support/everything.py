"""Use every part of the library once, and return the results, the same each time."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import durable_notify as dn
from durable_notify.adapters import PLAIN
from durable_notify.bridge import Bridge
from durable_notify.diagnostics.doctor import diagnose
from durable_notify.diagnostics.status import take_snapshot
from tests.support.observe import asleep

__all__ = ["run"]

Connection = psycopg.Connection[Any]
NAME = "Zoë Größe"
PAYLOADS: list[Any] = [
    {"name": NAME, "ratio": 0.1 + 0.2, "many": [1, None, "NULL"]},
    dn.NewMessage({"n": 1}, key="NULL"),
    dn.NewMessage({"n": 2}, key=None, headers={"h": "ü\\"}),
    dn.NewMessage(b"\x00\\\xff", key='a"b\\c,{}'),
    None,
]


def run(dsn: str) -> dict[str, Any]:
    """Do all of it on a fresh database; returns the results by operation."""
    done: dict[str, Any] = {}
    with psycopg.connect(dsn) as connection:
        done["publish"] = _publish(connection)
    with psycopg.connect(dsn, autocommit=True) as connection:
        done["administer"] = _administer(connection)
        done["consume"] = _consume(dsn, connection)
        done["look"] = _look_at(connection)
        done["replay"] = _replay(dsn, connection)
        done["wake"] = asyncio.run(_wake(dsn, connection))
        done["read"] = _read(dsn)
        done["diagnose"] = _diagnose(dsn)
        done["maintain"] = _maintain(dsn, connection)
    return done


def _publish(connection: Connection) -> Any:
    publisher = dn.Publisher()
    with connection.transaction():
        one = publisher.publish(connection, "t", {"n": 0}, key="k", headers={"x": 1.5})
        many = publisher.publish_many(connection, "t", PAYLOADS)
        keyless = publisher.publish_many(connection, "t", [dn.NewMessage(1, key=None)] * 2)
        at = datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
        options = {"deliver_at": at, "ttl": timedelta(days=10_000, seconds=1.5)}
        timed = publisher.publish_many(
            connection, "t", [dn.NewMessage("timed", **options), dn.NewMessage("plain")]
        )
        again = [
            publisher.publish(connection, "t", "once", dedup_key="d", dedup_window=3600.5)
            for _ in range(2)
        ]
        late = publisher.publish(connection, "later", 1, delay=timedelta(days=400))
    assert one < min(many)
    assert max(timed) < again[0] == again[1] < late
    return len(many), len(keyless)


def _administer(connection: Connection) -> Any:
    admin, bridge = dn.Admin(), Bridge()
    connection.execute("SELECT durable_notify.subscribe('g', '{t,p.*}')")
    admin.configure(connection, "g", retry=dn.RetryPolicy(max_attempts=2, base=0.001, max=0.002))
    admin.set_notify_policy(connection, "loud", "always")
    admin.pause(connection, "g")
    admin.resume(connection, "g")
    admin.set_retention(connection, "gone", max_age=86_400.5, when_settled=True)
    admin.set_retention(connection, "kept.>", compact=True, on_lag="lose", max_bytes=2**40)
    bridge.mirror(connection, "t", "raw channel")
    connection.execute("CREATE TABLE public.things (a int, b text, PRIMARY KEY (a, b))")
    watched = bridge.watch(connection, "public.things", "things", columns=["b"])
    connection.execute("INSERT INTO public.things VALUES (1, E'x\\\\y')")
    found = (
        admin.groups(connection), admin.retention(connection), admin.notify_policy(connection, "loud"),
        bridge.bridges(connection), watched, admin.blocking_publishers(connection, "g"),
    )  # fmt: skip
    bridge.create_compat(connection)
    connection.execute("SELECT durable_notify_compat.pg_notify('c', E'\\\\')")
    connection.execute("SELECT durable_notify.notify('c %', 'x')")
    assert bridge.drop_compat(connection)
    assert bridge.unwatch(connection, "public.things", "things")
    assert bridge.unmirror(connection, "t") == "raw channel"
    assert admin.delete_retention(connection, "kept.>")
    # A name may be in quotes; it is the same then.
    return _plain(found, leave_out='"')


def _consume(dsn: str, connection: Connection) -> Any:
    got = []

    def handle(message: dn.Message) -> None:
        got.append((message.id, message.key, message.payload, message.headers, message.attempt))
        assert abs(datetime.now(UTC) - message.published_at) < timedelta(minutes=10)
        if message.payload == {"n": 1}:
            raise ValueError(NAME)
        if message.payload == {"n": 2}:
            message.reject(f"no {NAME}", "why\\")
        if message.payload == 1:
            with message.transaction() as own:
                own.execute("SELECT")
                assert message.once(own)

    consumer = dn.Consumer(
        dsn, group="g", topics=["t", "p.*"], until_empty=True, maintenance=False, batch_size=3
    )
    consumer.run(handle)
    letters = dn.Admin().dead_letters(connection, "g")
    assert letters[0].error is not None
    assert letters[0].error["message"] == NAME
    return _plain((sorted(got, key=lambda row: (row[0], row[-1])), letters))


def _look_at(connection: Connection) -> Any:
    first = take_snapshot(connection)
    found = take_snapshot(connection, first)
    admin = dn.Admin()
    return _plain((
        [(one.topic, one.group, one.lag, one.dead_letters) for one in found.groups],
        admin.status(connection), admin.retention_blockers(connection), admin.lost_messages(connection),
        admin.grants(connection),
    ))  # fmt: skip


def _replay(dsn: str, connection: Connection) -> Any:
    admin, got = dn.Admin(), []
    since = datetime(2021, 1, 1, tzinfo=UTC)
    counted = admin.seek(connection, "g", "t", since=since, dry_run=True)
    job = admin.start_replay(
        connection, "g", "t", since=since, keys=["k", "NULL"], headers={"x": 1.5}, why=NAME
    )
    consumer = dn.Consumer(dsn, group="g", topics=["t"], until_empty=True, maintenance=False)
    consumer.run(lambda message: got.append((message.payload, message.attempt)))
    jobs = admin.replay_jobs(connection)
    sent = admin.redrive(connection, "g", key="NULL", since=since)
    discarded = admin.discard(connection, "g", everything=True, why=NAME)
    taken = [(entry.action, entry.why, entry.details) for entry in admin.audit(connection, "g")]
    assert job == jobs[0].id
    return _plain((counted, got, jobs, sent, discarded, taken))


async def _wake(dsn: str, connection: Connection) -> Any:
    """Nothing but a wake-up tells of what is published."""
    got = []
    topics = ["wo'k\\en", "ä" * 30]
    async with dn.AsyncConsumer(
        dsn, group="w", topics=topics, poll_interval=None, maintenance=False
    ) as consumer:
        for topic in topics:
            await asleep(consumer)
            dn.Publisher().publish(connection, topic, topic)
            message = await asyncio.wait_for(anext(aiter(consumer)), 20)
            await message.ack()
            got.append(message.payload)
        health = consumer.health()
    return got, health.ready, health.hears


def _read(dsn: str) -> Any:
    with dn.Reader(dsn, topics=["t"], until_empty=True) as reader:
        messages = list(reader)
    with dn.Reader(dsn, topics=["t"], start=messages[2].token, until_empty=True) as reader:
        rest = list(reader)
    assert [message.id for message in rest] == [message.id for message in messages[3:]]
    return _plain([(message.key, message.payload, message.headers) for message in messages])


def _diagnose(dsn: str) -> Any:
    """Findings that hinder, and checks that failed; not settings that are merely odd."""
    found = [(finding.name, finding.what) for finding in diagnose(dsn) if finding.level == "error"]
    return found + [finding for finding in diagnose(dsn) if finding.name == "check-failed"]


def _maintain(dsn: str, connection: Connection) -> Any:
    dn.Admin().set_retention(connection, "t", max_age=0.001, on_lag="lose")
    report = dn.Maintenance(dsn, every=0.0, inbox_age=1e6, audit_age=1e6).run_once()
    assert report is not None
    failed = {name: what for name, what in report.items() if name.endswith("failed")}
    # Not as the program adapts values, which is up to it.
    with psycopg.connect(dsn, autocommit=True, context=PLAIN) as plain:
        result = plain.execute("CALL durable_notify.maintain()").pgresult
        by_sql = json.loads((result.get_value(0, 0) if result else None) or b"{}")
        failed |= {name: what for name, what in by_sql.items() if name.endswith("failed")}
        left = plain.execute("SELECT count(*) FROM durable_notify.outbox WHERE topic = 't'")
        dn.Publisher().publish(connection, "t", 1)
        return failed, left.fetchone()


def _plain(value: Any, leave_out: str = "\0") -> Any:
    """Replace what differs between runs by its type."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name), leave_out) for name in names}
    if isinstance(value, dict):
        return {name: _plain(item, leave_out) for name, item in value.items() if name not in VARY}
    if isinstance(value, (list, tuple)):
        return [_plain(item, leave_out) for item in value]
    if isinstance(value, str):
        return value.replace(leave_out, "")
    if isinstance(value, datetime):
        assert value.tzinfo is not None
        return datetime
    return value


#: Fields that differ between runs.
VARY = {"traceback"}
