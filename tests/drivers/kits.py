"""One way to use a connection of any driver, for tests that run on each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import django
import django.db
import pg8000.dbapi
import psycopg
import psycopg2
import psycopg2.pool
import psycopg_pool
import pytest
import sqlalchemy as sa
from django.conf import settings
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import durable_notify as dn
from durable_notify.bridge import AsyncBridge, Bridge
from tests.support.api import entered, maybe_await

__all__ = ["KITS", "Kit", "Opened", "every", "only"]


class Undo(Exception):
    """Raised to roll a transaction back."""


class Opened:
    """A connection of a driver, and what its program does with it."""

    def __init__(
        self,
        given: Any,
        execute: Callable[[str], Any],
        outer: Callable[[], Any],
        inner: Callable[[], Any] | None = None,
    ) -> None:
        self.given = given
        self._execute = execute
        self._outer = outer
        self._inner = inner or self._savepoint
        self._depth = 0

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of ours with the connection."""
        return await maybe_await(method(self.given, *args, **kwargs))

    async def execute(self, statement: str) -> None:
        """Run a statement of the program's own."""
        await maybe_await(self._execute(statement))

    @asynccontextmanager
    async def transaction(self, undo: bool = False) -> AsyncIterator[None]:
        """A transaction, or a savepoint inside of one."""
        block = self._inner if self._depth else self._outer
        self._depth += 1
        try:
            with contextlib.suppress(Undo):
                async with entered(block()):
                    yield
                    if undo:
                        raise Undo
        finally:
            self._depth -= 1

    @asynccontextmanager
    async def _savepoint(self) -> AsyncIterator[None]:
        await self.execute("SAVEPOINT s")
        try:
            yield
        except BaseException:
            await self.execute("ROLLBACK TO SAVEPOINT s")
            raise
        await self.execute("RELEASE SAVEPOINT s")


class RunSync(Opened):
    """What functions get that an AsyncSession runs in a greenlet."""

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self.given.run_sync(lambda plain: method(plain, *args, **kwargs))


class Kit:
    """How connections of one kind are opened, and what belongs to them."""

    def __init__(
        self,
        name: str,
        open_: Callable[..., Any],
        error: type[Exception],
        *,
        is_async: bool = False,
        ends: bool = True,
        source: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self._open = open_
        #: Of what class the driver's own errors are.
        self.error = error
        self.is_async = is_async
        #: Whether a transaction begins by itself, and ends with commit() or rollback().
        self.ends = ends
        #: What `message.transaction()` takes.
        self.source = source
        self.Publisher: Any = dn.AsyncPublisher if is_async else dn.Publisher
        self.Admin: Any = dn.AsyncAdmin if is_async else dn.Admin
        self.Bridge: Any = AsyncBridge if is_async else Bridge

    def __repr__(self) -> str:
        return self.name

    @asynccontextmanager
    async def connect(self, dsn: str, autocommit: bool = False) -> AsyncIterator[Opened]:
        async with self._open(dsn, autocommit) as opened:
            yield opened

    @asynccontextmanager
    async def message(self, dsn: str, topic: str, group: str, **kwargs: Any) -> AsyncIterator[Any]:
        """The next message of a group, and its consumer."""
        options: Any = {"poll_interval": None, "until_empty": True, "maintenance": False, **kwargs}
        if self.is_async:
            async with dn.AsyncConsumer(dsn, group=group, topics=[topic], **options) as consumer:
                yield await anext(consumer, None)
        else:
            with dn.Consumer(dsn, group=group, topics=[topic], **options) as plain:
                yield next(plain, None)


def where(dsn: str) -> dict[str, Any]:
    """The parts of a DSN, as drivers without libpq want them."""
    with psycopg.connect(dsn) as connection:
        info = connection.info
        return {
            "user": info.user, "password": info.password or None, "host": info.host,
            "port": info.port, "database": info.dbname,
        }  # fmt: skip


# psycopg, psycopg2 and asyncpg


@asynccontextmanager
async def open_psycopg(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        yield Opened(connection, connection.execute, connection.transaction, connection.transaction)


@asynccontextmanager
async def open_psycopg_async(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:
        yield Opened(connection, connection.execute, connection.transaction, connection.transaction)


@asynccontextmanager
async def open_psycopg2(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
    connection = psycopg2.connect(dsn)
    connection.autocommit = autocommit

    def execute(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    try:
        yield Opened(connection, execute, lambda: connection)
    finally:
        connection.close()


@asynccontextmanager
async def open_asyncpg(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
    connection = await asyncpg.connect(**where(dsn))
    try:
        yield of_asyncpg(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def open_asyncpg_pool(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
    async with asyncpg_pool(dsn) as pool, pool.acquire() as connection:
        yield of_asyncpg(connection)


def asyncpg_pool(dsn: str) -> Any:
    return asyncpg.create_pool(min_size=0, max_size=2, **where(dsn))


def of_asyncpg(connection: Any) -> Opened:
    return Opened(connection, connection.execute, connection.transaction, connection.transaction)


# SQLAlchemy


def pg8000_connection(dsn: str) -> Any:
    given = where(dsn)
    host, port = given.pop("host"), given.pop("port")
    if host.startswith("/"):
        return pg8000.dbapi.connect(**given, unix_sock=f"{host}/.s.PGSQL.{port}")
    return pg8000.dbapi.connect(**given, host=host, port=port)


CREATORS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg.connect,
    "psycopg2": psycopg2.connect,
    "pg8000": pg8000_connection,
}
ASYNC_CREATORS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg.AsyncConnection.connect,
    "asyncpg": lambda dsn: asyncpg.connect(**where(dsn)),
}


@asynccontextmanager
async def engine(driver: str, dsn: str, is_async: bool, **kwargs: Any) -> AsyncIterator[Any]:
    """An engine on a driver."""
    url = f"postgresql+{driver}://"
    made: Any
    if is_async:
        creator = ASYNC_CREATORS[driver]
        made = create_async_engine(url, async_creator=lambda: creator(dsn), **kwargs)
    else:
        made = sa.create_engine(url, creator=lambda: CREATORS[driver](dsn), **kwargs)
    try:
        yield made
    finally:
        await maybe_await(made.dispose())


def alchemy(driver: str, is_async: bool, kind: str) -> Callable[..., Any]:
    """Open a Connection or Session of SQLAlchemy."""

    @asynccontextmanager
    async def open_(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
        options = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        async with AsyncExitStack() as stack:
            made = await stack.enter_async_context(engine(driver, dsn, is_async, **options))
            opened: Any
            if kind == "connection":
                opened = await stack.enter_async_context(entered(made.connect()))
            else:
                session: Any = (AsyncSession if is_async else Session)(made)
                opened = await stack.enter_async_context(entered(session))
            yield (RunSync if kind == "run_sync" else Opened)(
                opened,
                lambda statement: opened.execute(sa.text(statement)),
                opened.begin,
                opened.begin_nested,
            )

    return open_


# Django


@asynccontextmanager
async def open_django(dsn: str, autocommit: bool) -> AsyncIterator[Opened]:
    with of_django(dsn) as connection:

        def execute(statement: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        yield Opened(
            django.db.connection,
            execute,
            django.db.transaction.atomic,
            django.db.transaction.atomic,
        )


@contextlib.contextmanager
def of_django(dsn: str) -> Any:
    """Django's default connection, to a database."""
    import os

    given = where(dsn)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["database"],
        "USER": given["user"],
        "PASSWORD": given["password"] or "",
        "HOST": given["host"],
        "PORT": given["port"],
    }
    if not settings.configured:
        settings.configure(DATABASES={"default": database}, USE_TZ=True)
        django.setup()
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # these tests have an event loop
    django.db.connections["default"].settings_dict.update(database)
    try:
        yield django.db.connections["default"]
    finally:
        django.db.connections["default"].close()
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


# What `message.transaction()` takes


@asynccontextmanager
async def psycopg_pool_of(dsn: str) -> AsyncIterator[Any]:
    with psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=1) as pool:
        yield pool


@asynccontextmanager
async def psycopg2_pool_of(dsn: str) -> AsyncIterator[Any]:
    pool = psycopg2.pool.ThreadedConnectionPool(0, 1, dsn)
    try:
        yield pool
    finally:
        pool.closeall()


@asynccontextmanager
async def django_source(dsn: str) -> AsyncIterator[Any]:
    with of_django(dsn):
        yield django.db.connection


def alchemy_source(driver: str, is_async: bool, kind: str) -> Callable[..., Any]:
    @asynccontextmanager
    async def source(dsn: str) -> AsyncIterator[Any]:
        async with engine(driver, dsn, is_async) as made:
            maker: Any = async_sessionmaker if is_async else sessionmaker
            yield made if kind == "connection" else maker(made)

    return source


def _kits() -> list[Kit]:
    errors: dict[str, type[Exception]] = {
        "psycopg": psycopg.Error,
        "psycopg2": psycopg2.Error,
        "asyncpg": asyncpg.PostgresError,
        "pg8000": pg8000.dbapi.Error,
    }
    kits = [
        Kit("psycopg", open_psycopg, psycopg.Error, source=psycopg_pool_of),
        Kit("psycopg-async", open_psycopg_async, psycopg.Error, is_async=True),
        Kit("psycopg2", open_psycopg2, psycopg2.Error, source=psycopg2_pool_of),
        Kit("asyncpg", open_asyncpg, errors["asyncpg"], is_async=True, ends=False),
        Kit("asyncpg-pool", open_asyncpg_pool, errors["asyncpg"], is_async=True, ends=False, source=asyncpg_pool),
        Kit("django", open_django, django.db.Error, ends=False, source=django_source),
    ]  # fmt: skip
    for is_async, drivers in ((False, CREATORS), (True, ASYNC_CREATORS)):
        for driver in drivers:
            for kind in ("connection", "session", "run_sync"):
                if kind == "run_sync" and not is_async:
                    continue
                half = is_async and kind != "run_sync"
                kits.append(
                    Kit(
                        f"{'async-' if is_async else ''}{kind}-{driver}",
                        alchemy(driver, is_async, kind),
                        errors[driver],
                        is_async=half,
                        source=alchemy_source(driver, half, kind) if kind != "run_sync" else None,
                    )
                )
    return kits


KITS = _kits()


def only(condition: Callable[[Kit], Any]) -> pytest.MarkDecorator:
    """A test of some kinds of connections only: those of which it says something."""
    return pytest.mark.parametrize("kit", [kit for kit in KITS if condition(kit)], ids=repr)


#: A test of all kinds of connections, not only of those that differ.
every = only(lambda _: True)
