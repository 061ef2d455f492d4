"""How a group reads the log: nothing lost, nothing twice, by schedules that never vary."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from contextlib import suppress

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.support.schedule import BOUND, Session, Stage, ids
from tests.support.traps import TRAPS, Trap, claim_and_ack, drain

UNDELIVERED = "SELECT id FROM durable_notify._unread(%s)"
REPLAY = "SELECT again FROM durable_notify.seek('g', 't', %s, backward_only => true)"


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_trap(stage: Stage, trap: Trap) -> None:
    outcome = trap(stage)
    assert outcome.exact, outcome


# Publishers of all sorts.


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_isolation_level_of_the_publisher(stage: Stage, isolation: str) -> None:
    reader, slow, fast = stage.take(3)
    reader.subscribe()
    slow.begin(isolation)
    fast.publish()
    late = [slow.publish()]
    seen = [1, fast.publish()]
    assert drain(reader) == seen
    late += [slow.publish()]
    slow.commit()
    assert drain(reader) == late


def test_savepoints(stage: Stage) -> None:
    """The column xid is the whole transaction's, where xmin is the savepoint's."""
    reader, slow, fast = stage.take(3)
    reader.subscribe()
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


def test_prepared_transactions(stage: Stage) -> None:
    reader, slow, fast = stage.take(3)
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


def test_rolled_back_messages_never_come(stage: Stage) -> None:
    reader, slow, fast = stage.take(3)
    reader.subscribe()
    slow.begin()
    slow.publish()
    seen = fast.publish()
    assert drain(reader) == [seen]
    slow.rollback()
    assert drain(reader) == []


def test_nobody_waits_for_a_long_transaction(stage: Stage) -> None:
    reader, slow, fast = stage.take(3)
    reader.subscribe()
    slow.begin()
    late = [slow.publish()]
    for _ in range(5):
        seen = fast.publish()
        assert drain(reader) == [seen]
        late.append(slow.publish())
    slow.commit()
    assert drain(reader) == late


def test_younger_message_of_an_older_transaction(stage: Stage) -> None:
    """It waited for a key's row lock: order is by id, not by xid."""
    reader, slow, fast = stage.take(3)
    reader.subscribe()
    reader.run("CREATE TABLE guarded AS SELECT 1 AS key")
    slow.begin()
    xid = slow.draw_xid()
    fast.begin()
    fast.run("SELECT FROM guarded FOR UPDATE")
    cause = fast.publish()
    assert fast.draw_xid() > xid
    waiting = slow.start("SELECT FROM guarded FOR UPDATE")
    stage.wait_until_blocked(slow, waiting)
    fast.commit()
    waiting.result()
    effect = slow.publish()
    slow.commit()
    assert drain(reader, 1) == [cause, effect]


def test_late_ones_come_first_and_each_part_in_order(stage: Stage) -> None:
    """Within a window: what is late, by id; then the rest, by id."""
    reader, slow, slower, fast = stage.take(4)
    reader.subscribe()
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
def test_reading_does_not_rest_on_the_order_of_ids(stage: Stage, change: str) -> None:
    """Only the order within a key does."""
    reader, slow, fast = stage.take(3)
    reader.subscribe()
    sequence = reader.value("SELECT pg_get_serial_sequence('durable_notify.outbox', 'id')")
    reader.run(f"ALTER SEQUENCE {sequence} {change}")
    with suppress(errors.InvalidParameterValue):
        reader.run(f"ALTER SEQUENCE {sequence} RESTART")
    slow.begin()
    committed = [slow.publish(), fast.publish()]
    handed = drain(reader, 1)
    committed += [slow.publish(), fast.publish()]
    handed += drain(reader, 1)
    slow.commit()
    committed += [fast.publish()]
    handed += drain(reader, 1)
    assert sorted(handed) == sorted(committed)


# Windows and claims.


def test_open_window_is_bounded(stage: Stage) -> None:
    """A window left open by the limit ends at h1, whatever commits meanwhile."""
    reader, slow, fast = stage.take(3)
    reader.subscribe()
    first = [fast.publish() for _ in range(3)]
    slow.begin()
    late = slow.publish()
    first += [fast.publish()]
    handed = claim_and_ack(reader, 2)
    place = reader.position()
    assert (place.h0, place.p, place.h1) == (0, first[1], first[-1])
    slow.commit()
    after = [fast.publish() for _ in range(3)]
    handed += claim_and_ack(reader, 1)
    assert reader.position().h1 == first[-1]
    handed += drain(reader, 2)
    assert handed == [*first, late, *after]
    assert reader.position().s1 is None


def test_window_ends_exactly_at_the_limit(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    published = [publisher.publish() for _ in range(4)]
    assert claim_and_ack(reader, 4) == published
    assert reader.position().s1 is not None
    published = [publisher.publish()]
    assert drain(reader, 4) == published


def test_old_window_and_new_one_in_one_batch(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    published = [publisher.publish() for _ in range(3)]
    assert claim_and_ack(reader, 1) == published[:1]
    published += [publisher.publish() for _ in range(3)]
    assert claim_and_ack(reader) == published[1:]


def test_claim_that_is_rolled_back(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    published = [publisher.publish() for _ in range(3)]
    reader.begin()
    assert ids(reader.claim(2)) == published[:2]
    reader.rollback()
    assert drain(reader, 2) == published


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_claim_is_refused_above_read_committed(stage: Stage, isolation: str) -> None:
    reader = stage.session()
    reader.subscribe()
    reader.begin(isolation)
    with pytest.raises(
        errors.DatabaseError, match="READ COMMITTED transaction of its own"
    ) as caught:
        reader.claim()
    assert caught.value.sqlstate == "DN004"


@pytest.mark.parametrize("savepoint", [False, True])
def test_claim_is_refused_once_an_xid_is_drawn(stage: Stage, savepoint: bool) -> None:
    reader = stage.session()
    reader.subscribe()
    reader.begin()
    reader.draw_xid()
    if savepoint:
        reader.run("SAVEPOINT here")
    with pytest.raises(errors.DatabaseError, match="transaction of its own") as caught:
        reader.claim()
    assert caught.value.sqlstate == "DN004"


def test_two_claims_in_one_transaction(stage: Stage) -> None:
    """The first may have drawn an xid; where it found nothing, it has not."""
    reader, publisher = stage.take(2)
    reader.subscribe()
    reader.begin()
    assert reader.claim() == []
    publisher.publish()
    assert len(reader.claim()) == 1
    with pytest.raises(errors.DatabaseError, match="transaction of its own"):
        reader.claim()


@pytest.mark.parametrize(
    ("most", "lease"), [(0, "1 hour"), (10001, "1 hour"), (None, "1 hour"), (1, "0"), (1, None)]
)
def test_claims_that_make_no_sense(stage: Stage, most: int | None, lease: str | None) -> None:
    reader = stage.session()
    reader.subscribe()
    with pytest.raises(errors.InvalidParameterValue):
        reader.run("SELECT durable_notify.claim('g', '{t}', %s, %s)", most, lease)


def test_claims_of_a_group_are_serialised(stage: Stage) -> None:
    reader, other, stranger, publisher = stage.take(4)
    reader.subscribe()
    stranger.subscribe("another")
    published = [publisher.publish() for _ in range(4)]
    reader.begin()
    assert ids(reader.claim(2)) == published[:2]
    waiting = other.start("SELECT id FROM durable_notify.claim('g', '{t}', 2)")
    stage.wait_until_blocked(other, waiting)
    assert ids(stranger.claim(group="another")) == published
    reader.commit()
    assert [message_id for (message_id,) in waiting.result()] == published[2:]


def test_busy_is_not_empty(stage: Stage) -> None:
    reader, other, publisher = stage.take(3)
    reader.subscribe()
    publisher.publish()
    reader.run("ALTER FUNCTION durable_notify.claim SET lock_timeout = '50ms'")
    reader.begin()
    assert len(reader.claim()) == 1
    with pytest.raises(errors.LockNotAvailable):
        other.claim()
    reader.rollback()
    assert len(other.claim()) == 1


def test_empty_claim_writes_nothing(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    for _ in range(3):
        place = reader.position()
        reader.begin()
        assert reader.claim() == []
        assert reader.value("SELECT pg_current_xact_id_if_assigned() IS NULL")
        reader.commit()
        assert reader.position() == place
        publisher.publish()
        drain(reader)


def test_one_position_is_kept(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    for n in range(5):
        publisher.publish()
        drain(reader)
        assert reader.position().seq == n + 2
        assert reader.value("SELECT count(*) FROM durable_notify.position") == 1


# Groups and topics.


def test_several_topics_in_a_group(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe(topics="t u")
    published = {topic: [publisher.publish(topic=topic) for _ in range(5)] for topic in ("t", "u")}
    publisher.publish(topic="not-subscribed")
    handed: dict[str, list[int]] = {"t": [], "u": []}
    while batch := reader.claim(3, topics="t u"):
        assert len(batch) <= 3
        for message in batch:
            handed[message.topic].append(message.id)
        for token in {m.token for m in batch}:
            assert len({m.topic for m in batch if m.token == token}) == 1
        reader.ack(batch)
    assert handed == published


def test_claim_from_some_of_the_topics(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe(topics="t u")
    one, other = publisher.publish(topic="t"), publisher.publish(topic="u")
    assert ids(reader.claim(topics="u")) == [other]
    assert ids(reader.claim(topics="t u t")) == [one]


def test_each_group_gets_everything(stage: Stage) -> None:
    reader, slow, fast = stage.take(3)
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


def test_unknown_group_and_topic(stage: Stage) -> None:
    reader = stage.session()
    reader.subscribe()
    for call, state in (
        ("claim('nobody', '{t}')", "DN005"),
        ("claim('g', '{t,nothing}')", "DN006"),
        ("claim('g', '{NULL}')", "DN006"),
        ("seek('nobody', 't', 0)", "DN005"),
        ("seek('g', 'nothing', 0)", "DN006"),
    ):
        with pytest.raises(errors.DatabaseError) as caught:
            reader.run(f"SELECT durable_notify.{call}")
        assert caught.value.sqlstate == state, call


# Where a group starts.


@pytest.mark.parametrize("start_at", ["beginning", "now", "since"])
def test_start_with_transactions_in_flight(stage: Stage, start_at: str) -> None:
    reader, slow, fast, past = stage.take(4)
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


def test_start_since_a_time_after_everything(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    publisher.publish()
    reader.run("SELECT durable_notify.subscribe('g', '{t}', 'since', clock_timestamp())")
    assert drain(reader) == []
    new = publisher.publish()
    assert drain(reader) == [new]


def test_subscribing_again_changes_no_position(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    group_id = reader.subscribe()
    publisher.publish()
    drain(reader)
    place = reader.position()
    for start_at in ("beginning", "now"):
        assert reader.subscribe(start_at=start_at) == group_id
    assert reader.position() == place
    reader.subscribe(topics="t u")
    assert reader.position() == place


@pytest.mark.parametrize(
    ("start_at", "since"), [("end", None), ("since", None), ("now", "2026-01-01"), (None, None)]
)
def test_starts_that_make_no_sense(stage: Stage, start_at: str | None, since: str | None) -> None:
    query = "SELECT durable_notify.subscribe('g', '{t}', %s, %s)"
    with pytest.raises(errors.InvalidParameterValue):
        stage.session().run(query, start_at, since)


# Replay.


def closed(reader: Session, *_: Session) -> None:
    drain(reader)
    assert reader.position().s1 is None


def open_before_the_end_of_stragglers(reader: Session, publisher: Session, slow: Session) -> None:
    slow.begin()
    for _ in range(3):
        slow.publish()
    publisher.publish()
    drain(reader)
    slow.commit()
    publisher.publish()
    claim_and_ack(reader, 1)
    place = reader.position()
    assert place.s1 is not None
    assert place.p < place.h0


def open_after_them(reader: Session, publisher: Session, _: Session) -> None:
    drain(reader)
    for _ in range(4):
        publisher.publish()
    claim_and_ack(reader, 2)
    place = reader.position()
    assert place.s1 is not None
    assert place.p > place.h0


@pytest.mark.parametrize(
    "state", [closed, open_before_the_end_of_stragglers, open_after_them], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("back", range(12))
def test_replay_in_every_state(
    stage: Stage, state: Callable[[Session, Session, Session], None], back: int
) -> None:
    reader, publisher, slow = stage.take(3)
    reader.subscribe()
    for _ in range(4):
        publisher.publish()
    state(reader, publisher, slow)
    place = reader.position()
    left = set(reader.column(UNDELIVERED, place.subscription_id))
    everything = set(reader.column("SELECT id FROM durable_notify.outbox"))
    again = {i for i in everything - left if i > back}
    assert reader.value(
        "SELECT again FROM durable_notify.seek('g', 't', %s, dry_run => true, backward_only => true)",
        back,
    ) == len(again)
    assert reader.position() == place
    assert reader.value(REPLAY, back) == len(again)
    assert set(reader.column(UNDELIVERED, place.subscription_id)) == left | again
    handed = drain(reader, 2)
    assert sorted(handed) == sorted(left | again)


@pytest.mark.parametrize("trial", range(40))
def test_replay_at_random(stage: Stage, trial: int) -> None:
    """What is undelivered is always exactly what was committed and not handed over."""
    seed = secrets.randbits(32)
    print(f"trial {trial}: seed {seed}")
    chance = random.Random(seed)
    reader, *publishers = stage.take(5)
    reader.subscribe()
    pending: dict[Session, list[int]] = {publisher: [] for publisher in publishers}
    is_open = dict.fromkeys(publishers, False)
    committed: set[int] = set()
    handed: set[int] = set()

    def publish() -> None:
        publisher = chance.choice(publishers)
        if not is_open[publisher]:
            publisher.begin()
            is_open[publisher] = True
        elif chance.random() < 0.6:
            pending[publisher].append(publisher.publish())
        else:
            if chance.random() < 0.8:
                publisher.commit()
                committed.update(pending[publisher])
            else:
                publisher.rollback()
            is_open[publisher] = False
            pending[publisher].clear()

    def claim() -> None:
        batch = claim_and_ack(reader, chance.choice([1, 1, 2, 3, 50]))
        assert not handed & set(batch), f"came twice, seed {seed}"
        handed.update(batch)

    def replay() -> None:
        back = chance.randint(0, max(committed, default=0) + 2)
        again = {i for i in handed if i > back}
        assert reader.value(REPLAY, back) == len(again), f"seed {seed}"
        handed.difference_update(again)

    subscription_id = reader.position().subscription_id
    for _ in range(120):
        chance.choices([publish, claim, replay], [12, 4, 1])[0]()
        left = reader.column(UNDELIVERED, subscription_id)
        assert sorted(left) == sorted(committed - handed), f"seed {seed}"
    while batch := claim_and_ack(reader, 3):
        assert not handed & set(batch), f"came twice, seed {seed}"
        handed.update(batch)
    assert handed == committed, f"seed {seed}"


def test_replay_by_time(stage: Stage) -> None:
    reader, slow, publisher = stage.take(3)
    reader.subscribe()
    publisher.publish()
    since = reader.value("SELECT clock_timestamp()")
    slow.begin()
    late = slow.publish()
    published = [publisher.publish(), publisher.publish()]
    drain(reader)
    query = "SELECT again FROM durable_notify.seek('g', 't', since => %s, backward_only => true)"
    assert reader.value(query, since) == 2
    slow.commit()
    assert drain(reader) == [late, *published]
    assert reader.value(query, reader.value("SELECT clock_timestamp()")) == 0
    assert drain(reader) == []


def test_replay_never_goes_forward(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    published = [publisher.publish() for _ in range(3)]
    assert claim_and_ack(reader, 1) == published[:1]
    assert reader.value(REPLAY, published[-1]) == 0
    assert drain(reader) == published[1:]


def test_replay_ends_the_waiting_of_retries(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    published = [publisher.publish() for _ in range(3)]
    batch = reader.claim()
    query = "SELECT durable_notify.settle(%s, retried => %s, retry_delays => %s::interval[])"
    reader.run(query, batch[0].token, ids(batch), ["1 hour"] * 3)
    assert drain(reader) == []
    assert reader.value(REPLAY, published[0]) == 2
    assert drain(reader) == published[1:]
    assert reader.column("SELECT message_id FROM durable_notify.deferred") == published[:1]


@pytest.mark.parametrize("call", ["'g', 't'", "'g', 't', -1", "'g', 't', 1, now()"])
def test_replays_that_make_no_sense(stage: Stage, call: str) -> None:
    reader = stage.session()
    reader.subscribe()
    with pytest.raises(errors.InvalidParameterValue):
        reader.run(f"SELECT again FROM durable_notify.seek({call}, backward_only => true)")


# The log itself.

INSERT = "INSERT INTO durable_notify.outbox (topic, payload) VALUES (%s, '1')"


def test_row_of_another_transaction_is_refused(stage: Stage) -> None:
    publisher = stage.session()
    query = "INSERT INTO durable_notify.outbox (xid, topic, payload) VALUES ('5', 't', '1')"
    with pytest.raises(errors.InvalidParameterValue, match=r"outbox\.xid is 5"):
        publisher.run(query)
    publisher.run("SET session_replication_role = replica")
    publisher.run(query)


def heard(listener: Session, publisher: Session, channel: str = "durable_notify:t") -> list[str]:
    """What has arrived on a channel so far."""
    publisher.run("SELECT pg_notify(%s, 'end')", channel)
    received = []
    for notification in listener.connection.notifies(timeout=BOUND):
        if notification.payload == "end":
            return received
        received.append(notification.payload)
    raise AssertionError("nothing is heard")


def test_one_ring_a_topic_and_statement(stage: Stage) -> None:
    listener, other, publisher = stage.take(3)
    listener.listen()
    other.listen("u")
    query = """
        WITH new AS (
            INSERT INTO durable_notify.outbox (topic, payload)
            SELECT topic, '1' FROM generate_series(1, 3), unnest('{t,u}'::text[]) AS topic
            RETURNING topic, id)
        SELECT min(id)::text FROM new GROUP BY topic ORDER BY topic"""
    first_t, first_u = publisher.column(query)
    assert heard(listener, publisher) == [first_t]
    assert heard(other, publisher, "durable_notify:u") == [first_u]
    published = [publisher.publish(), publisher.publish()]
    assert heard(listener, publisher) == [str(i) for i in published]
    with suppress(ZeroDivisionError), publisher.transaction():
        publisher.publish()
        raise ZeroDivisionError
    assert heard(listener, publisher) == []


def test_replicated_rows_ring(stage: Stage) -> None:
    listener, publisher = stage.take(2)
    listener.listen()
    publisher.run("SET session_replication_role = replica")
    message_id = publisher.publish()
    assert heard(listener, publisher) == [str(message_id)]


@pytest.mark.parametrize(
    "topic", ["t", "x" * 48, "x" * 49, "x" * 255, "ü" * 24, "ü" * 25, "日" * 85]
)
def test_channel_is_never_too_long(stage: Stage, topic: str) -> None:
    listener, publisher = stage.take(2)
    channel = listener.value("SELECT durable_notify.channel(%s)", topic)
    assert len(channel.encode()) <= 63
    listener.listen(topic)
    message_id = publisher.publish(topic=topic)
    assert heard(listener, publisher, channel) == [str(message_id)]


def test_channels_differ(stage: Stage) -> None:
    topics = ["x" * 48, "x" * 49, "x" * 50, "X" * 48, "y" * 49]
    query = "SELECT count(DISTINCT durable_notify.channel(topic)) FROM unnest(%s::text[]) AS topic"
    assert stage.session().value(query, topics) == len(topics)


@pytest.mark.parametrize(
    "topic", ["", "x" * 256, "ü" * 128, "a b", "a\nb", "\t", "\x7f", "\x85", "\xa0"]
)
def test_bad_topics(stage: Stage, topic: str) -> None:
    publisher = stage.session()
    with pytest.raises(errors.CheckViolation, match="outbox_topic_is_a_name"):
        publisher.run(INSERT, topic)
    with pytest.raises(errors.CheckViolation, match="subscription_topic_is_a_name"):
        publisher.run("SELECT durable_notify.subscribe('g', %s)", [topic])


@pytest.mark.parametrize("topic", ["a", "a.b-c_d/e:f", "日本", "x" * 255])
def test_good_topics(stage: Stage, topic: str) -> None:
    reader = stage.session()
    reader.subscribe(topics=topic)
    message_id = reader.publish(topic=topic)
    assert ids(reader.claim(topics=topic)) == [message_id]


@pytest.mark.parametrize("key", ["", "x" * 1025, "a\nb", "\x7f"])
def test_bad_keys(stage: Stage, key: str) -> None:
    with pytest.raises(errors.CheckViolation, match="outbox_key_is_1_to_1024_bytes_of_text"):
        stage.session().publish(key=key)


@pytest.mark.parametrize("group", ["", "x" * 256, "a\nb", "\x7f"])
def test_bad_groups(stage: Stage, group: str) -> None:
    with pytest.raises(errors.CheckViolation, match="consumer_group_name_is_1_to_255_bytes"):
        stage.session().subscribe(group)


def test_a_message_has_a_payload_or_data(stage: Stage) -> None:
    publisher = stage.session()
    query = "INSERT INTO durable_notify.outbox (topic, payload, data) VALUES ('t', %s, %s)"
    for values in ((None, None), (Jsonb(1), b"1")):
        with pytest.raises(errors.CheckViolation, match="outbox_either_payload_or_data"):
            publisher.run(query, *values)
    with pytest.raises(errors.CheckViolation, match="outbox_headers_are_an_object"):
        publisher.run("SELECT durable_notify.publish('t', '1', headers => '[]')")


def test_a_message_comes_as_it_was_published(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    query = "SELECT durable_notify.publish('t', %s, 'k', %s, %s)"
    publisher.run(query, Jsonb({"ü": [1, None]}), Jsonb({"h": "1"}), None)
    publisher.run(query, None, None, b"\x00\xff")
    publisher.run(query, Jsonb(None), None, None)
    found = [(m.payload, m.data, m.key, m.headers, m.attempt) for m in reader.claim()]
    assert found == [
        ({"ü": [1, None]}, None, "k", {"h": "1"}, 1),
        (None, b"\x00\xff", "k", None, 1),
        (None, None, "k", None, 1),
    ]


def test_publish_many_returns_ids_in_order(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    query = """
        SELECT durable_notify.publish_many(
            't', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 1000) AS n),
            ARRAY(SELECT 'key ' || n FROM generate_series(1, 1000) AS n))"""
    published = publisher.column(query)
    handed = reader.claim(2000)
    assert ids(handed) == published == sorted(published)
    assert [(m.payload, m.key) for m in handed] == [(n, f"key {n}") for n in range(1, 1001)]


def test_id_cannot_be_chosen(stage: Stage) -> None:
    with pytest.raises(errors.GeneratedAlways):
        stage.session().run(
            "INSERT INTO durable_notify.outbox (topic, payload, id) VALUES ('t', '1', 1)"
        )


def test_chosen_id_is_not_lost_all_the_same(stage: Stage) -> None:
    reader, publisher = stage.take(2)
    reader.subscribe()
    publisher.publish()
    publisher.run("ALTER SEQUENCE durable_notify.outbox_id_seq RESTART 100")
    publisher.publish()
    drain(reader)
    publisher.run("""
        INSERT INTO durable_notify.outbox (topic, payload, id)
        OVERRIDING SYSTEM VALUE VALUES ('t', '1', 50)""")
    assert drain(reader) == [50]


# Faults once found here.


@pytest.mark.parametrize("start_at", ["now", "since"])
def test_what_commits_while_a_group_is_created_comes(stage: Stage, start_at: str) -> None:
    """Its place and its snapshot are not of the same moment."""
    reader, publisher, slow, holder = stage.take(4)
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
        stage.wait_until_blocked(reader, subscribing)
        slow.commit()
    subscribing.result()
    assert drain(reader) == ([first] if start_at == "now" else [first, second])


def test_what_the_creating_transaction_has_published_comes(stage: Stage) -> None:
    """It commits from here on, and is younger or older than what has committed meanwhile."""
    reader, publisher = stage.take(2)
    reader.begin()
    own = reader.publish()
    publisher.publish()
    later = reader.publish()
    reader.subscribe(start_at="now")
    reader.commit()
    assert drain(reader) == [own, later]
