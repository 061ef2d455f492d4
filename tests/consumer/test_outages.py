"""Faults outside the consumer: each gets a clear error, and loses nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from durable_notify import schema
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._sync.wakeups import listener as sync_listener
from durable_notify.topics import channel
from tests.support.api import Api, Recorder, collect, maybe_await, running
from tests.support.observe import asleep, backends, leased, outstanding, send, value
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


async def nothing_is_left(conn: Connection | None = None) -> None:
    """A start that failed leaves neither connections nor listeners."""
    assert async_listener._shared == {}
    assert sync_listener._shared == {}
    if conn is not None:
        await wait_until(lambda: backends(conn, "durable_notify%") == [])


# A DSN that does not work


@pytest.mark.parametrize("way", ["start", "enter", "run"])
async def test_no_server_listens_there(api: Api, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    consumer = api.consumer(f"host=127.0.0.1 port={port} dbname=x connect_timeout=5")
    start: Callable[[], Any] = {
        "start": consumer.start,
        "enter": consumer.__aenter__,
        "run": lambda: consumer.run(Recorder()),
    }[way]
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await with_timeout(start())
    await consumer.close()
    await nothing_is_left()


async def test_no_such_database(api: Api, dsn: str) -> None:
    with pytest.raises(psycopg.OperationalError, match='"nowhere" does not exist'):
        await with_timeout(api.consumer(make_conninfo(dsn, dbname="nowhere")).start())


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("nonsense", dn.InvalidArgument),
        ("postgresql://[", dn.InvalidArgument),
        ("frobnicate=1", dn.InvalidArgument),
        ("port=abc", psycopg.Error),
    ],
)
async def test_no_dsn_at_all(api: Api, bad: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await with_timeout(api.consumer(bad).start())
    await nothing_is_left()


# A schema that does not fit


async def test_the_schema_is_missing(api: Api, empty_dsn: str) -> None:
    with pytest.raises(dn.errors.SchemaMissing, match="durable-notify migrate"):
        await with_timeout(api.consumer(empty_dsn).start())
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        await nothing_is_left(conn)
        with pytest.raises(dn.errors.SchemaMissing, match="durable-notify migrate"):
            dn.Publisher().publish(conn, "t", 1)


@pytest.mark.parametrize(
    ("version", "kind", "remedy"),
    [
        ("0000", dn.errors.SchemaTooOld, "durable-notify migrate"),
        ("9999", dn.errors.SchemaTooNew, "pip install --upgrade durable-notify"),
    ],
)
async def test_the_schema_is_another(
    api: Api, dsn: str, conn: Connection, version: str, kind: type[Exception], remedy: str
) -> None:
    conn.execute("UPDATE durable_notify.schema_version SET version_num = %s", [version])
    conn.execute(
        "CREATE OR REPLACE FUNCTION durable_notify.min_client_version() RETURNS text"
        " LANGUAGE sql AS $$ SELECT '9999' $$"
    )
    with pytest.raises(kind, match=remedy):
        await with_timeout(api.consumer(dsn).run(Recorder()))
    await nothing_is_left(conn)


async def test_the_schema_is_removed_under_a_consumer(api: Api, dsn: str, conn: Connection) -> None:
    consumer = api.consumer(dsn)
    with pytest.raises(dn.errors.SchemaMissing, match="durable-notify migrate"):
        async with consumer:
            await asleep(consumer)
            schema.downgrade(dsn, "base")
            conn.execute(sql.SQL("NOTIFY {}").format(sql.Identifier(channel("t"))))
            await collect(consumer, 1)
    await nothing_is_left(conn)


# A role without rights


@contextmanager
def role(conn: Connection, *grants: str) -> Iterator[str]:
    """A role that may log in, and what is granted."""
    name = f"dn_test_{conn.info.backend_pid}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    try:
        for grant in grants:
            conn.execute(f"GRANT {grant} TO {name}".encode())
        yield name
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("grants", [(), ("USAGE ON SCHEMA durable_notify",)])
async def test_a_role_without_rights(
    api: Api, dsn: str, conn: Connection, grants: tuple[str, ...]
) -> None:
    with role(conn, *grants) as name:
        theirs = make_conninfo(dsn, user=name)
        with pytest.raises(errors.InsufficientPrivilege):
            await with_timeout(api.consumer(theirs).start())
        await nothing_is_left(conn)
        async with api.connect(theirs, autocommit=True) as connection:
            with pytest.raises(errors.InsufficientPrivilege):
                await maybe_await(api.Publisher().publish(connection, "t", 1))
            with pytest.raises(errors.InsufficientPrivilege):
                await maybe_await(api.Admin().status(connection))


async def test_rights_withdrawn_under_a_consumer(api: Api, dsn: str, conn: Connection) -> None:
    """It logs the reason and ends, rather than try for ever."""
    everything = (
        "USAGE ON SCHEMA durable_notify",
        "ALL ON ALL TABLES IN SCHEMA durable_notify",
        "ALL ON ALL SEQUENCES IN SCHEMA durable_notify",
        "ALL ON ALL FUNCTIONS IN SCHEMA durable_notify",
    )
    with role(conn, *everything) as name:
        consumer = api.consumer(make_conninfo(dsn, user=name))
        with pytest.raises(errors.InsufficientPrivilege):
            async with running(consumer, Recorder()) as task:
                await asleep(consumer)
                conn.execute(f"REVOKE ALL ON durable_notify.outbox FROM {name}".encode())
                send(conn, [1])
                await with_timeout(task)
        await nothing_is_left(conn)
    assert outstanding(conn) == 1


# Groups and topics that are not there


async def test_a_group_dropped_under_a_consumer(api: Api, dsn: str, conn: Connection) -> None:
    consumer = api.consumer(dsn)
    with pytest.raises(dn.errors.UnknownGroup):
        async with running(consumer, Recorder()) as task:
            await asleep(consumer)
            conn.execute("DELETE FROM durable_notify.consumer_group")
            send(conn, [1])
            await with_timeout(task)


async def test_replay_of_what_is_not_there(api: Api, dsn: str, conn: Connection) -> None:
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as connection:
        with pytest.raises(dn.errors.UnknownGroup, match='"g"'):
            await maybe_await(admin.replay(connection, "g", "t", after=0))
        async with api.consumer(dsn):
            pass
        with pytest.raises(dn.errors.UnknownTopic, match='"other"'):
            await maybe_await(admin.replay(connection, "g", "other", after=0))
        for arguments in ({}, {"after": -1}, {"after": 2**63}):
            with pytest.raises(dn.InvalidArgument):
                await maybe_await(admin.replay(connection, "g", "t", **arguments))


# Starts


async def test_many_first_starts_of_a_group_at_once(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(40))
    seen = Recorder()
    topics = (["t", "u", "v"], ["v", "u", "t"])
    consumers = [
        api.consumer(dsn, topics=topics[n % 2], until_empty=True, owner=str(n)) for n in range(8)
    ]
    await with_timeout(asyncio.gather(*(consumer.run(seen) for consumer in consumers)))
    assert sorted(seen.ids) == ids
    assert value(conn, "SELECT count(*) FROM durable_notify.consumer_group") == 1
    assert value(conn, "SELECT count(*) FROM durable_notify.subscription") == 3


async def test_max_attempts_is_the_groups(api: Api, dsn: str, conn: Connection) -> None:
    allowed = "SELECT max_attempts FROM durable_notify.consumer_group"
    for given, stands in ((None, 20), (5, 5), (None, 5), (7, 7)):
        async with api.consumer(dsn, retry=dn.RetryPolicy(max_attempts=given)):
            assert value(conn, allowed) == stands


async def test_a_claim_held_up_by_others_is_not_the_end(
    api: Api, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Busy is not empty: it is tried again, without a wake-up."""
    caplog.set_level("INFO", "durable_notify")
    conn.execute("ALTER FUNCTION durable_notify.claim SET lock_timeout = '100ms'")
    consumer = api.consumer(dsn)
    seen = Recorder()
    async with running(consumer, seen):
        await asleep(consumer)
        with psycopg.connect(dsn) as holder:
            holder.execute("SELECT durable_notify._lock_group('g')")
            send(conn, [1])
            await wait_until(lambda: "held up" in caplog.text)
        await seen.got(1)


async def test_a_server_that_becomes_read_only(api: Api, dsn: str, conn: Connection) -> None:
    """As after a failover to a standby that is not yet promoted."""
    dbname = sql.Identifier(conn.info.dbname)
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        alter = "ALTER DATABASE {} SET default_transaction_read_only = {}"
        conn.execute(sql.SQL(alter).format(dbname, sql.SQL("on")))
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s"
        )
        conn.execute(f"{query} AND datname = current_database()", ["durable_notify%"])
        send(conn, [1])
        await wait_until(lambda: backends(conn, "durable_notify consumer%"))
        conn.execute(sql.SQL(alter).format(dbname, sql.SQL("off")))
        conn.execute(f"{query} AND datname = current_database()", ["durable_notify consumer%"])
        await seen.got(1)
        await wait_until(lambda: outstanding(conn) == 0)
    assert leased(conn) == 0
