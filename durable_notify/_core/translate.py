"""The SQLSTATEs that the database half raises, and the exceptions they become."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import (
    AlreadySettled,
    ClaimRefused,
    DurableNotifyError,
    InvalidArgument,
    LeaseLost,
    MessageGone,
    OutOfOrder,
    RestoredElsewhere,
    SettleError,
    UnknownGroup,
    UnknownTopic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["translated"]

_BY_SQLSTATE: dict[str, type[DurableNotifyError]] = {
    "DN001": LeaseLost,
    "DN002": AlreadySettled,
    "DN003": SettleError,
    "DN004": ClaimRefused,
    "DN005": UnknownGroup,
    "DN006": UnknownTopic,
    "DN007": OutOfOrder,
    "DN008": MessageGone,
    "DN010": RestoredElsewhere,
    "22023": InvalidArgument,
    "22P05": InvalidArgument,  # a character that the encoding of one of the two sides lacks
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise this library's exception where the database half raised its SQLSTATE.

    All other driver errors pass through as they are.
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
            kind = InvalidArgument  # the driver's own, before anything is sent
        if kind is None:
            raise
        diagnostics = getattr(error, "diag", None)
        message = getattr(diagnostics, "message_primary", None) or str(error)
        hint = getattr(diagnostics, "message_hint", None)
        raise kind(f"{message}. {hint}" if hint else message) from error
