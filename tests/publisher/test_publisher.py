"""Publishing is part of the caller's transaction, with every kind of connection."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors
from psycopg.rows import class_row, dict_row
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker

import durable_notify as dn
import durable_notify.topics
from durable_notify import payloads as messages
from tests.support.api import Api, entered, maybe_await
from tests.support.missing import need_package
from tests.support.observe import value

Connection = psycopg.Connection[Any]


@pytest.fixture
def publish(api: Api) -> Callable[..., Any]:
    """`await publish(connection, payload, ...)`."""

    async def publish(connection: Any, payload: Any, topic: str = "t", **kwargs: Any) -> int:
        message_id = await maybe_await(
            api.Publisher().publish(connection, topic, payload, **kwargs)
        )
        assert isinstance(message_id, int)
        return message_id

    return publish


def payloads(conn: Connection) -> list[Any]:
    query = "SELECT payload FROM durable_notify.outbox ORDER BY id"
    return [payload for (payload,) in conn.execute(query)]


# psycopg


async def test_in_autocommit_mode_it_is_committed_on_return(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    async with api.connect(dsn, autocommit=True) as connection:
        message_id = await publish(connection, {"n": 1}, key="k", headers={"h": [1]})
        row = conn.execute("SELECT * FROM durable_notify.outbox").fetchall()
    ((_, topic, key, payload, data, headers, _, _, created_at, found_id),) = row
    assert (topic, key, payload, data, headers) == ("t", "k", {"n": 1}, None, {"h": [1]})
    assert found_id == message_id
    assert created_at.tzinfo is not None


async def test_commit_and_rollback_decide(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    async with api.connect(dsn) as connection:
        await publish(connection, "kept")
        assert payloads(conn) == []
        await maybe_await(connection.commit())
        await publish(connection, "dropped")
        await maybe_await(connection.rollback())
        await publish(connection, "kept too")
        await maybe_await(connection.commit())
    assert payloads(conn) == ["kept", "kept too"]


async def test_savepoints_decide(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.connect(dsn) as connection:
        async with entered(connection.transaction()):
            await publish(connection, "kept")
            with pytest.raises(ZeroDivisionError):
                async with entered(connection.transaction()):
                    await publish(connection, "dropped")
                    raise ZeroDivisionError
            async with entered(connection.transaction()):
                await publish(connection, "kept too")
    assert payloads(conn) == ["kept", "kept too"]


async def test_beside_the_callers_own_writes(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    conn.execute("CREATE TABLE mine (n int)")
    async with api.connect(dsn) as connection:
        await maybe_await(connection.execute("INSERT INTO mine VALUES (1)"))
        await publish(connection, 1)
        await maybe_await(connection.rollback())
    assert value(conn, "SELECT count(*) FROM mine") == 0
    assert payloads(conn) == []


async def test_in_a_pipeline(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.connect(dsn) as connection:
        async with entered(connection.pipeline()):
            first = await publish(connection, 1)
            second = await publish(connection, 2)
            many = await maybe_await(api.Publisher().publish_many(connection, "t", [3, 4]))
        await maybe_await(connection.commit())
    assert payloads(conn) == [1, 2, 3, 4]
    assert sorted([first, second, *many]) == [first, second, *many]


class Anything:
    def __init__(self, **_: Any) -> None:
        """Rows of the caller's own kind."""


@pytest.mark.parametrize("factory", ["dict_row", "class_row", "client cursor", "binary"])
async def test_connections_with_factories_of_their_own(
    api: Api, publish: Any, dsn: str, conn: Connection, factory: str
) -> None:
    given: dict[str, Any] = {
        "dict_row": {"row_factory": dict_row},
        "class_row": {"row_factory": class_row(Anything)},
        "client cursor": {"cursor_factory": api.ClientCursor},
        "binary": {"prepare_threshold": 0},
    }[factory]
    async with api.connect(dsn, **given) as connection:
        first = await publish(connection, {"n": "%s"}, headers={"a": "%"})
        assert await maybe_await(api.Publisher().publish_many(connection, "t", [b"x", 2])) == [
            first + 1,
            first + 2,
        ]
        await maybe_await(connection.commit())
    assert payloads(conn) == [{"n": "%s"}, None, 2]


async def test_after_an_error_the_transaction_stays_failed(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    async with api.connect(dsn) as connection:
        with pytest.raises(errors.DivisionByZero):
            await maybe_await(connection.execute("SELECT 1/0"))
        with pytest.raises(errors.InFailedSqlTransaction):
            await publish(connection, 1)
        await maybe_await(connection.rollback())
        await publish(connection, 2)
        await maybe_await(connection.commit())
    assert payloads(conn) == [2]


async def test_through_a_closed_connection(api: Api, publish: Any, dsn: str) -> None:
    async with api.connect(dsn) as connection:
        await maybe_await(connection.close())
        with pytest.raises(psycopg.OperationalError, match="closed"):
            await publish(connection, 1)


async def test_at_higher_isolation(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.connect(dsn) as connection:
        await maybe_await(connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE))
        await publish(connection, 1)
        await maybe_await(connection.commit())
    assert payloads(conn) == [1]


# SQLAlchemy


async def test_alchemy_connection(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.engine(dsn) as engine, entered(engine.connect()) as connection:
        await publish(connection, "kept")
        await maybe_await(connection.commit())
        await publish(connection, "dropped")
        await maybe_await(connection.rollback())
        async with entered(connection.begin()):
            await publish(connection, "kept too")
        with pytest.raises(ZeroDivisionError):
            async with entered(connection.begin()):
                await publish(connection, "dropped")
                raise ZeroDivisionError
        await publish(connection, "dropped with the connection")
    assert payloads(conn) == ["kept", "kept too"]


async def test_alchemy_engine_begin(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.engine(dsn) as engine:
        async with entered(engine.begin()) as connection:
            await publish(connection, "kept")
        async with entered(engine.connect()) as connection:
            async with entered(connection.begin()):
                async with entered(connection.begin_nested()) as savepoint:
                    await publish(connection, "dropped")
                    await maybe_await(savepoint.rollback())
                await publish(connection, "kept too")
    assert payloads(conn) == ["kept", "kept too"]


async def test_alchemy_session(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.engine(dsn) as engine, entered(api.session(engine)) as session:
        await publish(session, "kept")
        await maybe_await(session.commit())
        await publish(session, "dropped")
        await maybe_await(session.rollback())
        async with entered(session.begin()):
            await publish(session, "kept too")
        with pytest.raises(ZeroDivisionError):
            async with entered(session.begin()):
                await publish(session, "dropped")
                raise ZeroDivisionError
        async with entered(session.begin()):
            with pytest.raises(ZeroDivisionError):
                async with entered(session.begin_nested()):
                    await publish(session, "dropped")
                    raise ZeroDivisionError
            await publish(session, "kept at last")
        await publish(session, "dropped with the session")
    assert payloads(conn) == ["kept", "kept too", "kept at last"]


async def test_alchemy_session_beside_its_own_writes(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    conn.execute("CREATE TABLE mine (n int)")
    async with api.engine(dsn) as engine, entered(api.session(engine)) as session:
        for end in (session.rollback, session.commit):
            await maybe_await(session.execute(sa.text("INSERT INTO mine VALUES (1)")))
            await publish(session, end.__name__)
            await maybe_await(end())
    assert value(conn, "SELECT count(*) FROM mine") == 1
    assert payloads(conn) == ["commit"]


async def test_alchemy_scoped_session(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    async with api.engine(dsn) as engine:
        session: Any
        if api.is_async:
            factory = sessionmaker(class_=AsyncSession, bind=engine)
            session = async_scoped_session(factory, scopefunc=lambda: None)  # type: ignore[type-var]
        else:
            session = scoped_session(sessionmaker(engine))
        await publish(session, "kept")
        await maybe_await(session.commit())
        await publish(session, "dropped")
        await maybe_await(session.remove())
    assert payloads(conn) == ["kept"]


async def test_alchemy_engine_in_autocommit_mode(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    async with api.engine(dsn, isolation_level="AUTOCOMMIT") as engine:
        async with entered(engine.connect()) as connection:
            await publish(connection, 1)
            assert payloads(conn) == [1]


@asynccontextmanager
async def other_connections(kind: str, api: Api) -> AsyncIterator[Any]:
    """Connections that cannot publish; nothing listens at their address."""
    async with AsyncExitStack() as stack:
        if kind == "sqlite":
            url = "sqlite+aiosqlite://" if api.is_async else "sqlite://"
            if api.is_async:
                need_package("aiosqlite")
            engine: Any = create_async_engine(url) if api.is_async else sa.create_engine(url)
            stack.push_async_callback(lambda: go_dispose(engine))
            yield await stack.enter_async_context(entered(engine.connect()))
        elif kind == "a string":
            yield "postgresql://localhost/app"
        elif kind == "None":
            yield None
        elif kind == "sqlite3":
            connection = sqlite3.connect(":memory:")
            stack.callback(connection.close)
            yield connection


async def go_dispose(engine: Any) -> None:
    await maybe_await(engine.dispose())


REMEDY = r"engine on postgresql\+psycopg://"


@pytest.mark.parametrize("kind", ["sqlite", "sqlite3", "a string", "None"])
async def test_other_connections_say_what_to_give(api: Api, publish: Any, kind: str) -> None:
    async with other_connections(kind, api) as connection:
        with pytest.raises(dn.errors.UnsupportedConnection, match=REMEDY):
            await publish(connection, 1)
        with pytest.raises(TypeError):
            await maybe_await(api.Publisher().publish_many(connection, "t", [1]))


async def test_an_engine_is_no_connection(api: Api, publish: Any, dsn: str) -> None:
    async with api.engine(dsn) as engine:
        with pytest.raises(dn.errors.UnsupportedConnection, match=r"AsyncEngine|not Engine"):
            await publish(engine, 1)


async def test_the_other_halfs_connections(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        with pytest.raises(dn.errors.UnsupportedConnection, match="AsyncConnection"):
            await dn.AsyncPublisher().publish(connection, "t", 1)  # type: ignore[arg-type]
    async with await psycopg.AsyncConnection.connect(dsn) as aconnection:
        with pytest.raises(dn.errors.UnsupportedConnection, match="give a psycopg Connection"):
            dn.Publisher().publish(aconnection, "t", 1)  # type: ignore[arg-type]


# Many, large, and bad


async def test_ten_thousand_in_one_statement(api: Api, dsn: str, conn: Connection) -> None:
    many = [{"n": n} for n in range(10_000)]
    async with api.connect(dsn, autocommit=True) as connection:
        ids = await maybe_await(api.Publisher().publish_many(connection, "t", iter(many)))
    query = "SELECT id, payload, xid::text FROM durable_notify.outbox ORDER BY id"
    rows = conn.execute(query).fetchall()
    assert [row[0] for row in rows] == ids
    assert [row[1] for row in rows] == many
    assert len({row[2] for row in rows}) == 1, "each in a transaction of its own"


async def test_none_at_all(api: Api, dsn: str) -> None:
    async with api.connect(dsn) as connection:
        assert await maybe_await(api.Publisher().publish_many(connection, "t", [])) == []
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_messages_of_all_kinds_in_one_go(api: Api, dsn: str, conn: Connection) -> None:
    outgoing = [
        1,
        None,
        b"\x00\xff",
        dn.NewMessage({"a": 1}, key="k", headers={"h": 1}),
        dn.NewMessage(b"", headers={}),
        dn.NewMessage([2], "other"),
    ]
    async with api.connect(dsn, autocommit=True) as connection:
        await maybe_await(api.Publisher().publish_many(connection, "t", outgoing))
    query = """SELECT payload::text, data, key, headers FROM durable_notify.outbox ORDER BY id"""
    assert conn.execute(query).fetchall() == [
        ("1", None, None, None),
        ("null", None, None, None),
        (None, b"\x00\xff", None, None),
        ('{"a": 1}', None, "k", {"h": 1}),
        (None, b"", None, {}),
        ("[2]", None, "other", None),
    ]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (math.nan, dn.errors.PayloadError), ("\x00", dn.errors.PayloadError), ("\ud800", dn.errors.PayloadError),
        (dt.datetime.now(dt.UTC), dn.errors.PayloadError), (dn.NewMessage(1, key=""), dn.InvalidArgument),
        (dn.NewMessage(1, headers={"a": object()}), dn.errors.PayloadError),
    ],
)  # fmt: skip
async def test_a_bad_one_in_the_middle(
    api: Api, dsn: str, conn: Connection, bad: Any, kind: type[Exception]
) -> None:
    async with api.connect(dsn) as connection:
        with pytest.raises(kind) as caught:
            await maybe_await(api.Publisher().publish_many(connection, "t", [1, 2, bad, 4]))
        assert caught.value.__notes__ == ["message 2 of the list; none was published"]
        # The caller's transaction is as good as before.
        await maybe_await(api.Publisher().publish(connection, "t", "after"))
        await maybe_await(connection.commit())
    assert payloads(conn) == ["after"]


async def test_bad_ones_leave_the_transaction_alone(
    api: Api, publish: Any, dsn: str, conn: Connection
) -> None:
    async with api.connect(dsn) as connection:
        await publish(connection, "before")
        for payload, topic in ((math.inf, "t"), (1, ""), (1, "a b"), (1, "x" * 256)):
            with pytest.raises(dn.InvalidArgument):
                await publish(connection, payload, topic)
        with pytest.raises(dn.InvalidArgument):
            await publish(connection, 1, key="\n")
        await maybe_await(connection.commit())
    assert payloads(conn) == ["before"]


async def test_five_megabytes(api: Api, publish: Any, dsn: str, conn: Connection) -> None:
    text, data = "ü" * 2_500_000, bytes(range(256)) * 20_000
    async with api.connect(dsn, autocommit=True) as connection:
        await publish(connection, text)
        await publish(connection, data)
    rows = conn.execute("SELECT payload, data FROM durable_notify.outbox ORDER BY id").fetchall()
    assert rows == [(text, None), (None, data)]


async def test_too_large_for_postgresql(
    api: Api, publish: Any, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_PAYLOAD_BYTES", 1_000_000)
    async with api.connect(dsn, autocommit=True) as connection:
        for payload in ("x" * 1_000_000, b"x" * 1_000_001):
            with pytest.raises(dn.errors.PayloadTooLarge, match="publish a reference"):
                await publish(connection, payload)
    assert payloads(conn) == []


async def test_custom_dumps(api: Api, dsn: str, conn: Connection) -> None:
    publisher = api.Publisher(dumps=lambda _: b'{"custom": 1}')
    async with api.connect(dsn, autocommit=True) as connection:
        await maybe_await(publisher.publish(connection, "t", object()))
        await maybe_await(publisher.publish_many(connection, "t", [object(), b"bytes stay"]))
    assert payloads(conn) == [{"custom": 1}, {"custom": 1}, None]
