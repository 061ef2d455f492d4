"""A partition that is rewritten, beside readers and writers of it."""

from __future__ import annotations

import pytest

from tests.sql.partitions.test_partitions import half_empty_partition
from tests.support.injection import OLDER_SNAPSHOTS_PASSED_OVER, plant
from tests.support.sessions import Session, Sessions
from tests.support.wait import eventually

STEP = "SELECT durable_notify._rewrite_partition()"
COUNT = "SELECT count(*) FROM durable_notify.outbox"
COPY = "SELECT to_regclass('durable_notify.outbox_1_copy') IS NOT NULL"
KEPT = 410
SPACE = "SELECT pg_total_relation_size('durable_notify.outbox_1')"


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    """A session of the owner; most of a closed partition is removed."""
    owner = sessions.session()
    half_empty_partition(owner)
    return owner


def step(session: Session) -> None:
    """Repeat a step: the transactions that it recorded may be others', such as autovacuum's."""
    eventually(lambda: session.value(STEP) == 1)


def test_a_claim_that_waits_for_it(sessions: Sessions, owner: Session) -> None:
    """Its snapshot is older than what it finds after its wait."""
    claimer = sessions.reader()
    step(owner)
    owner.begin()
    step(owner)
    work = claimer.start("SELECT id FROM durable_notify.claim('g', '{t}', 1000)")
    sessions.wait_until_blocked(claimer, work)
    owner.commit()
    assert not owner.value(COPY)
    assert len(work.result()) == KEPT


@pytest.mark.parametrize("planted", [False, True])
def test_a_snapshot_that_is_older_than_the_copy(
    sessions: Sessions, owner: Session, planted: bool
) -> None:
    """As of a backup, which takes its snapshot first and then locks what it reads."""
    reader = sessions.session()
    space = owner.value(SPACE)
    reader.begin("repeatable read")
    reader.run("SELECT pg_current_snapshot()")
    if planted:
        plant(owner, "_older_snapshots", OLDER_SNAPSHOTS_PASSED_OVER)
    step(owner)
    if planted:
        step(owner)
        assert reader.value(COUNT) == 10
        return
    assert [owner.value(STEP) for _ in range(3)] == [0, 0, 0]
    assert reader.value(COUNT) == KEPT
    reader.commit()
    step(owner)
    assert owner.value(COUNT) == KEPT
    assert owner.value(SPACE) < space


def test_what_is_removed_meanwhile_is_not_redelivered(owner: Session) -> None:
    step(owner)
    owner.run("DELETE FROM durable_notify.outbox WHERE id % 10 = 0 AND id <= 2000")
    step(owner)
    assert not owner.value(COPY)
    assert owner.value("SELECT count(*) FROM durable_notify.outbox WHERE id <= 2000") == 200


def test_what_is_changed_by_hand_meanwhile_stays_so(owner: Session) -> None:
    """The copy is given up."""
    step(owner)
    owner.run("""UPDATE durable_notify.outbox SET payload = '"redacted"' WHERE id = 5""")
    step(owner)
    assert not owner.value(COPY)
    assert owner.value("SELECT payload FROM durable_notify.outbox WHERE id = 5") == "redacted"
    assert owner.value(COUNT) == KEPT


def test_all_of_it_goes_meanwhile(owner: Session) -> None:
    step(owner)
    owner.run("TRUNCATE durable_notify.outbox_1")
    step(owner)
    assert not owner.value(COPY)
    assert owner.value(COUNT) == 10


def test_the_shell_goes_meanwhile(owner: Session) -> None:
    step(owner)
    owner.run("TRUNCATE durable_notify.outbox_1")
    assert owner.value("SELECT durable_notify._drop_partition()") == 1
    step(owner)
    assert not owner.value(COPY)


def test_a_change_by_hand_is_waited_for(sessions: Sessions, owner: Session) -> None:
    changing = sessions.session()
    step(owner)
    changing.begin()
    changing.run("DELETE FROM durable_notify.outbox WHERE id = 5")
    assert owner.value(STEP) == 0
    changing.commit()
    step(owner)
    assert owner.value(COUNT) == KEPT - 1


def test_reanchored_meanwhile(sessions: Sessions, owner: Session) -> None:
    """What was copied has another cluster's transaction ids."""
    step(owner)
    owner.run("UPDATE durable_notify.cluster_identity SET xid = '3'")
    owner.run("SELECT durable_notify.reanchor()")
    assert not owner.value(COPY)
    assert owner.value("SELECT copied FROM durable_notify.partition_settings") is None
    assert owner.value(COUNT) == KEPT
