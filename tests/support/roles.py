"""Roles with grants on a database, and what they may do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

Connection = psycopg.Connection[Any]
#: What grant_access() takes: action, topics, group.
Grant = tuple[str, list[str] | None, str | None]

#: The roles of the matrix, and what each was granted.
KINDS: dict[str, list[Grant]] = {
    "publisher": [("publish", ["orders.*"], None)],
    "inserter": [("insert", None, None)],
    "consumer": [("consume", ["orders.*"], "g")],
    "other": [("consume", ["orders.*"], "h")],
    "reader": [("read", ["orders.*"], None)],
    "observer": [("observe", None, None)],
    "maintainer": [("maintain", None, None)],
    "stranger": [],
}
PASSWORD = "secret"


class Roles:
    """Roles by a short name each; their real names are unique."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.names: dict[str, str] = {}

    def make(self, kind: str, *grants: Grant) -> str:
        """Create a role that may log in, and grant it; returns its real name."""
        name = f"dn_{kind}_{uuid.uuid4().hex[:10]}"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            create = "CREATE ROLE {} LOGIN PASSWORD {}"
            conn.execute(sql.SQL(create).format(sql.Identifier(name), PASSWORD))
            self.names[kind] = name
            for action, topics, group in grants:
                query = "SELECT durable_notify.grant_access(%s, %s, %s, %s)"
                conn.execute(query, [name, action, topics, group])
        return name

    def login(self, kind: str) -> str:
        """A DSN with which the role logs in."""
        return make_conninfo(self.dsn, user=self.names[kind], password=PASSWORD)

    def set_role(self, kind: str) -> str:
        """A DSN with which the owner logs in, and sets the role."""
        return make_conninfo(self.dsn, options=f"-c role={self.names[kind]}")

    def drop(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            for name in self.names.values():
                if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone():
                    query = "DROP OWNED BY {0} CASCADE; DROP ROLE {0}"
                    conn.execute(sql.SQL(query).format(sql.Identifier(name)))


@contextmanager
def roles(dsn: str, kinds: Mapping[str, list[Grant]] = KINDS) -> Iterator[Roles]:
    """Make roles, and drop them at the end."""
    made = Roles(dsn)
    try:
        for kind, grants in kinds.items():
            made.make(kind, *grants)
        yield made
    finally:
        made.drop()


def everything(conn: Connection) -> dict[str, str]:
    """What is in the tables of the schema, a checksum each, to see what has changed."""
    query = """
        SELECT c.oid::regclass::text FROM pg_class c
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind = 'r'"""
    found = {}
    for (table,) in conn.execute(query).fetchall():
        query = (
            f"SELECT md5(COALESCE(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
        )
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        found[table] = row[0]
    return found


def refused(conn: Connection, query: str, *params: Any) -> psycopg.Error:
    """Run a statement that must be refused for missing rights; returns the error."""
    try:
        with conn.transaction():
            conn.execute(query.encode(), params or None)
    except psycopg.errors.InsufficientPrivilege as error:
        return error
    raise AssertionError(f"{conn.info.user} was not refused: {query}")


def allowed(conn: Connection, query: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run a statement that must not be refused, and roll it back; returns its rows."""
    with conn.transaction(force_rollback=True):
        cursor = conn.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []
