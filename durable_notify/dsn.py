"""DSNs: read, and kept out of what is said when they do not work.

Trap: libpq quotes a DSN that it cannot read, or takes a part of a password for the host's name and
quotes that, password included; so do the driver's errors, and whatever logs them.
"""

from __future__ import annotations

import difflib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_dsn", "is_ambiguous", "plain", "redacted_errors", "safe_message", "set_elsewhere"]

#: Of a URL as SQLAlchemy and others write it.
_DRIVER = re.compile(r"^(postgres(?:ql)?)\+(\w+)://")
#: What others call what libpq has another name for, or none, in small letters.
_CALLED = {
    "database": "dbname", "db": "dbname", "username": "user", "uid": "user", "userid": "user",
    "pwd": "password", "pass": "password", "server": "host", "hostname": "host", "ssl": "sslmode",
    "timeout": "connect_timeout", "logintimeout": "connect_timeout",
    "connecttimeout": "connect_timeout", "applicationname": "application_name",
    "charset": "client_encoding", "encoding": "client_encoding",
    "schema": "", "currentschema": "", "search_path": "", "pgbouncer": "", "pooling": "",
}  # fmt: skip
SSL = ("ssl", "true")  # which libpq does take
FORMS = "Write postgresql://user@host:5432/database, or 'host=... dbname=... user=...'."
ENCODE = (
    "Characters like @ : / ? # % in a DSN's user or password are written "
    "%40 %3A %2F %3F %23 %25, or leave the password to ~/.pgpass or PGPASSWORD."
)


def plain(dsn: str) -> str:
    """Return what libpq takes of a DSN: a URL of SQLAlchemy's is one with a driver in it."""
    return _DRIVER.sub(r"\1://", dsn.strip())


def check_dsn(dsn: str) -> dict[str, Any]:
    """Return what a DSN says.

    Raises:
        InvalidArgument: libpq cannot read it. The text does not quote it, but for the names of
            parameters that are none.
    """
    if not isinstance(dsn, str):
        of_url = " url.render_as_string(hide_password=False) is one." * hasattr(dsn, "drivername")
        raise InvalidArgument(f"a DSN must be a str, not {type(dsn).__name__}.{of_url}")
    dsn = plain(dsn)
    try:
        found = dict(conninfo_to_dict(dsn))
        # The rest of a password with @ in it. A host that begins with @ is an abstract socket.
        if not any("@" in host[1:] for host in str(found.get("host") or "").split(",")):
            return found
        hint = ENCODE
    except (psycopg.Error, UnicodeError):
        hint = ENCODE if "@" in dsn else ""
        if dsn.startswith("jdbc:"):
            hint = "Leave out jdbc: as well."
        elif re.match(r"[A-Za-z ]+=[^;=]*;", dsn):
            hint = "Between the parts are spaces, not semicolons."
        elif unknown := _other_parameters(dsn):
            raise InvalidArgument(f"the DSN has {_advice(unknown)}") from None
    raise InvalidArgument(
        f"the DSN is not a connection string of PostgreSQL. {FORMS} {hint}".strip()
    )


def _other_parameters(dsn: str) -> list[str]:
    """Return the names in a DSN that libpq does not know, as long as they are sure to be names.

    Trap: what stands where a name is expected may be a part of a password: of one with ``?`` in a
    URI, of one with spaces in a list of pairs. There only names that others use are said.
    """
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if "://" in dsn:
        authority = re.split("[/?#]", dsn.partition("://")[2])[0]
        if is_ambiguous(dsn) or (
            "@" not in authority and re.search(r":(?![0-9]*(,|$))", authority)
        ):
            return []
        pairs = [part.partition("=") for part in dsn.partition("?")[2].split("&")]
        names = [name for name, is_pair, value in pairs if is_pair and (name, value) != SSL]
    else:
        names = [
            name for name in re.findall(r"\b(\w{1,40})\s{0,9}=", dsn) if name.lower() in _CALLED
        ]
    plausible = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
    return [name for name in names if name not in known and plausible.fullmatch(name)]


def _advice(names: list[str]) -> str:
    """Say which parameters are none of libpq's, and what to do about them."""
    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    said = []
    for name in names:
        near = difflib.get_close_matches(name.lower(), known, 1, 0.8)
        instead = _CALLED.get(name.lower()) or "".join(near)
        said.append(f"{name!r} (write {instead}=...)" if instead else repr(name))
    return (
        f"{'parameters' if names[1:] else 'a parameter'} that libpq does not know: "
        f"{', '.join(said)}. Leave out what is another tool's or driver's: durable_notify has a "
        "schema of its own, and needs no setting for poolers"
    )


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


def is_ambiguous(dsn: str) -> bool:
    """Whether a URI may be read otherwise than it was meant, with a password in the wrong place."""
    _, found, rest = dsn.partition("://")
    authority = re.split("[/?#]", rest)[0]
    return bool(found) and (rest.count("@") > authority.count("@") or authority.count("@") > 1)


@contextmanager
def redacted_errors(dsn: str) -> Iterator[str]:
    """Connect in here, with what libpq takes: errors of connecting quote no part of a password.

    Raises:
        InvalidArgument: libpq cannot read the DSN.
    """
    given = check_dsn(dsn)
    try:
        yield plain(dsn)
    except psycopg.OperationalError as error:
        if is_ambiguous(dsn):
            raise type(error)(f"no connection to the database. {ENCODE}") from None
        note = ""
        if given.get("password") == "***":
            note = (
                "The password in the DSN is ***, as str(engine.url) has it: give "
                "engine.url.render_as_string(hide_password=False)"
            )
        elif _DRIVER.match(dsn.strip()):
            note = "Whatever driver a URL names, durable_notify connects with psycopg"
        if note:
            error.args = (f"{error}\n{note}",)
        raise


def safe_message(error: BaseException) -> str:
    """Return what may be logged of an error: of PostgreSQL's, not the DETAIL, which quotes rows."""
    if isinstance(error, psycopg.Error) and error.sqlstate and error.diag.message_primary:
        return error.diag.message_primary
    return str(error)
