"""The SQLSTATEs that the SQL functions raise, and their exceptions."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

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

__all__ = ["map_errors"]

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


@contextmanager
def map_errors() -> Iterator[None]:
    """Raise this library's exception if an SQL function raised its SQLSTATE.

    All other driver errors pass through unchanged.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"the connection's encoding, {error.encoding}, lacks a character: "
            f"{error.reason}. Connect with client_encoding=utf8, to a database that has it"
        ) from None
    except Exception as error:
        kind = _BY_SQLSTATE.get(getattr(error, "sqlstate", None) or "")
        if kind is None and type(error).__name__ == "DataError" and "NUL" in str(error):
            kind = InvalidArgument  # raised by the driver itself, before it sends anything
        if kind is None:
            _refuse_schema(error)
            raise
        diagnostics = getattr(error, "diag", None)
        message = getattr(diagnostics, "message_primary", None) or str(error)
        hint = getattr(diagnostics, "message_hint", None)
        raise kind(f"{message}. {hint}" if hint else message) from error


def _refuse_schema(error: Exception) -> None:
    """Raise a SchemaError if a function is missing: publishers do not check the version."""
    state, text = getattr(error, "sqlstate", None), str(error)
    if state == "3F000" and "durable_notify" in text:
        raise SchemaMissing(
            "This database has no durable_notify schema. Run `durable-notify migrate` on it, or "
            "publish to the database that has one."
        ) from error
    if state == "42883" and (missing := re.search(r"durable_notify\.\w+", text)):
        raise SchemaTooOld(
            f"The durable_notify schema has no function {missing[0]} as this package calls it. "
            "Run `durable-notify migrate`."
        ) from error
