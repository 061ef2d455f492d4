"""An archiver that is replaced meanwhile: it overwrites nothing more complete, and finishes nothing."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_notify import AsyncMaintenance, Maintenance
from durable_notify._async import maintenance as source
from durable_notify._sync import maintenance as generated
from durable_notify.archive import ArchivedMessage, NdjsonFiles, ParquetFiles
from tests.support.cli import fails, good, run
from tests.support.retention import advance_watermark, age, outbox_ids, retain
from tests.support.sessions import Session, Sessions
from tests.support.wait import eventually


def archived(folder: Path) -> list[int]:
    """The payloads in an archive's files."""
    lines = [
        line
        for path in sorted(folder.rglob("*.ndjson.gz"))
        for line in gzip.decompress(path.read_bytes()).decode().splitlines()
    ]
    return [json.loads(line)["payload"] for line in lines]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ready(session: Session, many: int = 5) -> None:
    """Have messages that are to be archived, and go."""
    retain(session, max_age="1 hour", archive=True)
    for number in range(many):
        session.publish(number)
    age(session, many)
    advance_watermark(session)


def not_heard_of(session: Session) -> None:
    """30 seconds without a sign of life, made short."""
    session.run("UPDATE durable_notify.maintenance SET beat_at = now() - interval '31 seconds'")


class Interrupted:
    """Files; at one point something happens first, once."""

    def __init__(self, folder: Path, where: str, what: Callable[[], None]) -> None:
        self.files, self.where, self.what = NdjsonFiles(folder), where, what

    def happens(self, where: str) -> None:
        if where == self.where:
            self.where = ""
            self.what()

    def begin(self, topic: str, from_id: int, below: int) -> Any:
        self.happens("begin")
        part = self.files.begin(topic, from_id, below)
        for name in ("write", "finish"):
            setattr(part, name, self._after(name, getattr(part, name)))
        return part

    def _after(self, name: str, method: Callable[..., None]) -> Callable[..., None]:
        def do(*args: Any) -> None:
            self.happens(name)
            method(*args)

        return do


@pytest.mark.parametrize("colour", ["async", "sync"])
@pytest.mark.parametrize("where", ["begin", "write", "finish"])
async def test_taken_over(
    sessions: Sessions, dsn: str, tmp_path: Path, where: str, colour: str
) -> None:
    """It was paused; another archived the stretch, and removed it. Its pages are empty then."""
    one = sessions.session()
    ready(one)
    kept: dict[Path, bytes] = {}

    def take_over() -> None:
        not_heard_of(one)
        report = Maintenance(dsn, every=0, archive=NdjsonFiles(tmp_path)).run_once()
        assert report == {"archive": 5, "remove": 5}
        kept.update({p: what for p, what in contents(tmp_path).items() if p.suffix == ".gz"})

    archive = Interrupted(tmp_path, where, take_over)
    if colour == "async":
        report = await AsyncMaintenance(dsn, every=0, archive=archive).run_once()
    else:
        report = Maintenance(dsn, every=0, archive=archive).run_once()
    assert report == {}  # nothing of it was its own any more
    assert archived(tmp_path) == [0, 1, 2, 3, 4]
    assert contents(tmp_path) == kept


@pytest.mark.parametrize("where", ["begin", "write", "finish"])
def test_what_is_erased_meanwhile_is_not_archived(
    sessions: Sessions, dsn: str, tmp_path: Path, where: str
) -> None:
    """A file in progress is given up, and the next round writes it again."""
    one = sessions.session()
    retain(one, max_age="1 hour", archive=True)
    for number in range(5):
        one.publish(number, key=f"k{number}")
    age(one, 5)
    advance_watermark(one)

    def erase() -> None:
        found = one.value("CALL durable_notify.erase('k2')")
        assert found == {"messages": 1, "archiving": 1}

    archive = Interrupted(tmp_path, where, erase)
    assert Maintenance(dsn, every=0, archive=archive).run_once() == {}
    assert NdjsonFiles(tmp_path).erase("k2") == (where == "finish")
    assert Maintenance(dsn, every=0, archive=archive).run_once() == {"archive": 4, "remove": 4}
    assert archived(tmp_path) == [0, 1, 3, 4]


def test_not_to_look_is_caught(
    sessions: Sessions, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: it does not check after the last page whether the stretch is still its own."""
    one = sessions.session()
    ready(one)
    monkeypatch.setattr(generated.sql, "STILL_ARCHIVING", "SELECT true OR %s = %s OR %s + %s = 0")

    def take_over() -> None:
        not_heard_of(one)
        monkeypatch.undo()
        Maintenance(dsn, every=0, archive=NdjsonFiles(tmp_path)).run_once()
        monkeypatch.setattr(
            generated.sql, "STILL_ARCHIVING", "SELECT true OR %s = %s OR %s + %s = 0"
        )

    Maintenance(dsn, every=0, archive=Interrupted(tmp_path, "begin", take_over)).run_once()
    assert len(list(tmp_path.rglob("*.gz"))) == 2  # it has kept what it saw: nothing
    assert archived(tmp_path) == [0, 1, 2, 3, 4]  # but replaced nothing by it


def test_a_replaced_maintainer_records_nothing(sessions: Sessions) -> None:
    one = sessions.session()
    ready(one)
    assert one.value("SELECT durable_notify.maintain_begin('a', '0')")
    assert one.run("SELECT * FROM durable_notify.plan_archive('t')") == [(1, 6)]
    assert one.value("SELECT durable_notify.still_archiving('a', 't', 1, 6)")
    not_heard_of(one)
    assert one.value("SELECT durable_notify.maintain_begin('b', '0')")
    assert not one.value("SELECT durable_notify.still_archiving('a', 't', 1, 6)")
    assert not one.value("SELECT durable_notify.advance_archive('t', 1, 6, 'a')")
    assert one.value("SELECT durable_notify.still_archiving('b', 't', 1, 6)")
    assert one.value("SELECT durable_notify.advance_archive('t', 1, 6, 'b')")
    assert not one.value("SELECT durable_notify.still_archiving('b', 't', 1, 6)")


def test_a_look_of_others_is_no_takeover(sessions: Sessions) -> None:
    """A session that checks whether a round is due locks the row for a moment."""
    one, other = sessions.take(2)
    assert one.value("SELECT durable_notify.maintain_begin('a', '0')")
    other.begin()
    assert not other.value("SELECT durable_notify.maintain_begin('b', '0')")
    step = one.start("SELECT durable_notify.maintain_step('a', 'orphans')")
    sessions.wait_until_blocked(one, step)
    other.commit()
    assert step.result() == [(0,)]


@pytest.mark.parametrize("colour", ["async", "sync"])
async def test_it_lives_while_files_are_written(
    sessions: Sessions, dsn: str, tmp_path: Path, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload may take minutes, and no other process may begin with the stretch meanwhile."""
    monkeypatch.setattr(source if colour == "async" else generated, "BEAT", 0.01)
    one = sessions.session()
    ready(one)
    fresh = "SELECT beat_at > now() - interval '20 seconds' FROM durable_notify.maintenance"

    def upload(path: Path) -> None:
        assert path.exists()
        not_heard_of(one)
        eventually(lambda: bool(one.value(fresh)))

    files = NdjsonFiles(tmp_path, then=upload)
    if colour == "async":
        report = await AsyncMaintenance(dsn, every=0, archive=files).run_once()
    else:
        report = Maintenance(dsn, every=0, archive=files).run_once()
    assert report == {"archive": 5, "remove": 5}


@pytest.mark.parametrize("kind", [NdjsonFiles, ParquetFiles])
def test_a_file_is_never_replaced(tmp_path: Path, kind: Any) -> None:
    def keep(*payloads: str) -> None:
        part = kind(tmp_path).begin("t", 1, 9)
        part.write([message(n, payload) for n, payload in enumerate(payloads, 1)])
        part.finish()

    keep("1", "2")
    (first,) = (path for path in tmp_path.rglob("*") if path.is_file())
    before = first.read_bytes(), first.stat().st_ino
    keep("1", "2")  # again, as after a crash
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [first]
    keep("1")
    keep("3")  # other messages under these ids: it was restored
    keep("3")
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    stem = f"{1:019d}-{9:019d}"
    assert names == sorted(f"{stem}{n}.{kind.file.suffix}" for n in ("", ".2", ".3"))
    assert (first.read_bytes(), first.stat().st_ino) == before


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_a_file_is_never_replaced(tmp_path, NdjsonFiles)


def message(number: int, payload: str) -> ArchivedMessage:
    from datetime import UTC, datetime

    at = datetime(2026, 1, 1, tzinfo=UTC)
    return ArchivedMessage(number, "t", None, payload, None, None, at, None, None)


KILLED = """
import os, sys
from durable_notify.archive import NdjsonFiles
NdjsonFiles(sys.argv[1]).begin("t", 1, 9)
os._exit(9)
"""


def test_what_killed_processes_left(sessions: Sessions, dsn: str, tmp_path: Path) -> None:
    """It goes with the next round, also where there is nothing to archive; what is written stays."""
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.rglob("*.part")
    under_way = NdjsonFiles(tmp_path).begin("t", 1, 9)
    assert len(list(tmp_path.rglob("*.part"))) == 2
    assert good("maintain", "--archive", str(tmp_path), dsn=dsn) == ""
    assert list(tmp_path.rglob("*.part")) == [under_way.unfinished]
    assert not left.exists()
    under_way.abandon()
    assert list(tmp_path.rglob("*.part")) == []


def test_taken_away_while_it_is_written(tmp_path: Path) -> None:
    """Then nothing is kept, and that is said."""
    part = NdjsonFiles(tmp_path).begin("t", 1, 9)
    part.unfinished.unlink()
    with pytest.raises(FileNotFoundError):
        part.finish()
    part.abandon()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_failed_does_not_end_with_status_0(
    sessions: Sessions, dsn: str, tmp_path: Path
) -> None:
    one = sessions.session()
    ready(one)
    (tmp_path / "t").write_text("a file is in the way")
    fails(run("maintain", "--archive", str(tmp_path), dsn=dsn), 1, "archive failed")
    assert len(outbox_ids(one)) == 5
    (tmp_path / "t").unlink()
    one.run(
        "CREATE OR REPLACE FUNCTION durable_notify._delete_orphans() RETURNS bigint LANGUAGE plpgsql"
        " AS 'BEGIN RETURN 1 / 0; END'"
    )
    done = run("maintain", "--archive", str(tmp_path), "--json", dsn=dsn)
    fails(done, 1, "orphans failed")
    assert json.loads(done.stdout)["archive"] == 5  # the rest was done, and said
    assert outbox_ids(one) == []


def test_an_archive_in_a_database_that_is_away(sessions: Sessions, dsn: str) -> None:
    """What its driver says is the archive's trouble, and not that of the round."""
    import psycopg

    class Elsewhere:
        def begin(self, *_: object) -> Any:
            raise psycopg.OperationalError("the archive is away")

    one = sessions.session()
    ready(one)
    report = Maintenance(dsn, every=0, archive=Elsewhere()).run_once()
    assert report == {"archive failed": "the archive is away"}
