"""Which rights a role needs for a command."""

from __future__ import annotations

import os
import re

from psycopg.conninfo import conninfo_to_dict

__all__ = ["rights_remedy"]

_READ = ("USAGE ON SCHEMA durable_notify", "SELECT ON ALL TABLES IN SCHEMA durable_notify")
_BOOKKEEPING = ", ".join(
    f"durable_notify.{table}"
    for table in (
        "consumer_group", "subscription", "position", "lease", "heartbeat", "settlement",
        "deferred", "dead_letter", "pattern", "active", "allowance", "horizon", "inbox",
        "replay_job",
    )
)  # fmt: skip
_COLUMNS = "topic, key, payload, data, headers, deliver_at, expires_at"
_CONSUME = (
    *_READ,
    f"INSERT, UPDATE, DELETE ON {_BOOKKEEPING}",
    "SELECT ON SEQUENCE durable_notify.outbox_id_seq",
    "INSERT ON durable_notify.audit, durable_notify.ringing",
)
_RIGHTS = {
    "publish": (
        "USAGE ON SCHEMA durable_notify",
        "SELECT ON durable_notify.schema_version",
        f"INSERT ({_COLUMNS}), SELECT (id) ON durable_notify.outbox",
        "SELECT, INSERT, UPDATE ON durable_notify.dedup",
    ),
    "consume": _CONSUME,
    "read": _READ,
    "group": _CONSUME,
    "replay": _CONSUME,
    "replay-job": _CONSUME,
    "seek": _CONSUME,
    "status": _READ,
    "dead-letters": _CONSUME,
    "audit": _READ,
}


def rights_remedy(dsn: str, command: str | None) -> str:
    """Return what to run so that the role of `dsn` may run a command."""
    given = conninfo_to_dict(dsn)
    role = _identifier(str(given.get("user") or os.environ.get("PGUSER") or "your_role"))
    if command == "migrate":
        name = _identifier(str(given.get("dbname") or os.environ.get("PGDATABASE") or role))
        return (
            "Run the migration as the owner of the schema durable_notify, or where there is none "
            f"yet: GRANT CREATE ON DATABASE {name} TO {role};"
        )
    grants = "\n".join(f"  GRANT {right} TO {role};" for right in _RIGHTS.get(command or "", ()))
    return f"The owner of the schema durable_notify can grant what is missing:\n{grants}"


def _identifier(name: str) -> str:
    if re.fullmatch("[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'
