"""The options of a group in SQL: one consumer, limits, pause, patterns, expiry and delay."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.support.sessions import Message, Session, Sessions, ids
from tests.support.wait import BOUND


@pytest.fixture
def one(sessions: Sessions) -> Session:
    return sessions.reader()


def configure(session: Session, **options: object) -> None:
    session.run("SELECT durable_notify.configure('g', %s)", Jsonb(options))


def claim_as(session: Session, consumer: str, most: int = 100) -> list[Message]:
    query = "SELECT * FROM durable_notify.claim('g', '{t}', %s, '1 hour', 'a test', %s)"
    return [Message(*row) for row in session.run(query, most, consumer)]


def due(session: Session, consumer: str = "unknown") -> float | None:
    found = session.value("SELECT durable_notify.next_due('g', '{t}', %s)", consumer)
    return None if found is None else float(found)


# One consumer at a time.


def test_only_the_active_consumer_gets_messages(sessions: Sessions, one: Session) -> None:
    configure(one, exclusive=True)
    published = [one.publish() for _ in range(4)]
    assert ids(claim_as(one, "first", most=2)) == published[:2]
    assert claim_as(one, "second") == []
    assert 0 < (due(one, "first") or 0) < 1  # there is more
    assert 3000 < (due(one, "second") or 0) <= 3600
    assert one.value("SELECT durable_notify.renew_active('g', 'first', '2 hours')")
    assert not one.value("SELECT durable_notify.renew_active('g', 'second', '9 hours')")
    assert 7000 < (due(one, "second") or 0) <= 7200
    assert ids(claim_as(one, "first")) == published[2:]


def test_fail_over_supersedes_what_was_held(sessions: Sessions, one: Session) -> None:
    configure(one, exclusive=True)
    published = [one.publish() for _ in range(3)]
    held = claim_as(one, "first", most=2)
    one.run("UPDATE durable_notify.active_consumer SET deadline = 'epoch'")
    assert 0 < (due(one, "second") or 0) <= 1
    again = claim_as(one, "second")
    assert sorted((m.id, m.attempt) for m in again) == [
        (published[0], 2), (published[1], 2), (published[2], 1)
    ]  # fmt: skip
    with pytest.raises(psycopg.DatabaseError, match="was superseded"):
        one.ack(held)
    assert claim_as(one, "first") == []


def test_fail_over_waits_for_a_settle_under_way(sessions: Sessions, one: Session) -> None:
    configure(one, exclusive=True)
    other = sessions.session()
    published = [one.publish() for _ in range(2)]
    held = claim_as(one, "first", most=1)
    one.begin()
    one.ack(held)
    other.run("UPDATE durable_notify.active_consumer SET deadline = 'epoch'")
    assert claim_as(other, "second") == []
    one.commit()
    assert ids(claim_as(other, "second")) == published[1:]


def test_standing_down_rings(sessions: Sessions, one: Session) -> None:
    configure(one, exclusive=True)
    published = one.publish()
    other = sessions.session()
    assert claim_as(one, "first") != []
    other.listen()
    one.run("SELECT durable_notify.release(ARRAY(SELECT token FROM durable_notify.lease))")
    assert one.value("SELECT durable_notify.resign_active('g', 'first')")
    assert [n.payload for n in other.connection.notifies(timeout=BOUND, stop_after=2)]
    assert ids(claim_as(other, "second")) == [published]


def test_an_exclusive_consumer_has_a_name(one: Session) -> None:
    configure(one, exclusive=True)
    with pytest.raises(errors.InvalidParameterValue, match="each of its consumers needs a name"):
        one.run("SELECT durable_notify.claim('g', '{t}')")


# Limits.


def test_in_flight(sessions: Sessions, one: Session) -> None:
    configure(one, max_in_flight=3)
    published = [one.publish() for _ in range(5)]
    other = sessions.session()
    first = one.claim(2)
    assert ids(first) + ids(other.claim()) == published[:3]
    assert other.claim() == []
    assert (due(one) or 0) > 3000  # no busy loop: a settle rings, or a lease runs out
    other.listen()
    one.settle(first[0].token, first[:1])
    assert [n.payload for n in other.connection.notifies(timeout=BOUND, stop_after=1)] == ["*"]
    assert ids(other.claim()) == published[3:4]
    configure(one, max_in_flight=None)
    assert ids(other.claim()) == published[4:]


def test_leases_that_ran_out_are_not_in_flight(sessions: Sessions, one: Session) -> None:
    configure(one, max_in_flight=1)
    published = one.publish()
    one.claim(lease="1 microsecond")
    assert [(m.id, m.attempt) for m in sessions.session().claim()] == [(published, 2)]


def test_rate(one: Session) -> None:
    configure(one, rate_limit=10)
    published = [one.publish() for _ in range(60)]
    assert ids(one.claim()) == published[:10]
    refill = (
        "UPDATE durable_notify.rate_bucket SET tokens = 0, at = clock_timestamp() - %s::interval"
    )
    one.run(refill, "-1 hour")  # none before then
    assert one.claim() == []
    assert 0 <= (due(one) or 0) <= 0.1
    one.run(refill, "0.55 seconds")
    assert 5 <= len(one.claim()) < 10
    one.run(refill, "1 day")
    assert len(one.claim()) == 10
    configure(one, rate_limit=None)
    assert len(one.claim()) > 20


# Pause, rename, delete, configure.


def test_pause_and_resume(sessions: Sessions, one: Session) -> None:
    published = [one.publish() for _ in range(2)]
    held = one.claim(1)
    one.run("SELECT durable_notify.pause('g')")
    assert one.claim() == []
    assert due(one) is None
    one.ack(held)
    other = sessions.session()
    other.listen()
    one.run("SELECT durable_notify.resume('g')")
    assert len(list(other.connection.notifies(timeout=BOUND, stop_after=1))) == 1
    assert ids(one.claim()) == published[1:]


def test_rename_and_delete(sessions: Sessions, one: Session) -> None:
    published = [one.publish() for _ in range(3)]
    held = one.claim(1)
    one.run("SELECT durable_notify.rename_group('g', 'h')")
    with pytest.raises(psycopg.DatabaseError, match="no consumer group"):
        one.claim()
    one.ack(held)
    assert ids(one.claim(1, group="h")) == published[1:2]
    one.subscribe("taken")
    with pytest.raises(errors.InvalidParameterValue, match="exists already"):
        one.run("SELECT durable_notify.rename_group('h', 'taken')")
    held = one.claim(1, group="h")
    one.run("SELECT durable_notify.delete_group('h')")
    with pytest.raises(psycopg.DatabaseError, match="was superseded"):
        one.ack(held)
    left = ["lease", "settlement", "deferred", "lease_deadline", "dead_letter"]
    assert [one.value(f"SELECT count(*) FROM durable_notify.{table}") for table in left] == [0] * 5
    one.subscribe("h")
    assert ids(one.claim(group="h")) == published


@pytest.mark.parametrize(
    "options",
    [
        {"order_by": "id"}, {"max_attempts": 0}, {"max_attempts": "many"}, {"park_limit": 0},
        {"retry_factor": 0.5}, {"retry_base": -1}, {"rate_limit": 0}, {"max_in_flight": 0},
        {"on_expiry": "keep"}, {"colour": "red"}, {"exclusive": "perhaps"}, {"max_attempts": 1e12},
        {"retry_delays": [-1]}, {"retry_delays": [2e9]}, {"retry_delays": [1, None]},
        {"retry_delays": 5}, {"retry_delays": None}, {"retry_delays": "5"}, {"retry_delays": [1] * 101},
    ],
)  # fmt: skip
def test_options_that_cannot_be(one: Session, options: dict[str, object]) -> None:
    before = one.run("SELECT * FROM durable_notify.consumer_group")
    with pytest.raises(errors.InvalidParameterValue):
        configure(one, max_in_flight=7, **options) if "max_in_flight" not in options else configure(
            one, **options
        )
    assert one.run("SELECT * FROM durable_notify.consumer_group") == before


def test_back_off(one: Session) -> None:
    configure(one, retry_base=10, retry_factor=3, retry_max=50, max_attempts=10)
    one.publish()
    for attempt, longest in ((1, 10), (2, 30), (3, 50), (4, 50)):
        (message,) = one.claim()
        assert message.attempt == attempt
        one.run("SELECT durable_notify.settle(%s, retried => %s)", message.token, [message.id])
        seconds = one.value(
            "SELECT extract(epoch FROM due_at - clock_timestamp()) FROM durable_notify.deferred"
        )
        assert longest / 2 - 5 < seconds <= longest
        one.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")


# Patterns.


def test_patterns(sessions: Sessions) -> None:
    one = sessions.session()
    before = one.publish(topic="a.x.c")
    one.run("SELECT durable_notify.subscribe('p', '{a.*.c,b.>,d}')")
    for topic in ("a.y.c", "a.y.z.c", "b", "b.c", "b.c.d", "ab.c", "a.xyc"):
        one.publish(topic=topic)
    found = one.column("SELECT durable_notify.discover('p', '{a.*.c,b.>}')")
    assert found == ["a.x.c", "a.y.c", "b.c", "b.c.d"]
    claimed = one.claim(group="p", topics=" ".join([*found, "d"]))
    assert sorted(m.topic for m in claimed) == found
    assert before in ids(claimed)


def test_a_topic_that_begins_while_a_pattern_is_subscribed(sessions: Sessions) -> None:
    """Its first message, in flight then, is not taken for one from before."""
    one, slow = sessions.take(2)
    slow.begin()
    first = slow.publish(topic="a.b")
    one.run("SELECT durable_notify.subscribe('p', '{a.*}', 'now')")
    slow.commit()
    assert one.column("SELECT durable_notify.discover('p', '{a.*}')") == ["a.b"]
    assert ids(one.claim(group="p", topics="a.b")) == [first]


def test_what_was_there_before_now_is_not_delivered(sessions: Sessions) -> None:
    one = sessions.session()
    one.publish(topic="a.b")
    one.run("SELECT durable_notify.subscribe('p', '{a.*}', 'now')")
    second = one.publish(topic="a.b")
    assert ids(one.claim(group="p", topics="a.b")) == [second]


@pytest.mark.parametrize("pattern", ["a*", "a.>.b", "*>", ".>", "a..*", "a.b>"])
def test_not_a_pattern(sessions: Sessions, pattern: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="invalid topic or pattern"):
        sessions.session().run("SELECT durable_notify.subscribe('p', ARRAY[%s])", pattern)


def test_many_quiet_topics_sleep_at_little_cost(sessions: Sessions) -> None:
    one = sessions.session()
    topics = [f"t{n}" for n in range(300)]
    one.run("SELECT durable_notify.subscribe('g', %s)", topics)
    one.publish(topic="t7")
    (message,) = one.claim(topics="t7")
    one.run(
        "SELECT durable_notify.settle(%s, retried => %s, retry_delays => '{1 hour}')",
        message.token,
        [message.id],
    )
    assert 3000 < one.value("SELECT durable_notify.next_due('g', %s)", topics) <= 3600
    plan = one.value(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT durable_notify.next_due('g', %s)", topics
    )
    assert plan[0]["Plan"]["Shared Hit Blocks"] < 300 * 12


# Delay and expiry.

INSERT = """
    INSERT INTO durable_notify.outbox (topic, key, payload, deliver_at, expires_at)
    VALUES ('t', %s, '1', clock_timestamp() + %s::interval, clock_timestamp() + %s::interval)
    RETURNING id"""


def test_a_delayed_message_waits_and_does_not_hold_back_its_key(one: Session) -> None:
    delayed = one.value(INSERT, "k", "1 hour", None)
    next_of_key = one.publish(key="k")
    (message,) = one.claim()
    assert message.id == next_of_key
    assert 3000 < (due(one) or 0) <= 3600
    one.run("UPDATE durable_notify.outbox SET deliver_at = 'epoch'")
    one.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")
    assert one.claim() == []  # its key is in progress
    one.ack([message])
    (message,) = one.claim()
    assert (message.id, message.attempt) == (delayed, 1)


def test_expired_messages_are_dropped_and_counted(one: Session) -> None:
    one.value(INSERT, None, None, "-1 second")
    one.value(INSERT, "k", None, "-1 second")
    kept = one.value(INSERT, "k", None, "1 hour")
    assert ids(one.claim()) == [kept]
    assert one.value("SELECT expired FROM durable_notify.position") == 2


def test_expired_messages_as_dead_letters(one: Session) -> None:
    configure(one, on_expiry="dead_letter")
    gone = one.value(INSERT, None, None, "-1 second")
    assert one.claim() == []
    assert one.run("SELECT message_id, reason FROM durable_notify.dead_letter") == [
        (gone, "expired")
    ]
    assert one.claim() == []


def test_a_retry_does_not_outlive_its_expiry(one: Session) -> None:
    one.value(INSERT, None, None, "1 hour")
    (message,) = one.claim()
    one.settle(message.token, retried=[message])
    one.run("UPDATE durable_notify.outbox SET expires_at = 'epoch'")
    assert one.claim() == []
    assert one.value("SELECT count(*) FROM durable_notify.deferred") == 0
    assert due(one) is None


def test_a_backlog_of_delayed_messages_hides_nothing(one: Session) -> None:
    one.run("""INSERT INTO durable_notify.outbox (topic, payload, deliver_at)
               SELECT 't', '1', clock_timestamp() + interval '1 hour' FROM generate_series(1, 700)""")
    last = one.publish()
    found: list[int] = []
    for _ in range(5):  # a claim puts off so many at most; next_due() sends the consumer back
        found += ids(one.claim(10))
        if found:
            break
        assert 0 < (due(one) or 0) < 1
    assert found == [last]
    assert (due(one) or 0) > 3000
