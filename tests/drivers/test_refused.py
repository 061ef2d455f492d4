"""What cannot carry a message is refused in words, before anything is written."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import Any

import django.db
import psycopg
import pytest
import sqlalchemy as sa

import durable_notify as dn
from tests.drivers.kits import (
    KITS,
    Kit,
    asyncpg_pool,
    engine,
    every,
    of_django,
    only,
    open_asyncpg_pool,
    psycopg2_pool_of,
)
from tests.support.api import maybe_await

OF_ASYNCIO = "which is for asyncio: use AsyncPublisher"
SYNCHRONOUS = "which is synchronous: use Publisher"
ENGINE = r": `(async )?with engine\.begin\(\) as connection` opens one"


@every
async def test_the_other_halfs_connections(kit: Kit, dsn: str, topic: str) -> None:
    async with kit.connect(dsn) as opened:
        given = opened.given
        if kit.is_async or "run_sync" in kit.name:
            for method in (dn.Publisher().publish, dn.Publisher().publish_many):
                with pytest.raises(dn.errors.UnsupportedConnection, match=OF_ASYNCIO):
                    method(given, topic, [1])
            with pytest.raises(dn.errors.UnsupportedConnection, match=OF_ASYNCIO):
                dn.Admin().pause(given, "g")
        else:
            for amethod in (dn.AsyncPublisher().publish, dn.AsyncPublisher().publish_many):
                with pytest.raises(dn.errors.UnsupportedConnection, match=SYNCHRONOUS):
                    await amethod(given, topic, [1])
            with pytest.raises(dn.errors.UnsupportedConnection, match=SYNCHRONOUS):
                await dn.AsyncAdmin().pause(given, "g")


@pytest.mark.parametrize("publisher", [dn.Publisher(), dn.AsyncPublisher()], ids=["sync", "async"])
async def test_what_lends_connections_is_none(dsn: str, topic: str, publisher: Any) -> None:
    async with (
        engine("psycopg2", dsn, is_async=False) as plain,
        engine("asyncpg", dsn, is_async=True) as other,
        psycopg2_pool_of(dsn) as pool,
        asyncpg_pool(dsn) as apool,
    ):
        for source, way in ((plain, ENGINE), (other, ENGINE), (pool, ""), (apool, "")):
            wanted = rf"not {type(source).__name__}{way}$"
            with pytest.raises(dn.errors.UnsupportedConnection, match=wanted):
                await maybe_await(publisher.publish(source, topic, 1))


async def test_a_cursor_is_none(dsn: str, topic: str) -> None:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        with pytest.raises(dn.errors.UnsupportedConnection, match=r"give its cursor\.connection$"):
            dn.Publisher().publish(cursor, topic, 1)  # type: ignore[arg-type]
        dn.Publisher().publish(cursor.connection, topic, 1)


async def test_other_databases(dsn: str, topic: str) -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        with pytest.raises(dn.errors.UnsupportedConnection, match="on sqlite, not on PostgreSQL"):
            dn.Publisher().publish(connection, topic, 1)
    engine.dispose()
    connection = sqlite3.connect(":memory:")
    with pytest.raises(dn.errors.UnsupportedConnection, match="not Connection$"):
        dn.Publisher().publish(connection, topic, 1)  # type: ignore[arg-type]
    connection.close()
    with of_django(dsn):
        handler = type(django.db.connections)({
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        })  # fmt: skip
        with pytest.raises(dn.errors.UnsupportedConnection, match="'default' is not PostgreSQL"):
            dn.Publisher().publish(handler["default"], topic, 1)


@only(lambda kit: not {"session", "run_sync"} & set(kit.name.split("-")) and kit.name != "django")
async def test_closed_connections_are_the_drivers_business(dsn: str, topic: str, kit: Kit) -> None:
    async with kit.connect(dsn) as opened:
        pass
    with pytest.raises(Exception, match="closed|released") as caught:
        await opened.call(kit.Publisher().publish, topic, 1)
    assert not isinstance(caught.value, dn.DurableNotifyError)


WITHOUT = """
import sys
for name in ("asyncpg", "psycopg2", "django", "sqlalchemy.ext.asyncio", "pg8000"):
    sys.modules[name] = None  # an import fails
import psycopg
import durable_notify as dn
import durable_notify.drivers.asyncpg, durable_notify.drivers.django
import durable_notify.drivers.psycopg2, durable_notify.drivers.sqlalchemy
with psycopg.connect(sys.argv[1]) as connection:
    print(dn.Publisher().publish(connection, "t", 1) > 0)
try:
    dn.Publisher().publish("nothing", "t", 1)
except dn.errors.UnsupportedConnection as error:
    print(str(error).rpartition(", ")[2])
"""


def test_no_driver_but_psycopg_is_needed(dsn: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, dsn], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\nnot str\n", "")


async def test_encodings(server: Any, topic: str) -> None:
    """A database without an encoding, and a session without one, are refused on every driver."""
    with server.database() as name:
        with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            admin.execute(
                f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0"
                " LC_COLLATE 'C' LC_CTYPE 'C'".encode()
            )
        for kit in KITS:
            if kit.name.endswith(("connection-psycopg", "session-psycopg", "run_sync-psycopg")):
                continue  # SQLAlchemy itself cannot connect
            async with kit.connect(server.dsn(name)) as opened:
                with pytest.raises(dn.errors.SchemaError, match="SQL_ASCII"):
                    await opened.call(kit.Publisher().publish, topic, 1)


async def test_an_acquired_connection_that_was_released(dsn: str, topic: str) -> None:
    async with open_asyncpg_pool(dsn, False) as opened:
        pass
    with pytest.raises(Exception, match="released back to the pool"):
        await dn.AsyncPublisher().publish(opened.given, topic, 1)
