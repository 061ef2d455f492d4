"""Run migrations under live load, and report the faults of one: it rewrites the outbox, or locks it long.

What it does is looked at from within its transaction, after each statement: which locks it has, what it
has read, which files its tables have. So it does not matter how fast the machine is.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import durable_notify as dn
from durable_notify import schema
from tests.support.wait import eventually

#: The rows of the outbox before it.
ROWS = 20_000
#: So few rows may be read and written while the outbox is locked: the catalog's work is not counted.
FEW = 1000
#: Modes that publishers wait for.
STRONG = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}

LOG = """
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'durable_notify' AND c.relkind IN ('r', 'p')
       AND (c.relname = 'outbox' OR EXISTS (
            SELECT FROM pg_partition_tree('durable_notify.outbox'::regclass) t WHERE t.relid = c.oid))"""
LOOK = f"""
    WITH log AS ({LOG})
    SELECT ARRAY(SELECT DISTINCT l.mode FROM pg_locks l
                  WHERE l.pid = pg_backend_pid() AND l.granted AND l.relation IN (SELECT oid FROM log)),
           current_setting('lock_timeout'),
           (SELECT sum(pg_stat_get_xact_blocks_fetched(oid)) FROM log)::bigint,
           (SELECT sum(s.seq_tup_read + COALESCE(s.idx_tup_fetch, 0) + s.n_tup_ins + s.n_tup_upd + s.n_tup_del)
              FROM pg_stat_xact_user_tables s)::bigint,
           (SELECT jsonb_object_agg(oid::regclass, pg_relation_filenode(oid)) FROM log)"""


@dataclass
class Study:
    """What a run of migrations was seen to do, and what is wrong with that."""

    bound: float = 2.0
    complaints: list[str] = field(default_factory=list)
    statements: int = 0
    pages: int = 0
    _files: dict[str, int] = field(default_factory=dict)
    _before: tuple[int, int] = (0, 0)
    _locked_at: float | None = None
    _since: tuple[int, int] = (0, 0)

    def begin(self, connection: sa.Connection) -> None:
        """Note how it was."""
        self._files = self._look(connection)[4]
        query = f"SELECT sum(pg_relation_size(oid)) / 8192 FROM ({LOG}) AS log"
        self.pages = int(connection.connection.cursor().execute(query).fetchone()[0])  # type: ignore[attr-defined]

    def after(self, connection: sa.Connection, statement: str) -> None:
        """Look at what it has done by now."""
        self.statements += 1
        modes, timeout, blocks, rows, files = self._look(connection)
        strong = sorted(STRONG & set(modes))
        what = " ".join(statement.split())[:80]
        if strong and self._locked_at is None:
            self._locked_at = time.monotonic()
            self._since = self._before  # what this very statement did counts, too
            if timeout == "0":
                self.complaints.append(
                    f"locks the outbox ({strong[-1]}) without a lock_timeout: {what}"
                )
        for table, file in self._files.items():
            if files.get(table, file) != file:
                self.complaints.append(f"rewrites {table}: {what}")
                self._files[table] = files[table]
        if strong and blocks - self._since[0] > self.pages / 2:
            self.complaints.append(f"reads the outbox while it is locked:  {what}")
            self._since = (blocks, self._since[1])
        if strong and rows - self._since[1] > FEW:
            self.complaints.append(
                f"works on {rows - self._since[1]} rows while the outbox is locked: {what}"
            )
            self._since = (self._since[0], rows)
        self._before = (blocks, rows)

    def end(self) -> None:
        """It has committed."""
        if self._locked_at is not None and time.monotonic() - self._locked_at > self.bound:
            self.complaints.append("holds the outbox's lock for long")
        self._locked_at = None

    def _look(self, connection: sa.Connection) -> tuple[list[str], str, int, int, dict[str, int]]:
        cursor: Any = connection.connection.cursor()
        row = cursor.execute(LOOK).fetchone()
        return (row[0], row[1], row[2] or 0, row[3] or 0, row[4])


@dataclass
class Load:
    """Publishers and a consumer that run meanwhile."""

    dsn: str
    published: set[int] = field(default_factory=set)
    consumed: set[int] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def publish(self) -> None:
        try:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                while not self.ending.is_set():
                    self.published.add(dn.Publisher().publish(conn, "live", {"n": 1}))
        except BaseException as error:
            self.errors.append(error)

    def consume(self, consumer: dn.Consumer) -> None:
        try:
            consumer.run(lambda message: self.consumed.add(message.id))
        except BaseException as error:
            self.errors.append(error)


@contextmanager
def load(dsn: str) -> Iterator[Load]:
    """Publish and consume meanwhile; at the end all has arrived, without an error."""
    running = Load(dsn)
    consumer = dn.Consumer(dsn, group="live", topics=["live"])
    publishers = [threading.Thread(target=running.publish) for _ in range(2)]
    consuming = threading.Thread(target=running.consume, args=[consumer])
    for thread in (*publishers, consuming):
        thread.start()
    try:
        wait_for(lambda: len(running.consumed) > 20, running)
        yield running
        count = len(running.published)
        wait_for(lambda: len(running.published) > count + 20, running)
    finally:
        running.ending.set()
        for thread in publishers:
            thread.join()
        try:
            if not running.errors:
                wait_for(lambda: running.consumed == running.published, running)
        finally:
            consumer.stop()
            consuming.join()
            consumer.close()
    assert running.errors == []
    with psycopg.connect(dsn) as conn:  # all was settled
        query = "SELECT count(*) FROM durable_notify.leases() WHERE group_name = 'live'"
        assert conn.execute(query).fetchone() == (0,)


def wait_for(what: Any, running: Load) -> None:
    def it_is_so() -> bool:
        assert running.errors == []
        return bool(what())

    eventually(it_is_so, 30)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, study: Study) -> Iterator[None]:
    """Have the migrations that run in here looked at."""
    make = schema._engine

    def engine(dsn: str) -> sa.Engine:
        made = make(dsn)
        begun: set[int] = set()

        def after(connection: sa.Connection, _c: Any, statement: str, *_: Any) -> None:
            if id(connection) not in begun:
                begun.add(id(connection))
                study.begin(connection)
            study.after(connection, statement)

        sa.event.listen(made, "after_cursor_execute", after)
        sa.event.listen(made, "commit", lambda _: study.end())
        return made

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_engine", engine)
        yield


def fill(dsn: str) -> None:
    """Write messages that a rewrite, or a look at all of them, would not get past quickly."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO durable_notify.outbox (topic, payload)"
            f" SELECT 'old', to_jsonb(repeat('x', 100)) FROM generate_series(1, {ROWS})"
        )


def study(dsn: str, monkeypatch: pytest.MonkeyPatch, bound: float = 2.0) -> Study:
    """Bring a database that is at some revision to the newest, under load."""
    found = Study(bound)
    fill(dsn)
    with psycopg.connect(dsn) as conn:
        ((at,),) = conn.execute("SELECT version_num FROM durable_notify.schema_version").fetchall()
    # Those that run are of the release before: they do not know the new one.
    monkeypatch.setattr(schema, "SCHEMA_VERSION", at)
    with load(dsn), watched(monkeypatch, found):
        schema.migrate(dsn)
    return found


def after(revision: str) -> str:
    """The number of the revision after one."""
    return f"{int(revision) + 1:04}"


def plant(monkeypatch: pytest.MonkeyPatch, folder: Path, *statements: str) -> None:
    """Put a revision of these statements after the newest."""
    newest = schema.steps("base", "head")[-1].revision
    revision = after(newest)
    shutil.copytree(schema.migrations_path(), folder / "migrations")
    text = f"""
from alembic import op
revision = {revision!r}
down_revision = {newest!r}
def upgrade():
    for statement in {list(statements)!r}:
        op.execute(statement)
def downgrade():
    pass
"""
    (folder / "migrations" / "versions" / f"{revision}_planted.py").write_text(text)
    monkeypatch.setattr(schema, "migrations_path", lambda: folder / "migrations")
