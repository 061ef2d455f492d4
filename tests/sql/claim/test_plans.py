"""What a claim reads: little more than it delivers, however much is kept, beside any writers.

Counted, not timed: rows fetched by indexes, rows read by scanning the outbox, and pages touched by
everything that the claim runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.postgres import Postgres
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions

RETAINED = 200_000
WRITERS = 150  # as many as the server's connections allow for
BATCH = 100
PUBLISH = """
    INSERT INTO durable_notify.outbox (topic, payload)
    SELECT 't', to_jsonb(n) FROM generate_series(1, %s) AS n"""
GO_TO_THE_END = """
    UPDATE durable_notify.position
       SET s0 = pg_current_snapshot(), h0 = durable_notify.last_id('t'),
           s1 = NULL, h1 = NULL, p = 0"""


@dataclass
class Reading:
    """What one claim has read."""

    messages: int
    scanned: int
    fetched: int
    pages: int

    @property
    def modest(self) -> bool:
        """Each message is looked up twice, a late one thrice: in the window, and by its id."""
        return self.scanned == 0 and self.fetched < 500 and self.pages < 2100


def claim(session: Session) -> Reading:
    """Claim a batch and settle it."""
    read = """
        SELECT sum(seq_tup_read), sum(idx_tup_fetch) FROM pg_stat_xact_user_tables
         WHERE relid IN (SELECT relid FROM pg_partition_tree('durable_notify.outbox') WHERE isleaf)"""
    explain = """
        EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
        SELECT * FROM durable_notify.claim('g', '{t}', %s)"""
    with session.transaction():
        ((scanned, fetched),) = session.run(read)
        plan = session.value(explain, BATCH)[0]["Plan"]
        ((scanned_now, fetched_now),) = session.run(read)
    session.run("SELECT durable_notify.settle(l.token, l.ids) FROM durable_notify.lease l")
    return Reading(
        plan["Actual Rows"],
        scanned_now - scanned,
        fetched_now - fetched,
        plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
    )


@pytest.fixture(scope="module")
def big(server: Postgres, template: str) -> Iterator[str]:
    """A database with a large outbox, never analysed, to copy."""
    with server.database(template) as name:
        session = Session(server.dsn(name))
        session.run("ALTER TABLE durable_notify.outbox_1 SET (autovacuum_enabled = off)")
        session.subscribe()
        session.run(PUBLISH, RETAINED)
        session.close()
        yield name


@pytest.fixture(params=["analysed", "not analysed"])
def sessions(request: pytest.FixtureRequest, server: Postgres, big: str) -> Iterator[Sessions]:
    with server.database(big) as name, Sessions(server.dsn(name)) as sessions:
        if request.param == "analysed":
            sessions.session().run("VACUUM ANALYZE durable_notify.outbox")
        yield sessions


@pytest.fixture
def reader(sessions: Sessions) -> Session:
    """A session that has read the catalogs, planned and cached."""
    reader = sessions.session()
    assert claim(reader).messages == BATCH
    return reader


def test_from_the_beginning(reader: Session) -> None:
    for _ in range(7):  # past the fifth execution, where a generic plan might take over
        reading = claim(reader)
        assert reading.messages == BATCH
        assert reading.modest, reading


def test_at_the_end(reader: Session) -> None:
    reader.run(GO_TO_THE_END)
    for count in (0, 1, BATCH, 0, 10 * BATCH):
        if count:
            reader.run(PUBLISH, count)
        reading = claim(reader)
        assert reading.messages == min(count, BATCH)
        assert reading.modest, reading


def test_planned_while_the_outbox_was_small(dsn: str) -> None:
    """Plans are cached: those of a new installation must do for an outbox that has grown."""
    with Sessions(dsn) as sessions:
        reader, slow, other = sessions.take(3)
        reader.run("ALTER TABLE durable_notify.outbox_1 SET (autovacuum_enabled = off)")
        reader.subscribe()
        for _ in range(8):
            reader.run(PUBLISH, 1)
            assert claim(reader).messages == 1
        reader.run(PUBLISH, RETAINED // 4)
        reader.run(GO_TO_THE_END)
        for _ in range(2):
            reader.run(PUBLISH, BATCH)
            assert claim(reader).modest
        slow.begin()
        slow.publish()
        other.publish()
        assert claim(reader).modest
        slow.commit()
        reading = claim(reader)
        assert reading.messages == 1
        assert reading.modest, reading


def test_after_a_replay(reader: Session) -> None:
    reader.run(GO_TO_THE_END)
    assert claim(reader).messages == 0
    assert reader.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == RETAINED
    reading = claim(reader)
    assert reading.messages == BATCH
    assert reading.modest, reading


def test_beside_many_open_writers(sessions: Sessions, reader: Session) -> None:
    reader.run(GO_TO_THE_END)
    writers = sessions.take(WRITERS)
    for writer in writers:
        writer.begin()
        writer.publish()
    for count in (BATCH, BATCH, 0):
        if count:
            reader.run(PUBLISH, count)
        reading = claim(reader)
        assert reading.messages == count
        assert reading.modest, reading
    assert len(reader.position().running) >= WRITERS - 1
    for writer in writers:
        writer.commit()
    reading = claim(reader)
    assert reading.messages == BATCH
    assert reading.modest, reading
    assert len(drain(reader)) == WRITERS - BATCH


def test_after_one_late_and_large_transaction(sessions: Sessions, reader: Session) -> None:
    """One that was running at an earlier claim: found by its xid, a batch at a time."""
    reader.run(GO_TO_THE_END)
    slow = sessions.session()
    slow.begin()
    slow.run(PUBLISH, 50_000)
    reader.run(PUBLISH, 1)
    reading = claim(reader)  # passes over what it cannot see yet, once
    assert reading.messages == 1
    assert slow.draw_xid() in reader.position().running
    assert reading.scanned == 0
    slow.commit()
    for _ in range(3):
        reading = claim(reader)
        assert reading.messages == BATCH
        assert reading.modest, reading


def test_what_is_due_is_no_more_than_was_asked_for(sessions: Sessions) -> None:
    """Planned while next to nothing was deferred, as after a restore: each row was searched again."""
    session = sessions.session()
    session.subscribe("g")
    session.run("ANALYZE durable_notify.deferred")
    for number in range(10):
        session.publish(number)
    batch = session.claim(10)
    session.settle(batch[0].token, retried=batch)
    assert len(session.claim(1)) == 1


def test_what_waited_for_its_key_is_looked_up_once(sessions: Sessions) -> None:
    """Planned for few: as a join, all that can go was searched again for each message that waits."""
    keyed = """
        INSERT INTO durable_notify.outbox (topic, key, payload)
        SELECT 'keyed', 'k' || n, to_jsonb(n) FROM generate_series(1, %s) AS n"""
    session = sessions.session()
    session.run("SELECT durable_notify.subscribe('g', '{keyed}')")
    session.run("ANALYZE durable_notify.deferred")
    claimed = "SELECT count(*) FROM durable_notify.claim('g', '{keyed}', %s)"
    waiting = "SELECT count(*) FROM durable_notify.deferred WHERE reason = 'key'"
    number = 400
    session.run(keyed, number)
    assert session.value(claimed, number) == number
    session.run(keyed, number)
    assert session.value(claimed, number) == 0  # each waits for the one before of its key
    assert session.value(waiting) == number
    session.run("SELECT durable_notify.settle(l.token, l.ids) FROM durable_notify.lease l")
    plan = session.value(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
        "SELECT * FROM durable_notify.claim('g', '{keyed}', %s)",
        number,
    )[0]["Plan"]
    assert plan["Actual Rows"] == number
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50 * number
