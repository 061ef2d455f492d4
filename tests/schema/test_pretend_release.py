"""A pretend release and the next one: freeze, change, generate, upgrade under load, and go back."""

from __future__ import annotations

import difflib
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from durable_notify import schema
from durable_notify.integrations import alembic
from tests.schema.live_upgrade import load, study
from tests.schema.releases import Checkout, set_all, settings, tagged_unfrozen
from tests.schema.test_migrations import run_psql
from tests.support.postgres import Postgres
from tests.support.roles import roles
from tests.support.sessions import Session

COLUMN = "ALTER TABLE durable_notify.consumer_group ADD COLUMN colour text;\n"
NO_COLUMN = "ALTER TABLE durable_notify.consumer_group DROP COLUMN colour;\n"
TABLE = "CREATE TABLE durable_notify.paint (colour text PRIMARY KEY);\n"
# Below the functions: the new one returns its rows.
NO_TABLE = "-- functions\nDROP TABLE durable_notify.paint;\n"
FUNCTION = """CREATE FUNCTION durable_notify.paints() RETURNS SETOF durable_notify.paint
LANGUAGE sql STABLE AS $function$
    -- New; and a comment that is 100% odd: it's :one.
    SELECT p.* FROM durable_notify.paint p
$function$;
"""

READER = {"reader": [("read", ["t"], None)]}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, server: Postgres) -> Checkout:
    """The checkout, released: all its revisions are frozen."""
    copy = Checkout(tmp_path_factory.mktemp("released"), server.admin_dsn)
    done = copy.revision("--freeze")
    assert done.returncode == 0 or "No revision is open" in done.stderr, done.stderr
    return copy


@pytest.fixture
def checkout(released: Checkout, tmp_path: Path) -> Checkout:
    """What comes after it: to change."""
    return Checkout(tmp_path / "next", released.server, of=released.folder)


def change(checkout: Checkout) -> None:
    """Change a function and a table, add one of each, and generate the revision."""
    checkout.edit("schema/reading/latest.sql", "    -- ", "    -- Changed. ")
    checkout.append("schema/tables/groups.sql", COLUMN + TABLE)
    checkout.append("schema/groups/groups.sql", FUNCTION)
    checkout.append("pending.sql", COLUMN + TABLE)
    checkout.append("pending.down.sql", NO_COLUMN + NO_TABLE)
    done = checkout.revision("Groups have a colour")
    assert done.returncode == 0, done.stderr


def diff(before: str, after: str) -> list[str]:
    """The lines that went, and those that came."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def contents(dsn: str) -> list[tuple[object, ...]]:
    """What users have in a database."""
    query = """
        SELECT (SELECT count(*) FROM durable_notify.outbox WHERE topic = 't'),
               (SELECT array_agg(name ORDER BY id) FROM durable_notify.consumer_group WHERE name <> 'live'),
               (SELECT array_agg(token ORDER BY token) FROM durable_notify.lease)"""
    with psycopg.connect(dsn) as conn:
        return conn.execute(query).fetchall()


@pytest.mark.slow
def test_up_and_down_under_load(
    released: Checkout, checkout: Checkout, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn, base = empty_dsn, released.newest()
    monkeypatch.setattr(schema, "migrations_path", lambda: released.migrations)
    schema.migrate(dsn)
    had_set = set_all(dsn)
    with closing(Session(dsn)) as session, roles(dsn, READER) as made:
        session.subscribe()
        held = session.claim(5)
        before, had = schema.snapshot(dsn), contents(dsn)
        session.run(f"REVOKE EXECUTE ON FUNCTION durable_notify.latest FROM {made.names['reader']}")

        change(checkout)
        monkeypatch.setattr(schema, "migrations_path", lambda: checkout.migrations)
        assert study(dsn, monkeypatch).complaints == []
        assert checkout.newest() > base
        assert diff(before, schema.snapshot(dsn)).count("+    colour text") == 1
        assert contents(dsn) == had
        assert settings(dsn) == had_set
        with psycopg.connect(made.login("reader")) as reader:  # grants are made again
            reader.execute("SELECT durable_notify.latest('t')")

        with load(dsn):
            back = ("--dsn", dsn, "migrate", "--downgrade", base, "--yes")
            done = checkout.python("-m", "durable_notify.cli", *back)
            assert done.returncode == 0, done.stderr
        assert diff(before, schema.snapshot(dsn)) == []
        assert contents(dsn) == had
        assert settings(dsn) == had_set
        session.ack(held)


def test_the_revision_is_an_ordinary_diff(checkout: Checkout) -> None:
    checkout.edit("schema/reading/latest.sql", "    -- ", "    -- Changed: ")
    assert checkout.revision("Latest says more").returncode == 0
    up, down = sorted(
        (checkout.migrations / "revisions").glob("*_latest_says_more.*"), reverse=True
    )
    old, new = diff(down.read_text(), up.read_text())
    assert new == old.replace("-    -- ", "+    -- Changed: ", 1)


@pytest.mark.slow
def test_offline_and_in_other_peoples_revisions(
    checkout: Checkout, server: Postgres, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkout.newest()
    change(checkout)
    for file in (checkout.migrations / "revisions").glob(f"{checkout.newest()}_*"):
        lines = [line for line in file.read_text().splitlines() if line and line[:2] != "--"]
        assert lines[0].startswith("LOCK TABLE durable_notify.access")  # before what is by hand
    monkeypatch.setattr(schema, "migrations_path", lambda: checkout.migrations)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", checkout.newest())
    run_psql(server, empty_dsn, schema.migration_sql())
    there = schema.snapshot(empty_dsn)
    engine = schema._engine(empty_dsn)
    with engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)) as op:
            alembic.downgrade(op, base)
            alembic.upgrade(op)
    assert schema.snapshot(empty_dsn) == there
    with psycopg.connect(empty_dsn) as connection:
        schema.check(connection)


@pytest.mark.slow
def test_the_open_revision_is_written_again_until_it_is_frozen(checkout: Checkout) -> None:
    base = checkout.newest()
    change(checkout)
    checkout.edit("schema/reading/read.sql", "    -- ", "    -- Changed. ")
    assert checkout.revision("A better", "title").returncode == 0
    assert checkout.newest_name() == f"{int(base) + 1:04}_a_better_title"
    (up,) = (checkout.migrations / "revisions").glob(f"{checkout.newest()}_*e.sql")
    assert "FUNCTION durable_notify.read(" in up.read_text()

    assert checkout.revision("--freeze").returncode == 0
    assert checkout.newest_name() + ".sql" in checkout.sums()
    assert not list(checkout.migrations.glob("pending*"))
    assert "No revision is open" in checkout.revision("--freeze").stderr
    checkout.edit("schema/reading/read.sql", "Changed.", "Changed once more.")
    assert checkout.revision("The one after it").returncode == 0
    assert int(checkout.newest()) == int(base) + 2


def refused(checkout: Checkout) -> str:
    """What the tool says, and writes nothing."""
    done = checkout.revision("It will not do")
    assert done.returncode == 1
    assert not list((checkout.migrations / "revisions").glob("*will_not_do*"))
    return done.stderr


@pytest.mark.slow
def test_other_arguments_and_another_result_are_refused(checkout: Checkout) -> None:
    arguments = "latest(topic text, more integer DEFAULT 1)"
    checkout.edit("schema/reading/latest.sql", "latest(topic text)", arguments)
    checkout.edit("schema/status/leases.sql", "group_name text", "of_group text")
    said = refused(checkout)
    assert "_latest_granted, _leases_granted, latest, leases have changed" in said
    assert "with _v2 in the name" in said


@pytest.mark.slow
def test_what_is_not_a_function_is_written_by_hand(checkout: Checkout) -> None:
    checkout.append("schema/tables/groups.sql", COLUMN)
    checkout.edit("schema/reading/latest.sql", "durable_notify.latest(", "durable_notify.newest(")
    checkout.edit("schema/reading/latest.sql", "_grantable('latest'", "_grantable('newest'")
    checkout.append("schema/grants.sql", "GRANT EXECUTE ON FUNCTION durable_notify.read TO PUBLIC;")
    checkout.append(
        "schema/first.sql", "INSERT INTO durable_notify.consumer_group (name) VALUES ('x');"
    )
    said = refused(checkout)
    assert "+    colour text" in said
    assert "-CREATE OR REPLACE FUNCTION durable_notify.latest(" in said  # a developer drops it
    assert "+    GRANT EXECUTE TO PUBLIC" in said
    assert "+1 rows in durable_notify.consumer_group" in said
    assert "Write what does it: migrations/pending.sql" in said


def test_what_makes_no_difference_is_refused(checkout: Checkout) -> None:
    checkout.edit("schema/install.sql", "-- Tables", "-- The tables")
    assert "Nothing differs from revision" in refused(checkout)


def test_what_resets_settings_is_refused(checkout: Checkout) -> None:
    checkout.edit("schema/inlined/mirror_of.sql", "    -- ", "    -- Changed. ")
    assert "mirror_of would be replaced" in refused(checkout)


@pytest.mark.slow
def test_settings_reset_by_hand_are_refused(checkout: Checkout) -> None:
    text = (checkout.migrations / "schema" / "inlined" / "mirror_of.sql").read_text()
    checkout.append("pending.sql", text.replace("CREATE", "CREATE OR REPLACE"))
    assert "mirror_of would be replaced" in refused(checkout)


@pytest.mark.slow
def test_a_downgrade_that_leaves_something_is_refused(checkout: Checkout) -> None:
    checkout.append("schema/tables/groups.sql", COLUMN)
    checkout.append("pending.sql", COLUMN)
    said = refused(checkout)
    assert "-    colour text" in said
    assert "Write what does it: migrations/pending.down.sql" in said


def test_a_release_that_is_not_frozen_is_seen(checkout: Checkout) -> None:
    assert tagged_unfrozen(checkout.folder) is None  # no repository, no release
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@x")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["tag", "v0.2.0"]):
        subprocess.run([*git, *command], cwd=checkout.folder, check=True)
    assert tagged_unfrozen(checkout.folder) == []
    sums = checkout.migrations / "revisions" / "SHA256SUMS"
    sums.write_text(checkout.sums().replace(checkout.newest_name(), "9999_another"))
    assert tagged_unfrozen(checkout.folder) == [checkout.newest_name()]
