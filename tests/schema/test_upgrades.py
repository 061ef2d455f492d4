"""Upgrades under live load: a migration neither rewrites the outbox nor locks it for long."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from durable_notify import schema
from tests.schema.live_upgrade import after, plant, study
from tests.support.wait import eventually

#: There are none before the first release. Then each is run on the schema before it.
REVISIONS = [(step.down_revision, step.revision) for step in schema.steps("0001", "head")]


@pytest.mark.parametrize(("before", "revision"), REVISIONS)
def test_a_revision_under_load(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch, before: str, revision: str
) -> None:
    schema.migrate(empty_dsn, before)
    assert study(empty_dsn, monkeypatch).complaints == []


FINE = (
    "ALTER TABLE durable_notify.consumer_group ADD COLUMN mine integer",
    "CREATE FUNCTION durable_notify.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE durable_notify.outbox ALTER COLUMN key SET STATISTICS 10",
    # A column without values does not scan the existing rows; its constraint follows separately.
    "ALTER TABLE durable_notify.outbox ADD CONSTRAINT mine CHECK (key <> 'x') NOT VALID",
)
BAD = {
    "rewrites": ("ALTER TABLE durable_notify.outbox ALTER COLUMN created_at TYPE timestamptz(3)",),
    "reads the outbox": ("ALTER TABLE durable_notify.outbox ADD CONSTRAINT mine CHECK (key <> 'x')",),
    "without a lock_timeout": (
        "SET LOCAL lock_timeout = 0",
        "ALTER TABLE durable_notify.outbox ADD CONSTRAINT mine CHECK (key <> 'x') NOT VALID",
    ),
    "rows while the outbox is locked": (
        "LOCK TABLE durable_notify.outbox IN EXCLUSIVE MODE",
        "INSERT INTO durable_notify.audit (action, group_name) SELECT 'x', 'y' FROM generate_series(1, 2000)",
    ),
    "for long": (
        "LOCK TABLE durable_notify.outbox IN SHARE MODE", "SELECT pg_sleep(0.6)",
    ),
}  # fmt: skip


def test_a_good_one_is_let_through(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, tmp_path, *FINE)
    found = study(dsn, monkeypatch)
    assert found.complaints == []
    assert found.statements > len(FINE)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT durable_notify.mine()").fetchone() == (1,)


@pytest.mark.parametrize("complaint", BAD)
def test_a_bad_one_is_seen(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, complaint: str
) -> None:
    plant(monkeypatch, tmp_path, *BAD[complaint])
    found = study(dsn, monkeypatch, bound=0.3 if complaint == "for long" else 2.0)
    assert [one for one in found.complaints if complaint in one]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER FUNCTION durable_notify.publish RENAME TO publish_v2",  # publishers
        "ALTER FUNCTION durable_notify.settle RENAME TO settle_v2",  # consumers
    ],
)
def test_one_that_breaks_the_release_before_is_seen(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, statement: str
) -> None:
    plant(monkeypatch, tmp_path, statement)
    with pytest.raises(AssertionError):
        study(dsn, monkeypatch)


def test_it_does_not_hold_up_publishers_behind_others(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(
        monkeypatch, tmp_path, "ALTER TABLE durable_notify.outbox ALTER COLUMN key SET DEFAULT NULL"
    )
    monkeypatch.setattr(schema, "PAUSE", (0.0, 0.01))
    done = threading.Thread(target=schema.migrate, args=[dsn])
    with psycopg.connect(dsn, autocommit=True) as looker:
        with psycopg.connect(dsn) as slow:
            slow.execute("SELECT durable_notify.publish('t', '1')")
            done.start()
            query = "SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted AND relation = 'durable_notify.outbox'::regclass"
            tries = set()

            def tried_again() -> bool:
                tries.update(looker.execute(query).fetchall())
                return len(tries) > 1

            eventually(tried_again)
            # Publishers that follow it do not wait for as long as the slow one takes.
            looker.execute("SELECT durable_notify.publish('t', '2')")
            assert done.is_alive()
        done.join()
        assert looker.execute(
            "SELECT version_num FROM durable_notify.schema_version"
        ).fetchone() == (after(schema.SCHEMA_VERSION),)


def test_it_gives_up_and_nothing_has_changed(
    dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, tmp_path, *FINE)
    monkeypatch.setattr(schema, "PATIENCE", 0.0)
    with psycopg.connect(dsn) as slow:
        slow.execute("SELECT durable_notify.publish('t', '1')")
        with pytest.raises(sa.exc.OperationalError) as caught:
            schema.migrate(dsn)
        assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)
        assert slow.execute("SELECT to_regproc('durable_notify.mine')").fetchone() == (None,)
