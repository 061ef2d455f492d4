"""docs/follow-a-message.md: each step is where it says, and the way is no longer than it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import way
from tests.support.postgres import CHECKOUT

PAGE = CHECKOUT / "docs" / "follow-a-message.md"
TEXT = PAGE.read_text(encoding="utf-8")
STEPS = re.findall(r"\[`([\w./]+)`\]\(([^)]+)\)", TEXT)


def defines(path: Path, name: str) -> bool:
    """Whether a file defines a function, a table, a class, or a method of a class."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        return (
            re.search(rf"^CREATE (FUNCTION|TABLE) durable_notify\.{name}\b", text, re.MULTILINE)
            is not None
        )
    owner, _, method = name.rpartition(".")
    if owner:
        _, found, text = text.partition(f"\nclass {owner}")
        text = text.partition("\nclass ")[0]
        return (
            bool(found)
            and re.search(rf"^    (async )?def {method}\(", text, re.MULTILINE) is not None
        )
    return re.search(rf"^(class|def|async def) {name}\b", text, re.MULTILINE) is not None


@pytest.mark.parametrize(("name", "target"), STEPS)
def test_each_step_is_where_it_says(name: str, target: str) -> None:
    path = (PAGE.parent / target).resolve()
    assert path.is_file()
    assert str(path).endswith(name) if name.endswith(".py") else defines(path, name)


def test_what_is_elsewhere_is_found() -> None:
    assert not defines(CHECKOUT / "migrations" / "schema" / "claim" / "claim.sql", "settle")
    assert not defines(CHECKOUT / "durable_notify" / "_async" / "reader.py", "AsyncReader.gone")
    assert defines(CHECKOUT / "durable_notify" / "_async" / "reader.py", "AsyncReader.close")


def test_every_station_is_on_it() -> None:
    linked = {target for _, target in STEPS}
    for station in ("publish", "wakeups", "claim", "settle"):
        assert any(f"/migrations/schema/{station}/" in target for target in linked), station
    for module in ("publisher", "subscription", "fetcher", "buffer", "dispatcher", "leases"):
        assert any(target.endswith(f"/{module}.py") for target in linked), module


def test_the_way_is_no_longer_than_it_says(dsn: str) -> None:
    rows = re.findall(r"^\| (Python|SQL),.*\| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    said = {half: (int(files), int(functions)) for half, files, functions in rows}
    python, sql = way.python_functions(dsn), way.sql_functions()
    assert len({file for file, _ in python}) <= said["Python"][0]
    assert len(python) <= said["Python"][1] * 1.1  # what else runs meanwhile differs a little
    assert len(set(sql.values())) <= said["SQL"][0]
    assert len(sql) <= said["SQL"][1]
    assert {
        name for name, path in STEPS if path.endswith(".sql") and "/tables/" not in path
    } <= set(sql)
