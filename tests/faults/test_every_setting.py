"""Every setting that a role or a database can have, with unusual values.

Each comes from ``pg_settings``, two values of it. Asserted: migrating makes the same schema, and what
publishers, consumers, readers, administration and maintenance do comes to the same as without.

They are put on a database many at once: what is hostile enough is hostile in company, too. Where it
does not come to the same, they are parted until those are found that did it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from durable_notify import adapters as adapting
from durable_notify import schema
from durable_notify._async.database import connection as async_links
from durable_notify._sync.database import connection as sync_links
from tests.faults.settings import LEFT_OUT, Setting, hostile, put
from tests.support import everything
from tests.support.postgres import Postgres

Connection = psycopg.Connection[Any]
Run = Callable[[Sequence[Setting]], Any]

#: On so many databases each value of every setting is tried.
GROUPS = 4


@pytest.fixture(scope="module")
def admin(server: Postgres) -> Iterator[Connection]:
    """Sets what a database is to have."""
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        yield admin


@pytest.fixture(scope="module")
def pairs(admin: Connection) -> list[tuple[Setting, Setting]]:
    return list(hostile(admin))


@pytest.fixture(scope="module")
def used(server: Postgres, template: str, admin: Connection) -> Run:
    """What comes of using a database that has settings."""

    def use(settings: Sequence[Setting]) -> Any:
        with server.database(template) as name:
            put(admin, name, settings)
            return everything.run(server.dsn(name))

    return use


@pytest.fixture(scope="module")
def migrated(server: Postgres, admin: Connection) -> Run:
    """The schema that migrating a database makes that has settings."""

    def migrate(settings: Sequence[Setting]) -> Any:
        with server.database() as name:
            put(admin, name, settings)
            schema.migrate(server.dsn(name))
            put(admin, name, [])
            return schema.snapshot(server.dsn(name))

    return migrate


@pytest.fixture(scope="module")
def usual(used: Run) -> Any:
    return used([])


@pytest.fixture(scope="module")
def usual_schema(migrated: Run) -> Any:
    return migrated([])


def trouble(run: Run, settings: Sequence[Setting], usual: Any) -> str | None:
    """What differs where a database has settings; None: nothing."""
    try:
        found = run(settings)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if found == usual:
        return None
    if isinstance(found, dict):
        return (
            f"{[(name, found[name], usual[name]) for name in usual if found[name] != usual[name]]}"
        )
    return "what was made differs"


def culprits(run: Run, settings: Sequence[Setting], usual: Any) -> list[str]:
    """Return those settings that each alone make a difference, or that do so together."""
    what = trouble(run, settings, usual)
    if what is None:
        return []
    if len(settings) == 1:
        return [f"{settings[0].name} = {settings[0].value}: {what}"]
    half = len(settings) // 2
    found = culprits(run, settings[:half], usual) + culprits(run, settings[half:], usual)
    return found or [f"together {[setting.name for setting in settings]}: {what}"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.timeout(300)
def test_used(pairs: Any, used: Run, usual: Any, group: int, value: int) -> None:
    settings = [pair[value] for pair in pairs[group::GROUPS]]
    assert culprits(used, settings, usual) == []


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.timeout(300)
def test_migrated(pairs: Any, migrated: Run, usual_schema: Any, value: int) -> None:
    assert culprits(migrated, [pair[value] for pair in pairs], usual_schema) == []


def results_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = SimpleNamespace(BINARY=adapting.Format.TEXT)
    monkeypatch.setattr(adapting, "Format", text)


def as_the_program_adapts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "_adapters", lambda _: psycopg.adapters)


def told_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (async_links.AsyncTimeoutConnection, sync_links.TimeoutConnection):
        monkeypatch.setattr(kind, "must_begin", property(lambda _: False, lambda *_: None))


@pytest.mark.parametrize(
    ("plant", "setting"),
    [
        (results_as_text, Setting("DateStyle", "German, DMY")),
        (results_as_text, Setting("extra_float_digits", "-15")),
        (as_the_program_adapts, Setting("array_nulls", "off")),
        (as_the_program_adapts, Setting("client_encoding", "SQL_ASCII")),
        (told_no_level, Setting("default_transaction_isolation", "serializable")),
    ],
)
def test_planted(
    used: Run,
    usual: Any,
    plant: Callable[[pytest.MonkeyPatch], None],
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each fault that there was is found, by the setting that brought it to light."""
    plant(monkeypatch)
    assert len(culprits(used, [setting], usual)) == 1


def test_what_is_left_out_is_there(admin: Connection) -> None:
    """And is what a role could have; each server has but some of them."""
    known = {name for (name,) in admin.execute("SELECT name FROM pg_settings").fetchall()}
    assert len(LEFT_OUT.keys() & known) > len(LEFT_OUT) * 3 / 4


def test_the_settings_are_taken(server: Postgres, admin: Connection, pairs: Any) -> None:
    """A value that the server refuses tries nothing."""
    with server.database() as name:
        refused = [setting for pair in pairs for setting in put(admin, name, pair)]
    assert refused == []
