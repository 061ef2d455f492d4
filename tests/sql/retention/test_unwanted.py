"""What is removed, beside those that may still need it: groups that begin, replays, older snapshots."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.injection import OLDER_SNAPSHOTS_PASSED_OVER, plant
from tests.support.retention import (
    advance_watermark,
    lay_out_partitions,
    make_partitions,
    outbox_ids,
    retain,
)
from tests.support.roles import roles
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions, ids

NOTE = "SELECT durable_notify._close_partitions(), durable_notify._mark_unwanted()"
NOTED = "SELECT first_id FROM durable_notify.unwanted_partition"
TIDY = "SELECT durable_notify.maintain_partitions()"
REMOVE = "SELECT durable_notify._truncate_partition()"
REMOVE_ROWS = "SELECT durable_notify._delete_expired('t')"
WANTED = "SELECT u.id FROM durable_notify.subscription s, durable_notify._unread(s.id) u"
AT_THE_GATE = (
    "PERFORM pg_catalog.set_config('lock_timeout', '0', true);"
    " PERFORM pg_catalog.pg_advisory_xact_lock(7);"
)
KEEP_NOTHING = ("INSERT INTO durable_notify.lock_removals DEFAULT VALUES", "SELECT")


def publish(session: Session, number: int, topic: str = "t") -> list[int]:
    return [session.publish(topic=topic) for _ in range(number)]


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    """A partition of ten messages that a group has still to read; the next is begun."""
    owner = sessions.session()
    lay_out_partitions(owner, 10)
    owner.subscribe()
    retain(owner, when_settled=True)
    publish(owner, 10)
    make_partitions(owner)
    owner.draw_xid()
    return owner


def test_what_goes_as_a_whole_is_recorded_for_readers(owner: Session) -> None:
    settle(owner)
    ((last, xid),) = owner.run(
        "SELECT max(id), (SELECT xid FROM durable_notify.outbox WHERE topic = 't' ORDER BY xid DESC LIMIT 1)"
        " FROM durable_notify.outbox WHERE topic = 't'"
    )
    assert owner.run("SELECT * FROM durable_notify.last_removed('t')") == [(None, None)]
    owner.run(NOTE)
    owner.draw_xid()
    assert owner.value(REMOVE) == 10
    assert owner.run("SELECT * FROM durable_notify.last_removed('t')") == [(last, xid)]
    assert owner.run("SELECT * FROM durable_notify.last_removed('other')") == [(None, None)]


def settle(owner: Session) -> None:
    """Have the group settle all, and the partition be past."""
    drain(owner)
    publish(owner, 5, "other")
    advance_watermark(owner)


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("start_at", ["beginning", "now"])
@pytest.mark.parametrize("topics", ["t", "*"])
def test_a_group_that_begins_beside_a_removal(
    sessions: Sessions, planted: bool, start_at: str, topics: str
) -> None:
    """It is subscribed once what was to go has gone: its first message stays."""
    one, remover, bar, new = sessions.readers(4)
    retain(one, when_settled=True)
    publish(one, 3)
    drain(one)
    advance_watermark(one)
    if planted:
        plant(one, "_block_removal", KEEP_NOTHING)
    bar.begin()
    bar.run("LOCK TABLE durable_notify.outbox IN SHARE MODE")  # after its look it waits here
    removing = remover.start(REMOVE_ROWS)
    sessions.wait_until_blocked(remover, removing)
    query = "SELECT durable_notify.subscribe('new', %s, %s)"
    beginning = new.start(query, [topics], start_at)
    if planted:
        beginning.result()
        bar.commit()
        assert removing.result() == [(3,)]  # of what a group is to get by now
        return
    sessions.wait_until_blocked(new, beginning)
    bar.commit()
    assert removing.result() == [(3,)]
    beginning.result()
    sent = publish(one, 2)
    assert one.value(REMOVE_ROWS) == 0
    new.run("SELECT durable_notify.discover('new', '{*}')")
    assert ids(new.claim(group="new")) == sent


def test_a_consumer_that_starts_again_waits_for_no_removal(sessions: Sessions) -> None:
    one, remover = sessions.take(2)
    one.subscribe("g", "t a.*")
    remover.begin()
    assert remover.value("SELECT durable_notify._lock_removal()")
    one.run("SET statement_timeout = '2s'")
    one.subscribe("g", "t a.*")


def test_a_group_that_was_deleted_as_it_is_subscribed(sessions: Sessions) -> None:
    """That all was subscribed is looked at once more under the group's lock."""
    one, deleting, remover = sessions.readers(3)
    deleting.begin()
    deleting.run("SELECT durable_notify.delete_group('g')")
    work = one.start("SELECT durable_notify.subscribe('g', '{t}')")
    sessions.wait_until_blocked(one, work)
    remover.begin()
    assert remover.value("SELECT durable_notify._lock_removal()")
    deleting.commit()
    sessions.wait_until_blocked(one, work)
    remover.commit()
    work.result()


@pytest.mark.parametrize("planted", [False, True])
def test_discovered_beside_a_removal(sessions: Sessions, planted: bool) -> None:
    one, late, remover = sessions.take(3)
    late.subscribe("late", "a.*")
    publish(one, 1, "a.b")
    if planted:
        plant(one, "_block_removal", KEEP_NOTHING)
    remover.begin()
    assert remover.value("SELECT durable_notify._lock_removal()")
    work = late.start("SELECT * FROM durable_notify.discover('late', '{a.*}')")
    if planted:
        assert work.result() == [("a.b",)]
        return
    sessions.wait_until_blocked(late, work)
    remover.commit()
    assert work.result() == [("a.b",)]


@pytest.mark.parametrize("planted", [False, True])
def test_an_older_snapshot(sessions: Sessions, owner: Session, planted: bool) -> None:
    """Such as a backup's: it has positions that want the messages, and the messages."""
    backup = sessions.session()
    backup.begin("repeatable read")
    settle(owner)
    if planted:
        plant(owner, "_older_snapshots", OLDER_SNAPSHOTS_PASSED_OVER)
    owner.run(NOTE)
    assert owner.column(NOTED) == [1]
    assert owner.value(REMOVE) == (10 if planted else 0)
    wanted, there = backup.column(WANTED), outbox_ids(backup)
    assert wanted == ([] if planted else list(range(1, 11)))
    assert there == wanted  # planted: what h0 says is wanted, and not there
    assert backup.value("SELECT h0 FROM durable_notify.position") == 0
    backup.commit()
    if not planted:
        assert owner.value(REMOVE) == 10
        assert owner.column(NOTED) == []


def test_a_snapshot_that_is_exported(sessions: Sessions, owner: Session) -> None:
    """Imported, and from there once more, by transactions that began after the partition was marked unwanted."""
    holder, *others = sessions.take(4)
    holder.begin("repeatable read")
    settle(owner)
    owner.run(NOTE)
    for other in others:
        name = holder.value("SELECT pg_export_snapshot()")
        other.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.run(f"SET TRANSACTION SNAPSHOT '{name}'")
        holder.commit()
        holder = other
        assert owner.value(REMOVE) == 0
        assert len(outbox_ids(holder)) == 10
    holder.commit()
    assert owner.value(REMOVE) == 10


def test_a_snapshot_of_another_role(sessions: Sessions, owner: Session) -> None:
    """An owner who is no superuser sees little of it: that it is there."""
    with roles(sessions.dsn, {"keeper": []}) as made:
        keeper = sessions.session()
        name = made.names["keeper"]
        keeper.run(f"GRANT USAGE ON SCHEMA durable_notify TO {name}")
        keeper.run(f"GRANT EXECUTE ON FUNCTION durable_notify._older_snapshots TO {name}")
        keeper.run(f"SET ROLE {name}")
        backup = sessions.session()
        backup.begin("repeatable read")
        settle(owner)
        owner.run(NOTE)
        since = owner.value("SELECT since::text FROM durable_notify.unwanted_partition")
        found = "SELECT pid FROM durable_notify._older_snapshots(%s::xid8)"
        assert keeper.column(found, since) == [backup.pid]
        backup.commit()
        assert keeper.column(found, since) == []
        keeper.run("RESET ROLE")


def test_a_snapshot_of_a_transaction_that_analyzes(sessions: Sessions, owner: Session) -> None:
    """Unlike VACUUM, that may be amid a transaction, which reads on after it."""
    report, gate = sessions.take(2)
    owner.run("""
        CREATE FUNCTION waits(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN n; END';
        CREATE TABLE temporary AS SELECT 1 AS n;
        CREATE INDEX ON temporary (waits(n))""")
    report.begin("repeatable read")
    settle(owner)
    owner.run(NOTE)
    gate.run("SELECT pg_advisory_lock(7)")
    work = report.start("ANALYZE temporary")
    sessions.wait_until_blocked(report, work)
    assert owner.value(REMOVE) == 0
    gate.run("SELECT pg_advisory_unlock(7)")
    work.result()
    assert report.column(WANTED) == outbox_ids(report) == list(range(1, 11))
    report.commit()
    assert owner.value(REMOVE) == 10


def test_a_statement_under_way(sessions: Sessions, owner: Session) -> None:
    """A READ COMMITTED transaction has no snapshot between statements, and one while one runs."""
    reader, bar = sessions.take(2)
    bar.run("SELECT pg_advisory_lock(7)")
    query = "SELECT pg_advisory_xact_lock_shared(7), durable_notify.latest('t')"
    work = reader.start(f"WITH w AS MATERIALIZED ({query}) SELECT count(*) FROM w")
    sessions.wait_until_blocked(reader, work)
    settle(owner)
    owner.run(NOTE)
    assert owner.value(REMOVE) == 0
    bar.run("SELECT pg_advisory_unlock(7)")
    work.result()
    assert owner.value(REMOVE) == 10


def test_nothing_is_deleted_while_a_partition_waits_for_snapshots(
    sessions: Sessions, owner: Session
) -> None:
    """It would take its space for as long; once they are gone, and a reader has the lock, it is deleted."""
    backup, reader = sessions.take(2)
    backup.begin("repeatable read")
    settle(owner)
    owner.run(NOTE)
    assert owner.value(REMOVE_ROWS) == 0
    backup.commit()
    reader.begin()
    reader.connection.execute("SELECT count(*) FROM durable_notify.outbox_1")
    reader.connection.execute("SELECT 1")  # no snapshot, and the partition's lock
    assert owner.value(REMOVE) == 0
    assert owner.value(REMOVE_ROWS) == 10


@pytest.mark.parametrize("planted", [False, True])
def test_redelivered_since_it_was_found_unwanted(
    sessions: Sessions, owner: Session, planted: bool
) -> None:
    """A snapshot of that time needs it: what was found before does not count."""
    backup = sessions.session()
    settle(owner)
    owner.run(NOTE)
    assert owner.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == 10
    backup.begin("repeatable read")
    assert owner.value(REMOVE) == 0
    drain(owner)
    if planted:
        plant(owner, "_mark_unwanted", ("IF FOUND THEN", "IF false THEN"))
    owner.run(NOTE)
    assert owner.value(REMOVE) == (10 if planted else 0)
    assert len(outbox_ids(backup)) == (0 if planted else 10)
    backup.commit()
    if not planted:
        assert owner.value(REMOVE) == 10


def test_maintenance_ends_although_messages_are_redelivered_all_the_time(owner: Session) -> None:
    """What is marked once more is no progress, and not truncated in the same transaction."""
    settle(owner)
    assert owner.value(TIDY) == 1  # closed
    assert owner.value(TIDY) == 1
    for _ in range(2):
        assert owner.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == 10
        drain(owner)
        assert owner.value(TIDY) == 0
        assert owner.column(NOTED) == [1]
    assert len(outbox_ids(owner)) == 10
    assert owner.value(TIDY) == 10


@pytest.mark.parametrize(
    "again",
    [
        "SELECT redelivered FROM durable_notify.seek('g', 't', 0)",
        "SELECT durable_notify.seek('g', 't', 0)",
        "SELECT durable_notify.start_replay('g', 't')",
        "SELECT durable_notify.redrive('g', everything => true)",
        "SELECT durable_notify.subscribe('new', '{t}')",
        "SELECT durable_notify.subscribe('g', '{new.*}')",
        "SELECT durable_notify.set_retention('t', '1 year')",
        "SELECT durable_notify.delete_retention('t')",
    ],
)
def test_nothing_goes_while_messages_are_redelivered(
    sessions: Sessions, owner: Session, again: str
) -> None:
    """Nor by what was found before; and no wait for another session that does the same."""
    asking, other = sessions.take(2)
    (message, *rest) = owner.claim()
    owner.settle(message.token, rest, rejected=[message])
    settle(owner)
    owner.run(NOTE)
    asking.begin()
    asking.run(again)
    assert owner.value(REMOVE) == 0
    assert owner.value(REMOVE_ROWS) == 0
    other.run("SET statement_timeout = '2s'")
    other.subscribe("another")
    asking.commit()
    assert owner.value(REMOVE) == 0
    owner.run(NOTE)
    assert owner.column(NOTED) == []


def test_redelivered_as_the_lock_is_taken(sessions: Sessions, owner: Session) -> None:
    """What has committed just before it is seen, and the partition stays."""
    gate, asking, remover = sessions.take(3)
    settle(owner)
    owner.run(NOTE)
    plant(owner, "_lock_removal", ("    LOCK TABLE", f"{AT_THE_GATE} LOCK TABLE"))
    gate.run("SELECT pg_advisory_lock(7)")
    asking.begin()
    assert asking.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == 10
    removing = remover.start(REMOVE)
    sessions.wait_until_blocked(remover, removing)
    asking.commit()
    gate.run("SELECT pg_advisory_unlock(7)")
    assert removing.result() == [(0,)]
    assert ids(owner.claim()) == list(range(1, 11))


def test_replays_continue_while_the_messages_of_a_partition_are_counted(
    sessions: Sessions, owner: Session
) -> None:
    """It may be large; and it stays, if one of them needs it."""
    gate, remover = sessions.take(2)
    settle(owner)
    owner.run(NOTE)
    plant(owner, "_truncate_partition", ("INTO messages;", f"INTO messages; {AT_THE_GATE}"))
    gate.run("SELECT pg_advisory_lock(7)")
    removing = remover.start(REMOVE)
    sessions.wait_until_blocked(remover, removing)
    owner.run("SET statement_timeout = '2s'")
    assert owner.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == 10
    gate.run("SELECT pg_advisory_unlock(7)")
    assert removing.result() == [(0,)]
    assert ids(owner.claim()) == list(range(1, 11))


def test_replication_brings_a_row_as_a_partition_is_emptied(
    sessions: Sessions, owner: Session
) -> None:
    """The truncation waits for that row's transaction, and leaves it."""
    worker, remover = sessions.take(2)
    settle(owner)
    owner.run(NOTE)
    lock = "EXECUTE pg_catalog.format('LOCK TABLE"
    wait = "PERFORM pg_catalog.set_config('lock_timeout', '0', true);"
    plant(owner, "_truncate_partition", (lock, f"{wait} {lock}"))
    worker.run("SET session_replication_role = replica")
    worker.begin()
    worker.run(
        "INSERT INTO durable_notify.outbox (xid, topic, payload, id) OVERRIDING SYSTEM VALUE"
        " VALUES ('3', 'carried', '0', 5)"
    )
    removing = remover.start(REMOVE)
    sessions.wait_until_blocked(remover, removing)
    worker.commit()
    with pytest.raises(psycopg.Error) as refused:
        removing.result()
    assert refused.value.sqlstate == "DN010"
    assert outbox_ids(owner, "carried") == [5]


def test_settings_can_be_changed_while_partitions_are_examined(
    sessions: Sessions, owner: Session
) -> None:
    """Also where some are closed by the same round."""
    gate, tidying = sessions.take(2)
    settle(owner)
    look = "DELETE FROM durable_notify.lock_removals;"
    plant(owner, "_mark_unwanted", (look, f"{AT_THE_GATE} {look}"))
    gate.run("SELECT pg_advisory_lock(7)")
    work = tidying.do(lambda: [tidying.value(TIDY), tidying.value(TIDY)])
    sessions.wait_until_blocked(tidying, work)
    owner.run("SET statement_timeout = '2s'")
    owner.run("SELECT durable_notify.set_notify_policy('t', 'always')")
    gate.run("SELECT pg_advisory_unlock(7)")
    assert work.result() == [1, 1]
    assert owner.column(NOTED) == [1]


def test_replays_continue_while_a_partition_is_copied(sessions: Sessions, owner: Session) -> None:
    """And while one is created, and checked: the outbox stays as it is."""
    copying = sessions.session()
    for work in (
        "SELECT durable_notify._copy_partition('durable_notify.outbox_1', 1, 11) FROM durable_notify._lock_partitions()",
        "SELECT durable_notify.create_partitions()",
        "SELECT durable_notify._rewrite_partition()",
        "SELECT durable_notify._mark_unwanted()",
    ):
        copying.begin()
        copying.run(work)
        owner.run("SET statement_timeout = '2s'")
        owner.run("SELECT durable_notify.seek('g', 't', 0)")
        owner.run("SELECT durable_notify.start_replay('g', 't', dry_run => true)")
        assert owner.value(REMOVE_ROWS) == 0  # the next round removes it
        copying.rollback()
