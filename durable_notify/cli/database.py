"""Which database a command works on, and connections to it."""

from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import psycopg

from .. import embedded, schema
from .._sync.database.connection import TimeoutConnection, settings
from ..adapters import OwnCursor
from ..dsn import check_dsn, plain
from ..errors import InvalidArgument, SchemaMissing, SchemaTooOld

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Database", "Host", "find", "plain_dsn"]

Connection = psycopg.Connection[Any]

#: Where the database is named, in this order; then comes the embedded server.
VARIABLES = ("DURABLE_NOTIFY_DSN", "DATABASE_URL")


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """A program that has this command line as one of its commands."""

    #: What starts the program; its arguments follow.
    command: tuple[str, ...]
    #: What ``run`` runs if it is not told: MODULE:CONSUMERS.
    consumers: str


@dataclasses.dataclass(slots=True)
class Database:
    """The database of this run. ``given`` is None for the embedded server."""

    given: str | None
    source: str
    _dsn: str | None = None
    host: Host | None = None

    @property
    def dsn(self) -> str:
        """The DSN. The first use starts and migrates the embedded server."""
        if self._dsn is None:
            self._dsn = (
                _embedded_dsn() if self.given is None else plain_dsn(self.given, self.source)
            )
        return self._dsn

    @contextmanager
    def connect(self, purpose: str) -> Iterator[Connection]:
        """Open an autocommit connection to a database with our schema."""
        with _connect(self.dsn, purpose) as connection:
            schema.check(connection)
            yield connection


def find(dsn: str | None) -> Database:
    """Return the database that the option or the environment names."""
    if dsn is not None:
        return Database(dsn, "--dsn")
    for name in VARIABLES:
        if value := os.environ.get(name):
            return Database(value, name)
    return Database(None, "the embedded server")


def plain_dsn(given: str, source: str) -> str:
    """Return a DSN for libpq; accepts SQLAlchemy's URLs.

    libpq quotes a DSN that it cannot read, password included, so its message is not repeated.
    """
    try:
        check_dsn(given)
    except InvalidArgument as error:
        raise InvalidArgument(str(error).replace("the DSN", source, 1)) from None
    return plain(given)


def _embedded_dsn() -> str:
    status = embedded.shared_status()
    click.echo(f"using the embedded PostgreSQL in {status.folder}", err=True)
    dsn = embedded.shared_dsn()
    try:
        with _connect(dsn, "start") as connection:
            schema.check(connection)
    except (SchemaMissing, SchemaTooOld):
        schema.migrate(dsn)
    return dsn


@contextmanager
def _connect(dsn: str, purpose: str) -> Iterator[Connection]:
    wanted = settings(dsn, purpose, name="durable-notify")
    with TimeoutConnection.connect(dsn, cursor_factory=OwnCursor, **wanted) as connection:
        connection.look_at_default()
        yield connection
