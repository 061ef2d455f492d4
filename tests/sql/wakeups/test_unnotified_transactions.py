"""Transactions that may have looked at a doorbell and not rung it: they commit without a wake-up.

Whatever makes a message deliverable either rings, or stands in this list until it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.injection import plant
from tests.support.observe import Listener, still_running, unannounced
from tests.support.postgres import Postgres
from tests.support.sessions import Session, Sessions

ISOLATION = ["read committed", "repeatable read", "serializable"]


@pytest.fixture
def watcher(sessions: Sessions) -> Session:
    """A session that arms doorbells."""
    return sessions.session()


# Publishers


@pytest.mark.parametrize("isolation", ISOLATION)
@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
def test_a_publisher_in_flight(
    publisher: Session, watcher: Session, isolation: str, ends: str
) -> None:
    publisher.begin(isolation)
    publisher.publish()
    xid = publisher.draw_xid()
    assert unannounced(watcher) == {xid}
    assert unannounced(publisher) == set(), "its own"
    publisher.run(ends)
    assert unannounced(watcher) == set()


@pytest.mark.parametrize("isolation", ISOLATION)
def test_whatever_the_watchers_own_transaction_sees(
    publisher: Session, watcher: Session, isolation: str
) -> None:
    """Locks are not read through a snapshot."""
    watcher.begin(isolation)
    publisher.begin()
    publisher.publish()
    assert unannounced(watcher) == {publisher.draw_xid()}
    publisher.commit()
    assert unannounced(watcher) == set()


def test_a_publisher_with_savepoints(publisher: Session, watcher: Session) -> None:
    """Its own xid is among them, whose end is the one that counts."""
    publisher.begin()
    publisher.run("SAVEPOINT a")
    publisher.publish()
    publisher.run("SAVEPOINT b")
    publisher.publish()
    publisher.run("ROLLBACK TO b")
    found = unannounced(watcher)
    xid = publisher.draw_xid()
    assert min(found) == xid
    publisher.run("RELEASE a")
    assert xid in still_running(watcher, found)
    assert xid in unannounced(watcher)
    publisher.commit()
    assert still_running(watcher, found) == unannounced(watcher) == set()


def test_a_publisher_that_rolled_back_to_a_savepoint(publisher: Session, watcher: Session) -> None:
    publisher.begin()
    publisher.run("SAVEPOINT a")
    publisher.publish()
    assert unannounced(watcher)
    publisher.run("ROLLBACK TO a")
    assert unannounced(watcher) == set()
    publisher.publish()
    assert publisher.draw_xid() in unannounced(watcher)
    publisher.commit()


@pytest.mark.parametrize("savepoint", [False, True])
@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
def test_a_prepared_publisher(
    publisher: Session, watcher: Session, ends: str, savepoint: bool
) -> None:
    publisher.begin()
    if savepoint:
        publisher.run("SAVEPOINT a")
    publisher.publish()
    xid = publisher.draw_xid()
    publisher.run("PREPARE TRANSACTION 'two phases'")
    found = unannounced(watcher)
    assert min(found) == xid
    assert unannounced(publisher) == found, "it is not its own any more"
    assert xid in still_running(watcher, found)
    publisher.run(f"{ends} PREPARED 'two phases'")
    assert unannounced(watcher) == still_running(watcher, found) == set()


def test_several_at_once(sessions: Sessions, watcher: Session) -> None:
    publishers = sessions.take(5)
    for publisher in publishers:
        publisher.begin()
        publisher.publish(topic=f"t{publisher.pid}")
    xids = [publisher.draw_xid() for publisher in publishers]
    assert unannounced(watcher) == set(xids)
    publishers[0].commit()
    publishers[1].rollback()
    assert unannounced(watcher) == still_running(watcher, xids) == set(xids[2:])
    for publisher in publishers[2:]:
        publisher.commit()


def test_publishers_of_another_database(
    server: Postgres, template: str, publisher: Session, watcher: Session
) -> None:
    """Its tables may have the same numbers, as they have here."""
    with server.database(template) as name, Sessions(server.dsn(name)) as elsewhere:
        other = elsewhere.session()
        query = "SELECT 'durable_notify.outbox'::regclass::oid"
        assert other.value(query) == watcher.value(query)
        other.begin()
        other.publish()
        assert unannounced(watcher) == set()
        publisher.begin()
        publisher.publish()
        assert unannounced(watcher) == {publisher.draw_xid()}
        publisher.commit()
        other.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO mine VALUES (1)",
        "SELECT pg_current_xact_id(), count(*) FROM durable_notify.outbox",
        "SELECT pg_current_xact_id(), durable_notify.subscribe('h', '{t}')",
        "LOCK TABLE durable_notify.outbox IN ROW EXCLUSIVE MODE",  # has not drawn an xid, nor looked
        "LOCK TABLE durable_notify.outbox IN ACCESS SHARE MODE",
    ],
)
def test_a_session_that_does_something_else(
    publisher: Session, watcher: Session, statement: str
) -> None:
    publisher.run("CREATE TABLE mine (n integer)")
    with publisher.transaction():
        publisher.run(statement)
        assert unannounced(watcher) == set()


def test_a_publisher_is_in_the_list_before_it_looks(publisher: Session, watcher: Session) -> None:
    """Before the look comes the lock: there is no moment at which it has looked and is not in it."""
    with publisher.transaction():
        xid = publisher.draw_xid()
        publisher.run("LOCK TABLE durable_notify.outbox IN ROW EXCLUSIVE MODE")
        assert unannounced(watcher) == {xid}


def test_arming_returns_the_publishers_before(publisher: Session, watcher: Session) -> None:
    publisher.begin()
    publisher.publish()
    found = watcher.value("SELECT durable_notify._arm_topics('{t}')")
    assert found == {
        "barred": [], "silent": [], "crowded": False, "unannounced": [str(publisher.draw_xid())],
    }  # fmt: skip
    publisher.commit()


# Which of them still run


def test_still_running(publisher: Session, watcher: Session) -> None:
    publisher.begin()
    xid = publisher.draw_xid()
    assert still_running(watcher, [3, xid, 4]) == {xid}
    assert still_running(watcher, [xid + 1_000_000]) == {xid + 1_000_000}, "it has yet to begin"
    assert still_running(watcher, []) == set()
    publisher.rollback()
    assert still_running(watcher, [3, xid]) == set()


NEXT = 5 * 2**32


@pytest.mark.parametrize(
    ("last", "xids", "expected"),
    [
        (1000, [999, 1000, 1001, 3], [999, 1000, 1001, 3]),
        (NEXT + 5, [3, 7, 2**32 - 1, 2**32 - 900], [NEXT + 3, NEXT + 7, NEXT - 1, NEXT - 900]),
        (NEXT - 5, [2**32 - 6, 3, 2**32 - 1], [NEXT - 6, NEXT + 3, NEXT - 1]),
        (
            NEXT + 2**31 + 9,
            [2**31 + 8, 2**31 + 10, 10],
            [NEXT + n for n in (2**31 + 8, 2**31 + 10, 10)],
        ),
    ],
    ids=["no wrap", "just after it", "just before it", "half way round"],
)
def test_xids_near_the_wrap(
    watcher: Session, last: int, xids: list[int], expected: list[int]
) -> None:
    """Locks show the last 32 bits of an xid8; the others are those of whatever is near it."""
    writers = "durable_notify._open_writers('{durable_notify.outbox,durable_notify.lock_rings}')"
    now = "pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint"
    given = "ARRAY[" + ",".join(f"'{xid}'::xid" for xid in xids) + "]"
    plant(watcher, "unnotified_transactions", (writers, given), (now, f"{last}::bigint"))
    assert unannounced(watcher) == set(expected)


# Whatever else makes a message deliverable

Act = tuple[str, list[Any]]


def delivered(director: Session, key: str | None = None, group: str = "g") -> int:
    """A lease on two messages; returns its token."""
    director.subscribe(group)
    for _ in range(2):
        director.publish(key=key)
    first, second = director.claim(group=group)
    assert first.token == second.token
    return first.token


def settle_keyed(director: Session) -> Act:
    token = delivered(director, "k")
    ids = director.value("SELECT ids FROM durable_notify.lease")
    return "SELECT durable_notify.settle(%s, %s::bigint[])", [token, ids]


def settle_part_of_keyed(director: Session) -> Act:
    token = delivered(director, "k")
    ids = director.value("SELECT ids FROM durable_notify.lease")
    return "SELECT durable_notify.settle(%s, %s::bigint[])", [token, ids[:1]]


def settle_at_the_limit(director: Session) -> Act:
    director.subscribe()
    director.run("SELECT durable_notify.configure('g', '{\"max_in_flight\": 2}')")
    token = delivered(director)
    ids = director.value("SELECT ids FROM durable_notify.lease")
    return "SELECT durable_notify.settle(%s, %s::bigint[])", [token, ids]


def retry(director: Session) -> Act:
    token = delivered(director)
    ids = director.value("SELECT ids FROM durable_notify.lease")
    query = "SELECT durable_notify.settle(%s, %s::bigint[], %s::bigint[])"
    return query, [token, ids[:1], ids[1:]]


def release(director: Session) -> Act:
    return "SELECT durable_notify.release(%s::bigint[])", [[delivered(director)]]


def replay(director: Session) -> Act:
    director.ack(delivered_messages(director))
    return "SELECT redelivered FROM durable_notify.seek('g', 't', 0)", []


def delivered_messages(director: Session) -> list[Any]:
    director.subscribe()
    director.publish()
    director.publish()
    return director.claim()


def seek_back(director: Session) -> Act:
    director.ack(delivered_messages(director))
    return "SELECT durable_notify.seek('g', 't', 0)", []


def seek_forward(director: Session) -> Act:
    director.subscribe()
    director.publish()
    return "SELECT durable_notify.seek('g', 't', to_now => true)", []


def redrive(director: Session) -> Act:
    batch = delivered_messages(director)
    director.settle(batch[0].token, rejected=batch)
    return "SELECT durable_notify.redrive('g', everything => true)", []


def resume(director: Session) -> Act:
    director.subscribe()
    director.run("SELECT durable_notify.pause('g')")
    return "SELECT durable_notify.resume('g')", []


def configure(director: Session) -> Act:
    director.subscribe()
    return "SELECT durable_notify.configure('g', '{\"park_limit\": 7}')", []


def stand_down(director: Session) -> Act:
    director.subscribe()
    director.run("SELECT durable_notify.configure('g', '{\"exclusive\": true}')")
    director.publish()
    assert director.claim()
    return "SELECT durable_notify.resign_active('g', 'a test')", []


def start_replay(director: Session) -> Act:
    director.ack(delivered_messages(director))
    return "SELECT durable_notify.start_replay('g', 't')", []


def advance_replays(director: Session) -> Act:
    query, params = start_replay(director)
    director.run(query, *params)
    return "SELECT durable_notify.advance_replays('g', '{t}')", []


def rename_group(director: Session) -> Act:
    director.subscribe()
    return "SELECT durable_notify.rename_group('g', 'h')", []


def publish(director: Session) -> Act:
    director.subscribe()
    return "SELECT durable_notify.publish('t', '1')", []


SITES = [
    publish, settle_keyed, settle_part_of_keyed, settle_at_the_limit, retry, release, replay, seek_back,
    seek_forward, redrive, resume, configure, stand_down, start_replay, advance_replays, rename_group,
]  # fmt: skip
LOOKS = """
    SELECT relation::regclass::text FROM pg_locks
     WHERE pid = %s AND locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
       AND relation IN ('durable_notify.outbox'::regclass, 'durable_notify.lock_rings'::regclass)"""


@pytest.mark.parametrize("site", SITES)
def test_it_rings_waiting_sessions(
    sessions: Sessions, publisher: Session, site: Callable[[Session], Act]
) -> None:
    query, params = site(sessions.session())
    listener = Listener(sessions, "t", arm=True)
    with publisher.transaction():
        publisher.run(query, *params)
    heard = listener.heard()
    assert [channel for channel, _ in heard] == ["durable_notify:t"]
    for_other_topics = site in (
        start_replay, settle_at_the_limit, resume, configure, stand_down, rename_group
    )  # fmt: skip
    assert (heard[0][1] == "*") == for_other_topics


@pytest.mark.parametrize("site", SITES)
def test_without_waiting_sessions_it_is_in_the_list(
    sessions: Sessions, publisher: Session, watcher: Session, site: Callable[[Session], Act]
) -> None:
    """It has looked, and does not ring: a session that arms from here on finds it under way."""
    query, params = site(sessions.session())
    listener = Listener(sessions, "t")
    publisher.begin()
    publisher.run(query, *params)
    assert publisher.draw_xid() in unannounced(watcher)
    held = watcher.column(LOOKS, publisher.pid)
    assert held == ["durable_notify.outbox" if site is publish else "durable_notify.lock_rings"]
    publisher.commit()
    assert unannounced(watcher) == set()
    assert listener.heard() == []


@pytest.mark.parametrize("site", SITES)
def test_the_look_comes_after_the_lock(
    sessions: Sessions, publisher: Session, watcher: Session, site: Callable[[Session], Act]
) -> None:
    """Stopped where it looks at the doorbell: it can be seen by then."""
    query, params = site(sessions.session())
    look = "PERFORM pg_catalog.pg_advisory_xact_lock_shared(4711);"
    policy = "policy text := durable_notify.notify_policy(topic);"
    plant(
        watcher,
        "_notify_waiters",
        ("BEGIN", f"BEGIN {look}"),
        (policy, "policy text := 'when_waiting';"),
    )
    watcher.run(
        "SELECT durable_notify.set_notify_policy('t', 'always')"
    )  # publish() looks there, too
    watcher.run("SELECT pg_advisory_lock(4711)")
    publisher.begin()
    work = publisher.start(query, *params)
    sessions.wait_until_blocked(publisher, work)
    found = unannounced(watcher)
    watcher.run("SELECT pg_advisory_unlock(4711)")
    work.result()
    assert publisher.draw_xid() in found
    publisher.commit()


def test_a_dry_run_rings_no_doorbell(
    sessions: Sessions, publisher: Session, watcher: Session
) -> None:
    watcher.ack(delivered_messages(watcher))
    listener = Listener(sessions, "t", arm=True)
    for call in (
        "seek('g', 't', 0, dry_run => true)",
        "start_replay('g', 't', dry_run => true)",
    ):
        publisher.run(f"SELECT durable_notify.{call}")
    assert listener.heard() == []


def test_an_acknowledgement_that_frees_nothing_rings_no_doorbell(
    sessions: Sessions, publisher: Session
) -> None:
    """Without keys, retries and limits nothing becomes deliverable by it."""
    batch = delivered_messages(publisher)
    listener = Listener(sessions, "t", arm=True)
    publisher.begin()
    publisher.ack(batch)
    assert sessions.session().column(LOOKS, publisher.pid) == []
    publisher.commit()
    assert listener.heard() == []
