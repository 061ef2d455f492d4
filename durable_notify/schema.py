"""The database half: run its migrations, check that they fit, print them.

Everything lives in the PostgreSQL schema ``durable_notify``, the version table included. The
revisions are Alembic's and run plain SQL files; this module is the only way in, so that every run
is one transaction under one lock, and twenty at once end in one schema.

A consumer calls :func:`check` whenever it starts: Alembic and SQLAlchemy are imported late.
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

# What comes before the first migration, online, offline and in other people's revisions.
_FIRST, _THEN = NO_ENCODING.split(": ", 1)
PREPARE = (
    # What is in a function's text is read as it was written, whatever a role or database has set.
    "SET LOCAL standard_conforming_strings = on",
    # That a variable has the name of another is not an error here.
    "SET LOCAL plpgsql.extra_errors = ''",
    "SET LOCAL plpgsql.extra_warnings = ''",
    # Trap: where this names the database's own one, a partitioned table is refused.
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
    # Not IF NOT EXISTS, which wants the right to create one even where the schema exists.
    f"""DO $$ BEGIN
    IF pg_catalog.to_regnamespace('{SCHEMA}') IS NULL THEN CREATE SCHEMA {SCHEMA}; END IF;
END $$""",
)
# Online, after the migrations' own lock, which is waited for as long as others migrate. Who waits
# for a table's lock holds up all who come after it, publishers too: not for long, then again.
BOUNDED = """
    SELECT pg_catalog.set_config('lock_timeout', '500ms', true)
     WHERE pg_catalog.current_setting('lock_timeout') = '0'"""
# How long it is tried for, and how long others are let through in between, in seconds.
PATIENCE = 60.0
PAUSE = (0.2, 1.0)
# As Alembic itself creates it.
CREATE_VERSION_TABLE = f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.{VERSION_TABLE} (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)
)"""
# What comes after the last one has been taken back. No CASCADE: it must find nothing.
REMOVE = (f"DROP TABLE {SCHEMA}.{VERSION_TABLE}", f"DROP SCHEMA {SCHEMA}")

_FIND_VERSION = f"SELECT pg_catalog.to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL"
_READ_VERSION = f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"  # noqa: S608 - of constants
_READ_OLDEST = f"SELECT {SCHEMA}.min_client_version()"

# What decides how the catalog's functions write: every name in full, and no taste of the role's.
_PLAIN = """
    SET LOCAL search_path = '';
    SET LOCAL quote_all_identifiers = off;
    SET LOCAL IntervalStyle = postgres;
    SET LOCAL DateStyle = ISO;
    SET LOCAL TimeZone = 'UTC';
"""

#: Whether the schema is there, whatever its version.
FIND_LOG = f"SELECT pg_catalog.to_regclass('{SCHEMA}.outbox') IS NOT NULL"

# Alembic keeps what it is doing in module globals: one run at a time within a process.
_alembic_lock = threading.Lock()


def migrate(dsn: str, revision: str = "head") -> None:
    """Bring the database up to `revision`, in one transaction. Does nothing where it is there.

    `dsn` is whatever libpq takes, several hosts and unix sockets included. A lock that others hold
    is waited for half a second at a time, so that they are not held up behind it.

    Raises:
        EncodingUnsupported: the database's encoding is SQL_ASCII.
        sqlalchemy.exc.OperationalError: from ``LockNotAvailable``, where it was held for a minute.
            Nothing has changed.
    """
    _run(dsn, "upgrade", revision)


def downgrade(dsn: str, revision: str) -> None:
    """Take the database back to `revision`; ``base`` removes the schema, **messages included**."""
    _run(dsn, "downgrade", revision)


def empty_all(database: str | psycopg.Connection[Any], *, keep_groups: bool = False) -> None:
    """Remove all messages and all that became of them, for tests; ids are not drawn again.

    TRUNCATE leaves the schema unusable. What was set up stays: grants, retention, wake-ups,
    mirrors and watched tables. Groups go, too: consumers that run end, by ``UnknownGroup``. With
    ``keep_groups`` they start anew, and consumers that run go on. For the owner of the schema.

    Args:
        database: a DSN; or a connection, whose transaction it is part of.
        keep_groups: whether groups stay, with their options and topics.

    Raises:
        psycopg.errors.LockNotAvailable: others were at work in the tables for five seconds.
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
    """Return what :func:`migrate` runs on an empty database, for psql."""
    from alembic import command

    written = io.StringIO()
    with _alembic_lock:
        command.upgrade(_config(output=written), _known(revision), sql=True)
    return written.getvalue()


def check(connection: psycopg.Connection[Any]) -> None:
    """Raise a SchemaError unless the database has a schema that this package works with.

    That is its own, or a newer one that still serves it: an upgrade migrates first.
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
    """Describe the schema as the catalog has it, the same on every supported PostgreSQL.

    ``migrations/snapshot.txt`` is its committed form, without the bodies of functions, which
    stand in ``migrations/schema``.
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

    A statement at a time, whatever the driver: asyncpg takes no more. Offline, the text as it is.
    """
    import sqlalchemy as sa

    text = assembled(migrations_path() / name)
    for statement in [text] if op.get_context().as_sql else statements(text):
        # DDL, because text() takes a colon for a bind; it is a template, so % is doubled.
        op.execute(sa.DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]


def assembled(path: Path) -> str:
    r"""Return the text of an SQL file, with what it includes by ``\ir``, as psql has it."""
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
    """Raise where the schema is there, and its version is not."""
    table = f"{SCHEMA}.{VERSION_TABLE}"
    restored = f"INSERT INTO {table} VALUES ('{SCHEMA_VERSION}')"  # noqa: S608 - of constants
    msg = (
        f"The table {table} is empty, as after a TRUNCATE of all tables: which "
        "version the schema has is not known. If this package has made it, run "
        f"`{restored}; SELECT {SCHEMA}.empty_all()`, and in tests that instead of TRUNCATE."
    )
    raise SchemaError(msg)


def refuse_newer(heads: tuple[str, ...]) -> None:
    """Raise SchemaTooNew where a newer package has been: its revisions are not to be found here."""
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
    # The transaction is begun here and joined by Alembic; env.py takes the lock first thing.
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
        # Who waited for the lock must see what its holder has done.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    # A creator, since a DSN of several hosts or with a socket survives no conversion to a URL.
    return sa.create_engine("postgresql+psycopg://", creator=connect, poolclass=sa.NullPool)


def _config(output: io.StringIO | None = None) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    return config


def _known(revision: str) -> str:
    """Reject a relative or unknown revision, in words of ours."""
    steps("base", revision)
    return revision


def _served(row: tuple[Any, ...] | None) -> bool:
    """Whether a newer schema works with this package: `row` is the oldest that it does with."""
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
