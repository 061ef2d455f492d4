"""Leases: who holds a message, until when, and what a settle does to it."""

from __future__ import annotations

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.support.schedules import (
    drain,
    settled_in_part_by_a_frozen_transaction_after_a_takeover,
    takeover_beside_an_open_settle,
)
from tests.support.sessions import LONG_GONE, Message, Session, Sessions, ids

EXTEND = "SELECT durable_notify.extend(%s, '1 hour')"
RELEASE = "SELECT durable_notify.release(%s, %s)"
NEXT_DUE = "SELECT durable_notify.next_due('g', '{t}')"
SMALL_TABLES = ["lease", "settlement", "lease_deadline", "deferred", "dead_letter"]
FROZEN = ["repeatable read", "serializable"]


def lease(sessions: Sessions, messages: int) -> tuple[Session, Session, list[Message]]:
    """Two sessions, and a batch that the first has claimed."""
    reader, other = sessions.readers(2)
    for n in range(messages):
        reader.publish(n)
    return reader, other, reader.claim()


def refused(state: str) -> pytest.RaisesExc[errors.DatabaseError]:
    """Expect an error with this SQLSTATE."""
    return pytest.raises(errors.DatabaseError, check=lambda error: error.sqlstate == state)


def kept(session: Session) -> dict[str, int]:
    """The tables that are not empty, and how many rows they have."""
    counts = {
        name: session.value(f"SELECT count(*) FROM durable_notify.{name}") for name in SMALL_TABLES
    }
    return {name: count for name, count in counts.items() if count}


# Settling.


@pytest.mark.parametrize("isolation", ["read committed", *FROZEN])
def test_settle_whole(sessions: Sessions, isolation: str) -> None:
    reader, other, batch = lease(sessions, 3)
    with reader.transaction(isolation):
        reader.settle(batch[0].token, batch)
        assert other.claim() == []
    assert kept(reader) == {}
    assert reader.claim() == []


@pytest.mark.parametrize("isolation", ["read committed", *FROZEN])
@pytest.mark.parametrize(
    "parts", [[[0], [1], [2]], [[2], [0, 1]], [[2, 1, 0]], [[1, 2], [], [0]]], ids=str
)
def test_settle_in_parts(sessions: Sessions, parts: list[list[int]], isolation: str) -> None:
    reader, _, batch = lease(sessions, 3)
    for part in parts:
        assert kept(reader)["lease"] == 1
        with reader.transaction(isolation):
            reader.settle(batch[0].token, [batch[n] for n in part])
    if isolation == "serializable":
        reader.run(LONG_GONE)  # settled in parts, it is left to run out
    assert reader.claim() == []
    assert kept(reader) == {}


def test_settle_in_all_ways_at_once(sessions: Sessions) -> None:
    reader, _, (first, second, third) = lease(sessions, 3)
    reader.settle(first.token, [first], [second], [third])
    assert kept(reader) == {"deferred": 1, "dead_letter": 1}
    again = reader.claim()
    assert [(m.id, m.attempt) for m in again] == [(second.id, 2)]
    query = "SELECT message_id, payload, attempt, reason FROM durable_notify.dead_letter"
    assert reader.run(query) == [(third.id, 2, 1, "rejected")]


def test_what_was_not_settled_is_redelivered(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 3)
    reader.settle(batch[0].token, batch[1:2])
    reader.run(LONG_GONE)
    again = other.claim()
    assert [(m.id, m.attempt) for m in again] == [(batch[0].id, 2), (batch[2].id, 2)]


@pytest.mark.parametrize("isolation", ["read committed", *FROZEN])
@pytest.mark.parametrize("settled", [1, 3])
def test_rolled_back_settle_is_none(sessions: Sessions, settled: int, isolation: str) -> None:
    reader, _, batch = lease(sessions, 3)
    reader.begin(isolation)
    reader.settle(batch[0].token, batch[:settled])
    reader.rollback()
    reader.run(LONG_GONE)
    assert ids(reader.claim()) == ids(batch)


@pytest.mark.parametrize("isolation", ["read committed", *FROZEN])
@pytest.mark.parametrize("how", ["acked", "retried", "rejected"])
def test_settle_twice(sessions: Sessions, how: str, isolation: str) -> None:
    reader, _, batch = lease(sessions, 3)
    token = batch[0].token
    reader.settle(token, batch[:1])
    before = kept(reader)
    for again in (batch[:1], batch, batch[::-1], [batch[1], batch[1]]):
        with refused("DN002"), reader.transaction(isolation):
            reader.settle(token, **{how: again})
    with refused("DN002"):
        reader.settle(token, batch[1:], batch[1:])
    assert kept(reader) == before


def test_settle_what_is_not_of_the_lease(sessions: Sessions) -> None:
    reader, _, batch = lease(sessions, 2)
    foreign = reader.publish()
    for wrong in ([foreign], [*ids(batch), foreign], [None], [-1]):
        with refused("DN003"):
            reader.settle(batch[0].token, wrong)
    assert kept(reader) == {"lease": 1}


def test_settle_what_is_settled_as_a_whole_or_never_was(sessions: Sessions) -> None:
    reader, _, batch = lease(sessions, 2)
    reader.settle(batch[0].token, batch)
    for token in (batch[0].token, 999, None):
        with refused("DN001"):
            reader.run("SELECT durable_notify.settle(%s, %s)", token, ids(batch))


def test_settling_nothing_is_fine(sessions: Sessions) -> None:
    reader, _, batch = lease(sessions, 1)
    reader.settle(batch[0].token)
    assert kept(reader) == {"lease": 1}


@pytest.mark.parametrize("settled", [1, 3])
def test_stale_settle_fails_with_its_transaction(sessions: Sessions, settled: int) -> None:
    reader, other, batch = lease(sessions, 3)
    reader.run("CREATE TABLE effect (id bigint)")
    reader.run(LONG_GONE)
    again = other.claim()
    assert [(m.id, m.attempt) for m in again] == [(m.id, 2) for m in batch]
    reader.begin()
    reader.run("INSERT INTO effect VALUES (1)")
    with refused("DN001"):
        reader.settle(batch[0].token, batch[:settled])
    reader.commit()  # which rolls back
    assert reader.column("SELECT id FROM effect") == []
    other.ack(again)
    assert kept(reader) == {}


@pytest.mark.parametrize("isolation", FROZEN)
def test_takeover_since_the_snapshot(sessions: Sessions, isolation: str) -> None:
    state = settled_in_part_by_a_frozen_transaction_after_a_takeover(sessions, isolation)
    assert state == errors.SerializationFailure.sqlstate


@pytest.mark.parametrize("isolation", FROZEN)
def test_whole_settle_after_a_takeover_since_the_snapshot(
    sessions: Sessions, isolation: str
) -> None:
    reader, other, batch = lease(sessions, 2)
    reader.begin(isolation)
    other.run(LONG_GONE)
    assert len(other.claim()) == 2
    with pytest.raises(errors.SerializationFailure):
        reader.settle(batch[0].token, batch)


@pytest.mark.parametrize("isolation", ["read committed", *FROZEN])
@pytest.mark.parametrize("settled", [1, 2])
def test_extended_since_the_snapshot(sessions: Sessions, settled: int, isolation: str) -> None:
    reader, other, batch = lease(sessions, 2)
    with reader.transaction(isolation):
        assert other.column(EXTEND, [batch[0].token]) == [batch[0].token]
        reader.settle(batch[0].token, batch[:settled])
    assert kept(reader).get("lease", 0) == 2 - settled


@pytest.mark.parametrize("isolation", ["read committed", *FROZEN])
def test_two_transactions_settle_a_lease_at_once(sessions: Sessions, isolation: str) -> None:
    """Neither waits for the other, whichever continues first; what is left is still right."""
    reader, other, batch = lease(sessions, 4)
    token = batch[0].token
    for session in (reader, other):
        session.run("SET lock_timeout = '1s'")
        session.begin(isolation)
    reader.settle(token, batch[:1])
    other.settle(token, batch[2:3])
    other.settle(token, rejected=batch[3:])
    reader.settle(token, retried=batch[1:2])
    reader.commit()
    other.commit()
    reader.run(LONG_GONE)
    assert [(m.id, m.attempt) for m in reader.claim()] == [(batch[1].id, 2)]
    assert kept(reader) == {"lease": 1, "dead_letter": 1}


def test_two_transactions_settle_the_same_at_once(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 2)
    token = batch[0].token
    for part, state in ((batch[:1], "DN002"), (batch[1:], "DN001")):
        reader.begin()
        reader.settle(token, part)
        waiting = other.start("SELECT durable_notify.settle(%s, %s)", token, ids(part))
        sessions.wait_until_blocked(other, waiting)
        reader.commit()
        with refused(state):
            waiting.result()


def test_two_transactions_settle_all_at_once(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 2)
    reader.begin()
    reader.ack(batch)
    waiting = other.start("SELECT durable_notify.settle(%s, %s)", batch[0].token, ids(batch))
    sessions.wait_until_blocked(other, waiting)
    reader.commit()
    with refused("DN001"):
        waiting.result()


# Takeover.


@pytest.mark.parametrize("settled", [1, 2])
def test_claim_passes_by_an_open_settle_that_commits(sessions: Sessions, settled: int) -> None:
    """Late is not superseded: a settle under way when the lease expires wins."""
    outcome = takeover_beside_an_open_settle(sessions, 2, settled)
    assert outcome.exact, outcome


@pytest.mark.parametrize("settled", [1, 2])
def test_claim_passes_by_an_open_settle_that_does_not(sessions: Sessions, settled: int) -> None:
    reader, other, batch = lease(sessions, 2)
    reader.run(LONG_GONE)
    reader.begin()
    reader.settle(batch[0].token, batch[:settled])
    other.run("SET statement_timeout = '3s'")
    assert other.claim() == []
    reader.rollback()
    assert [(m.id, m.attempt) for m in other.claim()] == [(m.id, 2) for m in batch]


def test_late_settle_counts(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 1)
    reader.run(LONG_GONE)
    reader.ack(batch)
    assert other.claim() == []


@pytest.mark.parametrize("commits", [True, False])
def test_settle_during_a_takeover(sessions: Sessions, commits: bool) -> None:
    reader, other, batch = lease(sessions, 1)
    reader.run(LONG_GONE)
    other.begin()
    assert len(other.claim()) == 1
    waiting = reader.start("SELECT durable_notify.settle(%s, %s)", batch[0].token, [batch[0].id])
    sessions.wait_until_blocked(reader, waiting)
    if commits:
        other.commit()
        with refused("DN001"):
            waiting.result()
    else:
        other.rollback()
        waiting.result()
        assert other.claim() == []


def test_leases_run_out_by_the_clock_of_the_database(sessions: Sessions) -> None:
    reader = sessions.reader()
    message_id = reader.publish()
    for attempt in range(1, 5):
        (message,) = reader.claim(lease="1 microsecond")
        assert (message.id, message.attempt) == (message_id, attempt)
    (held,) = reader.claim()
    assert reader.claim() == []
    reader.ack([held])


def test_deadline_does_not_count_from_the_transactions_start(sessions: Sessions) -> None:
    reader = sessions.reader()
    reader.publish()
    with reader.transaction():
        began = reader.value("SELECT now()")
        before = reader.value("SELECT clock_timestamp()")
        assert before > began
        reader.claim(lease="1 microsecond")
        assert reader.value("SELECT min(deadline) FROM durable_notify.lease") > before


def test_dead_letters(sessions: Sessions) -> None:
    reader = sessions.reader()
    reader.run("""SELECT durable_notify.configure('g', '{"max_attempts": 3}')""")
    poison = reader.publish("poison", key="k")
    for attempt in (1, 2, 3):
        (message,) = reader.claim(lease="1 microsecond")
        assert (message.id, message.attempt) == (poison, attempt)
    fine = reader.publish()
    assert drain(reader) == [fine]
    query = "SELECT message_id, payload, key, attempt, reason FROM durable_notify.dead_letter"
    ((*found, reason),) = reader.run(query)
    assert found == [poison, "poison", "k", 3]
    assert reason == "attempt 3 of 3 failed: LeaseEnded: attempt 3 of a test ended with its lease"
    assert kept(reader) == {"dead_letter": 1}


def test_dead_letters_of_retries(sessions: Sessions) -> None:
    reader = sessions.reader()
    reader.run("""SELECT durable_notify.configure('g', '{"max_attempts": 2}')""")
    reader.publish()
    query = (
        "SELECT durable_notify.settle(%s, retried => %s, retry_errors => %s, retry_delays => '{0}')"
    )
    for error in ("first", "second"):
        (message,) = reader.claim()
        reader.run(query, message.token, [message.id], [Jsonb({"message": error})])
    assert reader.claim() == []
    reasons = reader.column("SELECT reason FROM durable_notify.dead_letter")
    assert reasons == ["attempt 2 of 2 failed: second"]


def test_rejected_with_a_reason(sessions: Sessions) -> None:
    reader, _, batch = lease(sessions, 2)
    query = "SELECT durable_notify.settle(%s, rejected => %s, reject_reasons => %s)"
    reader.run(query, batch[0].token, ids(batch), ["bad", None])
    query = "SELECT reason FROM durable_notify.dead_letter ORDER BY message_id"
    assert reader.column(query) == ["bad", "rejected"]


def test_groups_fail_apart(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 1)
    other.subscribe("other")
    (message,) = other.claim(group="other")
    other.settle(message.token, rejected=[message])
    reader.settle(batch[0].token, retried=batch)
    assert len(reader.claim()) == 1
    assert other.claim(group="other") == []


# Faults once found here.


def test_a_batch_full_of_retries_does_not_read_the_outbox(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(3)]
    batch = reader.claim()
    reader.run("SELECT durable_notify.release(%s)", [batch[0].token])
    published += [publisher.publish()]
    again = reader.claim(3)
    assert ids(again) == published[:3]
    assert ids(reader.claim()) == published[3:]


def test_a_message_comes_once_in_a_batch(sessions: Sessions) -> None:
    """After a replay a message may come from the outbox and as a retry at once."""
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(3)]
    assert ids(reader.claim()) == published
    reader.run("SELECT redelivered FROM durable_notify.seek('g', 't', 0)")
    reader.run(LONG_GONE)
    batch = reader.claim()
    assert ids(batch) == published
    reader.ack(batch)
    assert reader.claim() == []


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_extended_again_while_a_frozen_transaction_settles(
    sessions: Sessions, isolation: str
) -> None:
    reader, publisher, beat = sessions.readers(3)
    publisher.publish()
    (message,) = reader.claim()
    extend = "SELECT durable_notify.extend(%s, '1 hour')"
    assert beat.column(extend, [message.token]) == [message.token]
    with reader.transaction(isolation):
        assert beat.column(extend, [message.token]) == [message.token]
        reader.settle(message.token, [message])
    assert reader.claim() == []


def test_heartbeats_do_not_outlive_their_leases(sessions: Sessions) -> None:
    reader, publisher, beat = sessions.readers(3)
    publisher.publish()
    (message,) = reader.claim()
    with reader.transaction("repeatable read"):
        assert beat.column("SELECT durable_notify.extend(%s, '1 hour')", [message.token])
        reader.settle(message.token, [message])
    publisher.publish()
    assert reader.claim()
    assert reader.column("SELECT token FROM durable_notify.lease_deadline") == []


def test_a_lease_extended_during_a_takeover_of_others_is_kept(sessions: Sessions) -> None:
    """The takeover has read the deadlines already, but not yet come to this lease."""
    reader, publisher, beat, holder = sessions.readers(4)
    leases = []
    for _ in range(30):  # more than plpgsql fetches at once
        publisher.publish()
        leases += reader.claim(1)
    reader.run(LONG_GONE)
    last = leases[-1]
    with holder.transaction():
        holder.run("LOCK TABLE durable_notify.deferred IN SHARE MODE")
        takeover = reader.start("SELECT id FROM durable_notify.claim('g', '{t}')")
        sessions.wait_until_blocked(reader, takeover)
        assert beat.column("SELECT durable_notify.extend(%s, '1 hour')", [last.token])
    assert [i for (i,) in takeover.result()] == ids(leases)[:-1]
    beat.settle(last.token, [last])


def test_settled_whole_while_settled_in_part(sessions: Sessions) -> None:
    """The second settle waits for the first, then finds that it comes too late."""
    reader, publisher, other = sessions.readers(3)
    publisher.publish()
    publisher.publish()
    batch = reader.claim()
    token = batch[0].token
    reader.begin()
    reader.settle(token, batch[:1])
    settle = "SELECT durable_notify.settle(%s, %s)"
    waiting = other.start(settle, token, ids(batch))
    sessions.wait_until_blocked(other, waiting)
    reader.commit()
    with pytest.raises(errors.DatabaseError) as caught:
        waiting.result()
    assert caught.value.sqlstate == "DN002"
    reader.settle(token, batch[1:])


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_settled_whole_by_a_frozen_transaction_that_missed_a_part(
    sessions: Sessions, isolation: str
) -> None:
    reader, publisher, other = sessions.readers(3)
    publisher.publish()
    publisher.publish()
    batch = reader.claim()
    token = batch[0].token
    other.begin(isolation)
    reader.settle(token, batch[:1])
    with pytest.raises(errors.SerializationFailure):
        other.settle(token, batch)
    reader.settle(token, batch[1:])
