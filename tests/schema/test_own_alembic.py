"""An application that runs our migrations from its own Alembic project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from durable_notify import schema
from durable_notify.errors import SchemaTooNew
from tests.schema.test_migrations import everything, execute, run_psql
from tests.support.postgres import Postgres, checkout_environment

ENV = """
import os
import psycopg
import sqlalchemy as sa
from alembic import context
from durable_notify.integrations.alembic import include_name

metadata = sa.MetaData()
sa.Table("customer", metadata, sa.Column("id", sa.Integer, primary_key=True))
options = dict(target_metadata=metadata, include_schemas=True, include_name=include_name)
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    connect = lambda: psycopg.connect(os.environ["APPLICATION_DSN"])
    engine = sa.create_engine("postgresql+psycopg://", creator=connect)
    with engine.connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""

# Ours in the middle: what comes before and after must work as if we were not there.
REVISION = """
import sqlalchemy as sa
from alembic import op
from durable_notify.integrations import alembic as durable_notify

revision = "a1b2"
down_revision = None

def upgrade():
    op.create_table("customer", sa.Column("id", sa.Integer, primary_key=True))
    durable_notify.upgrade(op, {newest!r})
    op.execute("INSERT INTO customer VALUES (1)")
    {trouble}

def downgrade():
    durable_notify.downgrade(op, "base")
    op.drop_table("customer")
"""


class Application:
    """An Alembic project in a folder, and its command line."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.dsn = dsn
        (folder / "versions").mkdir()
        (folder / "env.py").write_text(ENV)
        (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s\n")
        self.write_revision()

    def write_revision(self, trouble: str = "") -> None:
        (self.folder / "versions" / "a1b2_ours.py").write_text(
            REVISION.format(newest=schema.SCHEMA_VERSION, trouble=trouble)
        )

    def alembic(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.folder,
            env=checkout_environment(APPLICATION_DSN=self.dsn),
            text=True,
            capture_output=True,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        done = self.alembic(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def application(tmp_path: Path, empty_dsn: str) -> Application:
    return Application(tmp_path, empty_dsn)


def versions(dsn: str) -> list[tuple[str, str]]:
    query = """
        SELECT 'theirs', version_num FROM alembic_version
         UNION ALL SELECT 'ours', version_num FROM durable_notify.schema_version
    """
    with psycopg.connect(dsn) as connection:
        return sorted(connection.execute(query))


def test_up_is_the_same_as_ours(application: Application, dsn: str) -> None:
    application("upgrade", "head")
    assert schema.snapshot(application.dsn) == schema.snapshot(dsn)
    assert versions(application.dsn) == [("ours", schema.SCHEMA_VERSION), ("theirs", "a1b2")]
    with psycopg.connect(application.dsn) as connection:
        schema.check(connection)
        assert connection.execute("SELECT id FROM customer").fetchall() == [(1,)]


@pytest.mark.slow
def test_down_leaves_nothing_of_ours(application: Application) -> None:
    application("upgrade", "head")
    application("downgrade", "base")
    assert {name for kind, name in everything(application.dsn) if kind == "relation"} == {
        "alembic_version",
        "alembic_version_pkc",
    }
    assert schema.snapshot(application.dsn) == ""


@pytest.mark.slow
def test_offline_up_and_down(application: Application, server: Postgres, dsn: str) -> None:
    run_psql(server, application.dsn, application("upgrade", "head", "--sql"))
    assert schema.snapshot(application.dsn) == schema.snapshot(dsn)
    assert versions(application.dsn) == [("ours", schema.SCHEMA_VERSION), ("theirs", "a1b2")]
    run_psql(server, application.dsn, application("downgrade", "a1b2:base", "--sql"))
    assert schema.snapshot(application.dsn) == ""


@pytest.mark.slow
def test_on_a_database_with_our_migrations(application: Application) -> None:
    schema.migrate(application.dsn)
    application("upgrade", "head")
    assert versions(application.dsn) == [("ours", schema.SCHEMA_VERSION), ("theirs", "a1b2")]
    schema.migrate(application.dsn)


def test_ours_leaves_their_version_alone(application: Application) -> None:
    application("upgrade", "head")
    schema.downgrade(application.dsn, "base")
    schema.migrate(application.dsn)
    assert versions(application.dsn) == [("ours", schema.SCHEMA_VERSION), ("theirs", "a1b2")]


@pytest.mark.slow
def test_failure_afterwards_undoes_all_of_it(application: Application) -> None:
    before = everything(application.dsn)
    application.write_revision(trouble="op.execute('SELECT 1 / 0')")
    assert "division by zero" in application.alembic("upgrade", "head").stderr
    assert everything(application.dsn) == before


def test_newer_database_is_left_alone(application: Application) -> None:
    schema.migrate(application.dsn)
    before = schema.snapshot(application.dsn)
    execute(application.dsn, "UPDATE durable_notify.schema_version SET version_num = '9999'")
    assert SchemaTooNew.__name__ in application.alembic("upgrade", "head").stderr
    assert schema.snapshot(application.dsn) == before
