"""What the project is developed with is pinned, by hash; and what is known against it is asked for."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.support.postgres import CHECKOUT
from tools import audit, lock

PROJECT = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
LOCK = lock.LOCK.read_text(encoding="utf-8")


@pytest.mark.parametrize("group", lock.LOCKS)
def test_the_lock_is_current(group: str) -> None:
    text = lock.LOCKS[group].read_text(encoding="utf-8")
    assert lock.problems(PROJECT, text, group) == []
    assert lock.wanted(PROJECT, group)


def test_what_builds_it_is_locked_too() -> None:
    """The build is not isolated: it takes what is installed."""
    for requirement in tomllib.loads(PROJECT)["build-system"]["requires"]:
        assert requirement in lock.wanted(PROJECT)


@pytest.mark.parametrize(
    ("project", "locked", "word"),
    [
        (("psycopg-pool>=3.2.4", "psycopg-pool>=99"), ("", ""), "psycopg-pool>=99 is wanted"),
        (("aiosqlite>=0.21", "left-pad>=1"), ("", ""), "left-pad is not in it"),
        (("platformdirs>=4.3", "platformdirs<1"), ("", ""), "platformdirs<1 is wanted"),
        (("", ""), ("alembic==", "alembic=="), None),
        (
            ("", ""),
            ("\nalembic==", "\n--index-url https://example.org/simple\nalembic=="),
            "address",
        ),
        (("", ""), ("\nalembic==", "\nalembic @ file:///here\nalembic=="), "address"),
        (("", ""), ("--hash=sha256:", "--hash=md5:"), "no hash"),
        (("", ""), ("\nalembic==", "\nalembic>="), "alembic is not in it"),
    ],
)
def test_a_lock_that_is_not_is_noticed(project: Any, locked: Any, word: str | None) -> None:
    found = lock.problems(
        PROJECT.replace(*project) if project[0] else PROJECT, LOCK.replace(*locked)
    )
    assert (word is None and not found) or (word is not None and word in "; ".join(found))


CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("output", "errors", "status", "words"),
    [
        ([CLEAN, CLEAN], "", 0, "nothing known against 2 packages"),
        ([CLEAN, BAD], "", 1, "b 2: CVE-1, fixed in 3"),
        ([UNKNOWN, BAD], "", 1, "b 2: CVE-1"),
        ([UNKNOWN, CLEAN], "", 0, "1 were NOT looked up"),
        (
            [UNKNOWN, UNKNOWN],
            "No known vulnerabilities found",
            0,
            "NOT DONE, the service knows none",
        ),
        (None, "ERROR: Could not connect to the service", 0, "NOT DONE, the vulnerability service"),
        (None, "", 0, "NOT DONE"),
    ],
)
def test_found_and_not_asked_are_two_things(
    output: Any, errors: str, status: int, words: str
) -> None:
    text = "" if output is None else json.dumps({"dependencies": output, "fixes": []})
    found, said = audit.verdict(text, errors)
    assert found == status
    assert words in said
