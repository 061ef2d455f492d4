"""Messages that objects record are published by the flush, and share its fate."""

from __future__ import annotations

import functools
import gc
import json
import weakref
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import durable_notify as dn
from durable_notify import errors, testing
from durable_notify.integrations.sqlalchemy import PublishesOnFlush
from tests.drivers.kits import engine as engine_of


class Base(DeclarativeBase):
    pass


class Order(PublishesOnFlush, Base):
    __tablename__ = "customer_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str] = mapped_column(server_default="placed")

    @classmethod
    def place(cls, item: str) -> Order:
        order = cls(item=item)
        order.publish_on_flush("orders", lambda: {"id": order.id, "state": order.state}, key=item)
        return order

    def cancel(self) -> None:
        self.state = "cancelled"
        self.publish_on_flush("orders", {"cancelled": self.id})


class Priced(PublishesOnFlush, Base):
    __tablename__ = "priced"
    __publisher__ = dn.Publisher(dumps=functools.partial(json.dumps, default=str))

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine(dsn: str) -> Iterator[sa.Engine]:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    Base.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as opened:
        yield opened


def published(connection: Any, topic: str = "orders") -> list[Any]:
    return [message.payload for message in testing.published(connection, topic)]


def test_the_flush_publishes(session: Session, conn: psycopg.Connection) -> None:
    order = Order.place("tea")
    session.add(order)
    assert published(session.connection()) == []  # it does not flush
    session.flush()
    assert published(session) == [{"id": 1, "state": "placed"}]
    assert published(conn) == []
    session.commit()
    testing.assert_published(conn, "orders", payload={"id": 1, "state": "placed"}, key="tea")
    session.commit()
    session.flush()
    testing.assert_published(conn, "orders", count=1)


def test_order_is_that_of_recording(session: Session) -> None:
    tea, milk = Order.place("tea"), Order.place("milk")
    session.add(milk)
    session.add(tea)
    milk.publish_on_flush("orders", "third")
    tea.publish_on_flush("others", "fourth")
    milk.publish_on_flush("orders", "fifth")
    session.flush()
    ids = [m.id for topic in ("orders", "others") for m in testing.published(session, topic)]
    assert sorted(ids) == ids[:3] + ids[4:] + ids[3:4]
    found = published(session)
    assert [found[0]["id"], found[1]["id"], *found[2:]] == [tea.id, milk.id, "third", "fifth"]


def test_an_object_that_does_not_change(session: Session, conn: psycopg.Connection) -> None:
    """SQLAlchemy does not flush without changes."""
    session.add(Order.place("tea"))
    session.commit()
    order = session.get_one(Order, 1)
    order.publish_on_flush("orders", "looked at")
    session.commit()
    assert published(conn)[1:] == ["looked at"]
    with session.begin():
        session.get_one(Order, 1).publish_on_flush("orders", "again")
        assert len(session.scalars(sa.select(Order)).all()) == 1  # autoflush
        assert published(session)[2:] == ["again"]
    session.delete(order)
    order.publish_on_flush("orders", "deleted")
    session.commit()
    assert published(conn)[2:] == ["again", "deleted"]


def test_a_rollback_leaves_nothing(session: Session, conn: psycopg.Connection) -> None:
    session.add(Order.place("tea"))
    session.commit()
    order = session.get_one(Order, 1)
    order.cancel()
    session.flush()
    order.publish_on_flush("orders", "not flushed")
    session.rollback()
    session.commit()
    assert len(published(conn)) == 1
    order.publish_on_flush("orders", "without a transaction")
    session.rollback()
    session.commit()
    assert len(published(conn)) == 1
    order.cancel()
    session.close()
    with Session(session.bind) as other:
        other.get_one(Order, 1).state = "x"
        other.commit()
    assert len(published(conn)) == 1


def test_an_error_of_the_flush(session: Session, conn: psycopg.Connection) -> None:
    session.add(Order.place("tea"))
    session.commit()
    session.add(Order.place("milk"))
    session.add(Order.place("tea"))
    with pytest.raises(sa.exc.IntegrityError):
        session.commit()
    session.rollback()
    session.commit()
    assert published(conn) == [{"id": 1, "state": "placed"}]


def test_an_error_of_publishing(session: Session, conn: psycopg.Connection) -> None:
    order = Order(item="tea")
    order.publish_on_flush("orders", {1, 2})
    session.add(order)
    with pytest.raises(errors.PayloadError, match="set has no JSON form"):
        session.commit()
    session.rollback()
    assert conn.execute("SELECT count(*) FROM customer_order").fetchone() == (0,)


def test_an_object_whose_insert_rolled_back_keeps_its_messages(
    engine: sa.Engine, conn: psycopg.Connection
) -> None:
    """A program that adds it again wants its message."""
    order, unflushed = Order.place("tea"), Order.place("milk")
    for undo in (Session.rollback, Session.close):
        with Session(engine) as session:
            session.add(order)
            if undo is Session.rollback:
                session.flush()
            session.add(unflushed)
            undo(session)
    with Session(engine) as session, session.begin():
        session.add_all([order, unflushed])
        session.expunge(unflushed)
    assert [message.key for message in testing.published(conn, "orders")] == ["tea"]
    with Session(engine) as session, session.begin():
        session.add(unflushed)
    assert [message.key for message in testing.published(conn, "orders")] == ["tea", "milk"]


def test_savepoints(session: Session, conn: psycopg.Connection) -> None:
    first = Order.place("tea")
    session.add(first)
    with session.begin_nested() as savepoint:  # flushes what was before
        first.cancel()
        session.add(Order.place("milk"))
        session.flush()
        first.publish_on_flush("orders", "not flushed")
        savepoint.rollback()
    with session.begin_nested():
        first.publish_on_flush("orders", "kept")
        with session.begin_nested() as savepoint:
            first.publish_on_flush("orders", "gone")
            session.flush()
            savepoint.rollback()
    session.commit()
    assert published(conn) == [{"id": 1, "state": "placed"}, "kept"]


def test_recorded_within_a_flush(session: Session, conn: psycopg.Connection) -> None:
    @event.listens_for(Order, "before_insert")
    def record(mapper: Any, connection: Any, order: Order) -> None:
        order.publish_on_flush("orders", "while inserting")

    try:
        session.add(Order(item="tea"))
        session.commit()
    finally:
        event.remove(Order, "before_insert", record)
    assert published(conn) == ["while inserting"]


def test_an_object_that_a_flush_adds(session: Session, conn: psycopg.Connection) -> None:
    """It has its id only after the next flush."""

    @event.listens_for(session, "after_flush", once=True)
    def add(session: Session, context: Any) -> None:
        session.add(Order.place("milk"))

    session.add(Order.place("tea"))
    session.commit()
    assert [message["id"] for message in published(conn)] == [1, 2]


def test_nothing_is_kept_after_the_transaction(session: Session) -> None:
    order = Order.place("tea")
    session.add(order)
    session.commit()
    gone = weakref.ref(order)
    del order
    gc.collect()
    assert gone() is None


def test_what_is_refused(session: Session) -> None:
    order = Order(item="tea")
    with pytest.raises(errors.InvalidArgument, match="topic"):
        order.publish_on_flush("a b", 1)
    with pytest.raises(TypeError, match="colour"):
        order.publish_on_flush("orders", 1, colour="red")  # type: ignore[call-arg]
    session.add(order)
    session.flush()
    session.delete(order)
    session.flush()
    with pytest.raises(errors.InvalidArgument, match="the object was deleted: publish"):
        order.publish_on_flush("orders", 1)


def test_a_publisher_of_its_own(session: Session, conn: psycopg.Connection) -> None:
    priced = Priced()
    priced.publish_on_flush("prices", {"price": Decimal("9.90")})
    session.add(priced)
    session.commit()
    assert published(conn, "prices") == [{"price": "9.90"}]


def test_a_session_of_several_databases(engine: sa.Engine, conn: psycopg.Connection) -> None:
    with sessionmaker(binds={Base: engine})() as session:
        session.add(Order.place("tea"))
        session.commit()
    assert len(published(conn)) == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_asyncio(dsn: str, engine: sa.Engine, conn: psycopg.Connection, driver: str) -> None:
    async with engine_of(driver, dsn, True) as made, AsyncSession(made) as session:
        order = Order.place("tea")
        session.add(order)
        await session.commit()
        await session.refresh(order)
        order.cancel()
        await session.flush()
        await session.rollback()
        await session.refresh(order)
        async with session.begin_nested() as savepoint:
            order.cancel()
            await session.flush()
            await savepoint.rollback()
        order.publish_on_flush("orders", "kept")
        await session.commit()
    assert published(conn) == [{"id": 1, "state": "placed"}, "kept"]
