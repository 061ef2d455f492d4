"""Run this package's migrations from a revision of your own Alembic project.

    from alembic import op
    from durable_notify.integrations import alembic as durable_notify

    def upgrade():
        durable_notify.upgrade(op, "0001")

    def downgrade():
        durable_notify.downgrade(op, "base")

They join your revision's transaction, online and with ``--sql``. They stamp
``durable_notify.schema_version`` as ``durable-notify migrate`` does, so you can use both in turn.
They do not touch your own ``alembic_version``. Your engine may use any driver, and your revision
may be in a branch of its own. If you autogenerate with ``include_schemas=True``, give
``include_name`` to ``context.configure`` in ``env.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from durable_notify import schema

__all__ = ["downgrade", "include_name", "upgrade"]

_TABLE = f"{schema.SCHEMA}.{schema.VERSION_TABLE}"


def upgrade(op: Any, revision: str = "head", *, since: str = "base") -> None:
    """Migrate the schema up to `revision`, unless it is there already.

    Name the revision, so that yours does the same next year. `since` applies only to ``--sql``,
    which has no database to ask: the revision that your earlier ones have reached.
    """
    current = _prepare(op, since)
    for step in schema.steps(current, revision):
        step.module.upgrade()
        _stamp(op, step.revision)


def downgrade(op: Any, revision: str = "base", *, since: str = "head") -> None:
    """Downgrade the schema to `revision`; ``base`` removes it, **messages included**."""
    current = _prepare(op, since)
    for step in reversed(schema.steps(revision, current)):
        step.module.downgrade()
        _stamp(op, step.down_revision)
    if revision == "base":
        for statement in schema.REMOVE:
            op.execute(statement)


def include_name(name: str | None, kind: str, _parents: Mapping[str, Any]) -> bool:
    """Exclude this package's tables from autogenerate, which would drop them."""
    return not (kind == "schema" and name == schema.SCHEMA)


def _prepare(op: Any, since: str) -> str:
    """Take the lock, create schema and version table, and return the revision to start from."""
    for statement in (*schema.PREPARE, schema.CREATE_VERSION_TABLE):
        op.execute(statement)
    if op.get_context().as_sql:
        return since
    query = f"SELECT version_num FROM {_TABLE}"  # noqa: S608 - of constants
    row = op.get_bind().execute(sa.text(query)).first()
    if row is None:
        if op.get_bind().execute(sa.text(schema.FIND_LOG)).scalar():
            schema.refuse_unknown()
        return "base"
    schema.refuse_newer((row[0],))
    return str(row[0])


def _stamp(op: Any, revision: Any) -> None:
    op.execute(f"DELETE FROM {_TABLE}")  # noqa: S608 - of constants
    if revision is not None:
        # There are no parameters offline; the revision is the name of one of our own files.
        op.execute(f"INSERT INTO {_TABLE} (version_num) VALUES ('{revision}')")  # noqa: S608
