"""When publishers ring, and doorbells armed by hand. Sessions are stepped by hand."""

from __future__ import annotations

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.support.injection import plant
from tests.support.observe import Listener, armed, barred, count_armed
from tests.support.roles import roles
from tests.support.sessions import Session, Sessions

HUGE = "SELECT durable_notify.publish_many('t', array_fill('1'::jsonb, ARRAY[10000]))"
INSERT = "INSERT INTO durable_notify.outbox (topic, payload) VALUES (%s, '1') RETURNING id"
SEVERAL = "INSERT INTO durable_notify.outbox (topic, payload) SELECT unnest(%s::text[]), '1'"


@pytest.fixture
def publisher(sessions: Sessions) -> Session:
    """A session that fails where it would have to wait for a lock."""
    session = sessions.session()
    session.run("SET lock_timeout = '1s'")
    return session


def ring(topic: str, payload: object) -> tuple[str, str]:
    return f"durable_notify:{topic}", str(payload)


# No session waits


def test_without_a_waiter_no_publisher_rings(sessions: Sessions, publisher: Session) -> None:
    """LISTEN alone is not enough: publishers ring only once the doorbell is armed."""
    listener = Listener(sessions, "t", "")
    publisher.publish()
    publisher.run(HUGE)
    with publisher.transaction():
        publisher.run(INSERT, "t")
    assert listener.heard() == []
    assert count_armed(publisher.connection, publisher.pid) == 0, "it kept the key"


def test_another_topics_doorbell_is_not_this_ones(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", "u", "")
    listener.arm("u")
    publisher.publish(topic="t")
    assert listener.heard() == []


def test_a_publisher_meets_another_that_looks_at_this_moment(
    sessions: Sessions, publisher: Session
) -> None:
    """It holds the key exclusively, so no consumer shares it: no ring, and neither waits."""
    listener = Listener(sessions, "t", "")
    with barred(sessions.session(), "t"), barred(sessions.session(), ""):
        publisher.publish()
        publisher.run(HUGE)
    assert listener.heard() == []


def test_a_stranger_at_the_key_of_all_topics_does_not_silence_one(
    sessions: Sessions, publisher: Session
) -> None:
    listener = Listener(sessions, "t", "")
    listener.arm("t")
    with barred(sessions.session(), ""):
        first = publisher.publish()
    assert listener.heard() == [ring("t", first)]


# A session waits


def test_a_stranger_that_waits_for_the_key(sessions: Sessions, publisher: Session) -> None:
    """Publishers cannot have the key in either mode, and yet no session holds it exclusively."""
    listener, stranger = Listener(sessions, "t", arm=True), sessions.session()
    work = stranger.start("SELECT pg_advisory_lock(1685024362, hashtext('t'))")
    sessions.wait_until_blocked(stranger, work)
    first = publisher.publish()
    heard = listener.heard()
    listener.session.run("SELECT durable_notify.disarm('t')")
    work.result()
    assert heard == [ring("t", first)]


def test_rung_with_the_id_once_it_commits(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", arm=True)
    with publisher.transaction():
        first = publisher.publish()
        assert listener.heard() == []
    assert listener.heard() == [ring("t", first)]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_armed_while_a_transaction_is_under_way(
    sessions: Sessions, publisher: Session, isolation: str
) -> None:
    """Locks are not read through a snapshot: what it publishes next rings."""
    listener = Listener(sessions, "t")
    with publisher.transaction(isolation):
        publisher.publish()
        listener.arm("t")
        second = publisher.publish()
    assert listener.heard() == [ring("t", second)]


def test_one_ring_for_ten_thousand_rows(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", arm=True)
    ids = publisher.column(HUGE)
    assert len(ids) == 10_000
    assert listener.heard() == [ring("t", ids[0])]


def test_one_ring_a_transaction_and_one_for_the_next(
    sessions: Sessions, publisher: Session
) -> None:
    listener = Listener(sessions, "t", arm=True)
    firsts = []
    for _ in range(2):
        with publisher.transaction():
            firsts.append(publisher.publish())
            publisher.publish()
            publisher.run(HUGE)
    assert listener.heard() == [ring("t", first) for first in firsts]


def test_rolled_back_to_a_savepoint_it_has_not_rung(sessions: Sessions, publisher: Session) -> None:
    """The notification is gone with it, so what comes after rings again."""
    listener = Listener(sessions, "t", arm=True)
    with publisher.transaction():
        publisher.run("SAVEPOINT s")
        publisher.publish()
        publisher.run("ROLLBACK TO s")
        kept = publisher.publish()
    assert listener.heard() == [ring("t", kept)]


def test_a_savepoint_that_is_kept_has_rung(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", arm=True)
    with publisher.transaction():
        publisher.run("SAVEPOINT s")
        first = publisher.publish()
        publisher.run("RELEASE s")
        publisher.run("SAVEPOINT s")
        publisher.publish()
        publisher.run("ROLLBACK TO s")
        publisher.publish()
    assert listener.heard() == [ring("t", first)]


def test_rolled_back_it_rings_no_session(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", arm=True)
    publisher.begin()
    publisher.publish()
    publisher.rollback()
    assert listener.heard() == []


def test_each_topic_of_a_statement_rings_once(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "a", "b", "c")
    listener.arm("a", "c")
    publisher.run(SEVERAL, list("abcabcabc"))
    assert [channel for channel, _ in listener.heard()] == ["durable_notify:a", "durable_notify:c"]


def test_more_topics_than_it_remembers_to_have_rung(sessions: Sessions, publisher: Session) -> None:
    """What it has forgotten it rings again; it never takes one for another."""
    names = [f"{n}-{'x' * 30}" for n in range(200)]
    listener = Listener(sessions, *names, arm=True)
    with publisher.transaction():
        publisher.run(SEVERAL, names)
        publisher.run(SEVERAL, names[-2:])
    heard = [channel for channel, _ in listener.heard()]
    assert heard == [f"durable_notify:{name}" for name in names]


@pytest.mark.parametrize("topic", ["or", "ders", "orders.de", "ORDERS"])
def test_a_name_within_a_name_is_not_taken_for_it(
    sessions: Sessions, publisher: Session, topic: str
) -> None:
    listener = Listener(sessions, "orders", topic, arm=True)
    with publisher.transaction():
        publisher.publish(topic="orders")
        second = publisher.publish(topic=topic)
    assert listener.heard()[1:] == [ring(topic, second)]


@pytest.mark.parametrize("topic", ["it's", 'say "x"', "$1", "%s", "back\\slash", "ü" * 60, "{a,b}"])
def test_names_with_quotes(sessions: Sessions, publisher: Session, topic: str) -> None:
    name = topic.replace(" ", "_")
    listener = Listener(sessions, name, arm=True)
    assert armed(publisher.connection, [name], listener.session.pid) == {name}
    first = publisher.publish(topic=name)
    ((channel, payload),) = listener.heard()
    assert channel == publisher.value("SELECT durable_notify.channel(%s)", name)
    assert payload == str(first)


# The doorbell of all topics


def test_the_doorbell_of_all_topics_tells_their_names(
    sessions: Sessions, publisher: Session
) -> None:
    listener = Listener(sessions, "t", "")
    listener.arm("")
    with publisher.transaction():
        publisher.publish(topic="t")
        publisher.publish(topic="t")
        publisher.publish(topic="new")
    assert listener.heard() == [("durable_notify", "t"), ("durable_notify", "new")]


def test_the_doorbell_of_a_family_tells_the_names_of_its_topics(
    sessions: Sessions, publisher: Session
) -> None:
    """Patterns as a.* arm a.>, and are told of all topics whose first word, of several, is a."""
    listener = Listener(sessions, "")
    listener.arm("a.>")
    for topic in ("a", "b.a", "ab.c", "a.b", "a.b.c"):
        publisher.publish(topic=topic)
    publisher.run(SEVERAL, ["a.d", "b.d", "a"])
    told = [payload for _, payload in listener.heard()]
    assert told == ["a.b", "a.b.c", "a.d"]


def test_both_doorbells_ring(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", "", arm=True)
    first = publisher.publish()
    assert listener.heard() == [ring("t", first), ("durable_notify", "t")]


# Arming by hand


def test_arming_is_done_once_and_so_is_disarming(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", arm=True)
    listener.arm("t", "t")
    assert count_armed(publisher.connection, listener.session.pid) == 1
    assert listener.session.value("SELECT durable_notify.armed('t')") is True
    assert publisher.value("SELECT durable_notify.armed('t')") is False, "another session has"
    assert listener.session.value("SELECT durable_notify.disarm('t')") is True
    assert listener.session.value("SELECT durable_notify.disarm('t')") is False
    publisher.publish()
    assert listener.heard() == []


def test_as_many_as_like_have_it_armed(sessions: Sessions, publisher: Session) -> None:
    one, two = (Listener(sessions, "t", arm=True) for _ in range(2))
    one.session.run("SELECT durable_notify.disarm('t')")
    first = publisher.publish()
    assert one.heard() == two.heard() == [ring("t", first)]


def test_rolled_back_it_stays_armed(sessions: Sessions, publisher: Session) -> None:
    """A doorbell belongs to a session: the transaction that arms it does not matter."""
    listener = Listener(sessions, "t")
    listener.session.begin()
    listener.arm("t")
    listener.session.rollback()
    first = publisher.publish()
    assert listener.heard() == [ring("t", first)]


def test_at_its_end_a_session_has_disarmed(sessions: Sessions, publisher: Session) -> None:
    armed_by, hears = Listener(sessions, "t", arm=True), Listener(sessions, "t")
    publisher.run("SELECT pg_terminate_backend(%s, 10000)", armed_by.session.pid)
    publisher.publish()
    assert hears.heard() == []


def test_arming_does_not_wait_behind_a_stranger(sessions: Sessions) -> None:
    listener = Listener(sessions, "t")
    listener.session.run("SET lock_timeout = '1s'")
    with barred(sessions.session(), "t"):
        assert listener.session.value("SELECT durable_notify.arm('t')") is False
    assert listener.session.value("SELECT durable_notify.arm('t')") is True


def test_nothing_is_armed_while_the_queue_of_notifications_is_half_full(
    sessions: Sessions, publisher: Session
) -> None:
    """Publishers that ring when it is full cannot commit."""
    listener = Listener(sessions, "t")
    plant(publisher, "arm", ("pg_notification_queue_usage() > 0.5", "random() >= 0"))
    assert listener.session.value("SELECT durable_notify.arm('t')") is False
    assert count_armed(publisher.connection, listener.session.pid) == 0


def test_a_session_does_not_ring_for_itself(sessions: Sessions) -> None:
    listener = Listener(sessions, "t", arm=True)
    listener.session.publish()
    assert listener.heard() == []


def test_consumers_arm_several_at_once(sessions: Sessions) -> None:
    """It reports topics whose key is held, and those that never ring; it arms the rest nevertheless."""
    session = sessions.session()
    session.run("SELECT durable_notify.set_notify_policy('never', 'never')")
    with barred(sessions.session(), "held"):
        found = session.value("SELECT durable_notify._arm_topics('{a,held,never,b}')")
    assert found == {
        "barred": ["held"], "silent": ["never"], "crowded": False, "unannounced": []
    }  # fmt: skip
    assert armed(session.connection, ["a", "b", "held", "never"], session.pid) == {"a", "b"}
    session.run("SELECT durable_notify._disarm_topics('{a}')")
    assert armed(session.connection, ["a", "b"], session.pid) == {"b"}


# What is not a message


BAD = {
    "outbox_topic_is_a_name": {"topic": "a b"},
    "outbox_key_is_1_to_1024_bytes_of_text": {"key": ""},
    "outbox_either_payload_or_data": {"data": b"x"},
    "outbox_headers_are_an_object": {"headers": Jsonb([1])},
}


@pytest.mark.parametrize("broken", BAD)
@pytest.mark.parametrize("waits", [True, False], ids=["armed", "not armed"])
def test_what_cannot_be_a_message_is_refused(
    sessions: Sessions, publisher: Session, broken: str, waits: bool
) -> None:
    listener = Listener(sessions, "t", arm=waits)
    row = {"topic": "t", "payload": Jsonb(1)} | BAD[broken]
    query = f"INSERT INTO durable_notify.outbox ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})"
    with pytest.raises(errors.CheckViolation, match=f'violates "{broken}"') as refused:
        publisher.run(query, *row.values())
    assert refused.value.diag.constraint_name == broken
    assert listener.heard() == []


def test_neither_payload_nor_data(publisher: Session) -> None:
    with pytest.raises(errors.CheckViolation, match="outbox_either_payload_or_data"):
        publisher.run("INSERT INTO durable_notify.outbox (topic) VALUES ('t')")


@pytest.mark.parametrize("waits", [True, False], ids=["armed", "not armed"])
def test_another_transactions_xid_is_refused(
    sessions: Sessions, publisher: Session, waits: bool
) -> None:
    Listener(sessions, "t", arm=waits)
    with pytest.raises(errors.InvalidParameterValue, match="outbox.xid is 3 but") as refused:
        publisher.run(
            "INSERT INTO durable_notify.outbox (xid, topic, payload) VALUES ('3', 't', '1')"
        )
    assert "Leave xid and id out" in str(refused.value.diag.message_hint)


def test_what_is_carried_over_has_its_own_xid_and_rings(
    sessions: Sessions, publisher: Session
) -> None:
    """As logical replication does it: the trigger fires there too, and judges the rest."""
    listener = Listener(sessions, "t", arm=True)
    publisher.run("SET session_replication_role = replica")
    carried = "INSERT INTO durable_notify.outbox (xid, topic, payload, id) OVERRIDING SYSTEM VALUE VALUES ('3', %s, '1', %s)"
    publisher.run(carried, "t", 1000)
    assert listener.heard() == [ring("t", 1000)]
    with pytest.raises(errors.CheckViolation, match="outbox_topic_is_a_name"):
        publisher.run(carried, "a b", 1001)


def test_copied_rows_ring(sessions: Sessions, publisher: Session) -> None:
    listener = Listener(sessions, "t", arm=True)
    statement = "COPY durable_notify.outbox (topic, payload) FROM STDIN"
    with publisher.connection.cursor().copy(statement) as copy:
        for _ in range(100):
            copy.write_row(("t", "1"))
    assert [channel for channel, _ in listener.heard()] == ["durable_notify:t"]


# Rights


PUBLISH = {
    "publish": "SELECT durable_notify.publish('t', '1')",
    "insert": "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1') RETURNING id",
}


@pytest.mark.parametrize("right", PUBLISH)
@pytest.mark.parametrize("policy", ["when_waiting", "always", "never"])
def test_a_publisher_needs_no_rights_to_ring(
    dsn: str, sessions: Sessions, policy: str, right: str
) -> None:
    director, grantee = sessions.take(2)
    director.run("SELECT durable_notify.set_notify_policy('t', %s)", policy)
    listener = Listener(sessions, "t", "")
    with roles(dsn, {}) as made:
        name = made.make("publisher", (right, ["t"] if right == "publish" else None, None))
        grantee.run(f"SET ROLE {name}")
        grantee.run("SET lock_timeout = '1s'")
        with barred(sessions.session(), "t"):
            grantee.run(PUBLISH[right])
        assert listener.heard() == [] or policy == "always"
        if policy != "never":
            listener.arm("t", "")
        with grantee.transaction():
            first = grantee.value(PUBLISH[right])
            grantee.run(PUBLISH[right])
        expected = [ring("t", first), ("durable_notify", "t")]
        assert listener.heard() == ([] if policy == "never" else expected)
        grantee.run("RESET ROLE")
