"""The schema of the database: run its migrations, check its version, print it.

Everything is in the PostgreSQL schema ``durable_notify``, including the version table. The
revisions are Alembic's and run plain SQL files. All runs go through this module, so that each is
one transaction under one lock, and twenty at once result in one schema.

A consumer calls ``check()`` whenever it starts, so Alembic and SQLAlchemy are imported late.
"""

from __future__ import annotations

import io
import logging
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from psycopg.rows import tuple_row

from durable_notify.adapters import NO_ENCODING, PLAIN, AsyncOwnCursor, OwnCursor, check_encoding
from durable_notify.dsn import redacted_errors
from durable_notify.errors import (
    EncodingUnsupported,
    InvalidArgument,
    SchemaError,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
)
from durable_notify.statements import statements

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script
    from sqlalchemy import Engine

__all__ = [
    "SCHEMA_VERSION",
    "check",
    "check_async",
    "downgrade",
    "empty_all",
    "migrate",
    "migration_sql",
    "migrations_path",
    "snapshot",
]

log = logging.getLogger("durable_notify")

SCHEMA = "durable_notify"
VERSION_TABLE = "schema_version"

SCHEMA_VERSION = "0001"
"""The revision this package works with: the newest one."""

# Runs before the first migration, online, offline and in revisions of other projects.
_FIRST, _THEN = NO_ENCODING.split(": ", 1)
PREPARE = (
    # Read function texts as they were written, whatever a role or database has set.
    "SET LOCAL standard_conforming_strings = on",
    # A variable may have the name of another here.
    "SET LOCAL plpgsql.extra_errors = ''",
    "SET LOCAL plpgsql.extra_warnings = ''",
    # Trap: if this names the database's own tablespace, PostgreSQL refuses a partitioned table.
    """SELECT pg_catalog.set_config('default_tablespace', '', true)
     WHERE pg_catalog.current_setting('default_tablespace') = (
           SELECT t.spcname FROM pg_catalog.pg_database d
             JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
            WHERE d.datname = pg_catalog.current_database())""",
    f"""DO $$ BEGIN
    IF pg_catalog.getdatabaseencoding() = 'SQL_ASCII' THEN
        RAISE EXCEPTION '{_FIRST}' USING ERRCODE = '0A000', HINT = '{_THEN.replace("'", "''")}';
    END IF;
END $$""",
    # Held until the transaction ends. The number is arbitrary; it only must never change.
    "SELECT pg_catalog.pg_advisory_xact_lock(7236283017641394288)",
    # Not IF NOT EXISTS, which needs the right to create a schema even if it exists.
    f"""DO $$ BEGIN
    IF pg_catalog.to_regnamespace('{SCHEMA}') IS NULL THEN CREATE SCHEMA {SCHEMA}; END IF;
END $$""",
)
# Online, after the migrations' own lock, for which a migration waits without a limit. A session
# that waits for a table's lock blocks all later ones, publishers too: wait briefly, then retry.
BOUNDED = """
    SELECT pg_catalog.set_config('lock_timeout', '500ms', true)
     WHERE pg_catalog.current_setting('lock_timeout') = '0'"""
# How long to retry, and how long to let others through in between, in seconds.
PATIENCE = 60.0
PAUSE = (0.2, 1.0)
# The same as Alembic creates.
CREATE_VERSION_TABLE = f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.{VERSION_TABLE} (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)
)"""
# Runs after the last downgrade. No CASCADE: the schema must be empty.
REMOVE = (f"DROP TABLE {SCHEMA}.{VERSION_TABLE}", f"DROP SCHEMA {SCHEMA}")

_FIND_VERSION = f"SELECT pg_catalog.to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL"
_READ_VERSION = f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"  # noqa: S608 - of constants
_READ_OLDEST = f"SELECT {SCHEMA}.min_client_version()"

# How the catalog's functions format: every name in full, and no setting of the role.
_PLAIN = """
    SET LOCAL search_path = '';
    SET LOCAL quote_all_identifiers = off;
    SET LOCAL IntervalStyle = postgres;
    SET LOCAL DateStyle = ISO;
    SET LOCAL TimeZone = 'UTC';
"""

#: Whether the schema exists, in any version.
FIND_LOG = f"SELECT pg_catalog.to_regclass('{SCHEMA}.outbox') IS NOT NULL"

# Alembic keeps its state in module globals: one run at a time within a process.
_alembic_lock = threading.Lock()


def migrate(dsn: str, revision: str = "head") -> None:
    """Migrate the database up to `revision`, in one transaction, unless it is there already.

    `dsn` is one that libpq accepts, including several hosts and Unix sockets. If another session
    holds a lock, the migration waits half a second at a time, so that it does not block others.

    Raises:
        EncodingUnsupported: the database's encoding is SQL_ASCII.
        sqlalchemy.exc.OperationalError: from ``LockNotAvailable``: another session held a lock for
            a minute. Nothing has changed.
    """
    _run(dsn, "upgrade", revision)


def downgrade(dsn: str, revision: str) -> None:
    """Downgrade the database to `revision`; ``base`` removes the schema, **messages included**."""
    _run(dsn, "downgrade", revision)


def empty_all(database: str | psycopg.Connection[Any], *, keep_groups: bool = False) -> None:
    """Remove all messages and their state, for tests; ids are not reused.

    TRUNCATE would leave the schema unusable. Configuration stays: grants, retention, wake-ups,
    mirrors and watched tables. Groups are removed too, and running consumers end with
    ``UnknownGroup``. With ``keep_groups`` groups start again, and running consumers continue. For
    the owner of the schema.

    Args:
        database: a DSN; or a connection, as part of its transaction.
        keep_groups: whether groups stay, with their options and topics.

    Raises:
        psycopg.errors.LockNotAvailable: other sessions used the tables for five seconds.
        psycopg.errors.InsufficientPrivilege: the role does not own the schema.
    """
    query = "SELECT durable_notify.empty_all(%s)"
    if not isinstance(database, str):
        with OwnCursor(database) as cursor:
            cursor.execute(query, (keep_groups,))
        return
    with redacted_errors(database) as conninfo:
        connection = psycopg.connect(conninfo, client_encoding="utf8", context=PLAIN)
    with connection:
        connection.execute(query, (keep_groups,))


def migration_sql(revision: str = "head") -> str:
    """Return what ``migrate`` runs on an empty database, for psql."""
    from alembic import command

    written = io.StringIO()
    with _alembic_lock:
        command.upgrade(_config(output=written), _known(revision), sql=True)
    return written.getvalue()


def check(connection: psycopg.Connection[Any]) -> None:
    """Raise a SchemaError unless the database has a schema that this package works with.

    That is its own, or a newer one that still supports it, because an upgrade migrates first.
    """
    check_encoding(connection.pgconn)
    with connection.transaction(), OwnCursor(connection, row_factory=tuple_row) as cursor:
        exists = cursor.execute(_FIND_VERSION).fetchone()
        row = cursor.execute(_READ_VERSION).fetchone() if exists and exists[0] else None
        if (
            row is not None
            and row[0] > SCHEMA_VERSION
            and _served(cursor.execute(_READ_OLDEST).fetchone())
        ):
            return
    _compare(row, known=bool(exists and exists[0]))


async def check_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Raise a SchemaError unless the database has a schema that this package works with."""
    check_encoding(connection.pgconn)
    async with (
        connection.transaction(),
        AsyncOwnCursor(connection, row_factory=tuple_row) as cursor,
    ):
        await cursor.execute(_FIND_VERSION)
        exists = await cursor.fetchone()
        row = None
        if exists and exists[0]:
            await cursor.execute(_READ_VERSION)
            row = await cursor.fetchone()
        if row is not None and row[0] > SCHEMA_VERSION:
            await cursor.execute(_READ_OLDEST)
            if _served(await cursor.fetchone()):
                return
    _compare(row, known=bool(exists and exists[0]))


def snapshot(dsn: str, *, bodies: bool = True) -> str:
    """Describe the schema from the catalog, identically on every supported PostgreSQL.

    ``migrations/snapshot.txt`` is its committed form, without the bodies of functions, which are
    in ``migrations/schema``.
    """
    query = (migrations_path() / "snapshot.sql").read_bytes()
    with redacted_errors(dsn) as conninfo:
        connection = psycopg.connect(conninfo, client_encoding="utf8", context=PLAIN)
    with connection:
        connection.execute(_PLAIN)
        lines = [line for (line,) in connection.execute(query)]
    if not bodies:
        lines = [line.partition("\nAS $")[0] for line in lines]
    return "".join(f"{line}\n" for line in lines)


def migrations_path() -> Path:
    """Return the folder of the migrations: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def run_file(op: Any, name: str) -> None:
    """Run a file of the migrations, such as ``schema/install.sql``. For revisions only.

    It sends one statement at a time, because asyncpg accepts only one. Offline it prints the text.
    """
    import sqlalchemy as sa

    text = assembled(migrations_path() / name)
    for statement in [text] if op.get_context().as_sql else statements(text):
        # DDL, because text() reads a colon as a bind; it is a template, so % is doubled.
        op.execute(sa.DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]


def assembled(path: Path) -> str:
    r"""Return the text of an SQL file, with the files that it includes by ``\ir``, as in psql."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(
        assembled(path.parent / line.split()[1]) if line.startswith("\\ir ") else line
        for line in lines
    )


def steps(lower: str, upper: str) -> list[Script]:
    """Return the revisions above `lower` up to `upper`, oldest first. For revisions only."""
    from alembic.script import ScriptDirectory

    scripts = list(ScriptDirectory(str(migrations_path())).walk_revisions())[::-1]
    names = ["base", *(script.revision for script in scripts)]
    for name in (lower, upper):
        if name not in (*names, "head"):
            msg = f"No revision {name!r}. There are: {', '.join(names)} and head."
            raise InvalidArgument(msg)
    start, stop = (len(scripts) if name == "head" else names.index(name) for name in (lower, upper))
    return scripts[start:stop]


def refuse_unknown() -> NoReturn:
    """Raise if the schema exists and its version is missing."""
    table = f"{SCHEMA}.{VERSION_TABLE}"
    restored = f"INSERT INTO {table} VALUES ('{SCHEMA_VERSION}')"  # noqa: S608 - of constants
    msg = (
        f"The table {table} is empty, as after a TRUNCATE of all tables: which "
        "version the schema has is not known. If this package has made it, run "
        f"`{restored}; SELECT {SCHEMA}.empty_all()`. In tests, call "
        "durable_notify.testing.reset(connection) after the TRUNCATE."
    )
    raise SchemaError(msg)


def refuse_newer(heads: tuple[str, ...]) -> None:
    """Raise SchemaTooNew if a newer package has migrated: its revisions are not found here."""
    for found in heads:
        if found > SCHEMA_VERSION:
            msg = (
                f"The durable_notify schema is at {found}, this package knows it up to "
                f"{SCHEMA_VERSION}. Run `pip install --upgrade durable-notify`."
            )
            raise SchemaTooNew(msg)


def _run(dsn: str, command_name: str, revision: str) -> None:
    from sqlalchemy.exc import OperationalError

    until = time.monotonic() + PATIENCE
    while True:
        try:
            _run_once(dsn, command_name, revision)
        except OperationalError as error:
            locked = isinstance(error.orig, psycopg.errors.LockNotAvailable)
            if not locked or time.monotonic() >= until:
                raise
            log.info("another session holds a lock that the migration needs; trying again")
            time.sleep(random.uniform(*PAUSE))  # noqa: S311
        else:
            return


def _run_once(dsn: str, command_name: str, revision: str) -> None:
    from alembic import command

    engine = _engine(dsn)
    # This begins the transaction, and Alembic joins it; env.py takes the lock first.
    with _alembic_lock, engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        getattr(command, command_name)(config, _known(revision))


def _engine(dsn: str) -> Engine:
    import sqlalchemy as sa

    def connect() -> psycopg.Connection[Any]:
        with redacted_errors(dsn) as conninfo:
            connection = psycopg.connect(
                conninfo,
                prepare_threshold=None,  # poolers
                client_encoding="utf8",
                context=PLAIN,
            )
        try:
            check_encoding(connection.pgconn)
        except EncodingUnsupported:
            connection.close()
            raise
        # A migration that waited for the lock must see what the one before has done.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    # A creator, because a DSN with several hosts or a socket cannot be converted to a URL.
    return sa.create_engine("postgresql+psycopg://", creator=connect, poolclass=sa.NullPool)


def _config(output: io.StringIO | None = None) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    return config


def _known(revision: str) -> str:
    """Reject a relative or unknown revision, with an error of this library."""
    steps("base", revision)
    return revision


def _served(row: tuple[Any, ...] | None) -> bool:
    """Whether a newer schema works with this package; `row` has the oldest that it supports."""
    return row is not None and row[0] <= SCHEMA_VERSION


def _compare(row: tuple[Any, ...] | None, *, known: bool) -> None:
    if row is None and known:
        refuse_unknown()
    if row is None:
        msg = (
            "This database has no durable_notify schema. Run `durable-notify migrate`, or call "
            "durable_notify.integrations.alembic.upgrade(op) in a revision of your own."
        )
        raise SchemaMissing(msg)
    found = row[0]
    if found < SCHEMA_VERSION:
        msg = (
            f"The durable_notify schema is at {found}, this package needs {SCHEMA_VERSION}. Run "
            "`durable-notify migrate`, or call durable_notify.integrations.alembic.upgrade(op) in "
            "a revision of your own."
        )
        raise SchemaTooOld(msg)
    refuse_newer((found,))
