"""Rewrite ``migrations/snapshot.txt``: ``python -m tests.schema.renew_snapshot``."""

from durable_notify import schema
from tests.support.postgres import find_postgres

if __name__ == "__main__":
    with find_postgres() as postgres, postgres.database() as name:
        schema.migrate(postgres.dsn(name))
        text = schema.snapshot(postgres.dsn(name), bodies=False)
    (schema.migrations_path() / "snapshot.txt").write_text(text, encoding="utf-8")
