"""What the Python half sends stands in one module: a search for a column finds that one."""

from __future__ import annotations

import re
from pathlib import Path

import durable_notify
from durable_notify._core import sql

ROOT = Path(durable_notify.__file__).parent
CALLS = re.compile(r"\b(?:SELECT|FROM|CALL)\b[^\"\n]*\bdurable_notify\.\w")


def test_sql_stands_in_one_place() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for half in ("_async", "_core")
        for path in sorted((ROOT / half).rglob("*.py"))
        if path != Path(sql.__file__)
        for match in CALLS.finditer(path.read_text())
    ]
    assert found == []
    assert CALLS.search(sql.CLAIM)


def test_all_of_it_is_used() -> None:
    text = "".join(path.read_text() for path in (ROOT / "_async").rglob("*.py"))
    names = [name for name, value in vars(sql).items() if name.isupper() and value is not False]
    assert [name for name in names if not name.startswith("_") and f"sql.{name}" not in text] == []
