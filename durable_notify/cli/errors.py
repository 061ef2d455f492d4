"""Errors in one line, with what to do.

Errors contain neither DSNs nor payloads. Only the primary line of PostgreSQL's messages is shown,
because DETAIL may quote rows. Nothing of libpq's is shown if it may quote a malformed DSN.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict

from .._core.sanitize import redact
from ..dsn import ENCODE, is_ambiguous
from ..errors import (
    BrokerUnavailable,
    ClaimBusy,
    DurableNotifyError,
    InvalidArgument,
    SchemaMissing,
    SchemaTooOld,
    UnknownGroup,
    UnknownTopic,
)
from .listing import Listing
from .params import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from .database import Database

__all__ = ["Failure", "Group", "status_of"]

log = logging.getLogger("durable_notify")

MIGRATE = "run: durable-notify migrate{same}"
#: Error texts of libpq while it connects, with the remedy.
CONNECTING = (
    (r"Connection refused|No such file or directory|Is the server running",
     "Is PostgreSQL running there? Check host and port of {source}."),
    (r"password|no pg_hba.conf entry|authentication failed",
     "Check user and password of {source}; ~/.pgpass and PGPASSWORD are read too."),
    (r"database .* does not exist", "Create it with createdb, or correct {source}."),
    (r"role .* does not exist", "Create it with createuser, or correct the user in {source}."),
    (r"resolve host|translate host|Name or service", "Check the host name in {source}."),
    (r"timeout|timed out", "Nothing answers there. Check host, port and firewall of {source}."),
    (r"too many clients|remaining connection slots|no more connections",
     "The server has no connection left: close some, or raise max_connections."),
    (r"unsupported startup parameter",
     "There is a pooler in between: leave `options` out of {source}, or connect directly."),
    (r"starting up|shutting down|recovery mode", "Try again in a moment."),
    (r"session is not|read-only|not in hot standby|target_session_attrs",
     "No server in {source} is what target_session_attrs asks for."),
    (r"certificate|SSL|sslmode", "Check sslmode and the certificates of {source}."),
    (r"closed the connection|terminat|lost|Connection reset",
     "The connection broke. Run it again once PostgreSQL answers."),
)  # fmt: skip
STANDBY = (
    "This server is read-only (a standby?). Use the primary, or target_session_attrs=read-write."
)
AGAIN = "Run it again."
BY_SQLSTATE = {
    "25006": STANDBY,
    "55P03": "Another session holds the lock. Run it again in a moment.",
    "57014": "It took longer than statement_timeout allows.",
    "57P01": AGAIN,
    "57P02": AGAIN,
    "57P03": "Try again in a moment.",
    "40001": AGAIN,
    "40P01": AGAIN,
    "53300": "The server has no connection left: close some, or raise max_connections.",
    "53100": "The server's disk is full.",
    "3F000": MIGRATE,
    "42P01": MIGRATE,
    "42883": MIGRATE,
    "26000": "A pooler mixes up sessions: connect directly.",
}
_CONSUME = "--consume TOPIC --group GROUP"
#: Options for durable-notify grant; only the owner of the schema runs the other commands.
_RIGHTS = {
    "publish": "--publish TOPIC",
    "consume": _CONSUME,
    "read": "--read TOPIC",
    "group": _CONSUME,
    "replay": _CONSUME,
    "replay-job": _CONSUME,
    "seek": _CONSUME,
    "status": "--observe",
    "dead-letters": "--observe",
    "retries": "--observe",
    "audit": "--observe",
}


class Failure(click.ClickException):
    """An error as people see it: what happened, and what to do."""

    def __init__(self, message: str, remedy: str = "", exit_code: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.remedy = remedy
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: object = None) -> None:  # noqa: ARG002
        """Print it on standard error."""
        click.echo(f"error: {shown(self.message)}", err=True)
        if self.remedy:
            click.echo(shown(self.remedy), err=True)


class Group(Listing):
    """Commands whose errors are turned into Failures."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (DurableNotifyError, psycopg.Error) as error:
            raise _explained(error, ctx.find_root().obj, ctx.invoked_subcommand) from error
        except Exception as error:
            driver = getattr(error, "orig", None)  # SQLAlchemy wraps it, in many lines
            if isinstance(driver, (DurableNotifyError, psycopg.Error)):
                raise _explained(driver, ctx.find_root().obj, ctx.invoked_subcommand) from error
            raise


def status_of(run: Callable[[], object]) -> int:
    """Run the command line and return its exit status; errors are shown, never a traceback."""
    try:
        result = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        mute_stdout()  # the reader has seen enough
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last stop
        failure = _failure(error)
        failure.show()
        return failure.exit_code
    return result if isinstance(result, int) else 0


def _failure(error: BaseException) -> click.ClickException:
    if isinstance(error, click.UsageError):
        name = error.ctx.command_path if error.ctx else "durable-notify"
        return Failure(_unquoted(error.format_message()), f"see: {name} --help", error.exit_code)
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return Failure("interrupted")
    if isinstance(error, OSError):
        mute_stdout()
        return Failure(str(error))
    log.debug("unexpected", exc_info=error)
    return Failure(f"unexpected {type(error).__name__}", "Please report it with what -vv shows.")


def _unquoted(message: str) -> str:
    """Remove unused arguments and connection strings from click's message."""
    if message.startswith("Got unexpected extra argument"):
        return (
            "too many arguments: quote those with spaces, and put a JSON payload in single quotes"
        )
    return re.sub(r"(?<![\w+])[\w+]++://[^\s'\"]*", "DSN", redact(message))


def mute_stdout() -> None:
    """Prevent later errors because standard output is closed or full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _explained(error: Exception, database: Database, command: str | None) -> Failure:
    if isinstance(error, psycopg.Error):
        return _of_postgres(error, database, command)
    if isinstance(error, (SchemaMissing, SchemaTooOld)):
        what, _, rest = str(error).partition(" Run `durable-notify migrate`")
        more = rest.rstrip(".") if rest.startswith(". ") else ""  # not what Python can call instead
        return Failure(what, _on(MIGRATE, database) + more)
    if isinstance(error, (UnknownGroup, UnknownTopic)):
        return Failure(str(error).split(". ")[0], "see: durable-notify status")
    if isinstance(error, BrokerUnavailable):
        return Failure(str(error), "Check the broker's URL, and that it runs.")
    return Failure(
        str(error),
        AGAIN if isinstance(error, ClaimBusy) else "",
        exit_code=2 if isinstance(error, InvalidArgument) else 1,
    )


def _on(remedy: str, database: Database) -> str:
    """Return a remedy whose command is for the same database, if only an option names it."""
    same = ", with the same --dsn" if database.source == "--dsn" else ""
    return remedy.format(same=same)


def _of_postgres(error: psycopg.Error, database: Database, command: str | None) -> Failure:
    state, primary = error.sqlstate, error.diag.message_primary
    if state == "42501":
        remedy = _how_to_allow(database.dsn, command, error.diag.message_hint)
        return Failure(primary or "insufficient privilege", remedy)
    if state and primary and not state.startswith("08"):
        return Failure(f"PostgreSQL says: {primary}", _on(BY_SQLSTATE.get(state, ""), database))
    if is_ambiguous(database.given or ""):
        return Failure(f"no connection to the database of {database.source}", ENCODE)
    text = " ".join(str(error).split())
    remedies = (what for pattern, what in CONNECTING if re.search(pattern, text, re.IGNORECASE))
    return Failure(text, next(remedies, "").format(source=database.source))


def _how_to_allow(dsn: str, command: str | None, hint: str | None) -> str:
    """Return how the role of a DSN gets the right to run a command; `hint`: the database's."""
    given = conninfo_to_dict(dsn)
    role = str(given.get("user") or os.environ.get("PGUSER") or "YOUR_ROLE")
    if command == "migrate":
        name = _identifier(str(given.get("dbname") or os.environ.get("PGDATABASE") or role))
        return (
            "Run the migration as the owner of the schema durable_notify. If there is none yet: "
            f"GRANT CREATE ON DATABASE {name} TO {_identifier(role)};"
        )
    if hint is not None:
        return hint
    if (rights := _RIGHTS.get(command or "")) is None:
        return "Run it as the owner of the schema durable_notify."
    return (
        f"The owner of the schema can allow it: durable-notify grant {shlex.quote(role)} {rights}"
    )


def _identifier(name: str) -> str:
    if re.fullmatch("[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'
