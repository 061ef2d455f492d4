"""The database half is stopped at every one of its statements: cancelled, or its backend ended.

First each function that writes, at each statement that it comes to in a scene where everything is
to be done at once. Asserted each time: nothing has changed, nothing was swallowed, no advisory lock
is left; and at the end, not stopped, it does exactly what it was to do.

Then all at once: a publisher and consumers of both halves while all their sessions are
stopped at random statements. Asserted: nothing is lost, nothing twice in effect, keys keep their
order, no consumer gives up, and warnings are no flood.
DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.faults.auditor import audit_handled
from tests.faults.chance import seconds
from tests.faults.workload import DDL, Workload
from tests.support.injection import How, Plant, at_random, instrument, passed, plant, stop_at
from tests.support.postgres import Postgres
from tests.support.sessions import LONG_GONE, Session, Sessions
from tests.support.wait import eventually

SECONDS = seconds(3)
TABLES = """
    SELECT c.relname FROM pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind = 'r'"""


def scene(sessions: Sessions, order_by: str = "key", *, exclusive: bool = False) -> dict[str, int]:
    """All that a claim can meet at once; returns the tokens of leases that are held.

    An expired lease, half of it settled; retries that are due, with a key and without; messages
    parked behind a key; a straggler; one to be delivered later, one past its expiry; limits.
    """
    director, slow = sessions.take(2)
    director.subscribe("g")
    director.subscribe("h")
    options = {"order_by": order_by, "exclusive": exclusive, "on_expiry": "dead_letter"}
    limits = {"max_in_flight": 1000, "rate_limit": 1000}
    configure = "SELECT durable_notify.configure('g', %s::jsonb)"
    director.run(configure, json.dumps(options | limits))
    for number in range(12):
        director.publish(number, key=[None, "a", "b"][number % 3])
    retried = director.claim(4)
    director.settle(retried[0].token, retried[:1], retried[1:])
    expired = director.claim(4)
    if expired:
        director.settle(expired[0].token, expired[:1])
    director.run(LONG_GONE)
    slow.begin()
    slow.publish("late")
    director.publish("parked", key="a")
    times = "SELECT durable_notify.publish('t', '1', deliver_at => %s, expires_at => %s)"
    director.run(times, "2099-01-01", None)
    director.run(times, None, "2001-01-01")
    held = director.claim(6, "h")
    slow.commit()
    director.publish("last", key="c")
    director.listen()
    return {"held": held[0].token, "first": held[0].id, "second": held[1].id}


def print_of(session: Session) -> str:
    """What stands in all tables, in short."""
    rows = "(SELECT md5(string_agg(r::text, '|' ORDER BY r::text)) FROM durable_notify.{} r)"
    return str(session.run("SELECT " + ", ".join(map(rows.format, session.column(TABLES)))))


def locks_left(session: Session) -> list[tuple[Any, ...]]:
    """Advisory locks that are held, but for the doorbell of t, which the director has armed."""
    return session.run(
        "SELECT pid, classid, objid, mode FROM pg_locks"
        " WHERE locktype = 'advisory' AND mode <> 'ShareLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def gone(watcher: Session, pid: int) -> None:
    """Wait until a session is over: it says so before it releases its locks."""
    there = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
    eventually(lambda: not watcher.value(there, pid))


def stopped_everywhere(sessions: Sessions, statement: str, how: How) -> tuple[int, list[Any]]:
    """Stop a statement at each of its own; returns how many those are, and what it does at last."""
    watcher, session = sessions.take(2)
    before = print_of(watcher)
    for number in range(1, 1000):
        stop_at(session, number, how)
        try:
            rows = session.run(statement)
        except psycopg.OperationalError as error:
            stopped = error.sqlstate == {"cancel": "57014", "terminate": "57P01"}[how]
            assert stopped, "it failed in another way"
            if how == "terminate":
                gone(watcher, session.pid)
                session = sessions.session()
            assert print_of(watcher) == before, f"changed, although stopped at {number}"
            assert locks_left(watcher) == [], f"left behind, stopped at {number}"
            continue
        reached = passed(session)
        assert reached < number, f"continued, although stopped at {number} of {reached}"
        assert locks_left(watcher) == []
        return reached, rows
    raise AssertionError("it never ends")


OPERATIONS = {
    "claim": (100, "SELECT id, attempt FROM durable_notify.claim('g', '{{t}}', 100, '1 hour', 'a test')"),
    "settle": (40, "SELECT durable_notify.settle({held}, '{{{first}}}', '{{{second}}}')"),
    "reject": (20, "SELECT durable_notify.settle({held}, '{{}}', '{{}}', '{{{first}}}')"),
    "release": (20, "SELECT durable_notify.release('{{{held}}}')"),
    "extend": (2, "SELECT durable_notify.extend('{{{held}}}', '1 hour') = {held}"),
    "publish": (10, "SELECT durable_notify.publish('t', '1', 'a')"),
    "seek": (10, "SELECT redelivered FROM durable_notify.seek('g', 't', 0)"),
    "redrive": (10, "SELECT durable_notify.redrive('h', everything => true)"),
}  # fmt: skip
"""Each with the fewest statements it is made of in the scene, so that it is known to do its work."""


def left_over(session: Session) -> dict[str, list[tuple[int, int]]]:
    """What each group has not settled, with the attempts: all leases end, all of it is delivered."""
    session.run("UPDATE durable_notify.consumer_group SET rate_limit = NULL, exclusive = false")
    session.run("UPDATE durable_notify.lease_deadline SET deadline = 'epoch'")
    session.run(LONG_GONE)
    left: dict[str, list[tuple[int, int]]] = {}
    for group in ("g", "h"):
        while batch := session.claim(100, group):
            left.setdefault(group, []).extend((m.id, m.attempt) for m in batch)
            session.ack(batch)
    return left


def undisturbed(dsn: str, name: str, **options: Any) -> tuple[Any, Any]:
    """What an operation returns, and what is left after it, where nothing stops it."""
    with Sessions(dsn) as sessions:
        statement = OPERATIONS[name][1].format(**scene(sessions, **options))
        (session,) = sessions.take(1)
        return session.run(statement), left_over(session)


def disturbed(dsn: str, name: str, how: How, *plants: Plant, **options: Any) -> tuple[Any, Any]:
    """The same where it is stopped at each statement before it is let through."""
    least, statement = OPERATIONS[name]
    with Sessions(dsn) as sessions:
        statement = statement.format(**scene(sessions, **options))
        (director,) = sessions.take(1)
        for each in plants:
            each(director)
        instrument(director)
        reached, rows = stopped_everywhere(sessions, statement, how)
        print(f"{name}: stopped at each of {reached} statements")
        assert reached >= least, "the scene has little in it"
        return rows, left_over(director)


@pytest.fixture
def twin(server: Postgres, template: str) -> Iterator[str]:
    """Another database like `dsn`: ids are the same there."""
    with server.database(template) as name:
        yield server.dsn(name)


@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, "cancel") for name in OPERATIONS), ("claim", "terminate"), ("publish", "terminate")],
)
def test_stopped_at_every_statement(dsn: str, twin: str, name: str, how: How) -> None:
    done, left = disturbed(dsn, name, how)
    expected, expected_left = undisturbed(twin, name)
    if name == "publish":  # what was rolled back has used ids up
        assert sum(map(len, left.values())) == sum(map(len, expected_left.values()))
        return
    assert done == expected
    assert left == expected_left


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"order_by": "strict"}, {"order_by": "none"}, {"exclusive": True}], ids=str
)
def test_claims_of_other_groups(dsn: str, twin: str, options: dict[str, Any]) -> None:
    assert disturbed(dsn, "claim", "cancel", **options) == undisturbed(twin, "claim", **options)


# The same with faults planted


def lock_of_the_session(session: Session) -> None:
    plant(
        session,
        "claim",
        ("pg_try_advisory_xact_lock(1685024361", "pg_try_advisory_lock(1685024361"),
    )


def doorbell_tried_in_two_statements(session: Session) -> None:
    session.run("""
        CREATE OR REPLACE FUNCTION durable_notify._no_waiter(topic text) RETURNS boolean
        LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            IF pg_catalog.pg_try_advisory_lock(1685024362, pg_catalog.hashtext(topic)) THEN
                RETURN pg_catalog.pg_advisory_unlock(1685024362, pg_catalog.hashtext(topic));
            END IF;
            RETURN false;
        END $$""")
    session.run("SELECT durable_notify.disarm('t')")


def position_moved_without_its_lease(session: Session) -> None:
    plant(
        session,
        "_claim_in_full",
        ("INSERT INTO durable_notify.lease", "BEGIN\nINSERT INTO durable_notify.lease"),
        (
            "RETURNING token INTO new_token;",
            """RETURNING token INTO new_token;
               EXCEPTION WHEN query_canceled THEN NULL;
               END;""",
        ),
    )


@pytest.mark.parametrize(
    ("name", "fault", "complaint"),
    [
        ("claim", lock_of_the_session, "left behind"),
        ("publish", doorbell_tried_in_two_statements, "left behind"),
        ("claim", position_moved_without_its_lease, "continued"),
    ],
)
def test_planted_faults_are_seen(dsn: str, name: str, fault: Plant, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        disturbed(dsn, name, "cancel", fault)


# All at once


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.timeout(SECONDS + 110)
def test_every_session_is_stopped_now_and_then(dsn: str, how: How) -> None:
    with Sessions(dsn) as sessions:
        (director,) = sessions.take(1)
        director.run(DDL)
        instrument(director)
        with Workload(dsn, pause=0.02) as workload:
            began = time.monotonic()
            at_random(director, 0.002, how)
            while time.monotonic() - began < SECONDS or not (
                workload.errors and workload.said.warnings()
            ):
                workload.progress(10)
            at_random(director, 0.0)
            workload.progress(10)
            workload.drain(director.connection)
            workload.judge(director.connection)
            assert all(isinstance(error, psycopg.OperationalError) for error in workload.errors)
        audit_handled(dsn, {"g": director.column("SELECT message_id FROM handled")})
