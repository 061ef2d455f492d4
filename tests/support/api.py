"""One test for both halves of the library: the synchronous one, awaited as if it were the other.

What may block for long, consumers and messages, runs in threads. Connections, whose calls are
short, are called as they are, and awaited if there is something to await (`maybe_await`, `entered`).
Handlers and their events always run on the test's own event loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any, Self

import psycopg

import durable_notify as dn
from tests.support.wait import BOUND, with_timeout


async def maybe_await(value: Any) -> Any:
    """Return what a call returned, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager of either kind."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call something that may block: in a daemon, so that a hanging test does not hang the run."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="api", daemon=True).start()
    # Shielded: a thread cannot be cancelled, and will want to deliver.
    return await asyncio.shield(asyncio.wrap_future(future))


def with_group(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a consumer, with those of its group in a Group."""
    options = {**options}
    given = {f.name: options.pop(f.name) for f in fields(dn.Group) if f.name in options}
    return options | {"group": dn.Group(options["group"], **given)}


class ThreadedMessage:
    """A `Message`, whose methods are awaited."""

    def __init__(self, message: dn.Message) -> None:
        self.message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self.message, name)

    def __repr__(self) -> str:
        return repr(self.message)

    async def ack(self, connection: Any = None) -> None:
        await in_thread(self.message.ack, connection)

    async def retry(self, *args: Any, **kwargs: Any) -> None:
        await in_thread(functools.partial(self.message.retry, *args, **kwargs))

    async def reject(self, *args: Any, **kwargs: Any) -> None:
        await in_thread(functools.partial(self.message.reject, *args, **kwargs))

    async def extend(self, seconds: float) -> None:
        await in_thread(self.message.extend, seconds)


class ThreadedConsumer:
    """A `Consumer`, whose methods are awaited; it can be iterated over with `async for`."""

    def __init__(self, consumer: dn.Consumer) -> None:
        self.consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.consumer, name)

    def stop(self) -> None:
        self.consumer.stop()

    async def start(self) -> None:
        await in_thread(self.consumer.start)

    async def close(self) -> None:
        await in_thread(self.consumer.close)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> ThreadedConsumer:
        return self

    async def __anext__(self) -> ThreadedMessage:
        message = await in_thread(next, self.consumer, None)
        if message is None:
            raise StopAsyncIteration
        return ThreadedMessage(message)

    async def run(self, handler: Callable[[Any], Any], **kwargs: Any) -> None:
        loop = asyncio.get_running_loop()
        handling: set[Future[None]] = set()

        def in_its_thread(message: dn.Message) -> None:
            async def on_the_loop() -> None:
                await maybe_await(handler(ThreadedMessage(message)))

            work = asyncio.run_coroutine_threadsafe(on_the_loop(), loop)
            handling.add(work)
            try:
                work.result()
            finally:
                handling.discard(work)

        running = asyncio.ensure_future(
            in_thread(functools.partial(self.consumer.run, in_its_thread, **kwargs))
        )
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self.consumer.stop()  # a thread cannot be cancelled
            # Its handlers can: a test that fails while they wait is not to wait for them.
            while not (await asyncio.wait([running], timeout=0.05))[0]:
                for work in tuple(handling):
                    work.cancel()
            running.exception()
            raise


class Api:
    """The classes of one half, and the connections that go with them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_async = name == "async"
        self.Publisher: Any = dn.AsyncPublisher if self.is_async else dn.Publisher
        self.Admin: Any = dn.AsyncAdmin if self.is_async else dn.Admin
        self.Scheduler: Any = dn.AsyncScheduler if self.is_async else dn.Scheduler
        self.Connection: Any = psycopg.AsyncConnection if self.is_async else psycopg.Connection
        self.Cursor: Any = psycopg.AsyncCursor if self.is_async else psycopg.Cursor
        self.ClientCursor: Any = (
            psycopg.AsyncClientCursor if self.is_async else psycopg.ClientCursor
        )

    def __repr__(self) -> str:
        return self.name

    def consumer(
        self, dsn: str, group: str = "g", topics: Iterable[str] = ("t",), **kw: Any
    ) -> Any:
        """A consumer that never polls, unless told to; its options and those of its group."""
        options = with_group({"group": group, "topics": topics, "poll_interval": None, **kw})
        if self.is_async:
            return dn.AsyncConsumer(dsn, **options)
        return ThreadedConsumer(dn.Consumer(dsn, **options))

    @asynccontextmanager
    async def connect(self, dsn: str, **kwargs: Any) -> AsyncIterator[Any]:
        """A psycopg connection of this half."""
        connection = await maybe_await(self.Connection.connect(dsn, **kwargs))
        try:
            yield connection
        finally:
            await maybe_await(connection.close())

    @asynccontextmanager
    async def engine(self, dsn: str, **kwargs: Any) -> AsyncIterator[Any]:
        """A SQLAlchemy engine of this half on a libpq connection string."""
        import sqlalchemy as sa
        from sqlalchemy.ext.asyncio import create_async_engine

        create = create_async_engine if self.is_async else sa.create_engine
        if self.is_async:
            kwargs["async_creator"] = lambda: psycopg.AsyncConnection.connect(dsn)
        else:
            kwargs["creator"] = lambda: psycopg.connect(dsn)
        engine = create("postgresql+psycopg://", **kwargs)
        try:
            yield engine
        finally:
            await maybe_await(engine.dispose())

    def session(self, engine: Any) -> Any:
        """A SQLAlchemy Session of this half."""
        from sqlalchemy.ext.asyncio import AsyncSession
        from sqlalchemy.orm import Session

        return (AsyncSession if self.is_async else Session)(engine)


@asynccontextmanager
async def running(
    consumer: Any, handler: Callable[[Any], Any], **kwargs: Any
) -> AsyncIterator[Any]:
    """Run a handler beside the test; stop it gracefully at the end, and raise what it raised."""
    task = asyncio.ensure_future(consumer.run(handler, **kwargs))
    try:
        yield task
        consumer.stop()
        await with_timeout(task)
    finally:
        if not task.done():
            consumer.stop()
            task.cancel()
            await asyncio.wait([task])


class Recorder:
    """A handler that records its messages; `got(n)` waits until it has had n."""

    def __init__(self, action: Callable[[Any], Any] | None = None) -> None:
        self.messages: list[Any] = []
        self._changed = asyncio.Event()
        self._action = action

    async def __call__(self, message: Any) -> None:
        self.messages.append(message)
        self._changed.set()
        if self._action is not None:
            await maybe_await(self._action(message))

    @property
    def ids(self) -> list[int]:
        return [message.id for message in self.messages]

    @property
    def attempts(self) -> list[int]:
        return [message.attempt for message in self.messages]

    async def got(self, number: int) -> list[Any]:
        async with asyncio.timeout(BOUND):
            while len(self.messages) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


async def consume(
    api: Api, dsn: str, way: str, handler: Any, *, size: int = 10, **options: Any
) -> Any:
    """Give a handler to a consumer of either half, as it is; returns the consumer."""
    settings: dict[str, Any] = {
        "group": "g", "topics": ["t"], "until_empty": True, "poll_interval": None,
        "retry": dn.RetryPolicy(max_attempts=1),
    } | options  # fmt: skip
    limits = {"concurrency": settings.pop("concurrency", 1)}
    if way == "run_batches":
        limits |= {"size": size, "max_wait": 0.0}
    kind = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer: Any = kind(dsn, **with_group(settings))
    run = functools.partial(getattr(consumer, way), handler, **limits)
    await with_timeout(run() if api.is_async else in_thread(run))
    return consumer


async def record_in_transaction(message: Any, insert: str) -> None:
    """Handle a message of either half in its transaction, into which its payload is written."""
    if isinstance(message, ThreadedMessage):

        def work() -> None:
            with message.message.transaction() as connection:
                connection.execute(insert, [message.payload])

        await in_thread(work)
    else:
        async with message.transaction() as connection:
            await connection.execute(insert, [message.payload])


async def collect(consumer: Any, number: int) -> list[Any]:
    """Return the next messages of an iteration."""
    taken: list[Any] = []
    async with asyncio.timeout(BOUND):
        while len(taken) < number:
            taken.append(await anext(consumer))
    return taken


class AnyReader:
    """A reader of either half."""

    def __init__(self, api: Api, dsn: str, *topics: str, **options: Any) -> None:
        make = dn.AsyncReader if api.is_async else dn.Reader
        self.api = api
        self.reader: Any = make(dsn, topics=topics or ("t",), **{"poll_interval": None, **options})

    async def __aenter__(self) -> Self:
        if self.api.is_async:
            await self.reader.__aenter__()
        else:
            await in_thread(self.reader.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        await (self.reader.close() if self.api.is_async else in_thread(self.reader.close))

    async def next(self) -> Any:
        if self.api.is_async:
            return await with_timeout(anext(self.reader, None))
        return await with_timeout(in_thread(next, self.reader, None))

    async def take(self, number: int) -> list[Any]:
        return [await self.next() for _ in range(number)]

    async def rest(self) -> list[Any]:
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found


async def read_everything(api: Api, dsn: str, *topics: str, **options: Any) -> list[Any]:
    async with AnyReader(api, dsn, *topics, until_empty=True, **options) as reading:
        return await reading.rest()
