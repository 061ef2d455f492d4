"""Partitions: created ahead, closed, truncated, dropped and rewritten, beside readers and publishers."""

from __future__ import annotations

import pytest
from psycopg import errors

from tests.support.injection import plant
from tests.support.retention import lay_out_partitions, make_partitions
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions
from tests.support.wait import eventually

WIDTH = 100
PARTITIONS = "SELECT first_id, next_id FROM durable_notify.partitions()"
PUBLISH = """
    INSERT INTO durable_notify.outbox (topic, payload)
    SELECT %s, to_jsonb(n) FROM generate_series(1, %s) AS n"""
IN_DEFAULT = "SELECT count(*) FROM durable_notify.outbox_default"
ALL_MAY_GO = """
    CREATE OR REPLACE FUNCTION durable_notify.retention_watermark(topic text) RETURNS bigint
    LANGUAGE sql AS 'SELECT durable_notify._watermark()'"""


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    """A session of the owner; partitions have WIDTH ids."""
    owner = sessions.session()
    lay_out_partitions(owner, WIDTH)
    return owner


NOTE = "SELECT durable_notify._close_partitions(), durable_notify._mark_unwanted()"
REMOVE = "SELECT durable_notify._truncate_partition()"


def tidy(session: Session) -> list[int]:
    """Remove each partition that can go; returns what was truncated, dropped and rewritten, by step."""
    session.run("SELECT durable_notify._advance_watermark()")
    session.run(NOTE)
    done = []
    for step in ("maintain_partitions", "_rewrite_partition"):
        while count := session.value(f"SELECT durable_notify.{step}()"):
            done.append(count)
    return done


def size(session: Session) -> int:
    query = """
        SELECT sum(pg_total_relation_size(relid))::bigint
          FROM pg_partition_tree('durable_notify.outbox') WHERE isleaf"""
    found: int = session.value(query)
    return found


def half_empty_partition(owner: Session) -> None:
    """Make a closed partition of which most was removed."""
    lay_out_partitions(owner, 2000)
    owner.run(PUBLISH, "t", 2000)
    make_partitions(owner)
    owner.run(PUBLISH, "t", 10)
    owner.run("DELETE FROM durable_notify.outbox WHERE id % 5 <> 0 AND id <= 2000")
    if owner.connection.info.server_version >= 150000:
        owner.run("SELECT pg_stat_force_next_flush()")
    owner.run("SELECT durable_notify._advance_watermark()")
    assert owner.value("SELECT durable_notify._close_partitions()") == 2001
    removed = "SELECT n_tup_del > 1500 FROM pg_stat_user_tables WHERE relname = 'outbox_1'"
    eventually(lambda: bool(owner.value(removed)))


def test_ahead(owner: Session) -> None:
    assert owner.run(PARTITIONS) == [(1, 101), (101, 201)]
    owner.run(PUBLISH, "t", 1)
    assert make_partitions(owner) == 0
    owner.run(PUBLISH, "t", WIDTH)
    assert make_partitions(owner) == 1
    assert owner.run(PARTITIONS)[2:] == [(201, 301)]
    assert make_partitions(owner) == 0


def test_as_wide_as_what_is_kept_asks_for(owner: Session) -> None:
    for _ in range(30):
        owner.run(PUBLISH, "t", WIDTH)
        make_partitions(owner)
    partitions = owner.run(PARTITIONS)
    assert len(partitions) < 20
    assert partitions[-1][1] - partitions[-1][0] > 3 * WIDTH
    assert owner.value(IN_DEFAULT) == 0


def test_each_partition_rings_for_every_insert(owner: Session) -> None:
    """Of a trigger that is ENABLE ALWAYS its copies are, too."""
    owner.run(PUBLISH, "t", WIDTH + 1)
    make_partitions(owner)
    found = owner.run("""
        SELECT t.relid::regclass::text, g.tgenabled::text FROM pg_partition_tree('durable_notify.outbox') t
          LEFT JOIN pg_trigger g ON g.tgrelid = t.relid AND g.tgname = 'outbox_after_insert'""")
    assert {fires for _, fires in found} == {"A"}, found
    with pytest.raises(errors.CheckViolation, match="outbox_topic_is_a_name"):
        owner.publish(topic="a b")


def test_no_partition_was_created(owner: Session) -> None:
    """What is published goes to the default, is read from there, and what follows gets partitions again."""
    owner.subscribe()
    owner.run(PUBLISH, "t", 2 * WIDTH + 50)
    assert owner.value(IN_DEFAULT) == 50
    assert make_partitions(owner) > 0
    first, _ = owner.run(PARTITIONS)[2]
    assert first > 2 * WIDTH + 50
    owner.run(PUBLISH, "t", WIDTH)
    assert owner.value(IN_DEFAULT) == first - 1 - 2 * WIDTH
    assert len(drain(owner)) == 3 * WIDTH + 50


def test_a_large_default_is_not_read_under_a_lock(sessions: Sessions, owner: Session) -> None:
    publisher = sessions.session()
    owner.run("ALTER TABLE durable_notify.outbox_default ALTER payload SET STORAGE PLAIN")
    owner.run(PUBLISH, "t", 2 * WIDTH)
    filler = """
        INSERT INTO durable_notify.outbox (topic, payload)
        SELECT 't', to_jsonb(repeat('x', 7000)) FROM generate_series(1, 2500) AS n"""
    owner.run(filler)
    constraint = "SELECT convalidated FROM pg_constraint WHERE conname = 'outbox_default_relief'"
    step = "SELECT durable_notify.create_partitions()"
    assert owner.value(step) == 1
    assert owner.column(constraint) == [False]
    publisher.publish()
    assert owner.value(step) == 1
    assert owner.column(constraint) == [True]
    messages: list[str] = []
    owner.connection.add_notice_handler(lambda told: messages.append(str(told.message_primary)))
    owner.run("SET client_min_messages = debug1")
    assert owner.value(step) == 1
    assert any('"outbox_default" is implied by existing' in message for message in messages), (
        messages
    )
    assert owner.column(constraint) == []
    publisher.publish()
    assert owner.run(PARTITIONS)[2][0] > publisher.publish()


def test_a_large_default_and_maintenance_that_died(sessions: Sessions, owner: Session) -> None:
    """The constraint that was left refuses nothing for very long; then ids skip what is in between."""
    reader, publisher = sessions.take(2)
    owner.run("ALTER TABLE durable_notify.outbox_default ALTER payload SET STORAGE PLAIN")
    owner.run(PUBLISH, "t", 2 * WIDTH)
    owner.run("""
        INSERT INTO durable_notify.outbox (topic, payload)
        SELECT 't', to_jsonb(repeat('x', 7000)) FROM generate_series(1, 2500) AS n""")
    step = "SELECT durable_notify.create_partitions()"
    assert owner.value(step) == 1
    reader.begin()
    reader.run(
        "SELECT FROM durable_notify.outbox LIMIT 1"
    )  # a backup: no session can drop the constraint
    owner.run(PUBLISH, "t", 50 * WIDTH)
    reader.commit()
    while len(owner.run(PARTITIONS)) < 3:
        assert owner.value(step) == 1
    publisher.begin()
    late = publisher.publish()
    assert owner.value(step) == 0  # a session that has drawn an id keeps it from skipping
    publisher.commit()
    assert owner.value(step) == 1
    first, _ = owner.run(PARTITIONS)[2]
    assert first > late + WIDTH
    assert owner.publish() == first
    owner.run(PUBLISH, "t", WIDTH)
    make_partitions(owner)
    widths = {next_id - first for first, next_id in owner.run(PARTITIONS)}
    assert widths == {WIDTH}  # for all that was skipped
    owner.subscribe()
    assert len(drain(owner, 5000)) == 2 * WIDTH + 2500 + 50 * WIDTH + 1 + 1 + WIDTH


def test_a_constraint_that_was_left_behind_goes_before_it_refuses(owner: Session) -> None:
    owner.run(PUBLISH, "t", 2 * WIDTH)
    owner.run("""
        ALTER TABLE durable_notify.outbox_default
          ADD CONSTRAINT outbox_default_relief CHECK (id < 401) NOT VALID""")
    assert make_partitions(owner) > 0
    assert owner.column("SELECT 1 FROM pg_constraint WHERE conname = 'outbox_default_relief'") == []
    owner.run(PUBLISH, "t", 3 * WIDTH)


def test_making_one_waits_for_no_reader(sessions: Sessions, owner: Session) -> None:
    """It needs the default partition, which a reader of the whole outbox has locked: then the next round does it."""
    reader = sessions.session()
    owner.run(PUBLISH, "t", WIDTH + 1)
    reader.begin()
    reader.run("SELECT count(*) FROM durable_notify.outbox")
    assert make_partitions(owner) == 0
    reader.commit()
    assert make_partitions(owner) == 1


def test_making_one_is_put_off_while_a_transaction_publishes(
    sessions: Sessions, owner: Session
) -> None:
    """What is published meanwhile, and finds no partition, goes to the default."""
    slow = sessions.session()
    owner.subscribe()
    owner.run(PUBLISH, "t", WIDTH + 1)
    slow.begin()
    slow.publish()
    assert make_partitions(owner) == 0
    owner.run(PUBLISH, "t", WIDTH)
    slow.publish()
    assert owner.value(IN_DEFAULT) > 0
    slow.commit()
    assert make_partitions(owner) > 0
    assert len(drain(owner)) == 2 * WIDTH + 3


def test_publishers_are_waited_for_if_none_is_ready(sessions: Sessions, owner: Session) -> None:
    """It waits for that lock alone: the default, which readers have locked, is left to the next round."""
    slow, making = sessions.take(2)
    plant(owner, "create_partitions", ("'500ms'", "'0'"))
    owner.run(PUBLISH, "t", 1)
    slow.begin()
    slow.publish()
    make_partitions(owner)
    assert owner.run(PARTITIONS) == [(1, 101), (101, 201)]
    owner.run(PUBLISH, "t", WIDTH)
    step = "SELECT durable_notify.create_partitions()"
    work = making.start(step)
    sessions.wait_until_blocked(making, work)
    slow.commit()
    assert work.result() == [(1,)]
    owner.run(PUBLISH, "t", WIDTH)
    slow.begin()
    slow.run("SELECT count(*) FROM durable_notify.outbox_default")
    assert owner.value(step) == 0
    slow.commit()
    assert owner.value(step) == 1


def test_closed_once_no_session_can_add(sessions: Sessions, owner: Session) -> None:
    slow = sessions.session()
    closed = "SELECT durable_notify._close_partitions()"
    slow.begin()
    slow.publish()
    owner.run(PUBLISH, "t", 2 * WIDTH)
    for _ in range(3):
        owner.run("SELECT durable_notify._advance_watermark()")
        assert owner.value(closed) == 0
    slow.commit()
    owner.run("SELECT durable_notify._advance_watermark()")
    assert owner.value(closed) == 2 * WIDTH + 1


def test_not_closed_while_a_session_keeps_ids_for_later(owner: Session) -> None:
    owner.run("ALTER SEQUENCE durable_notify.outbox_id_seq CACHE 10")
    owner.run(PUBLISH, "t", 2 * WIDTH)
    owner.run("SELECT durable_notify._advance_watermark()")
    assert owner.value("SELECT durable_notify._close_partitions()") == 0


def test_late_in_a_partition_that_is_closed_since(sessions: Sessions, owner: Session) -> None:
    """A group whose snapshot is older than the closing still reads there."""
    reader, slow = sessions.readers(2)
    slow.begin()
    late = slow.publish()
    owner.run(PUBLISH, "t", 2 * WIDTH)
    assert late not in drain(reader, 50)
    slow.commit()
    make_partitions(owner)
    owner.run("SELECT durable_notify._advance_watermark()")
    assert owner.value("SELECT durable_notify._close_partitions()") == 2 * WIDTH + 1
    seen = reader.value("SELECT durable_notify._closed_below(s0) FROM durable_notify.position")
    assert seen == 0
    assert drain(reader, 50) == [late]
    owner.publish()
    drain(reader, 50)
    owner.publish()
    drain(reader, 50)
    assert reader.value("SELECT durable_notify._closed_below(s0) FROM durable_notify.position") > 0


def test_what_may_go_goes_and_gives_its_space_back(sessions: Sessions, owner: Session) -> None:
    owner.run(PUBLISH, "t", WIDTH)
    owner.run(PUBLISH, "u", 5)
    make_partitions(owner)
    owner.run(PUBLISH, "u", WIDTH + 5)
    before = size(owner)
    assert tidy(owner) == []
    owner.run(ALL_MAY_GO)
    assert tidy(owner) == [WIDTH, WIDTH, 1, 1]
    assert size(owner) < before
    assert owner.value("SELECT min(id) FROM durable_notify.outbox") == 2 * WIDTH + 1
    assert owner.run(PARTITIONS)[0] == (2 * WIDTH + 1, 3 * WIDTH + 1)


def test_one_message_that_stays_keeps_its_partition(owner: Session) -> None:
    owner.run("""
        CREATE OR REPLACE FUNCTION durable_notify.retention_watermark(topic text) RETURNS bigint
        LANGUAGE sql AS $$ SELECT CASE topic WHEN 'u' THEN 60 ELSE 1000 END $$""")
    owner.run(PUBLISH, "t", 59)
    owner.run(PUBLISH, "u", 1)
    owner.run(PUBLISH, "t", 2 * WIDTH - 60)
    assert tidy(owner) == [WIDTH, 1]
    assert owner.value("SELECT count(*) FROM durable_notify.outbox WHERE id <= 100") == WIDTH


def test_emptied_though_the_outbox_cannot_be_locked(sessions: Sessions, owner: Session) -> None:
    """A publisher that began since a partition was marked unwanted bars no TRUNCATE; the shell goes later."""
    slow = sessions.session()
    owner.run(ALL_MAY_GO)
    owner.run(PUBLISH, "t", 2 * WIDTH)
    make_partitions(owner)
    owner.run("SELECT durable_notify._advance_watermark()")
    owner.run(NOTE)
    slow.begin()
    slow.publish()
    assert tidy(owner) == [WIDTH, WIDTH]
    assert owner.run(PARTITIONS)[0] == (1, 101)
    slow.commit()
    assert tidy(owner) == [1, 1]


def test_vacuum_of_one_partition_bars_that_partition_alone(
    sessions: Sessions, owner: Session
) -> None:
    """It has no lock on the outbox: no session waits for it."""
    vacuum = sessions.session()
    owner.run(ALL_MAY_GO)
    owner.run(PUBLISH, "t", 2 * WIDTH)
    make_partitions(owner)
    owner.run("SELECT durable_notify._advance_watermark()")
    owner.run(NOTE)
    assert owner.value(REMOVE) == WIDTH
    drop = "SELECT durable_notify._drop_partition()"
    for partition, dropped in (("outbox_1", 0), ("outbox_default", 0), ("outbox_201", 1)):
        vacuum.begin()
        vacuum.run(f"LOCK TABLE durable_notify.{partition} IN SHARE UPDATE EXCLUSIVE MODE")
        assert owner.value(drop) == dropped
        vacuum.commit()


def test_a_reader_of_the_outbox_bars_it(sessions: Sessions, owner: Session) -> None:
    """A backup, or a long report: all stays as it sees it."""
    reader = sessions.session()
    owner.run(ALL_MAY_GO)
    owner.run(PUBLISH, "t", 2 * WIDTH)
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    count = "SELECT count(*) FROM durable_notify.outbox"
    assert reader.value(count) == 2 * WIDTH
    assert tidy(owner) == []
    assert reader.value(count) == 2 * WIDTH
    reader.commit()
    assert tidy(owner) == [WIDTH, WIDTH, 1, 1]


def test_the_default_goes_too_but_not_what_comes_meanwhile(
    sessions: Sessions, owner: Session
) -> None:
    slow = sessions.session()
    owner.run(ALL_MAY_GO)
    owner.run(PUBLISH, "t", 2 * WIDTH + 50)
    owner.run("SELECT durable_notify._advance_watermark()")
    owner.run(NOTE)
    slow.begin()
    late = slow.publish()
    assert [owner.value(REMOVE) for _ in range(3)] == [WIDTH, WIDTH, 0]
    slow.commit()
    assert owner.value(REMOVE) == 0
    assert owner.column("SELECT id FROM durable_notify.outbox WHERE id >= %s", late) == [late]
    assert tidy(owner)[0] == 51


def test_two_at_once(sessions: Sessions, owner: Session) -> None:
    one, other = sessions.take(2)
    owner.run(ALL_MAY_GO)
    owner.run(PUBLISH, "t", 2 * WIDTH)
    owner.run("SELECT durable_notify._advance_watermark()")
    owner.run(NOTE)
    one.begin()
    assert one.value(REMOVE) == WIDTH
    assert other.value(REMOVE) == 0
    assert other.value("SELECT durable_notify.create_partitions()") == 0
    one.connection.rollback()
    assert other.value(REMOVE) == WIDTH


def test_rewritten_if_most_is_gone(sessions: Sessions, owner: Session) -> None:
    """What is read, before and after: the same rows, for every reader that had not read them."""
    reader = sessions.session()
    owner.run("UPDATE durable_notify.partition_settings SET min_width = 5000")
    owner.run(PUBLISH, "t", 2 * WIDTH)
    make_partitions(owner)
    reader.subscribe()
    early = owner.column("SELECT id FROM durable_notify.outbox ORDER BY id LIMIT 10")
    first, next_id = owner.run(PARTITIONS)[-1]
    while owner.value("SELECT pg_sequence_last_value('durable_notify.outbox_id_seq')") < next_id:
        owner.run(PUBLISH, "t", 1000)
        make_partitions(owner)
    kept = "SELECT xid::text, o.* FROM durable_notify.outbox o WHERE id % 5 = 0 OR id < 200 ORDER BY id"
    before = owner.run(kept)
    assert early
    owner.run("DELETE FROM durable_notify.outbox WHERE id % 5 <> 0 AND id >= 200")
    stats = "SELECT n_tup_del > 3000 FROM pg_stat_user_tables WHERE relid = %s::regclass"
    owner.run("SELECT pg_stat_clear_snapshot()")
    if owner.connection.info.server_version >= 150000:
        owner.run("SELECT pg_stat_force_next_flush()")
    space = size(owner)

    def told() -> bool:
        return bool(owner.value(stats, f"durable_notify.outbox_{first}"))

    eventually(told)
    assert 1 in tidy(owner)
    assert size(owner) < space
    assert owner.run(kept) == before
    assert sorted(drain(reader)) == [row[-1] for row in before]
    names = owner.column("SELECT name::text FROM durable_notify.partitions()")
    assert f"durable_notify.outbox_{first}" in names
    fires = "SELECT tgenabled::text FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = 'outbox_after_insert'"
    assert owner.column(fires, f"durable_notify.outbox_{first}") == ["A"]
