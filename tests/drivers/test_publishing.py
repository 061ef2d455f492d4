"""Publishing is part of the caller's transaction, whatever the driver."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
import zoneinfo
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._core.sqlstate import reported
from tests.drivers.kits import Kit, Opened, engine, every, only
from tests.support.api import entered, maybe_await

Connection = psycopg.Connection[Any]

TEXTS = [
    "ünïcödé 😀", "%s %% %(x)s $1 :x {} ?", "it's", 'a "b"', "back\\slash \\' \\x00", "NULL", "", "{a,b}",
    "\u2028\x7f\t\n",
]  # fmt: skip
NUMBERS = [
    0, 2**53 + 1, 2**63, -(2**64), 10**300, 0.1 + 0.2, 1e16, 1.2345e16, 1e22, 5e-324, sys.float_info.max,
]  # fmt: skip

#: Ends all other sessions of the database.
KILL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def payloads(conn: Connection, topic: str) -> list[Any]:
    query = "SELECT payload FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    return [payload for (payload,) in conn.execute(query, [topic])]


async def publish(kit: Kit, opened: Opened, topic: str, payload: Any, **options: Any) -> int:
    message_id = await opened.call(kit.Publisher().publish, topic, payload, **options)
    assert type(message_id) is int
    return message_id


@every
async def test_commit(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            headers = {"h": [1, None, "ü"]}
            message_id = await publish(kit, opened, topic, {"n": 1}, key="k'ü", headers=headers)
            assert payloads(conn, topic) == []
        query = "SELECT id, payload, data, key, headers FROM durable_notify.outbox WHERE topic = %s"
        rows = conn.execute(query, [topic]).fetchall()
    assert rows == [(message_id, {"n": 1}, None, "k'ü", headers)]


@every
async def test_rollback(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            await publish(kit, opened, topic, "dropped")
        async with opened.transaction():
            await publish(kit, opened, topic, "kept")
    assert payloads(conn, topic) == ["kept"]


@only(lambda kit: kit.ends)
async def test_the_first_statement_begins_the_transaction(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    async with kit.connect(dsn) as opened:
        await publish(kit, opened, topic, "kept")
        assert payloads(conn, topic) == []
        await maybe_await(opened.given.commit())
        await publish(kit, opened, topic, "dropped")
        await maybe_await(opened.given.rollback())
        await publish(kit, opened, topic, "kept too")
        await maybe_await(opened.given.commit())
    assert payloads(conn, topic) == ["kept", "kept too"]


@every
async def test_savepoints(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            await publish(kit, opened, topic, "kept")
            async with opened.transaction(undo=True):
                await publish(kit, opened, topic, "dropped")
            async with opened.transaction():
                await publish(kit, opened, topic, "kept too")
    assert payloads(conn, topic) == ["kept", "kept too"]


async def test_beside_the_programs_own_writes(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS mine (topic text)")
    async with kit.connect(dsn) as opened:
        for undo in (True, False):
            async with opened.transaction(undo):
                await opened.execute(f"INSERT INTO mine VALUES ('{topic}')")
                await publish(kit, opened, topic, undo)
    assert conn.execute("SELECT count(*) FROM mine WHERE topic = %s", [topic]).fetchone() == (1,)
    assert payloads(conn, topic) == [False]


@every
async def test_in_autocommit_mode_it_is_committed_on_return(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    async with kit.connect(dsn, autocommit=True) as opened:
        await publish(kit, opened, topic, 1)
        assert payloads(conn, topic) == [1]
        await opened.call(kit.Publisher().publish_many, topic, [2, 3])
        assert payloads(conn, topic) == [1, 2, 3]


@only(lambda kit: kit.name in {"connection-psycopg2", "async-connection-asyncpg"})
async def test_an_engine_that_streams_results(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    """It needs a transaction for that, and ours need none."""
    driver = kit.name.rpartition("-")[2]
    options: Any = {"isolation_level": "AUTOCOMMIT", "execution_options": {"yield_per": 2}}
    async with engine(driver, dsn, kit.is_async, **options) as made:
        async with entered(made.connect()) as connection:
            await maybe_await(kit.Publisher().publish_many(connection, topic, [1, 2, 3]))
            assert payloads(conn, topic) == [1, 2, 3]
            await maybe_await(kit.Admin().groups(connection))


async def test_thousands_in_one_statement(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    many = [dn.NewMessage({"n": n}, key=f"k{n % 7}" if n % 3 else None) for n in range(5000)]
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            ids = await opened.call(kit.Publisher().publish_many, topic, iter(many))
    query = "SELECT id, payload, key FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    rows = conn.execute(query, [topic]).fetchall()
    assert [row[0] for row in rows] == ids
    assert [row[1:] for row in rows] == [(message.payload, message.key) for message in many]


async def test_none_at_all(kit: Kit, dsn: str, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        assert await opened.call(kit.Publisher().publish_many, topic, []) == []


async def test_messages_of_all_kinds_in_one_go(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    outgoing = [
        1, None, b"\x00\xff\\'", memoryview(b"view"), dn.NewMessage({"a": 1}, key="NULL", headers={"h": 1.5}),
        dn.NewMessage(b"", headers={}), dn.NewMessage([2], 'a"b\\c,{}'), dn.NewMessage("%s", "%(x)s"),
    ]  # fmt: skip
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            await opened.call(kit.Publisher().publish_many, topic, outgoing)
            for message in outgoing:
                await publish(kit, opened, topic, message)
    query = "SELECT payload::text, data, key, headers FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    expected = [
        ("1", None, None, None), ("null", None, None, None), (None, b"\x00\xff\\'", None, None),
        (None, b"view", None, None), ('{"a": 1}', None, "NULL", {"h": 1.5}), (None, b"", None, {}),
        ("[2]", None, 'a"b\\c,{}', None), ('"%s"', None, "%(x)s", None),
    ]  # fmt: skip
    assert conn.execute(query, [topic]).fetchall() == expected * 2


async def test_texts_and_numbers_arrive_as_they_were(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    sent = [*TEXTS, *NUMBERS, {text: number for text in TEXTS for number in NUMBERS}]
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            for value in sent:
                await publish(kit, opened, topic, value, headers={"sent": value})
            await opened.call(kit.Publisher().publish_many, topic, sent)
    query = "SELECT payload::text, headers::text FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    rows = conn.execute(query, [topic]).fetchall()
    came = [json.loads(row[0]) for row in rows]
    assert came == sent * 2
    assert [repr(one) for one in came[: len(sent) - 1]] == [repr(one) for one in sent[:-1]]
    assert [json.loads(row[1]) for row in rows[: len(sent)]] == [{"sent": one} for one in sent]


async def test_times(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    here = dt.datetime(2031, 7, 1, 12, 30, 15, 123456, tzinfo=zoneinfo.ZoneInfo("Asia/Kathmandu"))
    there = dt.datetime(2035, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30)))
    long = dt.timedelta(days=400, seconds=1.5)
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            await publish(kit, opened, topic, 1, deliver_at=here, expires_at=there)
            await publish(kit, opened, topic, 2, delay=long, ttl=0.25)
            both = [
                dn.NewMessage(3, deliver_at=here, ttl=long),
                dn.NewMessage(4),
                dn.NewMessage(5, delay=1.5),
            ]
            await opened.call(kit.Publisher().publish_many, topic, both)
    query = """SELECT deliver_at, expires_at, deliver_at - created_at, expires_at - deliver_at
                 FROM durable_notify.outbox WHERE topic = %s ORDER BY id"""
    rows = conn.execute(query, [topic]).fetchall()
    assert rows[0][:2] == (here, there)
    assert abs(rows[1][2] - long) < dt.timedelta(seconds=0.1)
    assert rows[1][3] == dt.timedelta(seconds=0.25)
    assert rows[2][0] == here
    assert rows[2][3] == long
    assert rows[3] == (None, None, None, None)
    assert abs(rows[4][2] - dt.timedelta(seconds=1.5)) < dt.timedelta(seconds=0.1)


async def test_only_once(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            first = await publish(kit, opened, topic, 1, dedup_key="ü'k")
            assert await publish(kit, opened, topic, 2, dedup_key="ü'k") == first
            again = [dn.NewMessage(3, dedup_key="ü'k", dedup_window=1.5), dn.NewMessage(4)]
            assert (await opened.call(kit.Publisher().publish_many, topic, again))[0] == first
    assert payloads(conn, topic) == [1, 4]


# Errors


async def test_errors_of_ours(kit: Kit, dsn: str, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            with pytest.raises(dn.errors.UnknownGroup, match="unknown") as caught:
                await opened.call(kit.Admin().pause, "unknown")
            assert isinstance(caught.value.__cause__, kit.error)
        async with opened.transaction(undo=True):
            await opened.execute("ALTER SCHEMA durable_notify RENAME TO elsewhere")
            with pytest.raises(dn.errors.SchemaMissing, match="durable-notify migrate"):
                await publish(kit, opened, topic, 1)
        async with opened.transaction(undo=True):
            await opened.execute("DROP FUNCTION durable_notify.once(text, bigint)")
            await opened.execute("ALTER FUNCTION durable_notify.pause(text) RENAME TO pause_v2")
            with pytest.raises(dn.errors.SchemaTooOld, match=r"durable_notify\.pause"):
                await opened.call(kit.Admin().pause, "unknown")


async def test_other_errors_are_the_drivers(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            await opened.execute("ALTER TABLE durable_notify.outbox RENAME TO elsewhere")
            with pytest.raises(kit.error) as caught:
                await publish(kit, opened, topic, 1)
            assert reported(caught.value).sqlstate == "42P01"
            assert not isinstance(caught.value, dn.DurableNotifyError)
        await publish_alone(kit, opened, topic)
    assert payloads(conn, topic) == ["alone"]


async def publish_alone(kit: Kit, opened: Opened, topic: str) -> None:
    async with opened.transaction():
        await publish(kit, opened, topic, "alone")


async def test_a_broken_transaction(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            with pytest.raises(Exception, match="division by zero"):
                await opened.execute("SELECT 1/0")
            for many in (False, True):
                with pytest.raises(kit.error) as caught:
                    if many:
                        await opened.call(kit.Publisher().publish_many, topic, [1])
                    else:
                        await publish(kit, opened, topic, 1)
                assert reported(caught.value).sqlstate == "25P02"
        await publish_alone(kit, opened, topic)
    assert payloads(conn, topic) == ["alone"]


async def test_a_missing_right(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    conn.execute("DROP ROLE IF EXISTS powerless")
    conn.execute("CREATE ROLE powerless")
    user = conn.info.user
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            await opened.execute("SET LOCAL ROLE powerless")
            with pytest.raises(kit.error) as caught:
                await publish(kit, opened, topic, 1)
            assert reported(caught.value).sqlstate == "42501"
            assert f"durable-notify grant {user} --publish {topic}" in str(caught.value)
            assert str(caught.value).count("HINT:") == (0 if "pg8000" in kit.name else 1)


async def test_bad_arguments_leave_the_transaction_alone(
    kit: Kit, dsn: str, conn: Connection, topic: str
) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction():
            for payload, key in ((float("nan"), None), ("\x00", None), ("\ud800", None), (1, "\n")):
                with pytest.raises(dn.InvalidArgument):
                    await publish(kit, opened, topic, payload, key=key)
            for why in ("\x00", "\ud800"):  # found by the driver, or by us in its place
                with pytest.raises(dn.InvalidArgument, match=r"NUL|lacks a character"):
                    await opened.call(kit.Admin().seek, "g", topic, now=True, why=why, dry_run=True)
            await publish(kit, opened, topic, "after")
    assert payloads(conn, topic) == ["after"]


async def test_a_connection_that_has_died(kit: Kit, dsn: str, conn: Connection, topic: str) -> None:
    raised: list[BaseException] = []
    with contextlib.suppress(Exception):  # when it is rolled back and closed
        async with kit.connect(dsn) as opened, opened.transaction():
            await publish(kit, opened, topic, 1)
            conn.execute(KILL)
            try:
                await publish(kit, opened, topic, 2)
            except Exception as error:
                raised.append(error)
    assert len(raised) == 1
    assert not isinstance(raised[0], dn.DurableNotifyError)
    assert not type(raised[0]).__module__.startswith("sqlalchemy")
    assert payloads(conn, topic) == []
