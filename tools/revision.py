"""Generate the revision that migrates a released schema to the current ``migrations/schema``.

python3 tasks.py revision "what it does"   write it, or rewrite the open one
python3 tasks.py revision --freeze         freeze it, before a release is tagged

It compares two databases on a real PostgreSQL: one made by the frozen revisions, one by
``schema/install.sql``. It replaces functions that differ. A developer writes all other changes by
hand, in ``migrations/pending.sql`` and ``pending.down.sql``. What is below a line ``-- functions``
there runs after the functions, the rest before them.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from mako.template import Template

from durable_notify import schema
from tests.support.postgres import find_postgres

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "migrations"
SCHEMA = MIGRATIONS / "schema"
REVISIONS = MIGRATIONS / "revisions"
SUMS = REVISIONS / "SHA256SUMS"
#: The files that a developer writes, beside the functions.
UP, DOWN = "pending.sql", "pending.down.sql"
#: Files that name the newest revision.
NAMES = (
    "durable_notify/schema.py",
    "durable_notify/integrations/alembic.py",
    "README.md",
    "docs/*.md",
)

FUNCTIONS = """
    SELECT p.oid::regprocedure::text COLLATE "C", p.proname, pg_get_functiondef(p.oid),
           (p.prokind, p.proretset, p.prorettype::regtype, p.proargnames, p.proargmodes,
            COALESCE(p.proallargtypes, p.proargtypes::oid[])::regtype[])::text
      FROM pg_proc p WHERE p.pronamespace = 'durable_notify'::regnamespace
     ORDER BY 1
"""
TABLES = """
    SELECT c.oid::regclass::text COLLATE "C" FROM pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind = 'r'
       AND NOT c.relispartition
     ORDER BY 1
"""
#: Functions that were released with settings in their bodies, wherever their files are by now.
SETTINGS = {"notify_policy", "mirror_of", "_key_required", "_closed_below"}
# Trap: a grant and a replaced function write the same rows of the catalog. The lock comes first:
# what a developer wrote may lock what a grant waits for.
LOCK = "LOCK TABLE durable_notify.access IN SHARE ROW EXCLUSIVE MODE;\n"
BEGIN = "SET LOCAL check_function_bodies = off;\n"
END = """RESET check_function_bodies;
DO $block$ BEGIN
    PERFORM durable_notify._apply_grants(r.oid) FROM pg_catalog.pg_roles r
      WHERE r.oid IN (SELECT a.role FROM durable_notify.access a);
END $block$;
"""


class Function(NamedTuple):
    """A function of the catalog."""

    name: str
    definition: str
    signature: str


Functions = dict[str, Function]


def install(dsn: str) -> None:
    """Create the schema from its current source, without the revisions."""
    with psycopg.connect(dsn) as connection:
        for statement in (*schema.PREPARE, schema.CREATE_VERSION_TABLE):
            connection.execute(statement.encode())
        stamp = "INSERT INTO durable_notify.schema_version VALUES (%s)"
        connection.execute(stamp, [schema.SCHEMA_VERSION])
        connection.execute(schema.assembled(SCHEMA / "install.sql").encode())


def describe(dsn: str) -> list[str]:
    """Describe the schema of a database, with the number of rows of its tables."""
    with psycopg.connect(dsn) as connection:
        tables = [table for (table,) in connection.execute(TABLES)]
        rows = [len(connection.execute(f"TABLE {table}".encode()).fetchall()) for table in tables]
    counts = [f"{count} rows in {table}" for table, count in zip(tables, rows, strict=True)]
    return schema.snapshot(dsn).splitlines() + counts


def functions(connection: psycopg.Connection[Any]) -> dict[str, Function]:
    """Return the functions of the schema, by name and argument types."""
    connection.execute("SET LOCAL search_path = ''")
    return {key: Function(*row) for key, *row in connection.execute(FUNCTIONS)}


def inlined() -> set[str]:
    """Return the names of the functions whose bodies contain users' settings."""
    text = "".join(path.read_text(encoding="utf-8") for path in (SCHEMA / "inlined").glob("*.sql"))
    names = re.findall(
        r"^CREATE (?:OR REPLACE )?FUNCTION durable_notify\.(\w+)", text, re.MULTILINE
    )
    return SETTINGS | set(names)


def refuse(before: Functions, after: Functions, text: str) -> None:
    """Refuse changed signatures, and changes that reset users' settings."""
    signatures: list[dict[str, set[str]]] = [{}, {}]
    for known, found in zip((before, after), signatures, strict=True):
        for function in known.values():
            found.setdefault(function.name, set()).add(function.signature)
    old, new = signatures
    if changed := sorted(name for name in old if new.get(name, old[name]) != old[name]):
        sys.exit(
            f"The arguments or the results of {', '.join(changed)} have changed, and the last "
            "release calls them as they were. Leave them, and write new ones, with _v2 in the name."
        )
    replaced = re.findall(r"^CREATE OR REPLACE FUNCTION durable_notify\.(\w+)", text, re.MULTILINE)
    if reset := sorted(set(replaced) & inlined() & set(old)):
        sys.exit(
            f"{', '.join(reset)} would be replaced. The body holds users' settings, and an upgrade "
            "would reset them. Leave it as it was released, and write another function."
        )


def run(connection: psycopg.Connection[Any], hand: str, after: Functions) -> str:
    """Run what a developer wrote, and replace functions with those of `after`; return the SQL."""
    path = MIGRATIONS / hand
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    above, *below = re.split(r"^-- functions\n", text, maxsplit=1, flags=re.MULTILINE)
    connection.execute(above.encode())
    before = functions(connection)
    connection.rollback()
    gone = [f"DROP ROUTINE {key};\n" for key in before if key not in after]
    changed = [
        f"\n{function.definition.rstrip()};\n"
        + ("" if key in before else f"REVOKE EXECUTE ON ROUTINE {key} FROM PUBLIC;\n")
        for key, function in after.items()
        if before.get(key) != function
    ]
    if hand == UP:
        gone = []  # a developer decides what a release removes
    text = "".join([LOCK, above, "\n", BEGIN, *gone, *changed, "\n", *below, END])
    if hand == UP:
        refuse(before, after, text)
    connection.execute(text.encode())
    return text


def compare(found: list[str], wanted: list[str], hand: str) -> None:
    """Exit with the difference unless two schemas are equal."""
    lines = list(difflib.unified_diff(found, wanted, "revision", "wanted", n=2, lineterm=""))
    if lines:
        sys.exit("\n".join([*lines[:100], f"This is left. Write what does it: migrations/{hand}"]))


def generate(base: str) -> tuple[str, str]:
    """Return the SQL from a revision to the current source, and back."""
    with find_postgres() as postgres, postgres.database() as one, postgres.database() as other:
        dsn, source = postgres.dsn(one), postgres.dsn(other)
        schema.migrate(dsn, base)
        install(source)
        released, wanted = describe(dsn), describe(source)
        if released == wanted and not (MIGRATIONS / UP).exists():
            sys.exit(f"Nothing differs from revision {base}.")
        with psycopg.connect(source) as connection:
            current = functions(connection)
        with psycopg.connect(dsn) as connection:
            old = functions(connection)
            up = run(connection, UP, current)
        compare(describe(dsn), wanted, UP)
        with psycopg.connect(dsn) as connection:
            down = run(connection, DOWN, old)
        compare(describe(dsn), released, DOWN)
        snapshot = schema.snapshot(source, bodies=False)
        (MIGRATIONS / "snapshot.txt").write_text(snapshot, encoding="utf-8")
        return up, down


def write(number: str, base: str | None, title: str, *texts: str) -> list[Path]:
    """Write the files of a revision, and replace its old ones; return those of SQL."""
    for old in [*REVISIONS.glob(f"{number}_*"), *(MIGRATIONS / "versions").glob(f"{number}_*")]:
        old.unlink()
    name = f"{number}_{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')[:40]}"
    files = [REVISIONS / f"{name}.sql", REVISIONS / f"{name}.down.sql"]
    for file, text in zip(files, texts, strict=True):
        header = f"-- {title}\n-- Generated by tools/revision.py, and never edited.\n\n"
        file.write_text(header + text, encoding="utf-8")
    template = Template((MIGRATIONS / "script.py.mako").read_text(encoding="utf-8"))  # noqa: S702
    script = template.render(message=title, name=name, up_revision=number, down_revision=base)
    (MIGRATIONS / "versions" / f"{name}.py").write_text(script, encoding="utf-8")
    for path in [path for pattern in NAMES for path in ROOT.glob(pattern)]:
        text = path.read_text(encoding="utf-8")
        # Not the revision of a downgrade, in an example.
        named = re.sub(rf"(?<!downgrade )\b{schema.SCHEMA_VERSION}\b", number, text)
        path.write_text(named, encoding="utf-8")
    return files


def main(arguments: list[str]) -> None:
    """Write the open revision, or freeze it."""
    frozen = sorted(set(re.findall(r"  (\d+)_", SUMS.read_text(encoding="utf-8"))))
    newest = schema.steps("base", "head")[-1]
    freezing = arguments == ["--freeze"]
    title = newest.doc if newest.revision not in frozen else ""
    if arguments and not freezing:
        title = " ".join(arguments).replace('"', "'")
    if not title:
        sys.exit('No revision is open. Say what a new one does: revision "what it does"')
    if frozen:
        number = f"{int(frozen[-1]) + 1:04}"
        files = write(number, frozen[-1], title, *generate(frozen[-1]))
    elif freezing:
        first = (schema.assembled(SCHEMA / name) for name in ("install.sql", "remove.sql"))
        files = write(newest.revision, None, title, *first)
        (SCHEMA / "remove.sql").unlink()
    else:
        sys.exit("Until the first release, its revision is migrations/schema itself: just edit it.")
    if freezing:
        with SUMS.open("a", encoding="utf-8") as sums:
            for file in files:
                sums.write(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
        for hand in (UP, DOWN):
            (MIGRATIONS / hand).unlink(missing_ok=True)
    print("frozen:" if freezing else "written:", *(file.relative_to(ROOT) for file in files))


if __name__ == "__main__":
    main(sys.argv[1:])
