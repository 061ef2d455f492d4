"""The doctor: looks a database over, and says what is wrong, why it matters and what to do.

It changes nothing, and never hangs: connecting, each look and each answer are bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg

from .._core.sanitize import redact
from .._sync.database.connection import TRANSIENT, TimeoutConnection, settings
from ..adapters import OwnCursor
from ..dsn import said
from .checks import CHECKS, FIRST, SESSIONS
from .context import Check, CheckContext, Thresholds
from .findings import Finding, found

__all__ = ["Finding", "Thresholds", "diagnose"]

log = logging.getLogger("durable_notify")

#: A connection counts as dead when an answer takes so much longer than a look may, in seconds.
GRACE = 5.0
#: With this heartbeat connecting takes no longer than so many seconds.
CONNECTING = 5.0


def diagnose(
    dsn: str, listen_dsn: str | None = None, *, limits: Thresholds | None = None
) -> list[Finding]:
    """Check a database, and return what was found, the worst first.

    A check that finds no problem has one finding of level ``ok``. A database that cannot be reached
    is one finding, too. It writes nothing.

    Args:
        dsn: what libpq takes.
        listen_dsn: where consumers listen, if elsewhere.
        limits: from where on something counts.

    Raises:
        InvalidArgument: libpq cannot read a DSN.
    """
    wanted = settings(dsn, "doctor", CONNECTING)
    if listen_dsn is not None:
        settings(listen_dsn, "doctor", CONNECTING)
    try:
        connection = TimeoutConnection.connect(dsn, cursor_factory=OwnCursor, **wanted)
    except psycopg.OperationalError as error:
        return [found("no-connection", _text(error))]
    with connection:
        patient = CheckContext(connection, dsn, listen_dsn or dsn, limits or Thresholds())
        connection.answer = patient.limits.statement + GRACE
        findings = list(_examine(patient))
    order = ("error", "warning", "note", "ok")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _examine(patient: CheckContext) -> Iterator[Finding]:
    unseen: list[str] = []
    try:
        for name, (check, well) in (FIRST | CHECKS).items():
            if name in SESSIONS and not patient.sees_sessions:
                unseen.append(name)
            seen = list(_carried_out(patient, name, check, unseen))
            if not seen and name not in unseen:
                seen = [Finding(name, "ok", well)]
            yield from seen
            if name in FIRST and any(finding.level == "error" for finding in seen):
                break
    except TRANSIENT as error:
        yield found("connection-lost", f"the connection was lost: {_text(error)}")
    if unseen:
        what = f"role {patient.role} could not see, or not in time: {', '.join(unseen)}"
        yield found("not-looked-at", what, role=patient.role, checks=unseen)


def _carried_out(
    patient: CheckContext, name: str, check: Check, unseen: list[str]
) -> Iterator[Finding]:
    """Run a check; record it as unseen if it may not look, or not in time."""
    try:
        yield from check(patient)
    except (
        psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled,
        psycopg.errors.LockNotAvailable,
    ):  # fmt: skip
        unseen.append(name)
    except TRANSIENT:
        raise
    except psycopg.Error as error:
        log.debug("check %s", name, exc_info=error)
        yield found("check-failed", f"check {name}: {_text(error)}", check=name)


def _text(error: BaseException) -> str:
    return redact(" ".join(said(error).split()))
