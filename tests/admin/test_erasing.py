"""Erasing what is kept of a key, by the Python half, the command line, and from archives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.archive import ArchivedMessage, NdjsonFiles, ParquetFiles
from tests.support.api import Api, maybe_await
from tests.support.cli import fails, good, run
from tests.support.roles import roles

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def sent(conn: Connection) -> list[int]:
    """Messages of two keys in two topics; a consumer holds one of each key, one is rejected."""
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    ids = [
        dn.Publisher().publish(conn, topic, {"n": number}, key=key)
        for number, (topic, key) in enumerate((t, k) for t in ("t", "u") for k in ("a", "b", "a"))
    ]
    claim = "SELECT token, id FROM durable_notify.claim('g', '{t}', 2)"
    (token, first), _ = conn.execute(claim).fetchall()
    conn.execute("SELECT durable_notify.settle(%s, rejected => ARRAY[%s::int8])", [token, first])
    return ids


def keys(conn: Connection) -> list[str]:
    return [key for (key,) in conn.execute("SELECT key FROM durable_notify.outbox ORDER BY id")]


@pytest.mark.parametrize("autocommit", [True, False])
async def test_by_the_python_half(
    api: Api, dsn: str, conn: Connection, sent: list[int], autocommit: bool
) -> None:
    expected = dn.models.Erasure({"messages": 4, "dead_letters": 1}, {})
    async with api.connect(dsn, autocommit=autocommit) as caller:
        assert await maybe_await(api.Admin().erase(caller, "a", dry_run=True)) == expected
        assert len(keys(conn)) == len(sent)
        assert await maybe_await(api.Admin().erase(caller, "a", why="asked")) == expected
        assert len(keys(conn)) == (2 if autocommit else len(sent))
        await maybe_await(caller.commit())
    assert keys(conn) == ["b", "b"]
    (entry, *_) = dn.Admin().audit(conn)
    assert (entry.action, entry.group, entry.why) == ("erase", "", "asked")


async def test_topics(api: Api, dsn: str, conn: Connection, sent: list[int]) -> None:
    async with api.connect(dsn, autocommit=True) as caller:
        found = await maybe_await(api.Admin().erase(caller, "b", topics=["u", "x.>"]))
        assert found.removed == {"messages": 1}
        found = await maybe_await(api.Admin().erase(caller, "b", topics=[dn.Topic("t", dict)]))
        assert (found.removed, found.counted) == ({"messages": 1}, {"leased": 1})
        for key, topics, said in (("", None, "is a text"), ("a", [], "topics is empty")):
            with pytest.raises(dn.InvalidArgument, match=said):
                await maybe_await(api.Admin().erase(caller, key, topics=topics))
    assert len(sent) - len(keys(conn)) == 2


def test_by_the_command_line(dsn: str, conn: Connection, sent: list[int]) -> None:
    out = good("erase", "--key", "b", "--dry-run", dsn=dsn)
    assert "messages" in out
    assert len(keys(conn)) == len(sent)
    done = run("erase", "--key", "b", "--topic", "t", "--yes", dsn=dsn)
    assert "a consumer holds 1" in done.stderr
    found = json.loads(good("erase", "--key", "a", "--yes", "--json", "--why", "x", dsn=dsn))
    assert found == {"removed": {"messages": 4, "dead_letters": 1}, "counted": {}}
    assert keys(conn) == ["b"]


def test_only_the_owner(dsn: str, conn: Connection) -> None:
    with roles(dsn, {"observer": [("observe", None, None)]}) as made:
        fails(run("erase", "--key", "a", "--yes", dsn=made.login("observer")), 1, "owner")


def archived(ids: Iterable[int], topic: str = "t") -> list[ArchivedMessage]:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        ArchivedMessage(
            number, topic, ("a", 'b"\\', None)[number % 3], None if number == 4 else "1" * 5000,
            b"x" if number == 4 else None, None, at, None, None,
        )
        for number in ids
    ]  # fmt: skip


def write(files: NdjsonFiles | ParquetFiles, topic: str, first: int) -> None:
    chunk = files.begin(topic, first, first + 6)
    chunk.write(archived(range(first, first + 3), topic))
    chunk.write(archived(range(first + 3, first + 6), topic))
    chunk.finish()


@pytest.mark.parametrize("kind", [NdjsonFiles, ParquetFiles])
def test_archives(tmp_path: Path, kind: type[NdjsonFiles | ParquetFiles]) -> None:
    told: list[Path] = []
    files = kind(tmp_path)
    for topic, first in (("t", 0), ("t", 6), ("u", 0)):
        write(files, topic, first)
    before = {path: path.read_bytes() for path in sorted(tmp_path.glob("*/*"))}
    files = kind(tmp_path, then=told.append)
    assert files.erase("a", dry_run=True) == 6
    assert files.erase("other") == 0
    assert {path: path.read_bytes() for path in before} == before
    assert files.erase("a", topics=["t"]) == 4
    assert told == list(before)[:2]
    assert files.erase('b"\\') == 6
    assert sorted(tmp_path.glob("*/*")) == sorted(before), "no file is left over, none is new"
    assert files.erase("a", dry_run=True) == 2
    # What is left is as if the others had never been archived.
    for topic, first in (("t", 0), ("t", 6)):
        left = kind(tmp_path / "again").begin(topic, first, first + 6)
        left.write([m for m in archived(range(first, first + 6), topic) if m.key is None])
        left.finish()
    if kind is NdjsonFiles:
        for path in sorted((tmp_path / "again").glob("*/*")):
            assert path.read_bytes() == (tmp_path / path.parent.name / path.name).read_bytes()


def test_archives_by_the_command_line(dsn: str, conn: Connection, tmp_path: Path) -> None:
    write(NdjsonFiles(tmp_path), "t", 0)
    write(ParquetFiles(tmp_path), "u", 0)
    dn.Publisher().publish(conn, "t", 1, key="a")
    command = ("erase", "--key", "a", "--archive", str(tmp_path), "--json")
    found = json.loads(good(*command, "--dry-run", dsn=dsn))
    assert found["removed"] == {"messages": 1, "archived": 4}
    assert json.loads(good(*command, "--yes", dsn=dsn)) == found
    assert json.loads(good(*command, "--yes", dsn=dsn))["removed"] == {}
