"""A role or database whose transactions are REPEATABLE READ or SERIALIZABLE unless they are told.

Asserted: consumers, readers, relays, maintenance, the command line and administration work; a
handler's own transaction is what the role says; a session behind a pooler in transaction mode is not
changed for the others; and a doorbell that is armed is armed at READ COMMITTED.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql

import durable_notify as dn
from durable_notify._async.database.connection import AsyncTimeoutConnection
from durable_notify._async.wakeups.listener import AsyncListener
from durable_notify._sync.database.connection import TimeoutConnection
from durable_notify.errors import ClaimRefused, InvalidArgument
from tests.support.api import Api, Recorder, running
from tests.support.cli import good, payloads, run
from tests.support.observe import asleep, send, value
from tests.support.pgbouncer import pgbouncer
from tests.support.sessions import Sessions

Connection = psycopg.Connection[Any]
LEVELS = ["repeatable read", "serializable", "read uncommitted"]
IS = "SELECT current_setting('transaction_isolation')"


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, conn: Connection) -> str:
    put(conn, request.param)
    return str(request.param)


def put(conn: Connection, level: str) -> None:
    alter = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}")
    conn.execute(alter.format(sql.Identifier(conn.info.dbname), sql.Literal(level)))


async def test_a_consumer(api: Api, dsn: str, conn: Connection, level: str) -> None:
    seen = Recorder()
    levels: list[str] = []

    async def handle(message: Any) -> None:
        await seen(message)
        if api.name == "async":
            async with message.transaction() as own:
                levels.extend(*(await (await own.execute(IS)).fetchall()))

    consumer = api.consumer(dsn, poll_interval=None)
    async with running(consumer, handle):
        for number in range(3):
            await asleep(getattr(consumer, "consumer", consumer))
            send(conn, [number])
            await seen.got(number)
    assert set(levels) <= {level}


def test_planted_statements_are_told_nothing(
    dsn: str, conn: Connection, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimeoutConnection, "look_at_default", lambda _: None)
    send(conn, [1])
    with pytest.raises(ClaimRefused):
        dn.Consumer(dsn, group="g", topics=["t"], until_empty=True).run(print)


@pytest.mark.server
@pytest.mark.parametrize("planted", [False, True])
async def test_a_pooler_in_transaction_mode(
    dsn: str, conn: Connection, planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said for a session would be said to others that get it after that."""
    put(conn, "serializable")
    if planted:

        async def set_for_the_session(self: Any) -> None:
            await self.execute("SET default_transaction_isolation = 'read committed'")

        monkeypatch.setattr(AsyncTimeoutConnection, "look_at_default", set_for_the_session)
    refused = False
    with pgbouncer(dsn) as between:
        got = []
        send(conn, range(20))
        try:
            async with dn.AsyncConsumer(
                between, group="g", topics=["t"], listen_dsn=dsn, until_empty=True
            ) as consumer:
                async for message in consumer:
                    await message.ack()
                    got.append(message.payload)
        except ClaimRefused:
            refused = True
        levels = set()
        async with AsyncExitStack() as stack:
            for _ in range(4):
                connecting = psycopg.AsyncConnection.connect(between, prepare_threshold=None)
                other = await stack.enter_async_context(await connecting)
                levels.add((await (await other.execute(IS)).fetchone() or ("",))[0])
    right = not refused and got == list(range(20)) and levels == {"serializable"}
    assert right != planted


@pytest.mark.slow
def test_the_command_line(dsn: str, conn: Connection) -> None:
    put(conn, "serializable")
    good("publish", "t", "1", dsn=dsn)
    good("wakeups", "t", "always", dsn=dsn)
    assert payloads(good("consume", "t", "--group", "g", "--until-empty", dsn=dsn)) == [1]
    good("replay", "--group", "g", "--topic", "t", "--after", "0", dsn=dsn)
    good("retention", "t", "--age", "7d", dsn=dsn)
    good("maintain", "--once", dsn=dsn)
    assert run("doctor", dsn=dsn).returncode in (0, 1)
    good("bridge", "mirror", "t", "raw", dsn=dsn)
    assert payloads(good("read", "t", "--until-empty", dsn=dsn)) == [1]


@pytest.mark.parametrize("planted", [False, True])
def test_maintenance_by_sql_removes(
    sessions: Sessions, dsn: str, conn: Connection, planted: bool
) -> None:
    """Each of its transactions is told its level; a function called by itself says that it was not."""
    put(conn, "repeatable read")
    owner = sessions.session()
    owner.run("SET default_transaction_isolation = 'repeatable read'")
    if planted:
        body = owner.value("SELECT pg_get_functiondef('durable_notify.maintain'::regproc)")
        owner.run(body.replace("SET TRANSACTION ISOLATION LEVEL READ COMMITTED;", "NULL;"))
    dn.Publisher().publish(conn, "t", 1)
    dn.Admin().set_retention(conn, "t", max_age=0.001)
    owner.run("CALL durable_notify.maintain()")
    owner.run("CALL durable_notify.maintain()")
    assert owner.value("SELECT count(*) FROM durable_notify.outbox") == (1 if planted else 0)


def test_administration(dsn: str, level: str) -> None:
    """By itself it is READ COMMITTED; in a transaction of the caller's it is what that is."""
    admin = dn.Admin()
    with psycopg.connect(dsn, autocommit=True) as connection:
        admin.set_notify_policy(connection, "t", "always")
        admin.set_retention(connection, "t", max_age=1e6)
        with connection.transaction(), pytest.raises(InvalidArgument, match="BEGIN ISOLATION"):
            admin.set_notify_policy(connection, "t", "never")
        assert connection.isolation_level is None
        assert value(connection, IS) == level
        with pytest.raises(InvalidArgument):
            admin.set_notify_policy(connection, "t", "seldom")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert admin.notify_policy(connection, "t") == "always"


@pytest.mark.parametrize("planted", [False, True])
async def test_a_doorbell_is_armed_at_read_committed(
    dsn: str, conn: Connection, planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who arms looks, once it has the lock, at who publishes: with a snapshot of before, in vain."""
    put(conn, "serializable")
    command, levels = AsyncListener._command, []

    async def noting(self: AsyncListener, statement: str) -> list[tuple[str, ...]]:
        if planted and "default_transaction_isolation" in statement:
            return []
        if "._arm_topics(" in statement:
            levels.append(*(await command(self, IS))[0])
        return await command(self, statement)

    monkeypatch.setattr(AsyncListener, "_command", noting)
    async with dn.AsyncConsumer(dsn, group="g", topics=["t"], poll_interval=None) as consumer:
        await asleep(consumer)
    assert set(levels) == {"serializable" if planted else "read committed"}
