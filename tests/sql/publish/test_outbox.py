"""The outbox as a table: what may be inserted, and whom it wakes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions, ids
from tests.support.wait import BOUND

INSERT = "INSERT INTO durable_notify.outbox (topic, payload) VALUES (%s, '1')"


def test_row_of_another_transaction_is_refused(sessions: Sessions) -> None:
    publisher = sessions.session()
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


def test_one_ring_a_topic_and_statement(sessions: Sessions) -> None:
    listener, other, publisher = sessions.take(3)
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


def test_replicated_rows_ring(sessions: Sessions) -> None:
    listener, publisher = sessions.take(2)
    listener.listen()
    publisher.run("SET session_replication_role = replica")
    message_id = publisher.publish()
    assert heard(listener, publisher) == [str(message_id)]


@pytest.mark.parametrize(
    "topic", ["t", "x" * 48, "x" * 49, "x" * 255, "ü" * 24, "ü" * 25, "日" * 85]
)
def test_channel_is_never_too_long(sessions: Sessions, topic: str) -> None:
    listener, publisher = sessions.take(2)
    channel = listener.value("SELECT durable_notify.channel(%s)", topic)
    assert len(channel.encode()) <= 63
    listener.listen(topic)
    message_id = publisher.publish(topic=topic)
    assert heard(listener, publisher, channel) == [str(message_id)]


def test_channels_differ(sessions: Sessions) -> None:
    topics = ["x" * 48, "x" * 49, "x" * 50, "X" * 48, "y" * 49]
    query = "SELECT count(DISTINCT durable_notify.channel(topic)) FROM unnest(%s::text[]) AS topic"
    assert sessions.session().value(query, topics) == len(topics)


@pytest.mark.parametrize(
    "topic", ["", "x" * 256, "ü" * 128, "a b", "a\nb", "\t", "\x7f", "\x85", "\xa0"]
)
def test_bad_topics(sessions: Sessions, topic: str) -> None:
    publisher = sessions.session()
    with pytest.raises(errors.CheckViolation, match="outbox_topic_is_a_name"):
        publisher.run(INSERT, topic)
    with pytest.raises(errors.CheckViolation, match="subscription_topic_is_a_name"):
        publisher.run("SELECT durable_notify.subscribe('g', %s)", [topic])


@pytest.mark.parametrize("topic", ["a", "a.b-c_d/e:f", "日本", "x" * 255])
def test_good_topics(sessions: Sessions, topic: str) -> None:
    reader = sessions.session()
    reader.subscribe(topics=topic)
    message_id = reader.publish(topic=topic)
    assert ids(reader.claim(topics=topic)) == [message_id]


@pytest.mark.parametrize("key", ["", "x" * 1025, "a\nb", "\x7f"])
def test_bad_keys(sessions: Sessions, key: str) -> None:
    with pytest.raises(errors.CheckViolation, match="outbox_key_is_1_to_1024_bytes_of_text"):
        sessions.session().publish(key=key)


@pytest.mark.parametrize("group", ["", "x" * 256, "a\nb", "\x7f"])
def test_bad_groups(sessions: Sessions, group: str) -> None:
    with pytest.raises(errors.CheckViolation, match="consumer_group_name_is_1_to_255_bytes"):
        sessions.session().subscribe(group)


def test_a_message_has_a_payload_or_data(sessions: Sessions) -> None:
    publisher = sessions.session()
    query = "INSERT INTO durable_notify.outbox (topic, payload, data) VALUES ('t', %s, %s)"
    for values in ((None, None), (Jsonb(1), b"1")):
        with pytest.raises(errors.CheckViolation, match="outbox_either_payload_or_data"):
            publisher.run(query, *values)
    with pytest.raises(errors.CheckViolation, match="outbox_headers_are_an_object"):
        publisher.run("SELECT durable_notify.publish('t', '1', headers => '[]')")


def test_a_message_comes_as_it_was_published(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
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


def test_publish_many_returns_ids_in_order(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    query = """
        SELECT durable_notify.publish_many(
            't', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 1000) AS n),
            ARRAY(SELECT 'key ' || n FROM generate_series(1, 1000) AS n))"""
    published = publisher.column(query)
    delivered = reader.claim(2000)
    assert ids(delivered) == published == sorted(published)
    assert [(m.payload, m.key) for m in delivered] == [(n, f"key {n}") for n in range(1, 1001)]


def test_id_cannot_be_chosen(sessions: Sessions) -> None:
    with pytest.raises(errors.GeneratedAlways):
        sessions.session().run(
            "INSERT INTO durable_notify.outbox (topic, payload, id) VALUES ('t', '1', 1)"
        )


def test_chosen_id_is_not_lost_all_the_same(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    publisher.publish()
    publisher.run("ALTER SEQUENCE durable_notify.outbox_id_seq RESTART 100")
    publisher.publish()
    drain(reader)
    publisher.run("""
        INSERT INTO durable_notify.outbox (topic, payload, id)
        OVERRIDING SYSTEM VALUE VALUES ('t', '1', 50)""")
    assert drain(reader) == [50]
