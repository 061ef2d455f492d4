"""Revisions: frozen ones stay as they are, and all of them make what ``migrations/schema`` says."""

from __future__ import annotations

import hashlib

import psycopg
import pytest

from durable_notify import schema
from tests.schema.releases import set_all, settings, tagged_unfrozen
from tests.support.postgres import CHECKOUT
from tools.revision import REVISIONS, SCHEMA, SUMS, describe, inlined, install

FROZEN = dict(line.split("  ")[::-1] for line in SUMS.read_text().splitlines())
SCRIPTS = {step.revision: step.path for step in schema.steps("base", "head")}


def test_frozen_files_are_as_they_were_released() -> None:
    found = {name: hashlib.sha256((REVISIONS / name).read_bytes()).hexdigest() for name in FROZEN}
    assert found == FROZEN, "a released revision never changes: put it back, and write a new one"


def test_all_but_the_newest_are_frozen() -> None:
    frozen = sorted({name.partition("_")[0] for name in FROZEN})
    assert frozen in (sorted(SCRIPTS), sorted(SCRIPTS)[:-1])
    files = {path.name for path in REVISIONS.glob("*.sql")}
    assert files >= set(FROZEN)
    assert {name.partition("_")[0] for name in files - set(FROZEN)} <= set(SCRIPTS) - set(frozen)


def test_the_last_release_is_frozen() -> None:
    # tasks.py release freezes, then tags.
    assert not tagged_unfrozen(CHECKOUT)


def test_they_make_the_current_source(dsn: str, empty_dsn: str) -> None:
    install(empty_dsn)
    wanted = describe(empty_dsn)
    assert describe(dsn) == wanted, 'run: python3 tasks.py revision "what it does"'


def test_they_keep_what_users_have_set(empty_dsn: str) -> None:
    schema.migrate(empty_dsn, "0001")
    before = set_all(empty_dsn)
    schema.migrate(empty_dsn)
    assert settings(empty_dsn) == before
    schema.downgrade(empty_dsn, "0001")
    assert settings(empty_dsn) == before


@pytest.mark.parametrize("name", sorted(inlined()))
def test_one_that_resets_a_setting_is_seen(dsn: str, name: str) -> None:
    before = set_all(dsn)
    (text,) = (t for p in (SCHEMA / "inlined").iterdir() if f".{name}(" in (t := p.read_text()))
    with psycopg.connect(dsn) as conn:
        conn.execute(text.replace("CREATE", "CREATE OR REPLACE").encode())
    after = settings(dsn)
    assert [key for key in before if after[key] != before[key]] == [name]
