"""Maintenance: what a round does, in which process, and what it logs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable_notify import Maintenance
from durable_notify.archive import NdjsonFiles
from durable_notify.errors import InvalidArgument
from durable_notify.options import ConsumerOptions
from tests.support.api import Api
from tests.support.cli import drain as drain_command
from tests.support.cli import fails, good, on_a_terminal, run
from tests.support.pgbouncer import pgbouncer
from tests.support.retention import age, maintain, outbox_ids, retain
from tests.support.roles import roles
from tests.support.schedules import claim_and_ack
from tests.support.sessions import Sessions
from tests.support.wait import wait_until


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


def test_a_round_of_python(sessions: Sessions, dsn: str) -> None:
    one = sessions.reader()
    retain(one, when_settled=True)
    for number in range(10):
        one.publish(number)
    claim_and_ack(one, 6)
    told: list[tuple[str, str | None, int]] = []
    report = Maintenance(dsn, every=0, on_step=lambda *step: told.append(step)).run_once()
    assert report == {"remove": 6}
    assert outbox_ids(one) == [7, 8, 9, 10]
    assert ("remove", "t", 6) in told
    assert one.value("SELECT report FROM durable_notify.maintenance") == {"remove": 6}
    # Nothing is due, then.
    assert Maintenance(dsn, every=60).run_once() is None


def test_one_at_a_time(sessions: Sessions, dsn: str) -> None:
    """A running process is left alone; a dead one is replaced."""
    one, other = sessions.take(2)
    assert one.value("SELECT durable_notify.maintain_begin('a', '0')")
    assert Maintenance(dsn, every=0).run_once() is None
    assert maintain(other) is None
    assert other.value("SELECT durable_notify.maintain_step('b', 'orphans')") is None
    # A step under way holds it, however long it takes.
    one.begin()
    assert one.value("SELECT durable_notify.maintain_step('a', 'orphans')") == 0
    other.run("SELECT durable_notify.maintain_begin('b', '0')")
    assert other.value("SELECT durable_notify.maintain_begin('b', '0')") is False
    one.commit()
    # No sign of life for so long: another process continues, and the first notices.
    other.run("UPDATE durable_notify.maintenance SET beat_at = now() - interval '31 seconds'")
    assert Maintenance(dsn, every=0).run_once() == {}
    assert one.value("SELECT durable_notify.maintain_step('a', 'orphans')") is None
    assert one.value("SELECT durable_notify.maintain_end('a', '{}')") is False


def test_what_is_left_over(sessions: Sessions) -> None:
    one = sessions.reader()
    one.run(
        "SELECT durable_notify.publish('t', '1', dedup_key => 'x', dedup_window => '1 microsecond')"
    )
    one.run("INSERT INTO durable_notify.lease_deadline VALUES (1, now())")
    one.run("INSERT INTO durable_notify.settlement VALUES (2, 3)")
    one.run(
        "INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, p, lease_tokens) VALUES (77, 1, '3:3:', 0, 0, '{}')"
    )
    one.claim()
    one.run("UPDATE durable_notify.lease SET deadline = 'epoch'")
    one.run("SELECT durable_notify.pause('g')")
    one.run(
        "INSERT INTO durable_notify.processed_message (group_id, message_id, created_at) SELECT id, 1, 'epoch' FROM durable_notify.consumer_group"
    )
    report = one.value("CALL durable_notify.maintain(inbox_age => '1 day', audit_age => '-1 day')")
    assert report == {"leases": 1, "dedup": 1, "inbox": 1, "audit": 1, "orphans": 3}
    assert one.value("SELECT attempt FROM durable_notify.deferred") == 2
    assert one.value("SELECT count(*) FROM durable_notify.position") == 1
    assert maintain(one) == {}


def test_a_watermark_without_its_group(sessions: Sessions) -> None:
    """delete_group() in an older snapshot does not see what the last claim has recorded."""
    one, old, publisher = sessions.take(3)
    one.subscribe()
    one.run("""SELECT durable_notify.configure('g', '{"order_by": "strict"}')""")
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    publisher.begin()
    publisher.publish()
    assert one.claim() == []
    publisher.commit()
    old.run("SELECT durable_notify.delete_group('g'); COMMIT")
    assert one.value("SELECT count(*) FROM durable_notify.watermark") == 1
    assert maintain(one)["orphans"] == 1
    assert one.column("SELECT group_id FROM durable_notify.watermark") == [0]


def test_a_step_that_fails_does_not_stop_the_others(sessions: Sessions, dsn: str) -> None:
    one = sessions.reader()
    retain(one, when_settled=True)
    claim = one.publish()
    assert claim_and_ack(one) == [claim]
    one.run(
        "CREATE OR REPLACE FUNCTION durable_notify._delete_orphans() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN 1 / 0; END'"
    )
    assert Maintenance(dsn, every=0).run_once() == {
        "orphans failed": "division by zero",
        "remove": 1,
    }
    one.publish()
    claim_and_ack(one)
    assert maintain(one) == {"orphans failed": "division by zero", "remove": 1}


def test_consumers_maintain(sessions: Sessions, dsn: str) -> None:
    """Of some consumers one does; a role without the rights leaves it."""
    from durable_notify._sync.concurrency import Event
    from durable_notify._sync.database.queries import Queries
    from durable_notify._sync.maintenance import keep_up as keep_up_sync

    one = sessions.reader()
    options = ConsumerOptions.of("g", ["t"], {})
    store = Queries(dsn, options)
    store.open()
    try:
        stopping = Event()
        looked: list[bool] = []

        def quiet() -> bool:
            looked.append(True)
            if len(looked) == 1:
                return True  # the database sleeps: it is left alone
            if len(looked) == 2:
                assert one.value("SELECT count(*) FROM durable_notify.maintenance") == 0
            if len(looked) == 3:
                assert one.value("SELECT done_at IS NOT NULL FROM durable_notify.maintenance")
                stopping.set()
            return False

        keep_up_sync(store, dsn, stopping, quiet, 0.001)
        assert len(looked) == 3
        assert store.maintenance_due(60) is False
        assert store.maintenance_due(1e-6) is True
    finally:
        store.close()
    with roles(dsn, {"consumer": [("consume", ["t"], "g")]}) as made:
        theirs = Queries(made.login("consumer"), options)
        theirs.open()
        try:
            assert theirs.maintenance_due(60) is None
            keep_up_sync(
                theirs, made.login("consumer"), Event(), lambda: False, 0.001
            )  # ends at once
        finally:
            theirs.close()


@pytest.mark.parametrize("colour", ["async", "sync"])
async def test_a_consumer_does(
    sessions: Sessions, dsn: str, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from durable_notify._async.consumer import lifecycle as source
    from durable_notify._sync.consumer import lifecycle as generated

    module: Any = source if colour == "async" else generated
    kept = module.keep_up
    monkeypatch.setattr(module, "keep_up", lambda *args: kept(*args, 0.05))
    one = sessions.reader()
    retain(one, when_settled=True)
    for number in range(5):
        one.publish(number)
    api = Api(colour)
    consumer = api.consumer(dsn)
    got = []
    async with consumer:
        async for message in consumer:
            got.append(message.payload)
            await message.ack()
            if len(got) == 5:
                break
        await wait_until(lambda: outbox_ids(one) == [])
    assert got == [0, 1, 2, 3, 4]


def archived(folder: Path) -> list[dict[str, Any]]:
    """What is in an archive's files, in their order."""
    files = sorted(path for path in folder.rglob("*.ndjson.gz"))
    return [
        json.loads(line)
        for path in files
        for line in gzip.decompress(path.read_bytes()).decode().split("\n")
        if line
    ]


def test_archive(sessions: Sessions, dsn: str, tmp_path: Path) -> None:
    """Nothing goes before it is archived; what is can be published again, bytes and digits included."""
    one = sessions.session()
    retain(one, "..", max_age="1 hour", archive=True)
    big = '{"n": 12345678901234567890.123456789, "s": "a\u2028b"}'
    one.run("SELECT durable_notify.publish('..', %s::jsonb, 'k', '{\"h\": 1}')", big)
    one.run("SELECT durable_notify.publish('..', NULL, data => 'bytes'::bytea)")
    one.publish("young", "..")
    age(one, 2, "..")
    assert maintain(one) == {}
    assert len(outbox_ids(one, "..")) == 3
    assert [
        (lag[1], lag[2], lag[3])
        for lag in one.run("SELECT * FROM durable_notify.retention_blockers()")
    ] == [(None, 1, 2)]
    folder = tmp_path / "archive"
    uploaded: list[Path] = []
    report = Maintenance(dsn, every=0, archive=NdjsonFiles(folder, then=uploaded.append)).run_once()
    assert report == {"archive": 2, "remove": 2}
    assert outbox_ids(one, "..") == [3]
    (path,) = uploaded
    assert path.parent == folder / "%2E%2E"
    assert path.name == f"{1:019d}-{3:019d}.ndjson.gz"
    lines = gzip.decompress(path.read_bytes()).decode()
    assert "12345678901234567890.123456789" in lines
    first, second = archived(folder)
    assert (first["id"], first["topic"], first["key"], first["headers"]) == (1, "..", "k", {"h": 1})
    assert second["payload"] == {"base64": "Ynl0ZXM="}
    given = lines.replace("12345678901234567890.123456789", "1")
    good("publish", "again", "--envelope", dsn=dsn, given=given)
    rows = one.run(
        "SELECT key, payload ->> 's', data, headers FROM durable_notify.outbox WHERE topic = 'again' ORDER BY id"
    )
    assert (
        rows == [("k", "a\u2028b", None, {"h": 1}), (None, None, b"bytes", None)]
        or rows[1][2] == b"bytes"
    )
    assert list(folder.rglob("*.part")) == []


def test_archive_as_parquet(sessions: Sessions, dsn: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    one = sessions.session()
    retain(one, max_age="1 hour", archive=True)
    ids = [one.publish({"n": n}, key=f"k{n}") for n in range(3)]
    age(one, 3)
    out = good("maintain", "--archive", str(tmp_path), "--format", "parquet", dsn=dsn)
    assert out == "archive: 3\nremove: 3\n"
    (path,) = tmp_path.rglob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [row["id"] for row in rows] == ids
    assert [json.loads(row["payload"]) for row in rows] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert rows[0]["key"] == "k0"
    assert rows[0]["published_at"].tzinfo is not None


class Dying:
    """An archive that dies somewhere, and is asked again."""

    def __init__(self, folder: Path, where: str) -> None:
        self.files, self.where, self.begun = NdjsonFiles(folder), where, []  # type: ignore[var-annotated]

    def begin(self, topic: str, from_id: int, below: int) -> Any:
        self.begun.append((from_id, below))
        part = self.files.begin(topic, from_id, below)

        def die(*_: object) -> None:
            if self.where == "after finish":
                type(part).finish(part)
            raise KeyboardInterrupt

        setattr(part, "write" if self.where == "write" else "finish", die)
        return part


@pytest.mark.parametrize("where", ["write", "finish", "after finish"])
def test_archive_killed(sessions: Sessions, dsn: str, tmp_path: Path, where: str) -> None:
    """The same stretch is archived again, over what there is: no gap, nothing twice."""
    one = sessions.session()
    retain(one, max_age="1 hour", archive=True)
    for number in range(4):
        one.publish(number)
    age(one, 4)
    dying = Dying(tmp_path, where)
    with pytest.raises(KeyboardInterrupt):
        Maintenance(dsn, every=0, archive=dying).run_once()
    assert len(outbox_ids(one)) == 4
    late = one.publish("late")
    age(one, late)
    one.run("UPDATE durable_notify.maintenance SET beat_at = NULL")
    assert Maintenance(dsn, every=0, archive=NdjsonFiles(tmp_path)).run_once() == {
        "archive": 5,
        "remove": 5,
    }
    assert [line["payload"] for line in archived(tmp_path)] == [0, 1, 2, 3, "late"]
    assert dying.begun == [(1, 5)]
    assert outbox_ids(one) == []


def test_archive_and_late_commits(sessions: Sessions, dsn: str, tmp_path: Path) -> None:
    """What may still commit with a lower id is waited for."""
    one, slow = sessions.take(2)
    retain(one, max_age="1 hour", archive=True)
    slow.begin()
    first = slow.publish("slow")
    second = one.publish("fast")
    age(one, second)
    archive = NdjsonFiles(tmp_path)
    assert Maintenance(dsn, every=0, archive=archive).run_once() == {}
    slow.run("UPDATE durable_notify.outbox SET created_at = 'epoch' WHERE id = %s", first)
    slow.commit()
    assert Maintenance(dsn, every=0, archive=archive).run_once() == {"archive": 2, "remove": 2}
    assert [line["payload"] for line in archived(tmp_path)] == ["slow", "fast"]


def test_two_archive_at_once(sessions: Sessions, dsn: str) -> None:
    """Both have the same stretch; the second says nothing that the first did not."""
    one, two = sessions.take(2)
    retain(one, max_age="1 hour", archive=True)
    for number in range(3):
        one.publish(number)
    age(one, 3)
    one.run("SELECT durable_notify._advance_watermark()")
    plan = "SELECT from_id, below FROM durable_notify.plan_archive('t')"
    assert one.run(plan) == two.run(plan) == [(1, 4)]
    assert one.value("SELECT durable_notify.advance_archive('t', 1, 4)")
    assert two.value("SELECT durable_notify.advance_archive('t', 1, 4)") is False
    assert two.run(plan) == [(None, None)]


def test_an_archive_that_fails(sessions: Sessions, dsn: str, tmp_path: Path) -> None:
    one = sessions.session()
    retain(one, max_age="1 hour", archive=True)
    one.publish()
    age(one, 1)
    (tmp_path / "t").write_text("a file is in the way")
    report = Maintenance(dsn, every=0, archive=NdjsonFiles(tmp_path)).run_once()
    assert report is not None
    assert "File exists" in str(report["archive failed"])
    assert outbox_ids(one) == [1]


def test_what_cannot_be(dsn: str) -> None:
    with pytest.raises(InvalidArgument, match="every must be 0 or more seconds"):
        Maintenance(dsn, every=-1)
    with pytest.raises(InvalidArgument, match="archive needs a method begin"):
        Maintenance(dsn, archive=1)  # type: ignore[arg-type]
    fails(run("maintain", "--once", "--every", "5", dsn=dsn), 2, "not both")


def test_the_command_lines(sessions: Sessions, dsn: str) -> None:
    one = sessions.reader()
    fails(run("retention", "t", dsn=dsn), 2, "--age")
    fails(
        run("retention", "t", "--settled", "--on-lag", "lose", dsn=dsn),
        2,
        "age or the topic's size",
    )
    fails(run("retention", "t", "--delete", dsn=dsn), 1, "has no policy")
    fails(run("retention", "t", "--delete", "--age", "1d", dsn=dsn), 2, "--delete takes no other")
    fails(run("retention", "--age", "1d", dsn=dsn), 2, "give TOPIC")
    fails(run("retention", "t", "--age", "1d", "--inbox-age", "1d", dsn=dsn), 2, "no TOPIC")
    listed = good("retention", dsn=dsn)
    assert "30 days" in listed
    assert "records of the inbox are kept for 90 days" in listed
    good("retention", "--inbox-age", "forever", "--audit-age", "30d", dsn=dsn)
    listed = good("retention", dsn=dsn)
    assert "records of the inbox are kept for ever" in listed
    assert "records of the audit are kept for 30 days" in listed
    one.publish()
    age(one, 1)
    done = run("retention", "t", "--age", "7d", "--size", "10GB", dsn=dsn)
    assert 'warning: group "g" lags in topic "t"' in done.stderr
    shown, default = json.loads(good("retention", "--json", dsn=dsn))
    assert (default["pattern"], default["when_settled"], default["min_age"]) == (">", True, 2592000)
    assert (shown["pattern"], shown["max_age"], shown["max_bytes"]) == ("t", 604800, 10**10)
    (lag,) = json.loads(good("retention", "--blockers", "--json", dsn=dsn))
    assert (lag["group"], lag["from_id"]) == ("g", 1)
    good("retention", "t", "--age", "7d", "--on-lag", "lose", dsn=dsn)
    assert "lose: 1" in good("maintain", dsn=dsn)
    assert "max_age 7 days" in good("lost-messages", dsn=dsn)
    (loss,) = json.loads(good("lost-messages", "--group", "g", "--json", dsn=dsn))
    assert (loss["messages"], loss["first_id"], loss["last_id"]) == (1, 1, 1)
    assert json.loads(good("maintain", "--json", dsn=dsn)) == {}
    assert drain_command(dsn) == []
    good("retention", "t", "--forever", dsn=dsn)
    good("retention", "t.u", "--settled", "--min-age", "2d", dsn=dsn)
    ages = {
        one["pattern"]: one["min_age"] for one in json.loads(good("retention", "--json", dsn=dsn))
    }
    assert ages == {"t": None, "t.u": 172800, ">": 2592000}
    for pattern in ages:
        good("retention", pattern, "--delete", dsn=dsn)
    assert json.loads(good("retention", "--json", dsn=dsn)) == []
    assert "for ever" in run("retention", dsn=dsn).stderr


@pytest.mark.server
def test_through_a_pooler(sessions: Sessions, dsn: str) -> None:
    """One at a time there, too, and none for ever: a session changes hands from step to step."""
    one = sessions.reader()
    retain(one, when_settled=True)
    for _ in range(5):
        one.publish()
    claim_and_ack(one)
    with pgbouncer(dsn) as between:
        assert one.value("SELECT durable_notify.maintain_begin('another', '0')")
        assert Maintenance(between, every=0).run_once() is None
        assert one.value("SELECT durable_notify.maintain_end('another', '{}')")
        assert Maintenance(between, every=0).run_once() == {"remove": 5}
        assert Maintenance(between, every=0).run_once() == {}
        with psycopg.connect(between, autocommit=True, prepare_threshold=None) as connection:
            row = connection.execute("CALL durable_notify.maintain()").fetchone()
        assert row == ({},)
    assert one.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


def test_progress_is_shown_on_a_terminal_only(dsn: str) -> None:
    done = run("maintain", dsn=dsn)
    assert (done.returncode, done.stderr) == (0, "there was nothing to do\n")
    status, shown = on_a_terminal(b"", "maintain", dsn=dsn)
    assert status == 0
    assert "\x1b[" in shown  # drawn, and taken away
    assert "there was nothing to do" in shown
