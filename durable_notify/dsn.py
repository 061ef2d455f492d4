"""Read DSNs, and keep them out of error texts.

Trap: libpq quotes a DSN that it cannot read. Or it takes a part of the password for the host's name
and quotes that. The driver's errors, and the logs, then contain the password.
"""

from __future__ import annotations

import difflib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ._core.sqlstate import reported
from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_dsn", "is_ambiguous", "plain", "redacted_errors", "safe_message", "set_elsewhere"]

#: The scheme of a URL as SQLAlchemy and others write it.
_DRIVER = re.compile(r"^(postgres(?:ql)?)\+(\w+)://")
#: Parameters of other drivers, in lower case, with libpq's name for each, if it has one.
_CALLED = {
    "database": "dbname", "db": "dbname", "username": "user", "uid": "user", "userid": "user",
    "pwd": "password", "pass": "password", "server": "host", "hostname": "host", "ssl": "sslmode",
    "timeout": "connect_timeout", "logintimeout": "connect_timeout",
    "connecttimeout": "connect_timeout", "applicationname": "application_name",
    "charset": "client_encoding", "encoding": "client_encoding",
    "schema": "", "currentschema": "", "search_path": "", "pgbouncer": "", "pooling": "",
}  # fmt: skip
SSL = ("ssl", "true")  # libpq accepts this one
FORMS = "Write postgresql://user@host:5432/database, or 'host=... dbname=... user=...'."
ENCODE = (
    "Characters like @ : / ? # % in a DSN's user or password are written "
    "%40 %3A %2F %3F %23 %25, or leave the password to ~/.pgpass or PGPASSWORD."
)


def plain(dsn: str) -> str:
    """Return a DSN that libpq accepts: drop the driver from a URL of SQLAlchemy."""
    return _DRIVER.sub(r"\1://", dsn.strip())


def check_dsn(dsn: str) -> dict[str, Any]:
    """Return the parameters of a DSN.

    Raises:
        InvalidArgument: libpq cannot read it. The text does not quote it, except the names of
            unknown parameters.
    """
    if not isinstance(dsn, str):
        of_url = " url.render_as_string(hide_password=False) is one." * hasattr(dsn, "drivername")
        raise InvalidArgument(f"a DSN must be a str, not {type(dsn).__name__}.{of_url}")
    dsn = plain(dsn)
    try:
        found = dict(conninfo_to_dict(dsn))
        # This is the rest of a password with @. A host that begins with @ is an abstract socket.
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
    """Return the names in a DSN that libpq does not know, if they are certainly names.

    Trap: in the place of a name there may be a part of a password: one with ``?`` in a URI, or one
    with spaces in a list of pairs. So this returns only names that other drivers use.
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
    """Return a text that names unknown parameters, and the fix."""
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
    """Return the settings of a DSN: its own, those of its service and of the environment.

    Raises:
        InvalidArgument: libpq cannot read the DSN.
    """
    given = check_dsn(dsn)
    # Only libpq knows where services are stored. It has read all settings by the time that it
    # refuses this parameter, before it connects to a server.
    stopped = make_conninfo(**{**given, "sslmode": "-"})
    options = pq.PGconn.connect_start(stopped.encode()).info
    found = {option.keyword.decode(): option.val for option in options}
    known = {name: value.decode() for name, value in found.items() if value is not None}
    return {**known, **{name: str(value) for name, value in given.items()}}


def is_ambiguous(dsn: str) -> bool:
    """Whether libpq may misread a URI, with a part of the password in the wrong place."""
    _, found, rest = dsn.partition("://")
    authority = re.split("[/?#]", rest)[0]
    return bool(found) and (rest.count("@") > authority.count("@") or authority.count("@") > 1)


@contextmanager
def redacted_errors(dsn: str) -> Iterator[str]:
    """Yield a DSN to connect with; connection errors in the body quote no part of a password.

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
    """Return the text of an error for logs, without PostgreSQL's DETAIL, which quotes rows."""
    return reported(error).message
