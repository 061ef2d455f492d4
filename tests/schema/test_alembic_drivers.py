"""An application's Alembic project on other drivers, and on asyncio: it runs our migrations, too."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from durable_notify import schema
from tests.schema.test_own_alembic import REVISION, Application, versions

PLAIN = """
import os
import sqlalchemy as sa
from alembic import context

with sa.create_engine(os.environ["APPLICATION_URL"]).connect() as connection:
    context.configure(connection=connection, target_metadata=sa.MetaData())
    with context.begin_transaction():
        context.run_migrations()
"""
# As `alembic init -t async` writes it.
ASYNC = """
import asyncio
import os
import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

def run(connection):
    context.configure(connection=connection, target_metadata=sa.MetaData())
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(os.environ["APPLICATION_URL"], poolclass=sa.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

asyncio.run(main())
"""


def url(driver: str, dsn: str) -> str:
    """The URL of SQLAlchemy's that leads where a DSN does."""
    given = conninfo_to_dict(dsn)
    login = quote(str(given.get("user", "postgres")), safe="")
    if "password" in given:
        login += ":" + quote(str(given["password"]), safe="")
    host, port = given.get("host", "localhost"), given.get("port", 5432)
    where = f"host={quote(str(host), safe='')}&port={port}"
    return f"postgresql+{driver}://{login}@/{given['dbname']}?{where}"


@pytest.mark.parametrize(
    ("driver", "environment"),
    [
        ("psycopg", PLAIN),
        pytest.param("psycopg_async", ASYNC, marks=pytest.mark.slow),
        pytest.param("psycopg2", PLAIN, marks=pytest.mark.slow),
        ("asyncpg", ASYNC),
    ],
)
def test_every_driver(
    driver: str, environment: str, tmp_path: Path, empty_dsn: str, dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("APPLICATION_URL", url(driver, empty_dsn))
    application = Application(tmp_path, empty_dsn)
    (tmp_path / "env.py").write_text(environment)
    (tmp_path / "versions" / "a1b2_ours.py").write_text(
        REVISION.format(newest=schema.SCHEMA_VERSION, trouble="")
    )
    application("upgrade", "head")
    assert schema.snapshot(empty_dsn) == schema.snapshot(dsn)
    assert versions(empty_dsn) == [("ours", schema.SCHEMA_VERSION), ("theirs", "a1b2")]
    application("downgrade", "base")
    assert schema.snapshot(empty_dsn) == ""
    application("upgrade", "head")
    with psycopg.connect(empty_dsn) as connection:
        schema.check(connection)
