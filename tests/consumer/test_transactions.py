"""Exactly once in effect, handlers with effects elsewhere, and batches."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

import durable_notify as dn
from tests.support.api import (
    Api,
    ThreadedMessage,
    consume,
    entered,
    in_thread,
    maybe_await,
    with_group,
)
from tests.support.observe import leased, outstanding, send, value
from tests.support.wait import eventually, with_timeout

Connection = psycopg.Connection[Any]


@pytest.fixture
def effects(conn: Connection) -> Connection:
    conn.execute("CREATE TABLE effects (message_id bigint)")
    return conn


INSERT = "INSERT INTO effects VALUES (%s)"
Fail = type("Fail", (Exception,), {})


async def run(api: Api, dsn: str, handler: Any, **options: Any) -> None:
    """Run a handler of the half's own kind, a plain function or a coroutine function."""
    await consume(api, dsn, "run", handler, **{"retry": dn.RetryPolicy(base=0.01), **options})


def done(conn: Connection) -> list[int]:
    return [row[0] for row in conn.execute("SELECT message_id FROM effects ORDER BY 1").fetchall()]


async def test_effect_and_acknowledgement_commit_together(
    api: Api, dsn: str, effects: Connection
) -> None:
    ids = send(effects, range(20))

    async def ahandle(message: Any) -> None:
        async with message.transaction() as connection:
            await connection.execute(INSERT, [message.id])
            if message.payload % 3 == message.attempt:
                raise Fail

    def handle(message: Any) -> None:
        with message.transaction() as connection:
            connection.execute(INSERT, [message.id])
            if message.payload % 3 == message.attempt:
                raise Fail

    await run(api, dsn, ahandle if api.is_async else handle, concurrency=6)
    assert done(effects) == ids
    assert outstanding(effects) == 0
    assert leased(effects) == 0


async def test_nothing_is_left_of_a_body_whose_lease_was_lost(
    api: Api, dsn: str, effects: Connection
) -> None:
    send(effects, [1])
    steal = "DELETE FROM durable_notify.lease"

    async def ahandle(message: Any) -> None:
        async with message.transaction() as connection:
            await connection.execute(INSERT, [message.id])
            effects.execute(steal)

    def handle(message: Any) -> None:
        with message.transaction() as connection:
            connection.execute(INSERT, [message.id])
            effects.execute(steal)

    await run(api, dsn, ahandle if api.is_async else handle)
    assert done(effects) == []


@pytest.mark.parametrize("kind", ["engine", "sessionmaker"])
async def test_through_sqlalchemy(api: Api, dsn: str, effects: Connection, kind: str) -> None:
    ids = send(effects, range(3))
    query = sa.text("INSERT INTO effects VALUES (:id)")
    async with api.engine(dsn) as engine:
        source = engine
        if kind == "sessionmaker":
            source = (async_sessionmaker if api.is_async else sessionmaker)(engine)

        async def ahandle(message: Any) -> None:
            async with message.transaction(source) as connection:
                await connection.execute(query, {"id": message.id})
                if message.attempt == 1:
                    raise Fail

        def handle(message: Any) -> None:
            with message.transaction(source) as connection:
                connection.execute(query, {"id": message.id})
                if message.attempt == 1:
                    raise Fail

        await run(api, dsn, ahandle if api.is_async else handle)
    assert done(effects) == ids
    assert outstanding(effects) == 0


async def test_what_is_no_source(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    raised: list[BaseException] = []

    async def ahandle(message: Any) -> None:
        try:
            async with message.transaction(7):
                pass
        except dn.InvalidArgument as error:
            raised.append(error)

    def handle(message: Any) -> None:
        try:
            with message.transaction(7):
                pass
        except dn.InvalidArgument as error:
            raised.append(error)

    await run(api, dsn, ahandle if api.is_async else handle)
    assert len(raised) == 1


async def test_once(api: Api, dsn: str, effects: Connection) -> None:
    """The effect is elsewhere; the message is redelivered by a replay, and after a failure."""
    ids = send(effects, range(4))
    elsewhere: list[int] = []
    again: list[int] = []

    async def ahandle(message: Any) -> None:
        async with message.transaction() as connection:
            if await message.once(connection):
                elsewhere.append(message.id)
            else:
                again.append(message.id)
            if message.payload == 2 and message.attempt == 1 and not again:
                raise Fail

    def handle(message: Any) -> None:
        with message.transaction() as connection:
            if message.once(connection):
                elsewhere.append(message.id)
            else:
                again.append(message.id)
            if message.payload == 2 and message.attempt == 1 and not again:
                raise Fail

    handler = ahandle if api.is_async else handle
    await run(api, dsn, handler)
    # The failed one was rolled back with its note: its effect had not been.
    assert sorted(elsewhere) == sorted([*ids, ids[2]])
    assert again == []
    dn.Admin().replay(effects, "g", "t", after=0)
    await run(api, dsn, handler)
    assert sorted(again) == ids
    assert value(effects, "SELECT durable_notify.prune_inbox(clock_timestamp())") == 4
    with pytest.raises(dn.errors.UnknownGroup), psycopg.connect(dsn) as mine:
        from durable_notify._sync.database.callers import fetch

        fetch(mine, "SELECT durable_notify.once('no-such-group', 1)", ())


async def batches(api: Api, dsn: str, handler: Any, **options: Any) -> None:
    kind = {name: options.pop(name) for name in ("size", "max_wait") if name in options}
    options = {
        "group": "g",
        "topics": ["t"],
        "until_empty": True,
        "poll_interval": None,
        "retry": dn.RetryPolicy(base=0.01),
        **options,
    }
    if api.is_async:
        await with_timeout(
            dn.AsyncConsumer(dsn, **with_group(options)).run_batches(handler, **kind)
        )
        return
    sync = dn.Consumer(dsn, **with_group(options))
    loop = asyncio.get_running_loop()

    def in_its_thread(batch: list[Any]) -> None:
        async def on_the_loop() -> None:
            await maybe_await(handler([ThreadedMessage(message) for message in batch]))

        asyncio.run_coroutine_threadsafe(on_the_loop(), loop).result()

    await with_timeout(in_thread(lambda: sync.run_batches(in_its_thread, **kind)))


async def test_batches(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(25))
    got: list[list[int]] = []

    async def handle(batch: list[Any]) -> None:
        got.append([message.id for message in batch])

    await batches(api, dsn, handle, size=10, max_wait=1.0)
    assert [i for batch in got for i in batch] == ids
    assert [len(batch) for batch in got] == [10, 10, 5]
    assert outstanding(conn) == 0


async def test_outcomes_in_part(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(6))
    got: list[list[tuple[int, int]]] = []

    async def handle(batch: list[Any]) -> None:
        got.append([(message.id, message.attempt) for message in batch])
        if len(got) > 1:
            return
        await batch[0].ack()
        await batch[1].retry(0)
        await batch[2].reject("no good")
        raise Fail("the rest")

    await batches(api, dsn, handle, size=6, max_wait=1.0)
    assert got[0] == [(i, 1) for i in ids]
    rest = sorted(pair for batch in got[1:] for pair in batch)
    assert rest == [(i, 2) for i in (ids[1], *ids[3:])]
    reason = "SELECT reason FROM durable_notify.dead_letter"
    assert value(conn, reason) == "no good"


async def test_a_batch_has_several_of_a_key_in_order(api: Api, dsn: str, conn: Connection) -> None:
    outgoing = [dn.NewMessage(n, "k") for n in range(20)]
    ids = dn.Publisher().publish_many(conn, "t", outgoing)
    got: list[int] = []
    failed = False

    async def handle(batch: list[Any]) -> None:
        nonlocal failed
        if not failed and len(batch) > 3:
            failed = True
            await batch[0].ack()
            got.append(batch[0].id)
            raise Fail
        got.extend(message.id for message in batch)

    await batches(api, dsn, handle, size=8, max_wait=0.2)
    assert got == ids
    assert failed
    assert outstanding(conn) == 0


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 1.5}, {"size": 3000}, {"max_wait": -1}])
async def test_batches_that_cannot_be(api: Api, dsn: str, options: dict[str, Any]) -> None:
    with pytest.raises(dn.InvalidArgument):
        await batches(api, dsn, print, **options)


async def test_prefetch_by_bytes(api: Api, dsn: str, conn: Connection) -> None:
    """With 1,000 bytes each, so many are held as fit, and one at least."""
    send(conn, ["x" * 998] * 30)
    most = 0

    async def watch(message: Any) -> None:
        # What the database calls leased may be more: acknowledgements may be on their way.
        nonlocal most
        most = max(most, seen._lease_manager.held_bytes)

    for limit, held in ((5_000, 5), (1, 1)):
        most = 0
        seen = api.consumer(dsn, group=f"g{limit}", prefetch_bytes=limit, until_empty=True)
        await with_timeout(seen.run(watch))
        assert 1_000 <= most <= held * 1_000, limit
        assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0


async def test_no_more_connections_than_handlers(api: Api, dsn: str, effects: Connection) -> None:
    """Though they break again and again while others wait for one."""
    ids = send(effects, range(40))
    handlers = "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'durable_notify handler%'"

    def look(message: Any) -> None:
        if message.payload == 39:
            # One that was ended is seen for a moment yet.
            eventually(lambda: value(effects, f"SELECT count(*) {handlers}") <= 3, 5)
        elif message.payload % 4 == 0 and message.attempt == 1:
            effects.execute(f"SELECT pg_terminate_backend(pid) {handlers}".encode())

    async def ahandle(message: Any) -> None:
        async with message.transaction() as connection:
            await connection.execute(INSERT, [message.id])
            await in_thread(look, message)

    def handle(message: Any) -> None:
        with message.transaction() as connection:
            connection.execute(INSERT, [message.id])
            look(message)

    await run(api, dsn, ahandle if api.is_async else handle, concurrency=3)
    assert done(effects) == ids


async def test_administered_in_a_pipeline(api: Api, dsn: str, conn: Connection) -> None:
    """Without a transaction it is committed by itself, and of the caller's nothing is."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    admin = api.Admin()
    paused = "SELECT count(*) FROM durable_notify.consumer_group WHERE paused_at IS NOT NULL"
    async with api.connect(dsn, autocommit=True) as other:
        state = other.info
        async with entered(other.pipeline()):
            await maybe_await(admin.pause(other, "g"))
            assert value(conn, paused) == 1
        assert state.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with pytest.raises(dn.errors.UnknownGroup):
            async with entered(other.pipeline()):
                await maybe_await(admin.pause(other, "unknown"))
        assert state.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with pytest.raises(Fail):
            async with entered(other.pipeline()):
                await maybe_await(other.execute("BEGIN"))
                await maybe_await(admin.resume(other, "g"))
                raise Fail
        await maybe_await(other.rollback())
        assert value(conn, paused) == 1
