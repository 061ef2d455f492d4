"""Publishers beside the creation and closing of partitions, and what administrators add to the outbox."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tests.sql.partitions.test_partitions import (
    ALL_MAY_GO,
    IN_DEFAULT,
    PARTITIONS,
    PUBLISH,
    WIDTH,
    half_empty_partition,
    tidy,
)
from tests.support.injection import plant
from tests.support.retention import (
    advance_watermark,
    lay_out_partitions,
    make_partitions,
    outbox_ids,
    retain,
)
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions

BESIDE_PUBLISHERS = ("LOCK TABLE ONLY durable_notify.outbox IN SHARE MODE;", "")
FORCED = """
    INSERT INTO durable_notify.outbox (id, topic, payload) OVERRIDING SYSTEM VALUE VALUES (%s, 't', '1')"""


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    owner = sessions.session()
    lay_out_partitions(owner, WIDTH)
    owner.subscribe()
    return owner


def past(session: Session, number: int) -> None:
    """Have a number of others publish, and create partitions for their messages."""
    for _ in range(number // 50):
        session.run(PUBLISH, "t", 50)
        make_partitions(session)


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_transaction_that_publishes_across_partitions(
    sessions: Sessions, owner: Session, isolation: str, planted: bool
) -> None:
    """It knows the partitions that there were as it began."""
    slow, other = sessions.take(2)
    if planted:
        plant(owner, "_create_partition", BESIDE_PUBLISHERS)
    slow.begin(isolation)
    slow.publish()
    past(other, 5 * WIDTH)
    if planted:
        with pytest.raises(errors.CheckViolation, match="outbox_default"):
            slow.publish()
            slow.publish()
        return
    slow.publish()
    past(other, WIDTH)
    slow.publish()
    slow.commit()
    past(other, 2 * WIDTH)
    assert owner.run(PARTITIONS)[-1][1] > owner.publish()
    assert sorted(drain(owner)) == outbox_ids(owner)


@pytest.mark.parametrize("planted", [False, True])
def test_a_statement_that_publishes_across_partitions(
    sessions: Sessions, owner: Session, planted: bool
) -> None:
    """Whatever it would do between its rows: it knows the partitions that there were as it began."""
    slow, other, bar = sessions.take(3)
    if planted:
        plant(owner, "_create_partition", BESIDE_PUBLISHERS)
    bar.run("SELECT pg_advisory_lock(7)")
    work = slow.start("""
        INSERT INTO durable_notify.outbox (topic, payload)
        SELECT 't', to_jsonb(n) FROM generate_series(1, 300) AS n
         WHERE n <> 50 OR pg_advisory_xact_lock_shared(7)::text = ''""")
    sessions.wait_until_blocked(slow, work)
    past(other, 3 * WIDTH)
    bar.run("SELECT pg_advisory_unlock(7)")
    if planted:
        with pytest.raises(errors.CheckViolation, match="outbox_default"):
            work.result()
        return
    work.result()
    assert len(drain(owner)) == len(outbox_ids(owner)) == 600


def test_many_publish_while_partitions_are_created(sessions: Sessions, owner: Session) -> None:
    """Transactions that overlap all the time, none of them long: nothing is refused, and partitions are created."""
    publishers = sessions.take(4)
    for number in range(200):
        publisher = publishers[number % 4]
        if number >= 4:
            publisher.commit()
        publisher.begin()
        publisher.run(PUBLISH, "t", 5)
        if number % 10 == 0:
            for session in publishers:
                session.rollback() if number == 190 else None
            owner.value("SELECT durable_notify.create_partitions()")
    for session in publishers:
        session.connection.rollback()
    assert make_partitions(owner) > 0
    assert sorted(drain(owner)) == outbox_ids(owner)


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("role", ["origin", "local"])
def test_an_id_of_a_closed_partition_is_refused(
    sessions: Sessions, owner: Session, role: str, planted: bool
) -> None:
    """Forced, or drawn long ago: no group reads new messages there."""
    late = sessions.session()
    drawn = late.value("SELECT nextval('durable_notify.outbox_id_seq')")
    past(owner, 3 * WIDTH)
    drain(owner)
    advance_watermark(owner)
    if planted:
        plant(owner, "_close_partition", ("EXECUTE pg_catalog", "RETURN; EXECUTE pg_catalog"))
    assert owner.value("SELECT durable_notify._close_partitions()") > drawn
    owner.publish()
    drain(owner)
    late.run(f"SET session_replication_role = {role}")
    if planted:
        late.run(FORCED, drawn)
        owner.publish()
        assert drawn not in drain(owner)
        return
    for _ in range(2):
        with pytest.raises(errors.InvalidParameterValue, match="drawn too long ago"):
            late.run(FORCED, drawn)
    owner.publish()
    assert len(drain(owner)) == 1


def test_replication_brings_an_id_of_a_closed_partition(sessions: Sessions, owner: Session) -> None:
    """If its xid is the replication's own: no group reads before reanchor(), and then it comes."""
    late = sessions.session()
    drawn = late.value("SELECT nextval('durable_notify.outbox_id_seq')")
    past(owner, 3 * WIDTH)
    drain(owner)
    advance_watermark(owner)
    assert owner.value("SELECT durable_notify._close_partitions()") > drawn
    late.run("SET session_replication_role = replica")
    late.run(FORCED, drawn)
    with pytest.raises(psycopg.Error, match="another cluster"):
        owner.claim()
    owner.run("SELECT durable_notify.reanchor()")
    assert drawn in drain(owner)


def test_ids_that_go_back_to_a_closed_partition(sessions: Sessions, owner: Session) -> None:
    """Replication copies neither the sequence nor removed rows: ids follow the highest that came."""
    past(owner, 3 * WIDTH)
    drain(owner)
    advance_watermark(owner)
    assert owner.value("SELECT durable_notify._close_partitions()") > 5
    owner.run("DELETE FROM durable_notify.outbox WHERE id > 3")
    owner.run("ALTER SEQUENCE durable_notify.outbox_id_seq RESTART 4")
    owner.run("UPDATE durable_notify.cluster_identity SET xid = '0'")
    owner.run("SELECT durable_notify.reanchor()")
    assert owner.publish() == 4
    assert drain(owner) == [4]


def test_an_open_writer_keeps_a_partition_open(sessions: Sessions, owner: Session) -> None:
    """With an id that the watermark does not cover; it is delivered, as the partition closes after it."""
    late = sessions.session()
    past(owner, 3 * WIDTH)
    drain(owner)
    advance_watermark(owner)
    late.begin()
    late.run(FORCED.replace("'1'", "'2'"), 10**6 + 5)  # one that was not drawn, in the default
    late.run("DELETE FROM durable_notify.outbox WHERE id = 7")
    late.run(FORCED, 7)
    assert owner.value("SELECT durable_notify._close_partitions()") == 0
    late.commit()
    assert owner.value("SELECT durable_notify._close_partitions()") > 7
    assert 7 in drain(owner)


@pytest.mark.parametrize("planted", [False, True])
def test_a_forced_id_amid_a_partition_is_delivered(
    sessions: Sessions, owner: Session, planted: bool
) -> None:
    """And is not removed unseen if it appears between the look at what may go and the removal."""
    late, remover, bar = sessions.take(3)
    retain(owner, when_settled=True)
    drawn = late.value("SELECT nextval('durable_notify.outbox_id_seq')")
    owner.run(PUBLISH, "t", 20)
    drain(owner)
    advance_watermark(owner)
    bar.run("SELECT pg_advisory_lock(7)")
    look = "SELECT p.first_id, p.next_id INTO part"
    plant(owner, "_delete_expired", (look, f"PERFORM pg_catalog.pg_advisory_xact_lock(7); {look}"))
    if planted:
        plant(owner, "_delete_expired", ("AND pg_catalog.pg_visible_in_snapshot(x.xid, seen)", ""))
    work = remover.start("SELECT durable_notify._delete_expired('t')")
    sessions.wait_until_blocked(remover, work)
    late.run(FORCED, drawn)
    bar.run("SELECT pg_advisory_unlock(7)")
    assert work.result() == [(21 if planted else 20,)]
    assert drain(owner) == ([] if planted else [drawn])


@pytest.mark.parametrize(
    ("function", "how", "after_the_look"),
    [
        ("_delete_expired", {"when_settled": True}, "SELECT p.first_id, p.next_id INTO part"),
        ("_compact", {"compact": True}, "WITH batch AS MATERIALIZED"),
    ],
)
def test_replication_brings_a_message_as_others_are_removed(
    sessions: Sessions, owner: Session, function: str, how: dict[str, object], after_the_look: str
) -> None:
    """Its xid is another cluster's, and may look as if it had long been there."""
    worker, remover, bar = sessions.take(3)
    retain(owner, **how)
    drawn = worker.value("SELECT nextval('durable_notify.outbox_id_seq')")
    ids = [owner.publish(key="a") for _ in range(2)]
    drain(owner)
    advance_watermark(owner)
    bar.run("SELECT pg_advisory_lock(7)")
    wait = (
        "PERFORM pg_catalog.set_config('lock_timeout', '0', true);"
        " PERFORM pg_catalog.pg_advisory_xact_lock(7);"
    )
    plant(owner, function, (after_the_look, f"{wait} {after_the_look}"))
    work = remover.start(f"SELECT durable_notify.{function}('t')")
    sessions.wait_until_blocked(remover, work)
    worker.run("SET session_replication_role = replica")
    worker.run(
        "INSERT INTO durable_notify.outbox (xid, topic, key, payload, id) OVERRIDING SYSTEM VALUE"
        " VALUES ('3', 't', 'a', '0', %s)",
        drawn,
    )
    bar.run("SELECT pg_advisory_unlock(7)")
    with pytest.raises(psycopg.Error, match="another cluster"):
        work.result()
    assert outbox_ids(owner) == [drawn, *ids]


@pytest.mark.parametrize("planted", [False, True])
def test_an_insert_into_a_partition_is_publishing(
    sessions: Sessions, owner: Session, planted: bool
) -> None:
    """It has no lock on the outbox itself."""
    if owner.connection.info.server_version < 170000:
        pytest.skip("a partition draws no ids of its own before PostgreSQL 17")
    direct = sessions.session()
    if planted:
        plant(owner, "_open_writers", ("i.inhparent = ANY (tables)", "false"))
    direct.begin()
    direct.run("INSERT INTO durable_notify.outbox_1 (topic, payload) VALUES ('t', '1')")
    mine = direct.draw_xid()
    assert owner.value("SELECT durable_notify._open_publishers()::text[]") == (
        [] if planted else [str(mine)]
    )
    assert owner.value("SELECT durable_notify._advance_watermark()") == (1 if planted else 0)
    direct.commit()
    assert owner.value("SELECT durable_notify._advance_watermark()") == 1
    assert drain(owner) == [1]


def test_a_constraint_that_an_administrator_adds(owner: Session) -> None:
    """Partitions that are created after it have it, too."""
    owner.run("ALTER TABLE durable_notify.outbox ADD CONSTRAINT no_x CHECK (topic <> 'x')")
    past(owner, 3 * WIDTH)
    assert owner.value(IN_DEFAULT) == 0
    with pytest.raises(errors.CheckViolation, match="no_x"):
        owner.publish(topic="x")
    owner.run(ALL_MAY_GO)
    assert tidy(owner) == [WIDTH] * 3 + [1] * 3


def test_a_constraint_and_a_rewritten_partition(sessions: Sessions) -> None:
    owner = sessions.session()
    half_empty_partition(owner)
    owner.run("ALTER TABLE durable_notify.outbox ADD CONSTRAINT no_x CHECK (topic <> 'x')")
    owner.run("CREATE TABLE named (key text PRIMARY KEY)")
    owner.run("ALTER TABLE durable_notify.outbox ADD FOREIGN KEY (key) REFERENCES named")
    assert [owner.value("SELECT durable_notify._rewrite_partition()") for _ in range(3)] == [
        1,
        1,
        0,
    ]
    assert len(outbox_ids(owner)) == 410
    barred = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'refuse_late_insert' AND tgrelid = 'durable_notify.outbox_1'::regclass"
    assert owner.column(barred) == ["A"]


def test_a_table_that_refers_to_the_outbox(owner: Session) -> None:
    """PostgreSQL refuses TRUNCATE then: messages are deleted row by row, and empty partitions dropped as usual."""
    owner.run("""
        CREATE TABLE noted (topic text COLLATE "C", id bigint,
                            FOREIGN KEY (topic, id) REFERENCES durable_notify.outbox ON DELETE CASCADE)""")
    past(owner, 3 * WIDTH)
    owner.run("INSERT INTO noted VALUES ('t', 5)")
    retain(owner, when_settled=True)
    drain(owner)
    assert tidy(owner) == []
    while owner.value("SELECT durable_notify._delete_expired('t')"):
        pass
    assert outbox_ids(owner) == []
    assert owner.run("SELECT FROM noted") == []
    assert tidy(owner) == [1] * 3
    past(owner, 3 * WIDTH)
    assert sorted(drain(owner)) == outbox_ids(owner)


@pytest.mark.parametrize("when", ["before", "while it is copied"])
def test_a_table_that_refers_to_the_outbox_and_a_partition_to_rewrite(
    sessions: Sessions, when: str
) -> None:
    owner = sessions.session()
    half_empty_partition(owner)
    step = "SELECT durable_notify._rewrite_partition()"
    copied = when != "before"
    if copied:
        assert owner.value(step) == 1
    owner.run("""
        CREATE TABLE noted (topic text COLLATE "C", id bigint,
                            FOREIGN KEY (topic, id) REFERENCES durable_notify.outbox)""")
    owner.run("INSERT INTO noted VALUES ('t', 5)")
    assert [owner.value(step) for _ in range(2)] == [int(copied), 0]
    assert owner.value("SELECT to_regclass('durable_notify.outbox_1_copy')") is None
    assert len(outbox_ids(owner)) == 410


@pytest.mark.parametrize("table", ["lease_deadline", "settlement"])
def test_removing_orphans_does_not_wait(sessions: Sessions, table: str) -> None:
    """Two that remove the same rows in another order do not deadlock."""
    one, other = sessions.take(2)
    rows = {
        "lease_deadline": "INSERT INTO durable_notify.lease_deadline VALUES (%s, 'epoch')",
        "settlement": "INSERT INTO durable_notify.settlement VALUES (%s, 1)",
    }
    for token in (1, 2):
        one.run(rows[table], token)
    other.begin()
    other.run(f"DELETE FROM durable_notify.{table} WHERE token = 2")
    one.run("SET statement_timeout = '5s'")
    one.begin()
    assert one.value("SELECT durable_notify._delete_orphans()") == 1
    work = other.start(f"DELETE FROM durable_notify.{table} WHERE token = 1")
    sessions.wait_until_blocked(other, work)
    one.commit()
    work.result()
    other.commit()
    assert one.value("SELECT durable_notify._delete_orphans()") == 0


def test_two_sessions_remove_orphans_at_once(sessions: Sessions) -> None:
    one, other = sessions.take(2)
    one.run(
        "INSERT INTO durable_notify.maintenance_progress (topic, measured_below) VALUES ('t', 5), ('u', 5)"
    )
    one.begin()
    one.run("SELECT durable_notify._delete_orphans()")
    other.run("SET statement_timeout = '5s'")
    other.run("SELECT durable_notify._delete_orphans()")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        other.run("SELECT FROM durable_notify.maintenance_progress FOR UPDATE NOWAIT")
    one.commit()
