"""FastAPI: one session a request, consumers that end with the application.

Annotations are not strings here: FastAPI could not look up those of functions in functions.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import fastapi
import httpx
import psycopg
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

import durable_notify as dn
from durable_notify import errors, testing
from durable_notify.integrations.fastapi import AsyncBoundPublisher, lifespan, publisher_for
from durable_notify.web import Access, StreamAccess, dashboard, streams
from tests.drivers.kits import engine, where
from tests.support.api import maybe_await
from tests.support.wait import wait_until

ORDER = "INSERT INTO customer_order VALUES (1)"


@contextlib.asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has started."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as opened,
    ):
        yield opened


@pytest.fixture
def shop_dsn(dsn: str, conn: psycopg.Connection) -> str:
    conn.execute(
        "CREATE TABLE customer_order (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, CHECK (id > 0))"
    )
    return dsn


def asynchronous(make: Any, opened: list[Any]) -> Any:
    async def session() -> AsyncIterator[AsyncSession]:
        async with async_sessionmaker(make).begin() as one:
            opened.append(one)
            yield one

    return Annotated[AsyncSession, Depends(session, scope="function")]


def synchronous(make: Any, opened: list[Any]) -> Any:
    def session() -> Iterator[Session]:
        with sessionmaker(make).begin() as one:
            opened.append(one)
            yield one

    return Annotated[Session, Depends(session, scope="function")]


def shop(work: Any, publisher: Any) -> FastAPI:
    """Endpoints that store, publish, and fail in several ways."""
    app = FastAPI()
    bound = Annotated[Any, Depends(publisher_for(work, publisher))]

    async def both(session: Any, publishing: Any, number: int) -> None:
        await maybe_await(session.execute(sa.text(f"INSERT INTO customer_order VALUES ({number})")))
        await maybe_await(publishing.publish("orders", {"order": number}, key=f"k{number}"))
        await maybe_await(publishing.publish_many("more", [number, dn.NewMessage(-number)]))

    @app.post("/orders/{number}")
    async def place(number: int, session: work, publishing: bound) -> None:
        await both(session, publishing, number)

    @app.post("/fail/{number}")
    async def fail(number: int, session: work, publishing: bound) -> None:
        await both(session, publishing, number)
        raise HTTPException(409, "no more tea")

    return app


@pytest.mark.parametrize(
    ("driver", "kind"),
    [("asyncpg", asynchronous), ("psycopg", asynchronous), ("psycopg", synchronous)],
)
async def test_an_order_and_its_messages(
    shop_dsn: str, conn: psycopg.Connection, driver: str, kind: Callable[..., Any]
) -> None:
    opened: list[Any] = []
    is_async = kind is asynchronous
    async with engine(driver, shop_dsn, is_async) as made:
        app = shop(kind(made, opened), None if is_async else dn.Publisher())
        async with client(app) as http:
            assert (await http.post("/orders/1")).status_code == 200
            assert len(opened) == 1  # the endpoint's and the publisher's are the same
            # Neither of these leaves anything: a refusal, a broken constraint at the commit.
            assert (await http.post("/fail/2")).status_code == 409
            assert (await http.post("/orders/1")).status_code == 500
            assert len(opened) == 3
    assert conn.execute("SELECT id FROM customer_order").fetchall() == [(1,)]
    testing.assert_published(conn, "orders", payload={"order": 1}, key="k1")
    testing.assert_published(conn, "orders", count=1)
    testing.assert_published(conn, "more", count=2)


async def test_a_connection_without_sqlalchemy(shop_dsn: str, conn: psycopg.Connection) -> None:
    import asyncpg

    async def connection() -> AsyncIterator[Any]:
        one = await asyncpg.connect(**where(shop_dsn))
        async with one.transaction():
            yield one
        await one.close()

    app = FastAPI()
    work = Annotated[Any, Depends(connection)]
    publisher = Annotated[AsyncBoundPublisher, Depends(publisher_for(work))]

    @app.post("/orders")
    async def place(work: work, publisher: publisher) -> int:  # type: ignore[valid-type]
        await work.execute(ORDER)  # type: ignore[attr-defined]
        return await publisher.publish("orders", 1)  # type: ignore[attr-defined,no-any-return]

    async with client(app) as http:
        assert (await http.post("/orders")).json() == 1
    testing.assert_published(conn, "orders", count=1)


def test_what_gives_no_session_is_refused() -> None:
    for wrong in (AsyncSession, Annotated[AsyncSession, "session"], Depends(lambda: None)):
        with pytest.raises(errors.InvalidArgument, match=r"takes the annotation by which"):
            publisher_for(wrong)


async def test_a_handler_ends_before_the_application(dsn: str, conn: psycopg.Connection) -> None:
    begun = asyncio.Event()
    handled = []
    consumer = dn.AsyncConsumer(dsn, group="g", poll_interval=None)
    other = dn.AsyncConsumer(dsn, group="other", poll_interval=None)

    @consumer.on("orders")
    async def handle(message: dn.AsyncMessage) -> None:
        begun.set()
        # The other is told to stop although this one still handles.
        await wait_until(lambda: other.health().state == "stopping")
        handled.append(message.payload)

    @other.on("orders")
    async def handle_too(message: dn.AsyncMessage) -> None: ...

    app = FastAPI(lifespan=lifespan(other, consumer))
    async with client(app):
        dn.Publisher().publish(conn, "orders", 1)
        await begun.wait()
        assert consumer.health().ready
    assert handled == [1]
    status = [s for s in dn.Admin().status(conn) if s.group == "g"]
    assert [(s.unread, s.leased, s.deferred) for s in status] == [(0, 0, 0)]


async def test_it_does_not_start_without_the_schema(empty_dsn: str, dsn: str) -> None:
    consumer = dn.AsyncConsumer(empty_dsn, group="g")

    @consumer.on("orders")
    async def handle(message: dn.AsyncMessage) -> None: ...

    for app in (FastAPI(lifespan=lifespan(consumer)), FastAPI(lifespan=lifespan(dsn=empty_dsn))):
        with pytest.raises(errors.SchemaMissing):
            async with client(app):
                pass
    async with client(FastAPI(lifespan=lifespan(dsn=dsn))):
        pass


def test_a_consumer_in_threads_is_refused(dsn: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="runs AsyncConsumers, not Consumer: run"):
        lifespan(dn.Consumer(dsn, group="g"))  # type: ignore[arg-type]


async def test_what_is_mounted_is_closed(dsn: str, conn: psycopg.Connection) -> None:
    app = FastAPI(lifespan=lifespan(dsn=dsn))
    app.mount("/live", streams(dsn, authorize=lambda _: StreamAccess(("orders",))))
    app.mount("/queue", dashboard(dsn, authorize=lambda _: Access("me")))
    app.mount("/other", fastapi.FastAPI())
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    async with client(app) as http:
        assert (await http.get("/live/messages?topic=orders")).status_code == 200
        assert (await http.get("/queue/")).status_code == 200
        assert conn.execute(count).fetchone() > (1,)  # type: ignore[operator]
    await wait_until(lambda: conn.execute(count).fetchone() == (1,))  # sessions end a moment later
