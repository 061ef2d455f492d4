"""Which rights a role lacks for a command."""

from __future__ import annotations

import os
import re
import shlex

from psycopg.conninfo import conninfo_to_dict

__all__ = ["rights_remedy"]

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


def rights_remedy(dsn: str, command: str | None, hint: str | None = None) -> str:
    """Return how to let the role of `dsn` run a command; `hint`: the database's."""
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
