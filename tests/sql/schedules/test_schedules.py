"""Schedules in the database: each tick is published once, by one of the sessions that try."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.roles import roles
from tests.support.sessions import Session, Sessions

TICK = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
NEXT = TICK + timedelta(days=1)
PUBLISH = "SELECT durable_notify.publish_ticks('nightly', %s, %s, %s)"


def set_schedule(
    session: Session,
    name: str = "nightly",
    topic: str = "t",
    next_at: datetime = TICK,
    cron: str = "0 3 * * *",
    payload: str = "1",
) -> Any:
    return session.value(
        "SELECT durable_notify.set_schedule(%s, %s, %s::jsonb, %s, NULL, 'UTC', %s, 'k', '{\"a\": 1}')",
        name, topic, payload, cron, next_at,
    )  # fmt: skip


def row(session: Session, name: str = "nightly") -> tuple[Any, ...]:
    (found,) = session.run(
        "SELECT next_at, last_at, last_id, paused_at FROM durable_notify.schedules() WHERE name = %s",
        name,
    )
    return found


def published(session: Session) -> list[Any]:
    return session.run(
        "SELECT key, payload, headers ->> 'schedule', headers ->> 'scheduled_for', headers -> 'a' FROM durable_notify.outbox ORDER BY id"
    )


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    session = sessions.session()
    assert set_schedule(session) is True
    return session


def test_a_tick(owner: Session) -> None:
    (number,) = owner.column(PUBLISH, TICK, [TICK], NEXT)
    assert published(owner) == [("k", 1, "nightly", "2026-01-01T03:00:00Z", 1)]
    assert row(owner) == (NEXT, TICK, number, None)
    assert owner.column(PUBLISH, TICK, [TICK], NEXT) == []
    assert len(published(owner)) == 1


def test_missed_ticks_are_published_or_passed_over_at_once(owner: Session) -> None:
    ticks = [TICK + timedelta(days=n) for n in range(3)]
    assert len(owner.column(PUBLISH, TICK, ticks, TICK + timedelta(days=3))) == 3
    assert [found[3][8:10] for found in published(owner)] == ["01", "02", "03"]
    assert owner.column(PUBLISH, TICK + timedelta(days=3), [], TICK + timedelta(days=9)) == []
    assert row(owner)[:2] == (TICK + timedelta(days=9), ticks[-1])


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_two_at_once(sessions: Sessions, owner: Session, end: str) -> None:
    """The second does not wait; if the first rolls back, or dies, the tick is still due."""
    other = sessions.session()
    owner.begin()
    assert len(owner.column(PUBLISH, TICK, [TICK], NEXT)) == 1
    other.run("SET lock_timeout = '1ms'")
    assert other.column(PUBLISH, TICK, [TICK], NEXT) == []
    owner.run(end)
    assert len(other.column(PUBLISH, TICK, [TICK], NEXT)) == (end == "ROLLBACK")
    assert len(published(other)) == 1


def test_a_session_that_is_killed(sessions: Sessions, owner: Session) -> None:
    victim = sessions.session()
    victim.begin()
    victim.run(PUBLISH, TICK, [TICK], NEXT)
    owner.run("SELECT pg_terminate_backend(%s, 5000)", victim.pid)
    assert len(owner.column(PUBLISH, TICK, [TICK], NEXT)) == 1
    assert len(published(owner)) == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_older_snapshot(sessions: Sessions, owner: Session, level: str) -> None:
    other = sessions.session()
    other.begin(level)
    owner.run(PUBLISH, TICK, [TICK], NEXT)
    with pytest.raises(psycopg.errors.SerializationFailure):
        other.run(PUBLISH, TICK, [TICK], NEXT)
    other.rollback()
    assert len(published(owner)) == 1


def test_without_the_condition_a_tick_is_published_twice(
    sessions: Sessions, owner: Session
) -> None:
    """The planted fault: who waits for the row publishes its tick once more."""
    plant(
        owner,
        "publish_ticks",
        ("AND s.next_at = due AND", "AND"),
        (" FOR UPDATE SKIP LOCKED", " FOR UPDATE"),
    )
    other = sessions.session()
    owner.begin()
    owner.run(PUBLISH, TICK, [TICK], NEXT)
    work = other.start(PUBLISH, TICK, [TICK], NEXT)
    sessions.wait_until_blocked(other, work)
    owner.commit()
    work.result(20)
    assert len(published(owner)) == 2


def test_what_changes_meanwhile(sessions: Sessions, owner: Session) -> None:
    """A pause, a change of the times and a deletion stop a tick that another was about to publish."""
    for change in (
        "SELECT durable_notify.pause_schedule('nightly')",
        "SELECT durable_notify.set_schedule('nightly', 't', '1', '0 4 * * *', NULL, 'UTC', now() + '1 hour')",
        "SELECT durable_notify.delete_schedule('nightly')",
    ):
        owner.begin()
        owner.run(change)
        other = sessions.session()
        assert other.column(PUBLISH, TICK, [TICK], NEXT) == []
        owner.commit()
        assert other.column(PUBLISH, TICK, [TICK], NEXT) == []
    assert published(owner) == []


def test_the_next_tick_lies_ahead(owner: Session) -> None:
    """Now has a floor: a caller that computes no progress is refused, and not served for ever."""
    before = TICK - timedelta(seconds=1)
    for ticks, next_at in (
        ([TICK], TICK),
        ([TICK], before),
        ([before], NEXT),
        ([NEXT], NEXT),
        ([None], NEXT),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="in order"):
            owner.run(PUBLISH, TICK, ticks, next_at)
    assert published(owner) == []
    assert owner.column(PUBLISH, TICK, [TICK], None)
    assert row(owner)[0] is None


def test_a_schedule_that_is_set_again(owner: Session) -> None:
    later = TICK + timedelta(hours=5)
    assert set_schedule(owner, next_at=later) is False
    assert row(owner)[0] == TICK
    assert set_schedule(owner, next_at=later, payload="2") is True
    assert row(owner)[0] == TICK, "its times did not change"
    owner.run("SELECT durable_notify.pause_schedule('nightly')")
    assert set_schedule(owner, next_at=later, cron="0 8 * * *") is True
    assert row(owner)[0] == later
    assert row(owner)[3] is not None, "a pause stays"


def test_two_set_it_at_once(sessions: Sessions) -> None:
    one, two = sessions.take(2)
    one.begin()
    set_schedule(one)
    work = two.do(lambda: set_schedule(two, payload="2"))
    sessions.wait_until_blocked(two, work)
    one.commit()
    with pytest.raises(psycopg.errors.LockNotAvailable, match="another session"):
        work.result(20)
    assert set_schedule(two, payload="2") is True


def test_a_pause(owner: Session) -> None:
    owner.run("SELECT durable_notify.pause_schedule('nightly')")
    assert owner.run("SELECT seconds FROM durable_notify.schedules()") == [(None,)]
    owner.run("SELECT durable_notify.resume_schedule('nightly', %s)", NEXT)
    assert row(owner)[::3] == (NEXT, None)
    owner.run("SELECT durable_notify.resume_schedule('nightly', %s)", NEXT + timedelta(days=1))
    assert row(owner)[0] == NEXT, "it was not paused"


def test_run_now(owner: Session) -> None:
    number = owner.value("SELECT durable_notify.run_schedule('nightly')")
    assert len(published(owner)) == 1
    assert number
    assert row(owner) == (TICK, None, None, None)


@pytest.mark.parametrize(
    "call",
    [
        "run_schedule('x')",
        "pause_schedule('x')",
        "resume_schedule('x', now())",
        "delete_schedule('x')",
    ],
)
def test_an_unknown_schedule(owner: Session, call: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no schedule"):
        owner.run(f"SELECT durable_notify.{call}")


@pytest.mark.parametrize(
    "arguments",
    [
        "'n', 't.*', '1', '0 3 * * *', NULL, 'UTC', now()",
        "'n', 't', NULL, '0 3 * * *', NULL, 'UTC', now()",
        "'n', 't', '1', NULL, NULL, 'UTC', now()",
        "'n', 't', '1', '0 3 * * *', '1 hour', 'UTC', now()",
        "'n', 't', '1', NULL, '0.5 s', 'UTC', now()",
        "'', 't', '1', NULL, '5 s', 'UTC', now()",
        "'n', 't', '1', NULL, '5 s', 'UTC', now(), headers => '[]'",
        "'n', 't', '1', NULL, '5 s', 'UTC', now(), missed => 'never'",
        "'n', 't', '1', NULL, '5 s', 'UTC', now(), max_missed => 5000",
        "NULL, 't', '1', NULL, '5 s', 'UTC', now()",
        "'n', 't', '1', NULL, '2000 years', 'UTC', now()",
        "'n', 't', '1', NULL, '5 s', 'UTC', 'infinity'",
        "'n', 't', '1', NULL, '5 s', 'UTC', '20000-01-01'",
    ],
)
def test_what_is_refused(sessions: Sessions, arguments: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid schedule"):
        sessions.session().run(f"SELECT durable_notify.set_schedule({arguments})")


def test_what_roles_may(owner: Session, sessions: Sessions) -> None:
    """Who may publish to a topic schedules for it; others see and change nothing."""
    with roles(
        sessions.dsn, {"one": [("publish", ["t"], None)], "two": [("publish", ["u"], None)]}
    ) as made:
        one, two = Session(made.login("one")), Session(made.login("two"))
        try:
            assert set_schedule(one, "mine") is True
            assert len(one.column(PUBLISH, TICK, [TICK], NEXT)) == 1
            assert two.run("SELECT * FROM durable_notify.schedules()") == []
            for call in (
                "pause_schedule('mine')",
                "delete_schedule('mine')",
                "run_schedule('nightly')",
                "run_schedule('missing')",
                "resume_schedule('mine', now())",
                f"publish_ticks('nightly', '{NEXT}', '{{}}', NULL)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    two.run(f"SELECT durable_notify.{call}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                set_schedule(two, "mine", topic="u")  # which it would take away
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                set_schedule(one, "mine", topic="u")
            one.run("SELECT durable_notify.delete_schedule('mine')")
        finally:
            one.close()
            two.close()
