"""The auditor: content with what is right, and with nothing that is planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import auditor
from tests.faults.auditor import Facts, audit, look
from tests.faults.stateful.planted import lease_not_known
from tests.support.injection import plant
from tests.support.sessions import LONG_GONE, Message, Session, Sessions, ids


def publish(session: Session, *keys: str | None) -> list[int]:
    return [session.publish(n, key=key) for n, key in enumerate(keys)]


def busy(session: Session) -> tuple[list[int], Facts]:
    """Publish six messages: one each acked, dead, retried, parked behind it, leased, unread."""
    session.subscribe()
    sent = publish(session, "a", "b", "c", "c", "d", "e")
    first = session.claim(3)
    session.settle(first[0].token, [first[0]], retried=[first[2]], rejected=[first[1]])
    session.run("UPDATE durable_notify.deferred SET due_at = clock_timestamp() + '1 hour'")
    session.claim(1)  # passes what waits for its key
    return sent, Facts({sent[0]})


def test_what_is_right(sessions: Sessions) -> None:
    (session,) = sessions.take(1)
    sent, facts = busy(session)
    places = {place.id: place for place in auditor.whereabouts(session)}
    assert [places[i].places for i in sent] == [0, 1, 1, 1, 1, 1]
    assert (places[sent[1]].dead, places[sent[2]].deferred, places[sent[3]].deferred) == (1, 1, 1)
    assert places[sent[4]].leased
    assert places[sent[5]].unread
    assert audit(session, {"g": facts}, sent)["g"] == [sent[5], sent[2], sent[3], sent[4]]


def test_paused_exclusive_limited_and_early(sessions: Sessions) -> None:
    (session,) = sessions.take(1)
    session.subscribe("g")
    session.subscribe("h")
    sent = publish(session, None, None, None)
    later = session.value("""
        SELECT durable_notify.publish('t', '1', deliver_at => clock_timestamp() + '1 hour')""")
    session.run("""SELECT durable_notify.configure('g', '{"exclusive": true, "rate_limit": 1}')""")
    assert session.claim(1, "g")
    session.run("SELECT durable_notify.pause('h')")
    came = audit(session, {"g": Facts(), "h": Facts()}, [*sent, later])
    assert {group: sorted(found) for group, found in came.items()} == {"g": sent, "h": sent}


def test_replayed(sessions: Sessions) -> None:
    (session,) = sessions.take(1)
    session.subscribe()
    sent = publish(session, "a", "b", "a")
    session.ack(session.claim())
    session.run("SELECT durable_notify.start_replay('g', 't')")
    session.run("SELECT durable_notify.seek('g', 't', 0)")
    session.run("SELECT durable_notify.advance_replays('g', '{t}')")
    facts = Facts(set(sent), again=True)
    assert set(audit(session, {"g": facts}, sent)["g"]) == set(sent)


def found(session: Session, facts: Facts, sent: list[int]) -> str:
    with pytest.raises(AssertionError) as caught:
        audit(session, {"g": facts}, sent)
    return str(caught.value)


# What is planted after busy(), and what the auditor says of it.
PLANTED = {
    "a position is lost": ("DELETE FROM durable_notify.position", "has not one position"),
    "a lease is in no position": (
        "UPDATE durable_notify.position SET lease_tokens = '{}'",
        "no position knows of",
    ),
    "a lease never ends": (
        "UPDATE durable_notify.lease SET deadline = 'infinity'",
        "has a lease that never ends",
    ),
    "a lease loses a message": ("DELETE FROM durable_notify.lease", "nor anywhere"),
    "a deferred message is lost": (
        "DELETE FROM durable_notify.deferred WHERE reason = 'retry'",
        "nor anywhere",
    ),
    "a dead letter is lost": ("DELETE FROM durable_notify.dead_letter", "nor anywhere"),
    "the position passes a message": (
        "UPDATE durable_notify.position SET p = 1000",
        "nor anywhere",
    ),
    "a key stays in a group without order": (
        "UPDATE durable_notify.consumer_group SET order_by = 'none'",
        "under a key that is not its own",
    ),
    "a retry waits for ever": (
        "UPDATE durable_notify.deferred SET due_at = 'infinity'",
        "deferred a message for ever",
    ),
    "a replay that does not run": (
        "UPDATE durable_notify.deferred SET replay_job = 999 WHERE reason = 'key'",
        "waits for a replay",
    ),
    "removed from the outbox": ("DELETE FROM durable_notify.outbox", "not in the outbox"),
    "in two places": (
        "UPDATE durable_notify.position SET p = 1, h0 = 0",
        "in more than one place",
    ),
}


@pytest.mark.parametrize(("statement", "said"), PLANTED.values(), ids=PLANTED.keys())
def test_finds_what_is_wrong_in_the_tables(sessions: Sessions, statement: str, said: str) -> None:
    (session,) = sessions.take(1)
    sent, facts = busy(session)
    assert look(session, {"g": facts}, sent) == []
    session.run(statement)
    assert said in "\n".join(look(session, {"g": facts}, sent))


def test_finds_a_redelivery(sessions: Sessions) -> None:
    (session,) = sessions.take(1)
    sent, facts = busy(session)
    facts.acked.add(sent[5])
    assert "acknowledged, and redelivered: 1" in found(session, facts, sent)


# What is planted in a function, and what is done then.


def retry(session: Session, batch: list[Message]) -> Facts:
    session.settle(batch[0].token, batch[1:], retried=batch[:1])
    return Facts(set(ids(batch[1:])))


def expire(session: Session, batch: list[Message]) -> Facts:
    session.run(LONG_GONE)
    return Facts()


def a_settle_that_loses_what_it_retries(session: Session) -> None:
    plant(
        session,
        "settle",
        ("PERFORM durable_notify._schedule_retry(", "PERFORM pg_catalog.concat("),
    )


def an_expiry_that_loses(session: Session) -> None:
    plant(
        session, "_reclaim_leases", ("PERFORM durable_notify._defer(", "PERFORM pg_catalog.concat(")
    )


def a_due_time_in_the_past(session: Session) -> None:
    """What next_due said where a consumer had nothing to look for."""
    floor = "LEAST(1, GREATEST(0.01, w.seconds / -2))"
    plant(session, "_seconds_until", (floor, "0"))
    plant(session, "_next_due_in_topics", ("RETURN due;", "RETURN 'epoch';"))


@pytest.mark.parametrize(
    ("change", "then", "said"),
    [
        (a_settle_that_loses_what_it_retries, retry, "nor anywhere"),
        (lease_not_known, expire, "no position knows of"),
        (an_expiry_that_loses, expire, "nor anywhere"),
        (a_due_time_in_the_past, retry, "spins"),
    ],
)
def test_finds_what_is_wrong_in_a_function(
    sessions: Sessions,
    change: Callable[[Session], None],
    then: Callable[[Session, list[Message]], Facts],
    said: str,
) -> None:
    (session,) = sessions.take(1)
    session.subscribe()
    before = publish(session, "a", "b", None)
    facts = then(session, session.claim())
    audit(session, {"g": facts}, before)  # not a fault without it
    change(session)
    sent = publish(session, "a", "b", None)
    facts = then(session, session.claim())
    facts.acked.update(before)
    assert said in found(session, facts, before + sent)
