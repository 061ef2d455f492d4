"""How a group reads the outbox: nothing lost, nothing twice, by schedules that never vary."""

from __future__ import annotations

from contextlib import suppress

import pytest
from psycopg import errors

from tests.support.injection import last_id_before_the_lock, stragglers_of_many_topics
from tests.support.schedules import TRAPS, Trap, claim_and_ack, drain
from tests.support.sessions import Sessions, ids

UNREAD = "SELECT id FROM durable_notify._unread(%s)"
REPLAY = "SELECT redelivered FROM durable_notify.seek('g', 't', %s, backward_only => true)"


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_trap(sessions: Sessions, trap: Trap) -> None:
    outcome = trap(sessions)
    assert outcome.exact, outcome


# Publishers of all sorts.


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_no_claim_waits_for_a_long_transaction(sessions: Sessions, isolation: str) -> None:
    reader, slow, fast = sessions.readers(3)
    slow.begin(isolation)
    seen, late = [fast.publish()], [slow.publish()]
    for _ in range(5):
        seen.append(fast.publish())
        assert drain(reader) == seen
        seen.clear()
        late.append(slow.publish())
    slow.commit()
    assert drain(reader) == late


def test_savepoints(sessions: Sessions) -> None:
    """The column xid is the whole transaction's, where xmin is the savepoint's."""
    reader, slow, fast = sessions.readers(3)
    slow.begin()
    xid = slow.draw_xid()
    late = [slow.publish()]
    slow.run("SAVEPOINT a")
    late += [slow.publish()]
    slow.run("SAVEPOINT b")
    slow.publish()
    slow.run("ROLLBACK TO b")
    slow.run("RELEASE a")
    seen = fast.publish()
    assert drain(reader) == [seen]
    query = "SELECT DISTINCT xid::text::bigint FROM durable_notify.outbox WHERE id <> %s"
    assert slow.column(query, seen) == [xid]
    slow.commit()
    assert drain(reader) == late


def test_prepared_transactions(sessions: Sessions) -> None:
    reader, slow, fast = sessions.take(3)
    # NOTIFY refuses PREPARE TRANSACTION, so these publishers need a topic that does not ring.
    reader.run("SELECT durable_notify.set_notify_policy('t', 'never')")
    reader.subscribe()
    slow.begin()
    first = slow.publish()
    slow.run("PREPARE TRANSACTION 'first'")
    slow.begin()
    slow.publish()
    slow.run("PREPARE TRANSACTION 'second'")
    seen = [fast.publish(), fast.publish()]
    assert drain(reader) == seen
    fast.run("COMMIT PREPARED 'first'")
    fast.run("ROLLBACK PREPARED 'second'")
    assert drain(reader) == [first]


def test_rolled_back_messages_never_come(sessions: Sessions) -> None:
    reader, slow, fast = sessions.readers(3)
    slow.begin()
    slow.publish()
    seen = fast.publish()
    assert drain(reader) == [seen]
    slow.rollback()
    assert drain(reader) == []


def test_younger_message_of_an_older_transaction(sessions: Sessions) -> None:
    """It waited for a key's row lock: order is by id, not by xid."""
    reader, slow, fast = sessions.readers(3)
    reader.run("CREATE TABLE guarded AS SELECT 1 AS key")
    slow.begin()
    xid = slow.draw_xid()
    fast.begin()
    fast.run("SELECT FROM guarded FOR UPDATE")
    cause = fast.publish()
    assert fast.draw_xid() > xid
    waiting = slow.start("SELECT FROM guarded FOR UPDATE")
    sessions.wait_until_blocked(slow, waiting)
    fast.commit()
    waiting.result()
    effect = slow.publish()
    slow.commit()
    assert drain(reader, 1) == [cause, effect]


def test_late_ones_come_first_and_each_part_in_order(sessions: Sessions) -> None:
    """Within a window: what is late, by id; then the rest, by id."""
    reader, slow, slower, fast = sessions.readers(4)
    slower.begin()
    slow.begin()
    late = [slow.publish(), slower.publish(), slow.publish()]
    seen = fast.publish()
    assert claim_and_ack(reader) == [seen]
    rest = [fast.publish(), fast.publish()]
    slower.commit()
    slow.commit()
    assert drain(reader) == late + rest


@pytest.mark.parametrize("change", ["CACHE 50", "INCREMENT -1 START 1000000 MAXVALUE 1000000"])
def test_reading_does_not_rest_on_the_order_of_ids(sessions: Sessions, change: str) -> None:
    """Only the order within a key does."""
    reader, slow, fast = sessions.readers(3)
    sequence = reader.value("SELECT pg_get_serial_sequence('durable_notify.outbox', 'id')")
    reader.run(f"ALTER SEQUENCE {sequence} {change}")
    with suppress(errors.InvalidParameterValue):
        reader.run(f"ALTER SEQUENCE {sequence} RESTART")
    slow.begin()
    committed = [slow.publish(), fast.publish()]
    delivered = drain(reader, 1)
    committed += [slow.publish(), fast.publish()]
    delivered += drain(reader, 1)
    slow.commit()
    committed += [fast.publish()]
    delivered += drain(reader, 1)
    assert sorted(delivered) == sorted(committed)


# Windows and claims.


def test_open_window_is_bounded(sessions: Sessions) -> None:
    """A window left open by the limit ends at h1, whatever commits meanwhile."""
    reader, slow, fast = sessions.readers(3)
    first = [fast.publish() for _ in range(3)]
    slow.begin()
    late = slow.publish()
    first += [fast.publish()]
    delivered = claim_and_ack(reader, 2)
    position = reader.position()
    assert (position.h0, position.p, position.h1) == (0, first[1], first[-1])
    slow.commit()
    after = [fast.publish() for _ in range(3)]
    delivered += claim_and_ack(reader, 1)
    assert reader.position().h1 == first[-1]
    delivered += drain(reader, 2)
    assert delivered == [*first, late, *after]
    assert reader.position().s1 is None


def test_window_ends_exactly_at_the_limit(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(4)]
    assert claim_and_ack(reader, 4) == published
    assert reader.position().s1 is None
    published = [publisher.publish()]
    assert drain(reader, 4) == published


def test_old_window_and_new_one_in_one_batch(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(3)]
    assert claim_and_ack(reader, 1) == published[:1]
    published += [publisher.publish() for _ in range(3)]
    assert claim_and_ack(reader) == published[1:]


def test_claim_that_is_rolled_back(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(3)]
    reader.begin()
    assert ids(reader.claim(2)) == published[:2]
    reader.rollback()
    assert drain(reader, 2) == published


@pytest.mark.parametrize(
    "begun",
    [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN; SELECT pg_current_xact_id()",
        "BEGIN; SELECT pg_current_xact_id(); SAVEPOINT here",
    ],
)
def test_claim_is_refused_above_read_committed_and_beside_writes(
    sessions: Sessions, begun: str
) -> None:
    reader = sessions.reader()
    reader.connection.execute(begun.encode())
    with pytest.raises(
        errors.DatabaseError, match="READ COMMITTED transaction of its own"
    ) as caught:
        reader.claim()
    assert caught.value.sqlstate == "DN004"


def test_two_claims_in_one_transaction(sessions: Sessions) -> None:
    """The first may have drawn an xid; where it found nothing, it has not."""
    reader, publisher = sessions.readers(2)
    reader.begin()
    assert reader.claim() == []
    publisher.publish()
    assert len(reader.claim()) == 1
    with pytest.raises(errors.DatabaseError, match="transaction of its own"):
        reader.claim()


@pytest.mark.parametrize(
    ("most", "lease"), [(0, "1 hour"), (10001, "1 hour"), (None, "1 hour"), (1, "0"), (1, None)]
)
def test_claims_that_make_no_sense(sessions: Sessions, most: int | None, lease: str | None) -> None:
    reader = sessions.reader()
    with pytest.raises(errors.InvalidParameterValue):
        reader.run("SELECT durable_notify.claim('g', '{t}', %s, %s)", most, lease)


def test_claims_of_a_group_are_serialised(sessions: Sessions) -> None:
    reader, other, stranger, publisher = sessions.readers(4)
    stranger.subscribe("another")
    published = [publisher.publish() for _ in range(4)]
    reader.begin()
    assert ids(reader.claim(2)) == published[:2]
    waiting = other.start("SELECT id FROM durable_notify.claim('g', '{t}', 2)")
    sessions.wait_until_blocked(other, waiting)
    assert ids(stranger.claim(group="another")) == published
    reader.commit()
    assert [message_id for (message_id,) in waiting.result()] == published[2:]


def test_busy_is_not_empty(sessions: Sessions) -> None:
    reader, other, publisher = sessions.readers(3)
    publisher.publish()
    reader.run("ALTER FUNCTION durable_notify.claim SET lock_timeout = '50ms'")
    reader.begin()
    assert len(reader.claim()) == 1
    with pytest.raises(errors.LockNotAvailable):
        other.claim()
    reader.rollback()
    assert len(other.claim()) == 1


def test_empty_claim_writes_nothing(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    for _ in range(3):
        position = reader.position()
        reader.begin()
        assert reader.claim() == []
        assert reader.value("SELECT pg_current_xact_id_if_assigned() IS NULL")
        reader.commit()
        assert reader.position() == position
        publisher.publish()
        drain(reader)


def test_one_position_is_kept(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    for n in range(5):
        publisher.publish()
        drain(reader)
        assert reader.position().seq == n + 2
        assert reader.value("SELECT count(*) FROM durable_notify.position") == 1


# Groups and topics.


def test_several_topics_in_a_group(sessions: Sessions) -> None:
    reader, publisher = sessions.take(2)
    reader.subscribe(topics="t u")
    published = {topic: [publisher.publish(topic=topic) for _ in range(5)] for topic in ("t", "u")}
    publisher.publish(topic="not-subscribed")
    delivered: dict[str, list[int]] = {"t": [], "u": []}
    while batch := reader.claim(3, topics="t u"):
        assert len(batch) <= 3
        for message in batch:
            delivered[message.topic].append(message.id)
        for token in {m.token for m in batch}:
            assert len({m.topic for m in batch if m.token == token}) == 1
        reader.ack(batch)
    assert delivered == published


def test_claim_from_some_of_the_topics(sessions: Sessions) -> None:
    reader, publisher = sessions.take(2)
    reader.subscribe(topics="t u")
    one, other = publisher.publish(topic="t"), publisher.publish(topic="u")
    assert ids(reader.claim(topics="u")) == [other]
    assert ids(reader.claim(topics="t u t")) == [one]


@pytest.mark.parametrize("past_the_list", [False, True])
@pytest.mark.parametrize("planted", [False, True])
def test_stragglers_of_one_topic_of_many(
    sessions: Sessions, planted: bool, past_the_list: bool
) -> None:
    """Only topics that have something are claimed from: stragglers count."""
    reader, slow, fast = sessions.take(3)
    if planted:
        stragglers_of_many_topics(reader)
    reader.subscribe(topics="t u v")
    fast.begin()
    if past_the_list:
        fast.draw_xid()
    slow.begin()
    late = slow.publish()
    seen = fast.publish()
    fast.commit()
    batch = reader.claim(topics="t u v")
    assert ids(batch) == [seen]
    reader.ack(batch)
    slow.commit()
    # In another order: if no topic has anything, the claim looks at the first.
    assert ids(reader.claim(topics="v u t")) == ([] if planted else [late])


@pytest.mark.parametrize("planted", [False, True])
def test_the_last_id_is_looked_up_after_the_snapshot(sessions: Sessions, planted: bool) -> None:
    """A claim reads up to the last id drawn: one looked up earlier misses what is visible."""
    holder, reader, publisher = sessions.readers(3)
    if planted:
        last_id_before_the_lock(holder)
    publisher.publish()
    reader.ack(reader.claim())
    holder.begin()
    holder.run("SELECT durable_notify._lock_group('g')")
    waiting = reader.start("SELECT id FROM durable_notify.claim('g', '{t}')")
    sessions.wait_until_blocked(reader, waiting)
    new = publisher.publish()
    holder.rollback()
    assert [row[0] for row in waiting.result()] == ([] if planted else [new])
    assert ids(reader.claim()) == ([new] if planted else [])  # late, not lost


def test_each_group_gets_everything(sessions: Sessions) -> None:
    reader, slow, fast = sessions.take(3)
    for group in ("a", "b", "c"):
        reader.subscribe(group)
    slow.begin()
    late = slow.publish()
    seen = fast.publish()
    assert drain(reader, group="a") == [seen]
    slow.commit()
    assert drain(reader, group="b") == [late, seen]
    assert drain(reader, 1, group="c") == [late, seen]
    assert drain(reader, group="a") == [late]


def test_unknown_group_and_topic(sessions: Sessions) -> None:
    reader = sessions.reader()
    for call, state in (
        ("claim('no-such-group', '{t}')", "DN005"),
        ("claim('g', '{t,nothing}')", "DN006"),
        ("claim('g', '{NULL}')", "DN006"),
        ("seek('no-such-group', 't', 0)", "DN005"),
        ("seek('g', 'nothing', 0)", "DN006"),
    ):
        with pytest.raises(errors.DatabaseError) as caught:
            reader.run(f"SELECT durable_notify.{call}")
        assert caught.value.sqlstate == state, call


# Where a group starts.


@pytest.mark.parametrize("start_at", ["beginning", "now", "since"])
def test_start_with_transactions_in_flight(sessions: Sessions, start_at: str) -> None:
    reader, slow, fast, past = sessions.take(4)
    old = fast.publish()
    since = reader.value("SELECT clock_timestamp()")
    fast.begin()
    fast.draw_xid()
    slow.begin()
    past.begin()
    late = [slow.publish(), past.publish()]
    new = fast.publish()
    fast.commit()
    query = "SELECT durable_notify.subscribe('g', '{t}', %s, %s)"
    reader.run(query, start_at, since if start_at == "since" else None)
    slow.commit()
    past.commit()
    newest = fast.publish()
    expected = {
        "beginning": [old, *late, new, newest],
        "now": [*late, newest],
        "since": [*late, new, newest],
    }
    assert drain(reader) == expected[start_at]


def test_start_since_a_time_after_everything(sessions: Sessions) -> None:
    reader, publisher = sessions.take(2)
    publisher.publish()
    reader.run("SELECT durable_notify.subscribe('g', '{t}', 'since', clock_timestamp())")
    assert drain(reader) == []
    new = publisher.publish()
    assert drain(reader) == [new]


def test_subscribing_again_changes_no_position(sessions: Sessions) -> None:
    reader, publisher = sessions.take(2)
    group_id = reader.subscribe()
    publisher.publish()
    drain(reader)
    position = reader.position()
    for start_at in ("beginning", "now"):
        assert reader.subscribe(start_at=start_at) == group_id
    assert reader.position() == position
    reader.subscribe(topics="t u")
    assert reader.position() == position


@pytest.mark.parametrize(
    ("start_at", "since"), [("end", None), ("since", None), ("now", "2026-01-01"), (None, None)]
)
def test_starts_that_make_no_sense(
    sessions: Sessions, start_at: str | None, since: str | None
) -> None:
    query = "SELECT durable_notify.subscribe('g', '{t}', %s, %s)"
    with pytest.raises(errors.InvalidParameterValue):
        sessions.session().run(query, start_at, since)


# Faults once found here.


@pytest.mark.parametrize("start_at", ["now", "since"])
def test_what_commits_while_a_group_is_created_comes(sessions: Sessions, start_at: str) -> None:
    """Its position and its snapshot are not of the same moment."""
    reader, publisher, slow, holder = sessions.take(4)
    (since,) = reader.column("SELECT clock_timestamp()")
    slow.begin()
    first = slow.publish()
    second = publisher.publish()
    with holder.transaction():
        holder.run("LOCK TABLE durable_notify.position IN SHARE MODE")
        subscribing = reader.start(
            "SELECT durable_notify.subscribe('g', '{t}', %s, %s)",
            start_at,
            since if start_at == "since" else None,
        )
        sessions.wait_until_blocked(reader, subscribing)
        slow.commit()
    subscribing.result()
    assert drain(reader) == ([first] if start_at == "now" else [first, second])


def test_what_the_creating_transaction_has_published_comes(sessions: Sessions) -> None:
    """It commits from here on, and is younger or older than what has committed meanwhile."""
    reader, publisher = sessions.take(2)
    reader.begin()
    own = reader.publish()
    publisher.publish()
    later = reader.publish()
    reader.subscribe(start_at="now")
    reader.commit()
    assert drain(reader) == [own, later]
