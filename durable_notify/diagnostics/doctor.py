"""The doctor: reports what is wrong with a database, why it matters and how to fix it.

It changes nothing, and never hangs: connecting, each query and each answer have a limit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg

from .._core.sanitize import redact
from .._sync.database.connection import TRANSIENT, TimeoutConnection, settings
from ..adapters import OwnCursor
from ..dsn import safe_message
from .checks import CHECKS, FIRST, SESSIONS
from .context import Check, CheckContext, Thresholds
from .findings import LEVELS, Finding, finding

__all__ = ["Finding", "Thresholds", "diagnose"]

log = logging.getLogger("durable_notify")

#: A connection is dead if an answer takes this much longer than a query may, in seconds.
GRACE = 5.0
#: The heartbeat that limits how long connecting takes, in seconds.
CONNECTING = 5.0


def diagnose(
    dsn: str, listen_dsn: str | None = None, *, thresholds: Thresholds | None = None
) -> list[Finding]:
    """Check a database, and return what was found, the worst first.

    A check that finds no problem has one finding of level ``ok``. An unreachable database is a
    finding too. It writes nothing.

    Args:
        dsn: a libpq connection string or URI.
        listen_dsn: the DSN on which consumers listen, if it differs.
        thresholds: the limits beyond which something becomes a finding.

    Raises:
        InvalidArgument: libpq cannot read a DSN.
    """
    wanted = settings(dsn, "doctor", CONNECTING)
    if listen_dsn is not None:
        settings(listen_dsn, "doctor", CONNECTING)
    try:
        connection = TimeoutConnection.connect(dsn, cursor_factory=OwnCursor, **wanted)
    except psycopg.OperationalError as error:
        return [finding("no-connection", _text(error))]
    with connection:
        context = CheckContext(connection, dsn, listen_dsn or dsn, thresholds or Thresholds())
        connection.answer = context.thresholds.statement + GRACE
        findings = list(_examine(context))
    return sorted(findings, key=lambda each: LEVELS.index(each.level))


def _examine(context: CheckContext) -> Iterator[Finding]:
    unseen: list[str] = []
    slow: list[str] = []
    try:
        for name, (check, well) in (FIRST | CHECKS).items():
            if name in SESSIONS and not context.sees_sessions:
                unseen.append(name)
            seen = list(_carried_out(context, name, check, unseen, slow))
            if not seen and name not in unseen + slow:
                seen = [Finding(name, "ok", well)]
            yield from seen
            if name in FIRST and any(each.level == "error" for each in seen):
                break
    except TRANSIENT as error:
        yield finding("connection-lost", f"the connection was lost: {_text(error)}")
    if slow:
        what = f"not answered within {context.thresholds.statement:g} s: {', '.join(slow)}"
        yield finding("check-too-slow", what, checks=slow)
    if unseen:
        what = f"role {context.role} could not see: {', '.join(unseen)}"
        yield finding("not-looked-at", what, role=context.role, checks=unseen)


def _carried_out(
    context: CheckContext, name: str, check: Check, unseen: list[str], slow: list[str]
) -> Iterator[Finding]:
    """Run a check; record it if it lacks a privilege, or takes too long."""
    try:
        yield from check(context)
    except psycopg.errors.InsufficientPrivilege:
        unseen.append(name)
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        slow.append(name)
    except TRANSIENT:
        raise
    except psycopg.Error as error:
        log.debug("check %s", name, exc_info=error)
        yield finding("check-failed", f"check {name}: {_text(error)}", check=name)


def _text(error: BaseException) -> str:
    return redact(" ".join(safe_message(error).split()))
