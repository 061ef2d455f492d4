"""Publishing in `run_sync`, where SQLAlchemy gives plain Sessions and Connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import durable_notify as dn
from tests.drivers.kits import ASYNC_CREATORS, CREATORS
from tests.drivers.kits import engine as engine_on
from tests.publisher.test_publisher import payloads
from tests.support.postgres import Postgres

Connection = psycopg.Connection[Any]

publisher = dn.Publisher()


@pytest.fixture
def dsn(server: Postgres, template: str) -> Iterator[str]:
    """A database of the test's own: some of these break it."""
    with server.database(template) as name:
        yield server.dsn(name)


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture(params=list(ASYNC_CREATORS))
async def engine(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[AsyncEngine]:
    async with engine_on(request.param, dsn, is_async=True, poolclass=sa.NullPool) as made:
        yield made


def publish(connection: Any, payload: Any = "published") -> int:
    return publisher.publish(connection, "t", payload, key="k", headers={"h": [1]})


async def test_a_session_of_run_sync(engine: AsyncEngine, conn: Connection) -> None:
    async with AsyncSession(engine) as session:
        message_id = await session.run_sync(publish)
        await session.run_sync(
            lambda inner: publisher.publish_many(inner, "t", [dn.NewMessage("many", delay=1.0)])
        )
        assert payloads(conn) == []
        await session.commit()
    row = conn.execute("SELECT id, payload, key, headers FROM durable_notify.outbox").fetchone()
    assert row == (message_id, "published", "k", {"h": [1]})
    assert payloads(conn) == ["published", "many"]


async def test_rollback_and_savepoints_decide(engine: AsyncEngine, conn: Connection) -> None:
    async with AsyncSession(engine) as session:
        await session.run_sync(publish, "rolled back")
        await session.rollback()
        await session.run_sync(publish, "kept")
        savepoint = await session.begin_nested()
        await session.run_sync(publish, "rolled back to the savepoint")
        await savepoint.rollback()
        await session.commit()
    assert payloads(conn) == ["kept"]


async def test_a_connection_of_run_sync(engine: AsyncEngine, conn: Connection) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(publish)
    assert payloads(conn) == ["published"]


@pytest.mark.parametrize("name", ["before_commit", "after_begin", "before_flush", "after_flush"])
async def test_events_of_a_session(engine: AsyncEngine, conn: Connection, name: str) -> None:
    metadata = sa.MetaData()
    table = sa.Table("customer", metadata, sa.Column("id", sa.Integer, primary_key=True))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

    class Customer:
        id: int

    sa.orm.registry().map_imperatively(Customer, table)
    async with AsyncSession(engine) as session:
        told: list[object] = []

        def collected(inner: Session, *more: object) -> None:
            if not told:
                told.append(inner)
                publish(more[1] if name == "after_begin" else inner)

        event.listen(session.sync_session, name, collected)
        customer = Customer()
        customer.id = 1
        session.add(customer)
        await session.commit()
    assert payloads(conn) == ["published"]


async def test_events_of_a_mapper_and_of_an_engine(engine: AsyncEngine, conn: Connection) -> None:
    metadata = sa.MetaData()
    table = sa.Table("customer", metadata, sa.Column("id", sa.Integer, primary_key=True))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

    class Customer:
        id: int

    sa.orm.registry().map_imperatively(Customer, table)
    event.listen(Customer, "after_insert", lambda _mapper, inner, _target: publish(inner, "mapper"))
    event.listen(engine.sync_engine, "commit", lambda inner: publish(inner, "engine"), once=True)
    async with AsyncSession(engine) as session:
        customer = Customer()
        customer.id = 1
        session.add(customer)
        await session.commit()
    assert payloads(conn) == ["mapper", "engine"]


async def test_in_autocommit_mode(engine: AsyncEngine, conn: Connection) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.run_sync(publish)
        assert payloads(conn) == ["published"]
        # What needs a transaction of its own, and gets it.
        admin = dn.Admin()
        conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
        await connection.run_sync(
            lambda inner: admin.configure(inner, "g", retry=dn.RetryPolicy(max_attempts=3))
        )
        groups = await connection.run_sync(admin.groups)
        with pytest.raises(dn.errors.UnknownGroup):
            await connection.run_sync(lambda inner: admin.pause(inner, "other"))
        assert len(await connection.run_sync(admin.groups)) == 1
    assert [(group.name, group.max_attempts) for group in groups] == [("g", 3)]


async def test_errors_are_the_same(engine: AsyncEngine, conn: Connection) -> None:
    conn.execute("DROP TABLE durable_notify.outbox CASCADE")
    async with AsyncSession(engine) as session:
        with pytest.raises((psycopg.Error, asyncpg.PostgresError)) as caught:
            await session.run_sync(publish)
        assert type(caught.value).__name__.startswith("UndefinedTable")
        await session.rollback()
        with pytest.raises(dn.InvalidArgument, match="white space"):
            await session.run_sync(lambda inner: publisher.publish(inner, "a b", 1))


async def test_outside_of_a_greenlet(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.connection()
        with pytest.raises(MissingGreenlet):
            publish(session.sync_session)


async def test_a_message_settled_in_run_sync(
    dsn: str, engine: AsyncEngine, conn: Connection
) -> None:
    publish(conn)
    with dn.Consumer(dsn, group="g", topics=["t"], until_empty=True) as consumer:
        message = next(consumer)
        async with AsyncSession(engine) as session:
            assert await session.run_sync(message.once)
            await session.run_sync(message.ack)
            await session.commit()
        assert next(consumer, None) is None


@pytest.mark.parametrize("driver", CREATORS)
@pytest.mark.parametrize("name", ["before_flush", "after_flush", "before_commit"])
async def test_events_of_a_plain_engine(dsn: str, conn: Connection, driver: str, name: str) -> None:
    customer = sa.Table("customer", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))

    class Customer:
        id: int

    sa.orm.registry().map_imperatively(Customer, customer)
    async with engine_on(driver, dsn, is_async=False) as engine:
        customer.create(engine)
        for end in ("rollback", "commit"):
            with Session(engine) as session:
                event.listen(
                    session, name, lambda inner, *_, end=end: publish(inner, end), once=True
                )
                session.add(Customer())
                session.flush()
                session.commit() if end == "commit" else session.rollback()
    assert payloads(conn) == ["commit"]
