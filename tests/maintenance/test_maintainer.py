"""A role that was granted maintain, and nothing else: it maintains, and sees no message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from durable_notify import Maintenance
from durable_notify.options import ConsumerOptions
from tests.support.cli import fails, good, run
from tests.support.retention import age, lay_out_partitions, outbox_ids, retain
from tests.support.roles import Roles, allowed, refused, roles
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions

SECRET = "a secret payload"


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


@pytest.fixture
def made(dsn: str) -> Iterator[Roles]:
    with roles(dsn, {"maintainer": [("maintain", None, None)]}) as found:
        yield found


def something_to_do(sessions: Sessions) -> Session:
    """Partitions to create, close and empty, messages to remove one by one, records to prune."""
    one = sessions.session()
    lay_out_partitions(one, 10)
    one.subscribe()
    for number in range(25):
        one.publish({"number": number, "text": SECRET})
    age(one, 22)
    drain(one)
    one.run(
        "INSERT INTO durable_notify.processed_message (group_id, message_id, created_at)"
        " SELECT g.id, 1, 'epoch' FROM durable_notify.consumer_group g"
    )
    one.run("INSERT INTO durable_notify.audit (at, action, group_name) VALUES ('epoch', 'x', 'g')")
    one.run("SELECT durable_notify.publish('t', '1', dedup_key => 'x', dedup_window => '1 us')")
    return one


def is_done(one: Session) -> None:
    assert outbox_ids(one) == [23, 24, 25, 26]
    assert one.value("SELECT count(*) FROM durable_notify.partitions() WHERE first_id > 26") >= 1
    for table, left in (("processed_message", 0), ("dedup", 0), ("audit", 0)):
        assert one.value(f"SELECT count(*) FROM durable_notify.{table}") == left, table


def test_in_python(sessions: Sessions, dsn: str, made: Roles) -> None:
    one = something_to_do(sessions)
    mine = Maintenance(made.login("maintainer"), every=0)
    reports = [mine.run_once() for _ in range(3)]
    assert not [report for report in reports if "failed" in str(report)], reports
    is_done(one)


def test_by_call(sessions: Sessions, dsn: str, made: Roles) -> None:
    one = something_to_do(sessions)
    with psycopg.connect(made.login("maintainer"), autocommit=True) as session:
        for _ in range(3):
            ((report,),) = session.execute("CALL durable_notify.maintain()").fetchall()
            assert "failed" not in str(report)
    is_done(one)


def test_on_the_command_line(sessions: Sessions, dsn: str, made: Roles, tmp_path: Path) -> None:
    one = something_to_do(sessions)
    mine = made.login("maintainer")
    for _ in range(3):
        good("maintain", dsn=mine)
    is_done(one)
    retain(one, when_settled=True, archive=True)
    done = run("maintain", "--archive", str(tmp_path), dsn=mine)
    fails(done, 1, "some steps of the round failed: archive failed")
    assert "archive failed: only the owner of the schema may archive" in done.stdout
    done = run("maintain", "--inbox-age", "1d", dsn=mine)
    fails(done, 1, "inbox failed")
    assert "only the owner of the schema chooses how long records are kept" in done.stdout


def test_a_consumer_that_may(sessions: Sessions, dsn: str, made: Roles) -> None:
    """With the grant a consumer maintains, too."""
    from durable_notify._sync.database.queries import Queries

    made.make("consumer", ("consume", ["t"], "g"), ("maintain", None, None))
    queries = Queries(made.login("consumer"), ConsumerOptions.of("g", ["t"], {}))
    queries.open()
    try:
        assert queries.maintenance_due(60) is True
        assert Maintenance(made.login("consumer")).run_once() is not None
        assert queries.maintenance_due(60) is False
        good("revoke", made.names["consumer"], "--maintain", dsn=dsn)
        assert queries.maintenance_due(60) is None
    finally:
        queries.close()


def test_what_it_does_not_reach(sessions: Sessions, made: Roles) -> None:
    """Functions and tables one by one: tests/security/test_matrix.py."""
    one = something_to_do(sessions)
    retain(one, "u", max_age="1 day", alarm_bytes=1)
    one.subscribe("g", "u")
    one.publish({"text": SECRET}, "u", SECRET)
    age(one, 100, "u")
    with psycopg.connect(made.login("maintainer"), autocommit=True) as session:
        session.execute("SELECT durable_notify.maintain_begin('w', '0')")
        seen = []
        for step, topic in session.execute("SELECT * FROM durable_notify.maintain_steps()"):
            call = "SELECT durable_notify.maintain_step('w', %s, %s)"
            seen += session.execute(call, [step, topic]).fetchall()
        seen += session.execute("SELECT * FROM durable_notify.maintain_alarms()").fetchall()
        assert SECRET not in str(seen)
        assert ("g", "u") in {row[:2] for row in seen}
        for ages in ("'0', NULL", "NULL, '-1 day'"):
            refused(session, f"SELECT durable_notify.maintain_step('w', 'audit', NULL, {ages})")
        for step in ("archive", "dance", "DROP TABLE durable_notify.outbox"):
            assert allowed(session, "SELECT durable_notify.maintain_step('w', %s)", step) == [(0,)]
        for call in ("plan_archive('u')", "prune_inbox(now())", "set_record_age('inbox', '1 s')",
                     "_delete_expired('t')", "retention()", "status()"):  # fmt: skip
            refused(session, f"SELECT durable_notify.{call}")


def test_without_the_grant(sessions: Sessions, made: Roles) -> None:
    made.make("consumer", ("consume", ["t"], "g"))
    one = something_to_do(sessions)
    with psycopg.connect(made.login("consumer"), autocommit=True) as session:
        refused(session, "CALL durable_notify.maintain()")
        refused(session, "SELECT durable_notify._maintain_begin_granted('w', '0')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="--maintain"):
        Maintenance(made.login("consumer")).run_once()
    assert len(outbox_ids(one)) == 26
