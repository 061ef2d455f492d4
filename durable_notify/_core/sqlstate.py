"""The SQLSTATEs that the SQL functions raise, and their exceptions."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ..errors import (
    AlreadySettled,
    ClaimRefused,
    DurableNotifyError,
    ForeignCluster,
    InvalidArgument,
    LeaseLost,
    MessageNotFound,
    OutOfOrder,
    SchemaMissing,
    SchemaTooOld,
    SettleError,
    UnknownGroup,
    UnknownTopic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reported", "map_errors", "reported"]

_BY_SQLSTATE: dict[str, type[DurableNotifyError]] = {
    "DN001": LeaseLost,
    "DN002": AlreadySettled,
    "DN003": SettleError,
    "DN004": ClaimRefused,
    "DN005": UnknownGroup,
    "DN006": UnknownTopic,
    "DN007": OutOfOrder,
    "DN008": MessageNotFound,
    "DN010": ForeignCluster,
    "22023": InvalidArgument,
    "22P05": InvalidArgument,  # a character that the encoding of the client or database lacks
}


class Reported(NamedTuple):
    """What the server said of an error; without an SQLSTATE, a driver raised it by itself."""

    sqlstate: str | None
    message: str
    hint: str | None


def reported(error: BaseException) -> Reported:
    """Return what the server said, from an error of any driver or of Django."""
    said: object = error
    if type(error).__module__ == "django.db.utils":
        said = error.__cause__  # the driver's
    if sqlstate := getattr(said, "sqlstate", None) or getattr(said, "pgcode", None):
        # psycopg and psycopg2 have the parts in diag, asyncpg in the error itself.
        diagnostics = getattr(said, "diag", None)
        message = getattr(diagnostics, "message_primary", None) or getattr(said, "message", None)
        hint = getattr(diagnostics, "message_hint", None) or getattr(said, "hint", None)
        return Reported(sqlstate, message or str(said), hint)
    fields = error.args[0] if error.args else None
    if isinstance(fields, dict) and "C" in fields:  # pg8000
        return Reported(fields["C"], fields.get("M", ""), fields.get("H"))
    return Reported(None, str(error), None)


@contextmanager
def map_errors() -> Iterator[None]:
    """Raise this library's exception if an SQL function raised its SQLSTATE.

    All other driver errors pass through unchanged.
    """
    try:
        yield
    except Exception as error:
        _refuse_encoding(error)
        state, message, hint = reported(error)
        kind = _BY_SQLSTATE.get(state or "")
        if kind is None and type(error).__name__ == "DataError" and "NUL" in str(error):
            kind = InvalidArgument  # raised by the driver itself, before it sends anything
        if kind is None:
            _refuse_schema(error)
            raise
        raise kind(f"{message}. {hint}" if hint else message) from error


def _refuse_encoding(error: Exception) -> None:
    """Raise InvalidArgument if a driver could not encode a text, before it sent anything."""
    for one in (error, error.__cause__):  # that of asyncpg has it as its cause
        if isinstance(one, UnicodeEncodeError):
            raise InvalidArgument(
                f"the connection's encoding, {one.encoding}, lacks a character: "
                f"{one.reason}. Connect with client_encoding=utf8, to a database that has it"
            ) from None


def _refuse_schema(error: Exception) -> None:
    """Raise a SchemaError if a function is missing: publishers do not check the version."""
    state, text = reported(error).sqlstate, str(error)
    if state == "3F000" and "durable_notify" in text:
        raise SchemaMissing(
            "This database has no durable_notify schema. Run `durable-notify migrate` on it, or "
            "publish to the database that has one."
        ) from error
    if state == "42883" and (missing := re.search(r"durable_notify\.\w+", text)):
        raise SchemaTooOld(
            f"The durable_notify schema has no function {missing[0]} as this package calls it. "
            "Run `durable-notify migrate`. If that changes nothing, an unreleased checkout made "
            "the schema: it cannot be upgraded, see docs/upgrading.md."
        ) from error
