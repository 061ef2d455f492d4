"""DSNs: read, and kept out of what is said when they do not work.

Trap: libpq quotes a DSN that it cannot read, or takes a part of a password for the host's name and
quotes that, password included; so do the driver's errors, and whatever logs them.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_dsn", "loose", "said", "set_elsewhere", "unquoted"]

FORMS = "Write postgresql://user@host:5432/database, or 'host=... dbname=... user=...'."
ENCODE = (
    "Characters like @ : / ? # % in a DSN's user or password are written "
    "%40 %3A %2F %3F %23 %25, or leave the password to ~/.pgpass or PGPASSWORD."
)


def check_dsn(dsn: str) -> dict[str, Any]:
    """Return what a DSN says.

    Raises:
        InvalidArgument: libpq cannot read it. The text does not quote it.
    """
    if not isinstance(dsn, str):
        raise InvalidArgument(f"a DSN is a str, not {type(dsn).__name__}")
    try:
        found = dict(conninfo_to_dict(dsn))
        # The rest of a password with @ in it. A host that begins with @ is an abstract socket.
        if not any("@" in host[1:] for host in str(found.get("host") or "").split(",")):
            return found
        hint = ENCODE
    except (psycopg.Error, UnicodeError):
        hint = ENCODE if "@" in dsn else ""
        if re.match(r"postgres(ql)?\+", dsn):
            hint = "A URL of SQLAlchemy's is one without its +driver."
    raise InvalidArgument(f"the DSN is no connection string of PostgreSQL. {FORMS} {hint}".strip())


def set_elsewhere(dsn: str) -> dict[str, str]:
    """Return what is set for connections with a DSN: there, by its service or in the environment.

    Raises:
        InvalidArgument: libpq cannot read the DSN.
    """
    given = check_dsn(dsn)
    # libpq alone knows where services are kept. It has looked all of it up by the time that it
    # refuses this, before it looks for a server.
    stopped = make_conninfo(**{**given, "sslmode": "-"})
    options = pq.PGconn.connect_start(stopped.encode()).info
    found = {option.keyword.decode(): option.val for option in options}
    known = {name: value.decode() for name, value in found.items() if value is not None}
    return {**known, **{name: str(value) for name, value in given.items()}}


def loose(dsn: str) -> bool:
    """Whether a URI may be read otherwise than it was meant, with a password in the wrong place."""
    _, found, rest = dsn.partition("://")
    authority = re.split("[/?#]", rest)[0]
    return bool(found) and (rest.count("@") > authority.count("@") or authority.count("@") > 1)


@contextmanager
def unquoted(dsn: str) -> Iterator[None]:
    """Connect in here: errors of connecting quote no part of a password.

    Raises:
        InvalidArgument: libpq cannot read the DSN.
    """
    check_dsn(dsn)
    try:
        yield
    except psycopg.OperationalError as error:
        if not loose(dsn):
            raise
        raise type(error)(f"no connection to the database. {ENCODE}") from None


def said(error: BaseException) -> str:
    """Return what may be logged of an error: of PostgreSQL's, not the DETAIL, which quotes rows."""
    if isinstance(error, psycopg.Error) and error.sqlstate and error.diag.message_primary:
        return error.diag.message_primary
    return str(error)
