"""`tasks.py upgrade`: the last release's tests on the new schema, in a repository made up for it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durable_notify.schema import SCHEMA_VERSION
from tests.schema.live_upgrade import after
from tests.support.postgres import CHECKOUT

ONE_TEST = ("tests/sql/status/test_backlog.py", "-k", "agrees")
REVISION = """
from alembic import op
revision, down_revision = {after!r}, {newest!r}
def upgrade():
    op.execute({statement!r})
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tasks.py, of a repository with one commit that is like this checkout."""
    spec = importlib.util.spec_from_file_location("tasks", CHECKOUT / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("durable_notify", "migrations", "tests"):
        shutil.copytree(
            CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
    # The binaries of another version would be unpacked where the server's user may not go.
    monkeypatch.delenv("DURABLE_NOTIFY_TEST_PG", raising=False)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BIN", Path(sys.executable).parent)
    return module


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def test_on_the_schema_of_the_release(tasks: ModuleType, capfd: pytest.CaptureFixture[Any]) -> None:
    git(tasks.ROOT, "tag", "v0.1.0")
    tasks.upgrade()
    assert "upgrade: nothing to test, the schema is that of v0.1.0" in capfd.readouterr().out


def test_without_a_release(tasks: ModuleType, capfd: pytest.CaptureFixture[Any]) -> None:
    tasks.upgrade()
    assert "upgrade: NOT DONE, there is no release yet" in capfd.readouterr().out


@pytest.mark.slow
def test_on_a_schema_that_adds_and_one_that_breaks(
    tasks: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[Any]
) -> None:
    git(tmp_path, "tag", "v0.1.0")
    (tmp_path / ONE_TEST[0]).unlink()  # only the release has it by now
    numbers = {"newest": SCHEMA_VERSION, "after": after(SCHEMA_VERSION)}
    schema = tmp_path / "durable_notify" / "schema.py"
    line = 'SCHEMA_VERSION = "{}"'
    known, newer = (line.format(number) for number in numbers.values())
    schema.write_text(schema.read_text().replace(known, newer))
    planted = tmp_path / "migrations" / "versions" / f"{numbers['after']}_planted.py"

    planted.write_text(REVISION.format(statement="CREATE TABLE durable_notify.mine ()", **numbers))
    tasks.upgrade(*ONE_TEST, "-p", "no:cacheprovider")
    said = capfd.readouterr()
    assert "the tests of v0.1.0" in said.out
    assert "1 passed" in said.out

    planted.write_text(
        REVISION.format(
            statement="ALTER FUNCTION durable_notify.settle RENAME TO settle_v2", **numbers
        )
    )
    with pytest.raises(SystemExit):
        tasks.upgrade(*ONE_TEST, "-p", "no:cacheprovider")
    assert "settle" in capfd.readouterr().out
