"""A role that can connect, and was granted nothing, or a little: delay is the worst that it can cause."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

import durable_notify as dn
from tests.security.hostile import LOOK_ALIKES, TIMES
from tests.support.api import Api, Recorder, running
from tests.support.observe import asleep, outstanding, send, value
from tests.support.roles import Roles, refused, roles
from tests.support.wait import wait_until

Connection = psycopg.Connection[Any]


@pytest.fixture
def cast(dsn: str) -> Iterator[Roles]:
    """One that was granted nothing, and a publisher and a consumer that have their rights."""
    kinds: Any = {
        "stranger": [],
        "publisher": [("publish", ["t", "t.*"], None)],
        "consumer": [("consume", ["t", "t.*"], "g")],
    }
    with roles(dsn, kinds) as made:
        yield made


@pytest.fixture
def stranger(cast: Roles) -> Iterator[Connection]:
    with psycopg.connect(cast.login("stranger"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def publisher(cast: Roles) -> Iterator[Connection]:
    """With short time-outs: publishing waits for no session."""
    options = "-c lock_timeout=5s -c statement_timeout=20s"
    with psycopg.connect(cast.login("publisher"), options=options, autocommit=True) as connection:
        yield connection


def test_nothing_can_be_called_or_read(stranger: Connection) -> None:
    for query in (
        "SELECT durable_notify.channel('t')",
        "SELECT * FROM durable_notify.outbox",
        "SELECT * FROM durable_notify.schema_version",
        "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')",
        "LOCK TABLE durable_notify.lock_rings IN ROW EXCLUSIVE MODE",
        "LOCK TABLE durable_notify.lock_groups IN ROW EXCLUSIVE MODE",
        "CREATE TABLE durable_notify.mine ()",
        "CREATE FUNCTION durable_notify.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION durable_notify.notify_policy(topic text) RETURNS text LANGUAGE sql AS ''",
    ):
        refused(stranger, query)


# Forged and flooded

PAYLOADS = [
    *LOOK_ALIKES,
    "9" * 30,
    "x" * 7999,
    "t.fake",
    "t\n",
    "\u2028",
    '{"a": 1}',
    "NULL",
    "' OR 1=1",
]
CHANNELS = [
    "durable_notify",
    "durable_notify:t",
    "durable_notify:t.1",
    "durable_notify?" + "0" * 32,
    "other",
]


@contextmanager
def flood(dsn: str) -> Iterator[list[int]]:
    """NOTIFY whatever, on all channels, until the block ends; the list's one number counts them."""
    sent, stop = [0], threading.Event()

    def notify() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                for payload in PAYLOADS:
                    cursor.executemany(
                        "SELECT pg_notify(%s, %s)", [(channel, payload) for channel in CHANNELS]
                    )
                    cursor.execute("SELECT pg_notify('durable_notify', %s)", [f"t.{sent[0]}"])
                    sent[0] += len(CHANNELS) + 1

    thread = threading.Thread(target=notify)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


CALLS = "SELECT COALESCE(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'claim'"


async def test_forged_and_flooded_wake_ups(
    api: Api, conn: Connection, cast: Roles, stranger: Connection, publisher: Connection
) -> None:
    """Consumers look once for all that has come, and find what there is; afterwards they sleep."""
    conn.execute(
        sql.SQL("ALTER DATABASE {} SET track_functions = 'pl'").format(
            sql.Identifier(conn.info.dbname)
        )
    )
    send(conn, [0], "t.1")
    seen = Recorder()
    consumer = api.consumer(cast.login("consumer"), topics=["t", "t.*"])
    async with running(consumer, seen):
        await seen.got(1)
        await asleep(consumer)
        with flood(cast.login("stranger")) as sent:
            wanted = 1
            while wanted < 60 * TIMES or sent[0] < 3000 * TIMES:
                await asyncio.to_thread(
                    send, publisher, [wanted, wanted + 1], "t" if wanted % 3 else "t.2"
                )
                wanted += 2
                await seen.got(wanted)
        await asleep(consumer)
        assert set(consumer._subscription.channels.values()) == {"t", "t.>", "t.1", "t.2"}, (
            "forged topics are listened to"
        )
        await wait_until(lambda: outstanding(conn) == 0)
    assert sorted(message.payload for message in seen.messages) == list(range(wanted))
    assert set(seen.attempts) == {1}
    # Each turn claims from two sides at most, whatever has come together.
    assert int(value(conn, CALLS)) < 2 * (sent[0] + 10 * wanted)


def test_what_can_be_heard(conn: Connection, stranger: Connection) -> None:
    """Ids and topics. Rings for everything, to hear as much as possible."""
    conn.execute("SELECT durable_notify.subscribe('secret group', '{t}')")
    conn.execute("SELECT durable_notify.set_notify_policy('t', 'always')")
    for channel in ("durable_notify", "durable_notify:t", "durable_notify:secret group"):
        stranger.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    publish = "SELECT durable_notify.publish('t', '\"secret\"', 'secret key', '{\"secret\": 1}')"
    ids = [value(conn, publish) for _ in range(5)]
    claim = "SELECT token, array_agg(id ORDER BY id) FROM durable_notify.claim('secret group', '{t}') GROUP BY 1"
    ((token, held),) = conn.execute(claim.encode()).fetchall()
    conn.execute(
        "SELECT durable_notify.settle(%s, acked => %s, retried => %s, rejected => %s)",
        [token, held[:1], held[2:3], held[1:2]],
    )
    for query in (
        "release(ARRAY[%s::bigint])", "seek('secret group', 't', to_now => true)",
        "start_replay('secret group', 't', why => 'secret')", "advance_replays('secret group', '{t}')",
        "redrive('secret group', everything => true, why => 'secret')", "pause('secret group')",
        "resume('secret group')", "set_notify_policy('t', 'when_waiting')", "delete_group('secret group')",
    ):  # fmt: skip
        conn.execute(f"SELECT durable_notify.{query}".encode(), [token] if "%s" in query else None)
    heard = [(note.channel, note.payload) for note in stranger.notifies(timeout=5, stop_after=10)]
    assert {int(payload) for channel, payload in heard if payload.isdigit()} >= set(ids)
    for channel, payload in heard:
        assert channel in ("durable_notify", "durable_notify:t")
        assert re.fullmatch(r"\d+|[!*]" if channel != "durable_notify" else "t", payload), payload


# Squatted advisory keys

KEYS = """
    SELECT 1685024362, hashtext('t') UNION ALL SELECT 1685024362, hashtext('t.1')
     UNION ALL SELECT 1685024362, hashtext('') UNION ALL SELECT 1685024361, n FROM generate_series(1, 20) n"""


@pytest.mark.parametrize(
    ("api", "when", "mode"),
    [
        ("async", "before", ""),
        ("sync", "before", "_shared"),
        ("sync", "meanwhile", ""),
        ("async", "meanwhile", "_shared"),
    ],
    indirect=["api"],
)
async def test_squatted_keys(
    api: Api, conn: Connection, cast: Roles, stranger: Connection, publisher: Connection,
    mode: str, when: str,
) -> None:  # fmt: skip
    """Doorbells and groups' locks, held for ever: what is published arrives all the same.

    Without polling, where consumers look once a second at what they cannot arm.
    """
    squat = f"SELECT pg_try_advisory_lock{mode}(a, b) FROM ({KEYS}) AS k (a, b)".encode()
    if when == "before":
        assert {row for (row,) in stranger.execute(squat)} == {True}
    seen = Recorder()
    consumer = api.consumer(cast.login("consumer"), topics=["t", "t.*"])
    async with running(consumer, seen):
        if when == "meanwhile":
            await asleep(consumer)
            stranger.execute(squat)
        for number in range(3):
            await asyncio.to_thread(send, publisher, [number], "t" if number % 2 else "t.1")
            await seen.got(number + 1)
        await asyncio.to_thread(dn.Admin().pause, conn, "g")
        await asyncio.to_thread(dn.Admin().resume, conn, "g")
    assert sorted(message.payload for message in seen.messages) == list(range(3))
    assert set(seen.attempts) == {1}
    assert outstanding(conn) == 0


def test_two_do_without_a_squatted_lock_one_after_the_other(
    conn: Connection, stranger: Connection, dsn: str
) -> None:
    """And one that finds it free meanwhile waits for one that works without it."""
    group = value(conn, "SELECT durable_notify.subscribe('g', '{t}')")
    stranger.execute("SELECT pg_advisory_lock(1685024361, %s)", [group])
    hold = "SELECT durable_notify._lock_group('g')"
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        one.execute(hold)  # works without it
        two.execute("SET LOCAL lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute(hold)
        two.rollback()
        stranger.execute("SELECT pg_advisory_unlock_all()")
        two.execute("SET LOCAL lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute(hold)
        two.rollback()
        one.rollback()
        two.execute(hold)
        one.execute("SET LOCAL lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            one.execute(hold)


def test_waiting_for_a_squatter_is_caught(conn: Connection, stranger: Connection) -> None:
    """With nothing but the advisory lock a stranger holds a group up for as long as it likes."""
    conn.execute("""
        CREATE OR REPLACE FUNCTION durable_notify._acquire_group_lock(group_id integer) RETURNS void
        LANGUAGE sql AS 'SELECT pg_catalog.pg_advisory_xact_lock(1685024361, group_id)'""")
    group = value(conn, "SELECT durable_notify.subscribe('g', '{t}')")
    stranger.execute("SELECT pg_advisory_lock_shared(1685024361, %s)", [group])
    conn.execute("ALTER FUNCTION durable_notify.claim SET lock_timeout = '1500ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        conn.execute("SELECT durable_notify.claim('g', '{t}')")
