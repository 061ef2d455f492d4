"""The folders that the tasks name are there: nothing fails in a run of pytest that lacks one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
assert _spec is not None
assert _spec.loader is not None
tasks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tasks)


@pytest.mark.parametrize("path", [*tasks.OF_THE_SERVER, *tasks.OF_ITS_USERS])
def test_it_is_there(path: str) -> None:
    assert (ROOT / path).exists()
