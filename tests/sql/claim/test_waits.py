"""No operation waits without a bound for an open transaction, none confirms what is going, none spins."""

from __future__ import annotations

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.support.injection import plant
from tests.support.observe import Listener
from tests.support.sessions import LONG_GONE, Session, Sessions, ids

EXTEND = "SELECT durable_notify.extend(%s, '1 hour')"
NEXT_DUE = "SELECT durable_notify.next_due('g', %s, 'a test')"


def ready(sessions: Sessions, count: int, topics: str = "t", **options: object) -> list[Session]:
    several = sessions.take(count)
    several[0].subscribe(topics=topics)
    several[0].run("SELECT durable_notify.configure('g', %s)", Jsonb(options))
    return several


def due(session: Session, topic: str = "t") -> float | None:
    found = session.value(NEXT_DUE, [topic])
    return None if found is None else float(found)


# Leases.


@pytest.mark.parametrize("by", ["claim", "release"])
def test_extend_does_not_confirm_what_is_being_taken_over(sessions: Sessions, by: str) -> None:
    one, taker, keeper = ready(sessions, 3)
    one.publish(key="k")
    one.publish(topic="u")
    one.subscribe("h", "u")
    (held,), (other,) = one.claim(), one.claim(group="h", topics="u")
    one.run(LONG_GONE)
    taker.begin()
    if by == "claim":
        assert ids(taker.claim()) == [held.id]
    else:
        assert taker.column("SELECT durable_notify.release(%s)", [held.token]) == []
    assert keeper.column(EXTEND, [held.token, other.token]) == [other.token]
    taker.rollback()
    assert keeper.column(EXTEND, [held.token, other.token]) == sorted([held.token, other.token])


def test_extend_waits_out_a_claim_that_only_looks(sessions: Sessions) -> None:
    """A claim locks a lease for a moment, and finds that it was extended."""
    one, looker, keeper = ready(sessions, 3)
    one.publish()
    (held,) = one.claim()
    looker.begin()
    looker.run("SELECT FROM durable_notify.lease FOR UPDATE")
    plant(one, "extend", ("interval '200 ms' THEN '200ms'", "interval '20 s' THEN '20s'"))
    extending = keeper.start(EXTEND, [held.token])
    sessions.wait_until_blocked(keeper, extending)
    looker.rollback()
    assert extending.result() == [(held.token,)]


# Waiting.


@pytest.mark.parametrize("how", ["lease", "exclusive"])
def test_what_an_open_transaction_settles_is_waited_for_with_pauses(
    sessions: Sessions, how: str
) -> None:
    one, handler = ready(sessions, 2, exclusive=how == "exclusive")
    one.publish()
    one.publish()
    held = handler.claim(1 if how == "exclusive" else 2)
    one.run(LONG_GONE)
    handler.begin()
    handler.ack(held)
    if how == "exclusive":
        one.run(
            "UPDATE durable_notify.active_consumer SET deadline = 'epoch', consumer = 'another'"
        )
    assert one.claim() == []
    assert (due(one) or 0) >= 0.4
    handler.rollback()
    assert set(ids(held)) <= set(ids(one.claim()))


def test_a_moment_that_has_just_passed_is_looked_at_soon(sessions: Sessions) -> None:
    (one,) = ready(sessions, 1)
    seconds = [
        one.value(f"SELECT durable_notify._seconds_until(clock_timestamp() - interval '{ago}')")
        for ago in ("0", "1 second", "1 day")
    ]
    assert seconds[0] == pytest.approx(0.01, abs=0.005)
    assert seconds[1] == pytest.approx(0.5, abs=0.2)
    assert seconds[2] == 1
    assert one.value("SELECT durable_notify._seconds_until(NULL)") is None
    assert one.value("SELECT durable_notify._seconds_until('infinity')") > 30_000_000
    assert one.value("SELECT durable_notify._seconds_until('-infinity')") == 1


# Limits of a group.


def test_a_full_group_looks_at_the_leases_of_all_its_topics(sessions: Sessions) -> None:
    (one,) = ready(sessions, 1, "a b", max_in_flight=1)
    one.publish(topic="a")
    waiting = one.publish(topic="b")
    (held,) = one.claim(topics="a")
    assert one.claim(topics="b") == []
    assert 3000 < (due(one, "b") or 0) <= 3600
    one.ack([held])
    assert (due(one, "b") or 1) < 1
    assert ids(one.claim(topics="b")) == [waiting]


@pytest.mark.parametrize(
    ("free", "payload"),
    [
        ("settle(%(token)s, %(ids)s)", "*"),
        ("release(ARRAY[%(token)s::bigint])", "0"),
    ],
)
def test_room_that_is_made_wakes_all_topics_of_the_group(
    sessions: Sessions, free: str, payload: str
) -> None:
    one, two = ready(sessions, 2, "a b", max_in_flight=1)
    one.publish(topic="a")
    one.publish(topic="b")
    (held,) = two.claim(topics="a")
    listener = Listener(sessions, "b", arm=True)
    two.connection.execute(
        f"SELECT durable_notify.{free}".encode(), {"token": held.token, "ids": [held.id]}
    )
    assert listener.heard() == [("durable_notify:b", payload)]


def test_leases_from_before_the_limit_are_looked_at_with_pauses(sessions: Sessions) -> None:
    """They ring their own topic at most."""
    (one,) = ready(sessions, 1, "a b")
    one.publish(topic="a")
    one.publish(topic="b")
    one.claim(topics="a")
    one.run("""SELECT durable_notify.configure('g', '{"max_in_flight": 1}')""")
    assert one.claim(topics="b") == []
    assert 0.3 < (due(one, "b") or 0) <= 0.5


# Changes of groups.

CHANGES = ["rename_group('g', 'h')", "delete_group('g')"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("use", ["once", "settle"])
def test_a_change_of_a_group_waits_without_its_lock(
    sessions: Sessions, change: str, use: str
) -> None:
    one, handler, admin = ready(sessions, 3)
    one.publish()
    held = one.claim()
    later = one.publish()
    handler.begin()
    if use == "once":
        assert handler.value("SELECT durable_notify.once('g', 1)")
    else:
        handler.settle(held[0].token, rejected=held)
    if use == "once" or change.startswith("delete"):
        changing = admin.start(f"SELECT durable_notify.{change}")
        assert ids(one.claim()) == [later]  # claims continue meanwhile
        handler.commit()
        changing.result(timeout=10)
    else:
        admin.run(f"SELECT durable_notify.{change}")
        handler.commit()
    assert one.column("SELECT name FROM durable_notify.consumer_group") == (
        [] if change.startswith("delete") else ["h"]
    )


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_group_gives_up_in_words(sessions: Sessions, change: str) -> None:
    _one, handler, admin = ready(sessions, 3)
    handler.begin()
    assert handler.value("SELECT durable_notify.once('g', 1)")
    plant(admin, "_lock_group_and", ("interval '5 seconds'", "interval '0.1 seconds'"))
    with pytest.raises(errors.LockNotAvailable, match='group "g" is in use'):
        admin.run(f"SELECT durable_notify.{change}")


@pytest.mark.parametrize("call", ["subscribe('g', '{u}')", "discover('g', '{>}')"])
def test_joining_a_group_waits_with_a_bound(sessions: Sessions, call: str) -> None:
    one, keeper = ready(sessions, 2, "t >")
    one.publish(topic="u")
    name = call.partition("(")[0]
    plant(one, name, ("SET lock_timeout TO '5s'", "SET lock_timeout TO '50ms'"))
    keeper.begin()
    keeper.run("SELECT durable_notify.pause('g')")
    with pytest.raises(errors.LockNotAvailable):
        one.run(f"SELECT durable_notify.{call}")


# Doorbells.


def test_topics_of_the_same_hash_are_disarmed_one_by_one(sessions: Sessions) -> None:
    listener, publisher = sessions.take(2)
    ((one, two),) = publisher.run("""
        SELECT min(t.name), max(t.name) FROM (
            SELECT format('topic.%s', n) AS name FROM generate_series(1, 300000) AS n) AS t
         GROUP BY hashtext(t.name) HAVING count(*) > 1 LIMIT 1""")
    for topic in (one, two, two):
        listener.listen(topic)
    assert listener.value("SELECT durable_notify.disarm(%s)", one)
    assert not listener.value("SELECT durable_notify.armed(%s)", one)
    assert not listener.value("SELECT durable_notify.disarm(%s)", one)
    assert listener.value("SELECT durable_notify.armed(%s)", two)
    assert publisher.value("SELECT durable_notify._has_waiter(%s)", two)
    assert listener.value("SELECT durable_notify.disarm(%s)", two)
    assert not publisher.value("SELECT durable_notify._has_waiter(%s)", two)
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
    assert publisher.value(locks, listener.pid) == 0


def test_topics_of_the_same_mark_are_armed_one_by_one(sessions: Sessions) -> None:
    listener, publisher = sessions.take(2)
    ((one, two),) = publisher.run("""
        SELECT min(t.name), max(t.name) FROM (
            SELECT format('topic.%s', n) AS name FROM generate_series(1, 300000) AS n) AS t
         GROUP BY durable_notify._topic_mark(t.name) HAVING count(*) > 1 LIMIT 1""")
    listener.listen(one)
    assert not listener.value("SELECT durable_notify.armed(%s)", two)
    listener.listen(two)
    assert publisher.value("SELECT durable_notify._has_waiter(%s)", two)
    assert listener.value("SELECT durable_notify.disarm(%s)", one)
    assert listener.value("SELECT durable_notify.armed(%s)", two)
    assert not publisher.value("SELECT durable_notify._has_waiter(%s)", one)


def test_cancelled_half_way_a_doorbell_is_armed_as_a_whole(sessions: Sessions) -> None:
    """Locks of a session outlive the statement that took them: it has both, and disarm() knows them."""
    listener, publisher = sessions.take(2)
    mark = "pg_catalog.pg_try_advisory_lock_shared(1685024363"
    plant(
        publisher,
        "arm",
        (mark, f"pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid()) AND {mark}"),
    )
    with pytest.raises(errors.QueryCanceled):
        listener.run("SELECT durable_notify.arm('t')")
    assert listener.value("SELECT durable_notify.armed('t')")
    assert publisher.value("SELECT durable_notify._has_waiter('t')")
    assert listener.value("SELECT durable_notify.disarm('t')")
    assert not publisher.value("SELECT durable_notify._has_waiter('t')")


# Durability.


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("lasting", [None, "key", "exclusive", "max_in_flight"])
def test_only_a_claim_alone_commits_without_waiting_for_the_disk(
    sessions: Sessions, alone: bool, lasting: str | None
) -> None:
    """And only one that may be forgotten: it holds no key, and neither is it counted nor the only one."""
    options = {"exclusive": {"exclusive": True}, "max_in_flight": {"max_in_flight": 9}}
    (one,) = ready(sessions, 1, "t u", **options.get(lasting or "", {}))
    one.publish(topic="t", key="k" if lasting == "key" else None)
    one.publish(topic="u")
    one.begin()
    query = "SELECT * FROM durable_notify.claim('g', '{t,u}', owner => 'a test', alone => %s)"
    assert len(one.run(query, alone)) == 2
    setting = one.value("SHOW synchronous_commit")
    one.commit()
    assert setting == ("off" if alone and not lasting else "on")
    assert one.value("SHOW synchronous_commit") == "on"
