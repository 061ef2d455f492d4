"""The migrations: up, down, offline, at once, from an application's own Alembic, on any server."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from durable_notify import schema
from durable_notify.embedded import environment
from durable_notify.errors import InvalidArgument, SchemaMissing, SchemaTooNew, SchemaTooOld
from tests.support.postgres import Postgres, checkout_environment

REVISIONS = [step.revision for step in schema.steps("base", "head")]


def run_psql(server: Postgres, dsn: str, sql: str) -> None:
    program, environ = "psql", dict(os.environ)
    if server.bindir is not None:
        program, environ = str(server.bindir / "psql"), environment(server.bindir)
    command = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn]
    done = subprocess.run(
        command, input=sql, text=True, capture_output=True, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def everything(dsn: str) -> set[tuple[object, ...]]:
    """All that could be left behind anywhere in the database."""
    query = """
        SELECT 'relation', oid::regclass::text FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT 'type', oid::regtype::text FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT 'schema', nspname::text FROM pg_namespace WHERE oid >= 16384
        UNION ALL SELECT 'extension', extname::text FROM pg_extension
    """
    with psycopg.connect(dsn) as connection:
        return set(connection.execute(query))


def test_version_is_the_newest_revision() -> None:
    assert REVISIONS[-1] == schema.SCHEMA_VERSION
    assert sorted(REVISIONS) == REVISIONS


def test_snapshot_is_the_committed_one(dsn: str) -> None:
    # To renew it: python3 tasks.py snapshot, then read the diff.
    committed = schema.migrations_path() / "snapshot.txt"
    assert schema.snapshot(dsn, bodies=False) == committed.read_text(encoding="utf-8")


def test_down_leaves_nothing_and_up_again_is_the_same(empty_dsn: str) -> None:
    before = everything(empty_dsn)
    schema.migrate(empty_dsn)
    snapshot = schema.snapshot(empty_dsn)
    schema.downgrade(empty_dsn, "base")
    assert everything(empty_dsn) == before
    schema.migrate(empty_dsn)
    assert schema.snapshot(empty_dsn) == snapshot


def test_down_on_an_empty_database_leaves_nothing(empty_dsn: str) -> None:
    before = everything(empty_dsn)
    schema.downgrade(empty_dsn, "base")
    assert everything(empty_dsn) == before


def test_down_with_messages_in_it(dsn: str) -> None:
    execute(dsn, "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')")
    schema.downgrade(dsn, "base")
    assert schema.snapshot(dsn) == ""


def test_step_by_step_up_and_down(empty_dsn: str, dsn: str) -> None:
    seen = [schema.snapshot(empty_dsn)]
    for revision in REVISIONS:
        schema.migrate(empty_dsn, revision)
        seen.append(schema.snapshot(empty_dsn))
    assert seen[-1] == schema.snapshot(dsn)
    for revision in [*REVISIONS[-2::-1], "base"]:
        seen.pop()
        schema.downgrade(empty_dsn, revision)
        assert schema.snapshot(empty_dsn) == seen[-1]


def test_again_changes_nothing(dsn: str) -> None:
    query = b"SELECT xmin, oid FROM pg_class UNION ALL SELECT xmin, oid FROM pg_proc"
    with psycopg.connect(dsn) as connection:
        before = set(connection.execute(query))
    schema.migrate(dsn)
    with psycopg.connect(dsn) as connection:
        assert set(connection.execute(query)) == before


def test_offline_is_the_same_as_online(server: Postgres, empty_dsn: str, dsn: str) -> None:
    run_psql(server, empty_dsn, schema.migration_sql())
    assert schema.snapshot(empty_dsn) == schema.snapshot(dsn)
    schema.migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        schema.check(connection)


def test_twenty_at_once_end_in_one_schema(empty_dsn: str, dsn: str) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["durable_notify.schema", "alembic.command"])
    # The harder case: a session that waited for the lock must still see what its holder has done.
    odd = make_conninfo(empty_dsn, options="-c default_transaction_isolation=serializable")
    started = [processes.Process(target=schema.migrate, args=[odd]) for _ in range(20)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 20
    assert schema.snapshot(empty_dsn) == schema.snapshot(dsn)


def test_threads_at_once(empty_dsn: str, dsn: str) -> None:
    failed: list[BaseException] = []

    def migrate() -> None:
        try:
            schema.migrate(empty_dsn)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert schema.snapshot(empty_dsn) == schema.snapshot(dsn)


def test_failure_half_way_changes_nothing(empty_dsn: str) -> None:
    # An event trigger stands for whatever can go wrong late in a migration.
    execute(
        empty_dsn,
        """CREATE FUNCTION public.no_trigger() RETURNS event_trigger LANGUAGE plpgsql
           AS $$ BEGIN RAISE EXCEPTION 'not in my house'; END $$""",
        """CREATE EVENT TRIGGER no_trigger ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER')
           EXECUTE FUNCTION public.no_trigger()""",
    )
    before = everything(empty_dsn)
    with pytest.raises(Exception, match="not in my house"):
        schema.migrate(empty_dsn)
    assert everything(empty_dsn) == before


@pytest.mark.parametrize(
    "options",
    [
        "-c search_path=",
        "-c search_path=durable_notify,public",
        "-c default_transaction_isolation=serializable",
        "-c default_transaction_read_only=off -c standard_conforming_strings=on",
        "-c quote_all_identifiers=on -c intervalstyle=iso_8601 -c datestyle=german",
    ],
)
def test_whatever_the_role_is_set_to(empty_dsn: str, dsn: str, options: str) -> None:
    odd = make_conninfo(empty_dsn, options=options)
    schema.migrate(odd)
    assert schema.snapshot(odd) == schema.snapshot(dsn)


def test_relative_and_unknown_revisions_are_refused(dsn: str) -> None:
    for revision in ("+1", "9999", ""):
        with pytest.raises(InvalidArgument, match="There are: base, 0001"):
            schema.migrate(dsn, revision)


def test_several_hosts_in_the_dsn(empty_dsn: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(empty_dsn)
    host, port = parts.get("host", "localhost"), parts.get("port", 5432)
    schema.migrate(make_conninfo(empty_dsn, host=f"/nowhere,{host}", port=f"{port},{port}"))
    assert schema.snapshot(empty_dsn) != ""


def mark(dsn: str, version: str, oldest: str = "9999") -> None:
    execute(
        dsn,
        f"UPDATE durable_notify.schema_version SET version_num = '{version}'",
        "CREATE OR REPLACE FUNCTION durable_notify.min_client_version() RETURNS text"
        f" LANGUAGE sql IMMUTABLE AS $$ SELECT '{oldest}' $$",
    )


def nothing(dsn: str) -> None:
    schema.downgrade(dsn, "base")


WRONG = [
    pytest.param(nothing, SchemaMissing, "`durable-notify migrate`", id="missing"),
    pytest.param(lambda dsn: mark(dsn, "0000"), SchemaTooOld, "`durable-notify migrate`", id="old"),
    pytest.param(lambda dsn: mark(dsn, "9999"), SchemaTooNew, "pip install --upgrade", id="new"),
]


def test_check_is_content_and_leaves_no_transaction_open(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        schema.check(connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_check_async_is_content(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await schema.check_async(connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize(("change", "error", "remedy"), WRONG)
def test_check_names_the_remedy(
    dsn: str, change: Callable[[str], None], error: type[Exception], remedy: str
) -> None:
    change(dsn)
    row_factory = psycopg.rows.dict_row  # whatever the connection is set to
    with psycopg.connect(dsn, row_factory=row_factory) as connection:
        with pytest.raises(error, match=remedy):
            schema.check(connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize(("change", "error", "remedy"), WRONG)
async def test_check_async_names_the_remedy(
    dsn: str, change: Callable[[str], None], error: type[Exception], remedy: str
) -> None:
    change(dsn)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(error, match=remedy):
            await schema.check_async(connection)


async def test_a_newer_schema_that_serves_this_package(dsn: str) -> None:
    mark(dsn, "9999", oldest=schema.SCHEMA_VERSION)
    with psycopg.connect(dsn) as connection:
        schema.check(connection)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await schema.check_async(connection)


def test_newer_database_is_left_alone(dsn: str) -> None:
    mark(dsn, "9999")
    before = schema.snapshot(dsn)
    for run in (schema.migrate, lambda dsn: schema.downgrade(dsn, "base")):
        with pytest.raises(SchemaTooNew, match="pip install --upgrade"):
            run(dsn)
    assert schema.snapshot(dsn) == before


def test_check_does_not_import_alembic() -> None:
    code = """if True:
        import sys
        import durable_notify.schema
        assert not {"alembic", "sqlalchemy"} & set(sys.modules), "imported too early"
    """
    subprocess.run([sys.executable, "-c", code], check=True, env=checkout_environment())


def test_sql_is_the_same_offline() -> None:
    """Alembic writes a tab as four spaces when it prints, and psql reads :names of its own."""
    paths = list(schema.migrations_path().rglob("*.sql"))
    assert len(paths) > 100
    for path in paths:
        assert "\t" not in path.read_text(encoding="utf-8"), path
