"""The current source, ``migrations/schema``: its manifest, its files, its bodies."""

from __future__ import annotations

import re

import psycopg
import pytest

from tools.revision import FUNCTIONS, SCHEMA, install

FILES = {str(path.relative_to(SCHEMA)): path.read_text() for path in SCHEMA.rglob("*.sql")}
MANIFEST = FILES.pop("install.sql")
FILES.pop("remove.sql", None)


def test_every_file_is_installed_once() -> None:
    assert sorted(re.findall(r"^\\ir (\S+)$", MANIFEST, re.MULTILINE)) == sorted(FILES)


def test_a_public_function_has_a_file_of_its_name() -> None:
    created = re.compile(r"^CREATE (?:FUNCTION|PROCEDURE) durable_notify\.([a-z]\w*)", re.MULTILINE)
    public = {file: created.findall(text) for file, text in FILES.items()}
    named = {file: [file.rpartition("/")[2].removesuffix(".sql")] for file in FILES}
    assert {f: names for f, names in public.items() if names not in ([], named[f])} == {}


PLANTED = {
    "sql": "SELECT nothing FROM durable_notify.outbox",
    "plpgsql": "BEGIN RETURN (SELECT 1; END",
}


@pytest.mark.parametrize("planted", [None, *PLANTED])
def test_bodies_are_valid(empty_dsn: str, planted: str | None) -> None:
    # install.sql does not look at them, since they may call what comes later.
    install(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        if planted:
            body = PLANTED[planted]
            conn.execute("SET check_function_bodies = off")
            conn.execute(
                f"CREATE FUNCTION durable_notify.mine() RETURNS integer LANGUAGE {planted} AS '{body}'".encode()
            )
        conn.execute("SET check_function_bodies = on")
        wrong = []
        for _, name, definition, _ in conn.execute(FUNCTIONS).fetchall():
            try:
                conn.execute(definition.encode())
            except psycopg.ProgrammingError as error:
                wrong.append((name, str(error)))
    assert [name for name, _ in wrong] == (["mine"] if planted else []), wrong
