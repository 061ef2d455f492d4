"""Middleware: around handlers and publishing, in both halves; ours, and what users write."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import structlog
from prometheus_client import CollectorRegistry

import durable_notify as dn
from durable_notify.integrations import logs, prometheus
from durable_notify.integrations import structlog as structlogs
from durable_notify.middleware import Handling, Publishing
from tests.support.api import Api, in_thread, maybe_await, with_group
from tests.support.observe import dead_letters, outstanding, send, value
from tests.support.wait import with_timeout

Connection = psycopg.Connection[Any]


class Noting(dn.Middleware):
    """Notes what runs within it."""

    def __init__(self, name: str, noted: list[Any]) -> None:
        self.name, self.noted = name, noted

    @contextmanager
    def around(self, *what: Any) -> Iterator[None]:
        self.noted.append((f"{self.name} in", *what))
        try:
            yield
        except BaseException as error:
            self.noted.append((f"{self.name} out", type(error).__name__))
            raise
        self.noted.append((f"{self.name} out",))

    def handling(self, call: Handling) -> Any:
        ids = [message.id for message in call.messages]
        return self.around(call.group, ids, call.is_batch)  # a context manager

    def publishing(self, call: Publishing) -> Iterator[None]:
        with self.around(call.topic, [one.payload for one in call.messages], call.is_batch):
            yield
        self.noted.append(call.ids)


async def run(api: Api, consumer: Any, method: str, handler: Any, **options: Any) -> None:
    def plain(argument: Any) -> Any:
        return handler(argument)

    async def awaited(argument: Any) -> Any:
        return handler(argument)

    if api.is_async:
        await with_timeout(getattr(consumer, method)(awaited, **options))
    else:
        await with_timeout(in_thread(lambda: getattr(consumer, method)(plain, **options)))


def consumer_of(api: Api, dsn: str, *middleware: dn.Middleware, **options: Any) -> Any:
    make = dn.AsyncConsumer if api.is_async else dn.Consumer
    settings = {
        "group": "g", "topics": ["t"], "poll_interval": None, "until_empty": True,
        "middleware": middleware, "retry": dn.RetryPolicy(base=0.01), **options,
    }  # fmt: skip
    return make(dsn, **with_group(settings))


async def test_around_handlers_the_first_is_outermost(api: Api, dsn: str, conn: Connection) -> None:
    noted: list[Any] = []

    def handle(message: Any) -> None:
        noted.append("handler")
        if message.attempt == 1:
            raise TimeoutError

    send(conn, [1])
    await run(api, consumer_of(api, dsn, Noting("a", noted), Noting("b", noted)), "run", handle)
    call = ("g", [1], False)
    assert noted == [
        ("a in", *call), ("b in", *call), "handler", ("b out", "TimeoutError"),
        ("a out", "TimeoutError"),
        ("a in", *call), ("b in", *call), "handler", ("b out",), ("a out",),
    ]  # fmt: skip


async def test_around_batches(api: Api, dsn: str, conn: Connection) -> None:
    noted: list[Any] = []
    send(conn, [1, 2])
    consumer = consumer_of(api, dsn, Noting("a", noted))
    await run(api, consumer, "run_batches", lambda _: noted.append("handler"), max_wait=0.2)
    assert noted == [("a in", "g", [1, 2], True), "handler", ("a out",)]


async def test_around_the_transaction_of_the_handler(api: Api, dsn: str, conn: Connection) -> None:
    """When the middleware ends, the transaction has committed, and so has the acknowledgement."""
    found: list[Any] = []

    class Looking(dn.Middleware):
        def handling(self, call: Handling) -> Iterator[None]:
            yield
            with psycopg.connect(dsn) as connection:
                found.append(value(connection, "SELECT count(*) FROM made"))

    conn.execute("CREATE TABLE made (id int)")
    send(conn, [1])
    consumer = consumer_of(api, dsn, Looking())

    async def awaited(message: Any, connection: Any) -> None:
        await connection.execute("INSERT INTO made VALUES (1)")

    def plain(message: Any, connection: Any) -> None:
        connection.execute("INSERT INTO made VALUES (1)")

    consumer.on("t", transaction=True)(awaited if api.is_async else plain)
    if api.is_async:
        await with_timeout(consumer.run())
    else:
        await with_timeout(in_thread(consumer.run))
    assert found == [1]
    assert outstanding(conn) == 0


async def test_work_that_was_not_done_is_an_error_within(
    api: Api, dsn: str, conn: Connection
) -> None:
    noted: list[Any] = []
    send(conn, [1])
    consumer = consumer_of(api, dsn, Noting("a", noted), retry=dn.RetryPolicy(max_attempts=1))
    await run(api, consumer, "run", lambda _: (one for one in ()))
    assert noted[-1] == ("a out", "WorkNotDone")
    assert len(dead_letters(conn)) == 1


class Policy(dn.Middleware):
    """A policy for errors: some are not, others are the user's own."""

    def handling(self, call: Handling) -> Iterator[None]:
        try:
            yield
        except KeyError:
            pass
        except TimeoutError as error:
            raise ZeroDivisionError from error


async def test_a_policy_for_errors(api: Api, dsn: str, conn: Connection) -> None:
    """A suppressed error acknowledges; the rules for errors see the error that was raised last."""
    send(conn, [1, 2])

    def handle(message: Any) -> None:
        raise KeyError if message.payload == 1 else TimeoutError

    rules = {ZeroDivisionError: dn.Reject("translated")}
    await run(api, consumer_of(api, dsn, Policy(), on_error=rules), "run", handle)
    assert dead_letters(conn) == [(2, 1, "translated")]
    assert outstanding(conn) == 0


async def test_around_publishing(api: Api, dsn: str, conn: Connection) -> None:
    noted: list[Any] = []

    class Tenant(dn.Middleware):
        def publishing(self, call: Publishing) -> Iterator[None]:
            call.messages = [
                dn.NewMessage(one.payload, key=one.key, headers={"tenant": 7})
                for one in call.messages
            ]
            yield

    publisher = api.Publisher(middleware=[Noting("a", noted), Tenant()])
    topic = dn.Topic("t", int)
    async with api.connect(dsn, autocommit=True) as connection:
        assert await maybe_await(publisher.publish(connection, topic, 1, key="k")) == 1
        assert await maybe_await(publisher.publish_many(connection, "t", [2, "x"])) == [2, 3]
        assert await maybe_await(publisher.publish_many(connection, "t", [])) == []
        with pytest.raises(dn.errors.PayloadError):
            await maybe_await(publisher.publish(connection, topic, "x"))
    assert noted == [
        ("a in", "t", [1], False), ("a out",), [1],
        ("a in", "t", [2, "x"], True), ("a out",), [2, 3],
        ("a in", "t", [], True), ("a out",), [],
        ("a in", "t", ["x"], False), ("a out", "PayloadError"),
    ]  # fmt: skip
    rows = conn.execute("SELECT key, headers FROM durable_notify.outbox ORDER BY id").fetchall()
    assert rows == [(key, {"tenant": 7}) for key in ("k", None, None)]


async def test_a_middleware_may_prevent_publishing(api: Api, dsn: str, conn: Connection) -> None:
    class Refusing(dn.Middleware):
        def publishing(self, call: Publishing) -> Any:
            raise PermissionError

    class Swallowing(dn.Middleware):
        def publishing(self, call: Publishing) -> Iterator[None]:
            with contextlib.suppress(dn.errors.PayloadError):
                yield

    async with api.connect(dsn, autocommit=True) as connection:
        with pytest.raises(PermissionError):
            await maybe_await(api.Publisher(middleware=[Refusing()]).publish(connection, "t", 1))
        publisher = api.Publisher(middleware=[Swallowing()])
        with pytest.raises(RuntimeError, match="a middleware has suppressed the error that pub"):
            await maybe_await(publisher.publish(connection, "t", object()))
    assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == 0


class Often(dn.Middleware):
    """Yields as often as it is told."""

    def __init__(self, times: int) -> None:
        self.times = times

    def handling(self, call: Handling) -> Iterator[None]:
        for _ in range(self.times):
            with contextlib.suppress(KeyError):
                yield


@pytest.mark.parametrize(
    ("times", "why"),
    [
        (0, "a middleware did not yield: it must once, there the call runs"),
        (2, "a middleware yielded twice: the call runs only once"),
    ],
)
@pytest.mark.parametrize("error", [None, KeyError])
async def test_a_middleware_yields_once(
    api: Api, dsn: str, conn: Connection, times: int, why: str, error: Any
) -> None:
    send(conn, [1])

    def handle(_: Any) -> None:
        if error:
            raise error

    await run(
        api,
        consumer_of(api, dsn, Often(times), retry=dn.RetryPolicy(max_attempts=1)),
        "run",
        handle,
    )
    assert [letter[2] for letter in dead_letters(conn)] == [
        f"attempt 1 of 1 failed: RuntimeError: {why}"
    ]


async def test_a_middleware_that_returns_nothing_is_named(
    api: Api, dsn: str, conn: Connection
) -> None:
    class Careless(dn.Middleware):
        def handling(self, call: Handling, /) -> Any:
            return None

    send(conn, [1])
    once = dn.RetryPolicy(max_attempts=1)
    await run(api, consumer_of(api, dsn, Careless(), retry=once), "run", lambda _: None)
    (letter,) = dead_letters(conn)
    assert letter[2] == (
        "attempt 1 of 1 failed: TypeError: the middleware Careless.handling() returned None: "
        "yield once in it, or return a context manager"
    )


async def test_an_error_passes_through_as_it_is(api: Api, dsn: str, conn: Connection) -> None:
    """Also StopIteration, which generators cannot let pass."""
    found: list[Any] = []
    send(conn, [1, 2])

    def rules(error: BaseException, message: Any) -> dn.Ack:
        found.append((message.id, type(error), error.__cause__, error.__context__))
        return dn.Ack()

    def handle(message: Any) -> None:
        raise StopIteration if message.id == 1 else KeyError

    await run(api, consumer_of(api, dsn, Often(1), Noting("a", []), on_error=rules), "run", handle)
    # An async function makes a RuntimeError of it, with or without a middleware.
    kind = RuntimeError if api.is_async else StopIteration
    assert [one[:2] for one in found] == [(1, kind)]
    assert outstanding(conn) == 0


class Awaiting(dn.Middleware):
    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    async def handling(self, call: Handling) -> AsyncIterator[None]:
        self.noted.append("in")
        yield
        self.noted.append("out")

    publishing = handling  # type: ignore[assignment]


async def test_asynchronous_middleware(dsn: str, conn: Connection) -> None:
    noted: list[str] = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await dn.AsyncPublisher(middleware=[Awaiting(noted)]).publish(connection, "t", 1)
    consumer = consumer_of(Api("async"), dsn, Awaiting(noted))
    await with_timeout(consumer.run(lambda _: noted.append("handler")))
    assert noted == ["in", "out", "in", "handler", "out"]
    for make in (consumer_of, lambda _, __, one: dn.Publisher(middleware=[one])):
        with pytest.raises(
            dn.InvalidArgument, match=r"Awaiting.handling\(\) is for asyncio: use it"
        ):
            make(Api("sync"), dsn, Awaiting(noted))


def test_what_is_no_middleware_is_refused(api: Api, dsn: str) -> None:
    class Coroutine(dn.Middleware):
        async def handling(self, call: Handling) -> None:  # type: ignore[override]
            ...

    wrong: Any
    for wrong, match in (
        ([print], "middleware has <built-in function print>, which is no dn.Middleware object"),
        ([Noting], "which is no dn.Middleware object"),
        (Noting("a", []), "middleware is a list of dn.Middleware objects, not <"),
        ([Coroutine()], r"Coroutine.handling\(\) must yield once: there the call runs"),
    ):
        with pytest.raises(dn.InvalidArgument, match=match):
            consumer_of(api, dsn, *wrong) if isinstance(wrong, list) else api.consumer(
                dsn, middleware=wrong
            )
        with pytest.raises(dn.InvalidArgument, match=match):
            api.Publisher(middleware=wrong)


# Ours


async def test_log_records_tell_the_message(
    api: Api, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    log, context = logging.getLogger("tests.context"), logs.LogContext()
    caplog.handler.addFilter(context)
    send(conn, [1])

    def handle(_: Any) -> None:
        log.warning("in the handler")

    try:
        await run(api, consumer_of(api, dsn, context), "run", handle)
        send(conn, [1, 2])
        consumer = consumer_of(api, dsn, context)
        await run(api, consumer, "run_batches", handle, max_wait=0.2)
        log.warning("outside", extra={"topic": "mine"})
    finally:
        caplog.handler.removeFilter(context)
    first, batch, outside = (one.__dict__ for one in caplog.records if one.name == log.name)
    names = ("group", "topic", "message_id", "attempt", "messages")
    assert [first[name] for name in names] == ["g", "t", 1, 1, None]
    assert [batch[name] for name in names] == ["g", None, None, None, 2]
    assert [outside[name] for name in names] == [None, "mine", None, None, None]


async def test_structlog_tells_the_message(api: Api, dsn: str, conn: Connection) -> None:
    found: list[Any] = []
    send(conn, [1])

    def handle(_: Any) -> None:
        found.append(dict(structlog.contextvars.get_contextvars()))

    await run(api, consumer_of(api, dsn, structlogs.LogContext()), "run", handle)
    assert found == [{"group": "g", "topic": "t", "message_id": 1, "attempt": 1}]


async def test_prometheus_counts_what_handlers_have(api: Api, dsn: str, conn: Connection) -> None:
    registry = CollectorRegistry()
    metrics = prometheus.Metrics(registry)
    found: list[Any] = []

    def handling(*_: Any) -> None:
        labels = {"group": "g", "topic": "t"}
        found.append(registry.get_sample_value("durable_notify_handling_messages", labels))

    send(conn, [1, 2])
    consumer = consumer_of(api, dsn, metrics)
    await run(api, consumer, "run_batches", handling, max_wait=0.2)
    handling()
    assert found == [2, 0]


class Counting(dn.Middleware):
    """Notes how many messages a call has, before it and after it."""

    def __init__(self) -> None:
        self.noted: list[int] = []

    def handling(self, call: dn.Handling) -> Iterator[None]:
        self.noted.append(len(call.messages))
        yield
        self.noted.append(len(call.messages))


async def test_a_handler_may_take_its_list_apart(api: Api, dsn: str, conn: Connection) -> None:
    seen: list[int] = []
    counting = Counting()

    def handle(batch: list[Any]) -> None:
        while batch:
            seen.append(batch.pop().payload)

    send(conn, range(3))
    await run(api, consumer_of(api, dsn, counting), "run_batches", handle, max_wait=0.2)
    assert sorted(seen) == [0, 1, 2]
    assert outstanding(conn) == 0
    assert counting.noted == [3, 3]


async def test_a_loop_may_take_its_list_apart(dsn: str, conn: Connection) -> None:
    send(conn, range(3))
    with psycopg.connect(dsn) as connection:
        await with_timeout(in_thread(lambda: _take_apart(dsn, connection)))
    assert outstanding(conn) == 0


def _take_apart(dsn: str, connection: Connection) -> None:
    with dn.Consumer(
        dsn, group="g", topics=["t"], poll_interval=None, until_empty=True
    ) as consumer:
        for batch in consumer.batches(size=3):
            while batch:
                batch.pop().ack(connection)
            connection.commit()


class _Entered:
    """An asynchronous context manager that no decorator has made."""

    def __init__(self, noted: list[str]) -> None:
        self._noted = noted

    async def __aenter__(self) -> None:
        self._noted.append("in")

    async def __aexit__(self, *_: object) -> None:
        self._noted.append("out")


class Returning(dn.Middleware):
    """Returns an asynchronous context manager, from plain methods."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def handling(self, _: dn.Handling) -> Any:
        return _Entered(self.noted)

    def publishing(self, _: dn.Publishing) -> Any:
        return _Entered(self.noted)


async def test_an_asynchronous_context_manager(dsn: str, conn: Connection) -> None:
    around, seen = Returning(), []
    publisher = dn.AsyncPublisher(middleware=[around])
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await publisher.publish(connection, "t", 1)
    consumer = dn.AsyncConsumer(
        dsn, group="g", topics=["t"], poll_interval=None, until_empty=True,
        middleware=[around],
    )  # fmt: skip
    await with_timeout(consumer.run(lambda message: seen.append(message.payload)))
    assert seen == [1]
    assert around.noted == ["in", "out"] * 2


class Repeating(dn.Middleware):
    """Publishes each message so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def publishing(self, call: dn.Publishing) -> Iterator[None]:
        call.messages = call.messages * self.times
        yield


@pytest.mark.parametrize("times", [0, 2])
def test_one_message_stays_one(dsn: str, conn: Connection, times: int) -> None:
    publisher = dn.Publisher(middleware=[Repeating(times)])
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(dn.InvalidArgument, match=f"made {times} messages of one"):
            publisher.publish(connection, "t", 1)
        assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == 0
        assert len(publisher.publish_many(connection, "t", [1])) == times
