"""The folders that the tasks name are there: nothing fails in a run of pytest that lacks one."""

from __future__ import annotations

import importlib.util

import pytest

from tests.support.postgres import CHECKOUT

_spec = importlib.util.spec_from_file_location("tasks", CHECKOUT / "tasks.py")
assert _spec is not None
assert _spec.loader is not None
tasks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tasks)


@pytest.mark.parametrize("path", [*tasks.OF_THE_SERVER, *tasks.OF_ITS_USERS])
def test_it_is_there(path: str) -> None:
    assert (CHECKOUT / path).exists()
