"""SQL text in statements."""

from __future__ import annotations

import re

import pytest

from durable_notify import schema
from durable_notify.statements import statements

MIGRATIONS = schema.migrations_path()
FILES = sorted([*MIGRATIONS.glob("schema/*/*.sql"), *MIGRATIONS.glob("revisions/*.sql")])


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        ("-- nothing; at all\n", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;;\n;", ["SELECT 1"]),
        ("-- why; so\nSELECT 1; SELECT 2; -- end;", ["-- why; so\nSELECT 1", "SELECT 2"]),
        ("/* a; */ SELECT ';' || E'\\';' || 'it''s;' ;B", ["/* a; */ SELECT ';' || E'\\';' || 'it''s;'", "B"]),
        ('SELECT "a;""b";X', ['SELECT "a;""b"', "X"]),
        ("DO $$ BEGIN; '; END $$; X", ["DO $$ BEGIN; '; END $$", "X"]),
        ("DO $a$ $b$;$b$; $$;$$ $a$;X", ["DO $a$ $b$;$b$; $$;$$ $a$", "X"]),
        ("SELECT 2-1/3, $1;X", ["SELECT 2-1/3, $1", "X"]),
    ],
)  # fmt: skip
def test_where_a_statement_ends(script: str, expected: list[str]) -> None:
    assert statements(script) == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_of_our_files_nothing_is_lost(path: object) -> None:
    script = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert "U&'" not in script
    found = statements(script)
    assert re.sub(r"[\s;]", "", "".join(found)) == re.sub(r"[\s;]", "", script)
    for statement in found:
        bare = re.sub(r"\A(--[^\n]*\n|\s)+", "", statement)
        assert re.match(
            "(CALL|CREATE|ALTER|DO|DROP|REVOKE|GRANT|INSERT|UPDATE|DELETE|SET|RESET|LOCK) ", bare
        ), bare[:80]
