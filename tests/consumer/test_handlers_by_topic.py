"""``on``: which handler gets a message, in which transaction and thread, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import Any

import psycopg
import pydantic
import pytest
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

import durable_notify as dn
from tests.support.api import Api, in_thread, maybe_await, with_group
from tests.support.observe import outstanding
from tests.support.wait import with_timeout


class Placed(pydantic.BaseModel):
    order_id: int


ORDERS = dn.Topic("orders", Placed)


def consumer_of(api: Api, dsn: str, **options: Any) -> Any:
    """A consumer that ends when nothing is left."""
    make = dn.AsyncConsumer if api.is_async else dn.Consumer
    settings = {"group": "g", "poll_interval": None, "until_empty": True, **options}
    return make(dsn, **with_group(settings))


async def ran(api: Api, consumer: Any, *args: Any, **options: Any) -> None:
    """Run it to its end."""
    if api.is_async:
        await with_timeout(consumer.run(*args, **options))
    else:
        await with_timeout(in_thread(lambda: consumer.run(*args, **options)))


def fit(api: Api, handler: Any) -> Any:
    """A plain handler as one for this half."""
    if not api.is_async:
        return handler

    async def awaited(*args: Any) -> Any:
        return handler(*args)

    return awaited


def publish(conn: psycopg.Connection, *topics: str, payload: Any = 1) -> None:
    for topic in topics:
        dn.Publisher().publish(conn, topic, payload)


async def test_each_topic_has_its_handler(api: Api, dsn: str, conn: psycopg.Connection) -> None:
    consumer = consumer_of(api, dsn)
    seen: list[Any] = []

    @consumer.on(ORDERS)
    @lambda handler: fit(api, handler)
    def place(message: Any) -> None:
        seen.append(("place", message.payload))

    consumer.on("payments.refund")(fit(api, lambda message: seen.append(("refund", message.topic))))
    consumer.on("payments.*")(fit(api, lambda message: seen.append(("pay", message.topic))))
    consumer.on("payments.>")(fit(api, lambda message: seen.append(("late", message.topic))))
    assert callable(place)
    publish(conn, "orders", payload={"order_id": 1})
    publish(conn, "payments.card", "payments.refund", "payments.card.late", "other")
    await ran(api, consumer)
    assert sorted(seen, key=str) == [
        ("late", "payments.card.late"), ("pay", "payments.card"), ("place", Placed(order_id=1)),
        ("refund", "payments.refund"),
    ]  # fmt: skip
    # The group's topics are those of the handlers.
    [group] = [info for info in dn.Admin().groups(conn) if info.name == "g"]
    assert group.patterns == ["payments.*", "payments.>"]
    assert "other" not in group.topics


async def test_a_topic_without_a_handler_is_retried(
    api: Api, dsn: str, conn: psycopg.Connection
) -> None:
    """As a newer version of the program may have one; after the last attempt it is a dead letter."""
    options = {"retry": dn.RetryPolicy(max_attempts=2, base=0.01), "topics": ["orders.*"]}
    consumer = consumer_of(api, dsn, **options)
    seen: list[str] = []
    consumer.on("orders.placed")(fit(api, lambda message: seen.append(message.topic)))
    publish(conn, "orders.placed", "orders.cancelled")
    await ran(api, consumer)
    assert seen == ["orders.placed"]
    [letter] = dn.Admin().dead_letters(conn, "g")
    assert letter.attempt == 2
    assert letter.error is not None
    assert letter.error["type"] == "durable_notify.errors.NoHandler"
    assert letter.error["message"] == "no handler was added for topic 'orders.cancelled'"


async def test_topics_and_handlers_that_do_not_meet_are_refused(api: Api, dsn: str) -> None:
    handler = fit(api, lambda _: None)
    consumer = consumer_of(api, dsn, topics=["orders", "payments"])
    with pytest.raises(dn.InvalidArgument, match=r"there is no handler: give one to run\(\), or"):
        await ran(api, consumer)
    consumer.on("orders")(handler)
    with pytest.raises(dn.InvalidArgument, match="topic 'payments' has no handler: add one with"):
        await ran(api, consumer)
    consumer.on("*")(handler)
    consumer.on("mails.*")(handler)
    with pytest.raises(dn.InvalidArgument, match=r"the handler of 'mails.\*' gets no messages"):
        await ran(api, consumer)
    with pytest.raises(dn.InvalidArgument, match=r"this consumer has handlers by on\(\): run it"):
        await ran(api, consumer, handler)
    with pytest.raises(dn.InvalidArgument, match="this consumer has handlers: call run"):
        iter(consumer) if not api.is_async else consumer.__aiter__()
    with pytest.raises(dn.InvalidArgument, match="there are no topics: give topics="):
        await maybe_await(consumer_of(api, dsn).start())
    with pytest.raises(dn.InvalidArgument, match="topics is empty"):
        consumer_of(api, dsn, topics=[])


async def test_wrong_handlers_are_refused_when_they_are_decorated(api: Api, dsn: str) -> None:
    consumer = consumer_of(api, dsn)

    def one(message: Any) -> None: ...
    def two(message: Any, connection: Any) -> None: ...
    def generator(message: Any) -> Any:
        yield

    async def awaited(message: Any) -> None: ...

    consumer.on("t")(one)
    for match, topic, options, handler in (
        ("topic 't' has a handler already", "t", {}, one),
        (r"a handler is called with message, and .*two takes \(message", "a", {}, two),
        ("called with message and connection, and .*one takes", "a", {"transaction": True}, one),
        ("only makes a generator", "a", {}, generator),
        ("a handler must be a function, not int", "a", {}, 3),
        (r"pattern 'a\*'", "a*", {}, one),
        ("takes an engine, sessionmaker", "a", {"transaction": 3}, two),
        ("thread=True is for plain functions|only makes a coro", "a", {"thread": True}, awaited),
    ):  # fmt: skip
        with pytest.raises(dn.InvalidArgument, match=match):
            consumer.on(topic, **options)(handler)
    with pytest.raises(dn.InvalidArgument, match="there are two types of topic 'orders'"):
        consumer_of(api, dsn, topics=[ORDERS]).on(dn.Topic("orders", int))(one)
    if api.is_async:
        with pytest.raises(
            dn.InvalidArgument, match="a thread cannot use a connection for asyncio"
        ):
            consumer.on("b", transaction=True, thread=True)(two)
    else:
        with pytest.raises(dn.InvalidArgument, match="only makes a coroutine"):
            consumer.on("b")(awaited)


async def test_a_handler_with_other_arguments_is_refused_by_run(api: Api, dsn: str) -> None:
    """Each message would fail as often as the group allows, and become a dead letter."""
    for handler in (lambda: None, lambda _message, _connection: None):
        with pytest.raises(dn.InvalidArgument, match="a handler is called with message, and "):
            await ran(api, consumer_of(api, dsn, topics=["t"]), handler)
    with pytest.raises(dn.InvalidArgument, match="called with a list of messages, and .* takes"):
        await maybe_await(consumer_of(api, dsn, topics=["t"]).run_batches(lambda: None))


async def test_no_handler_is_added_later(api: Api, dsn: str) -> None:
    consumer = consumer_of(api, dsn)
    consumer.on("t")(fit(api, lambda _: None))
    await ran(api, consumer)
    with pytest.raises(
        dn.errors.ConsumerClosed, match="this consumer has started: add handlers before"
    ):
        consumer.on("u")(fit(api, lambda _: None))


@pytest.mark.parametrize("kind", ["own", "engine", "sessionmaker", "pool"])
async def test_the_handlers_transaction_is_the_acknowledgement(
    api: Api, dsn: str, conn: psycopg.Connection, kind: str
) -> None:
    conn.execute("CREATE TABLE done (id int)")
    publish(conn, "t", "t", "t")
    async with contextlib.AsyncExitStack() as stack:
        source: Any = True
        if kind in ("engine", "sessionmaker"):
            source = await stack.enter_async_context(api.engine(dsn))
            if kind == "sessionmaker":
                source = (async_sessionmaker if api.is_async else sessionmaker)(source)
        elif kind == "pool" and api.is_async:
            source = await stack.enter_async_context(AsyncConnectionPool(dsn, open=False))
        elif kind == "pool":
            source = stack.enter_context(ConnectionPool(dsn))
        consumer = consumer_of(api, dsn, retry=dn.RetryPolicy(base=0.01))

        async def write(message: Any, connection: Any) -> None:
            text = f"INSERT INTO done VALUES ({message.id})"
            await connection.execute(sa.text(text) if "session" in kind or "eng" in kind else text)
            if message.id == 2 and message.attempt == 1:
                raise TimeoutError

        def write_plainly(message: Any, connection: Any) -> None:
            text = f"INSERT INTO done VALUES ({message.id})"
            connection.execute(sa.text(text) if "session" in kind or "eng" in kind else text)
            if message.id == 2 and message.attempt == 1:
                raise TimeoutError

        consumer.on("t", transaction=source)(write if api.is_async else write_plainly)
        await ran(api, consumer)
    assert conn.execute("SELECT array_agg(id ORDER BY id) FROM done").fetchone() == ([1, 2, 3],)
    assert outstanding(conn) == 0


async def test_sources_of_the_other_half_are_refused(api: Api, dsn: str) -> None:
    other = Api("sync" if api.is_async else "async")
    consumer = consumer_of(api, dsn)

    def handler(message: Any, connection: Any) -> None: ...

    async with other.engine(dsn) as engine:
        maker = (async_sessionmaker if other.is_async else sessionmaker)(engine)
        for source in (engine, maker):
            with pytest.raises(dn.InvalidArgument, match="is for the other half: what is for asy"):
                consumer.on("t", transaction=source)(handler)


async def test_handlers_cannot_share_a_connection(api: Api, dsn: str) -> None:
    """A Connection or Session is for one handler at a time; what lends connections is for many."""

    def handler(message: Any, connection: Any) -> None: ...

    async with api.engine(dsn) as engine:
        maker = (async_sessionmaker if api.is_async else sessionmaker)(engine)
        session = maker()
        consumer = consumer_of(api, dsn)
        consumer.on("t", transaction=session)(handler)
        with pytest.raises(dn.InvalidArgument, match="'t' has one connection for all messages"):
            await maybe_await(consumer.run(concurrency=2))
        await maybe_await(session.close())
        for source in (maker, engine):
            consumer = consumer_of(api, dsn)
            consumer.on("t", transaction=source)(handler)
            assert consumer._prepare(None, 2) == 2


async def test_work_that_was_not_done_is_not_acknowledged(
    api: Api, dsn: str, conn: psycopg.Connection
) -> None:
    """The transaction of a handler that returned a generator must not commit."""
    publish(conn, "t")
    consumer = consumer_of(api, dsn, retry=dn.RetryPolicy(max_attempts=1))
    consumer.on("t", transaction=True)(lambda *_: (x for x in ()))
    await ran(api, consumer)
    [letter] = dn.Admin().dead_letters(conn, "g")
    assert letter.error is not None
    assert letter.error["type"] == "durable_notify.errors.WorkNotDone"


async def test_plain_functions_run_in_threads_on_request(
    dsn: str, conn: psycopg.Connection
) -> None:
    """Both at once, beside the event loop, and with its context variables."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    barrier = threading.Barrier(3)
    consumer = dn.AsyncConsumer(
        dsn,
        group=dn.Group("g", order_by="none"),
        poll_interval=None,
        until_empty=True,
        concurrency=2,
    )
    found: list[Any] = []

    @consumer.on("t", thread=True)
    def work(message: dn.AsyncMessage) -> None:
        barrier.wait(20)
        found.append((threading.current_thread() is threading.main_thread(), variable.get()))

    @consumer.on("fails", thread=True)
    def fail(message: dn.AsyncMessage) -> None:
        raise StopIteration if message.attempt == 1 else KeyError("second")

    publish(conn, "t", "t")
    running = asyncio.ensure_future(consumer.run())
    await with_timeout(asyncio.to_thread(barrier.wait, 20))
    await with_timeout(running)
    assert found == [(False, 7)] * 2

    publish(conn, "fails")
    rules = {KeyError: dn.Reject(), RuntimeError: dn.Retry(0)}
    consumer = dn.AsyncConsumer(
        dsn, group="h", poll_interval=None, until_empty=True, on_error=rules
    )
    consumer.on("fails", thread=True)(fail)
    await with_timeout(consumer.run())
    [letter] = dn.Admin().dead_letters(conn, "h")
    assert letter.reason == "KeyError: 'second'"


@pytest.mark.parametrize(
    "topics", [["orders.>"], [dn.Topic("orders.>", dict), dn.Topic("orders.*", Placed)]]
)
async def test_the_type_is_that_of_the_handler(
    api: Api, dsn: str, conn: psycopg.Connection, topics: list[Any]
) -> None:
    typed = next((one for one in topics if str(one) == "orders.*"), dn.Topic("orders.*", Placed))
    consumer = consumer_of(api, dsn, topics=topics)
    seen: dict[str, Any] = {}
    for topic in (typed, "orders.>"):
        consumer.on(topic)(fit(api, lambda message: seen.update({message.topic: message.payload})))
    publish(conn, "orders.eu", "orders.eu.fr", payload={"order_id": 1})
    await ran(api, consumer)
    assert seen == {"orders.eu": Placed(order_id=1), "orders.eu.fr": {"order_id": 1}}
