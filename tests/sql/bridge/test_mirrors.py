"""Mirrors: programs that only LISTEN hear what is published, raw."""

from __future__ import annotations

import base64

import psycopg
import pytest
from psycopg import errors

from tests.sql.bridge.senders import Sender, each_continues, sent_during
from tests.support.injection import plant
from tests.support.names import CHANNELS
from tests.support.observe import Listener
from tests.support.roles import roles
from tests.support.sessions import Session, Sessions

MIRROR = "SELECT durable_notify.set_mirror(%s, %s)"
BODY = "SELECT prosrc FROM pg_proc WHERE oid = 'durable_notify.mirror_of(text)'::regprocedure"
LIMIT = 7999  # bytes, of what NOTIFY takes


# What is notified


def test_json(owner: Session, publisher: Session, legacy: Listener) -> None:
    """A string as its text, other JSON as JSON."""
    owner.run(MIRROR, "t", "c")
    for payload, raw in (
        ("text", "text"), ("", ""), ('say "x" \\ \n', 'say "x" \\ \n'), ("ü😀", "ü😀"),
        (1, "1"), (1.50, "1.5"), (True, "true"), (None, "null"), ([1, "a"], '[1, "a"]'),
        ({"a": {"b": "ü"}}, '{"a": {"b": "ü"}}'),
    ):  # fmt: skip
        publisher.publish(payload)
        assert legacy.payloads() == [raw]


def test_bytes(owner: Session, publisher: Session, legacy: Listener) -> None:
    """As base64, on one line."""
    owner.run(MIRROR, "t", "c")
    for length in (0, 1, 57, 58, 5997):
        data = bytes(n % 256 for n in range(length))
        publisher.run("SELECT durable_notify.publish('t', NULL, data => %b)", data)
        assert legacy.payloads() == [base64.b64encode(data).decode()]


def send_at_the_limit(publisher: Session) -> list[str]:
    """Publish payloads around NOTIFY's limit; returns what is to be heard."""
    expected = []
    for text in ("x" * LIMIT, "ü" * (LIMIT // 2), "x" * (LIMIT + 1), "ü" * 4000, "x" * 10**6):
        published = publisher.publish(text)
        expected.append(text if len(text.encode()) <= LIMIT else str(published))
    array = publisher.publish([1] * 3000)
    data = publisher.value("SELECT durable_notify.publish('t', NULL, data => %b)", b"x" * 6000)
    return [*expected, str(array), str(data)]


def test_at_the_limit_and_over_it(owner: Session, publisher: Session, legacy: Listener) -> None:
    """Counted in bytes of what is sent; what is too long is its id."""
    owner.run(MIRROR, "t", "c")
    expected = send_at_the_limit(publisher)
    assert [len(sent) < 20 for sent in expected] == [False, False, True, True, True, True, True]
    assert legacy.payloads() == expected


@pytest.mark.parametrize("limit", ["<= 8000", "< 7999"])
def test_another_limit_would_be_noticed(
    owner: Session, publisher: Session, legacy: Listener, limit: str
) -> None:
    plant(owner, "_notify_payload", ("< 8000", limit))
    with pytest.raises((AssertionError, errors.InvalidParameterValue)):
        test_at_the_limit_and_over_it(owner, publisher, legacy)


def test_many_in_one_transaction(owner: Session, publisher: Session, legacy: Listener) -> None:
    """All of them, in their order, at the commit; the same twice is heard once, as of pg_notify()."""
    owner.run(MIRROR, "t", "c")
    with publisher.transaction():
        for n in range(100):
            publisher.publish(n)
        publisher.run("SELECT durable_notify.publish_many('t', '{100,101,101}')")
        publisher.run("INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '102')")
        assert legacy.payloads() == []
    assert legacy.payloads() == [str(n) for n in range(103)]


def test_rolled_back(owner: Session, publisher: Session, legacy: Listener) -> None:
    owner.run(MIRROR, "t", "c")
    publisher.begin()
    publisher.publish(1)
    publisher.rollback()
    with publisher.transaction():
        publisher.publish(2)
        publisher.run("SAVEPOINT s")
        publisher.publish(3)
        publisher.run("ROLLBACK TO s")
        publisher.publish(4)
        publisher.run("SAVEPOINT s")
        publisher.publish(5)
        publisher.run("RELEASE s")
    assert legacy.payloads() == ["2", "4", "5"]


@pytest.mark.parametrize("policy", ["when_waiting", "always", "never"])
def test_whatever_the_policy(
    sessions: Sessions, owner: Session, publisher: Session, legacy: Listener, policy: str
) -> None:
    """Consumers are woken by it, and each message is mirrored."""
    owner.run(MIRROR, "t", "c")
    waiting = Listener(sessions, "t", arm=True)
    owner.run("SELECT durable_notify.set_notify_policy('t', %s)", policy)
    waiting.heard()
    with publisher.transaction():
        first = publisher.publish("a")
        publisher.publish("b")
    assert legacy.payloads() == ["a", "b"]
    assert waiting.payloads() == ([] if policy == "never" else [str(first)])


def test_other_topics_are_not_mirrored(
    owner: Session, publisher: Session, legacy: Listener
) -> None:
    owner.run(MIRROR, "t", "c")
    owner.run(MIRROR, "u", "d")
    legacy.hear("d", "t", "T")
    for topic in ("T", "t.x", "u", "c"):
        publisher.publish(topic, topic=topic)
    assert legacy.heard() == [("d", "u")]


def test_two_topics_on_one_channel(owner: Session, publisher: Session, legacy: Listener) -> None:
    owner.run(MIRROR, "t", "c")
    owner.run(MIRROR, "u", "c")
    publisher.publish(1)
    publisher.publish(2, topic="u")
    owner.run(MIRROR, "u", None)
    publisher.publish(3, topic="u")
    assert legacy.payloads() == ["1", "2"]


def test_what_is_carried_over_is_not_mirrored_again(
    owner: Session, publisher: Session, legacy: Listener
) -> None:
    """Rows that logical replication or a restored dump brings were mirrored at their origin."""
    owner.run(MIRROR, "t", "c")
    publisher.run("SET session_replication_role = replica")
    publisher.run("""
        INSERT INTO durable_notify.outbox (xid, topic, payload, id) OVERRIDING SYSTEM VALUE
        VALUES ('3', 't', '"old"', 1000)""")
    publisher.publish("new")
    assert legacy.payloads() == ["new"]


def test_every_publisher_mirrors(dsn: str, owner: Session, legacy: Listener) -> None:
    owner.run(MIRROR, "t", "c")
    with roles(
        dsn, {"publisher": [("publish", ["t"], None)], "inserter": [("insert", None, None)]}
    ) as cast:
        with psycopg.connect(cast.login("publisher"), autocommit=True) as publisher:
            publisher.execute("SELECT durable_notify.publish('t', '1')")
        with psycopg.connect(cast.login("inserter"), autocommit=True) as inserter:
            inserter.execute("SET search_path = pg_temp")
            inserter.execute("INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '2')")
    assert legacy.payloads() == ["1", "2"]


# How they are kept


def test_it_says_what_was_there(owner: Session) -> None:
    found = [owner.value(MIRROR, "t", channel) for channel in ("c", "d", None, None)]
    assert found == [None, "c", "d", None]
    assert owner.run("TABLE durable_notify.topic_mirror") == []


def test_the_function_comes_back_byte_for_byte(owner: Session) -> None:
    query = "SELECT pg_get_functiondef('durable_notify.mirror_of(text)'::regprocedure)"
    before = owner.value(query)
    topics = ["t", "it's", '"', "$1", "%s", "\\';--", "SELECT", "{a,b}", "ü", "$function$"]
    for topic, channel in zip(topics, CHANNELS, strict=False):
        owner.run(MIRROR, topic, channel)
    assert "Rewritten by set_mirror()" in owner.value(BODY)
    for topic, channel in zip(topics, CHANNELS, strict=False):
        assert owner.value("SELECT durable_notify.mirror_of(%s)", topic) == channel
    for topic in topics:
        owner.run(MIRROR, topic, None)
    assert owner.value(query) == before


@pytest.mark.parametrize("scs", ["on", "off"])
def test_names(sessions: Sessions, owner: Session, publisher: Session, scs: str) -> None:
    """A channel can have any name that LISTEN takes, with any settings of the publisher."""
    for session in (owner, publisher):
        session.run(f"SET standard_conforming_strings = {scs}")
    listener = Listener(sessions)
    for name in CHANNELS:
        listener.hear(name)
        owner.run(MIRROR, "t", name)
        publisher.publish("x")
        assert listener.heard() == [(name, "x")]
    assert owner.value("SELECT count(*) FROM durable_notify.outbox") == len(CHANNELS)


def test_channels_refused(owner: Session) -> None:
    before = owner.value(BODY)
    for channel, says in (
        ("", "1 to 63 bytes, not 0"), ("x" * 64, "1 to 63 bytes, not 64"), ("ü" * 32, "not 64"),
        ("durable_notify", "reserved"), ("durable_notify:t", "reserved"),
        ("durable_notify:another", "reserved"), ("durable_notify#" + "0" * 32, "reserved"),
        ("durable_notify?" + "0" * 32, "reserved"),
    ):  # fmt: skip
        with pytest.raises(errors.InvalidParameterValue, match=says) as refused:
            owner.run(MIRROR, "t", channel)
        assert "Nothing was changed." in str(refused.value.diag.message_hint)
    assert owner.value(BODY) == before


def test_topics_refused(owner: Session) -> None:
    for topic in ("", "a b", "a*", ">", "x" * 256, "x\n", None):
        with pytest.raises(errors.InvalidParameterValue, match="invalid topic name"):
            owner.run(MIRROR, topic, "c")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_refused_in_frozen_transactions(sessions: Sessions, isolation: str) -> None:
    one = sessions.session()
    one.begin(isolation)
    with pytest.raises(errors.InvalidParameterValue, match="READ COMMITTED"):
        one.run(MIRROR, "t", "c")


def test_two_at_once_both_count(sessions: Sessions) -> None:
    one, two = sessions.take(2)
    one.begin()
    one.run(MIRROR, "a", "c")
    work = two.start(MIRROR, "b", "d")
    sessions.wait_until_blocked(two, work)
    one.commit()
    work.result()
    found = [one.value("SELECT durable_notify.mirror_of(%s)", topic) for topic in "abc"]
    assert found == ["c", "d", None]


# What they cost


def calls(publisher: Session, publish: str) -> set[str]:
    """The functions of ours that are called, and not put in place of their calls."""
    with publisher.transaction():
        publisher.run("SET LOCAL track_functions = 'all'")
        publisher.run(publish)
        return set(
            publisher.column("""
            SELECT funcname FROM pg_stat_xact_user_functions
             WHERE schemaname = 'durable_notify' AND calls > 0""")
        )


def test_a_topic_without_a_mirror_pays_nothing(owner: Session, publisher: Session) -> None:
    """Whether there are mirrors of other topics or none: it is all in the trigger's one expression."""
    insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')"
    plan = "EXPLAIN (VERBOSE) SELECT durable_notify.mirror_of(topic) FROM durable_notify.outbox"
    before = calls(publisher, insert)
    assert before in ({"_outbox_after_insert", "_no_waiter"}, {"_outbox_after_insert"})
    assert "NULL::text" in "\n".join(owner.column(plan))
    for n in range(5):
        owner.run(MIRROR, f"u{n}", "c")
    assert calls(publisher, insert) == before
    assert "mirror_of" not in "\n".join(owner.column(plan))
    assert "_notify_payload" in calls(publisher, insert.replace("'t'", "'u1'"))


def test_a_look_into_a_table_would_be_noticed(owner: Session, publisher: Session) -> None:
    owner.run("""
        CREATE OR REPLACE FUNCTION durable_notify.mirror_of(topic text) RETURNS text
        LANGUAGE sql STABLE AS
        'SELECT channel FROM durable_notify.topic_mirror m WHERE m.topic = mirror_of.topic'""")
    with pytest.raises(AssertionError):
        test_a_topic_without_a_mirror_pays_nothing(owner, publisher)


def test_no_lock_on_the_outbox(sessions: Sessions, owner: Session) -> None:
    """Publishers neither wait for it nor does it wait for them."""
    publisher, other = sessions.take(2)
    for session in (publisher, other, owner):
        session.run("SET lock_timeout = '1s'")
    publisher.begin()
    publisher.publish()
    owner.begin()
    owner.run(MIRROR, "t", "c")
    locked = "SELECT count(*) FROM pg_locks WHERE pid = %s AND relation = 'durable_notify.outbox'::regclass"
    assert other.value(locked, owner.pid) == 0
    assert other.value(locked, publisher.pid) > 0
    publisher.publish()
    other.publish()
    owner.commit()
    publisher.publish()
    publisher.commit()


def test_changed_while_publishers_run(dsn: str, owner: Session, legacy: Listener) -> None:
    """Whatever is published while a topic is mirrored is heard, once; no publisher fails."""
    publish = "SELECT durable_notify.publish('t', to_jsonb(%s::text))"
    senders = [
        Sender(name, lambda: psycopg.connect(dsn, autocommit=True), publish) for name in "ab"
    ]

    def change() -> None:
        each_continues(senders)
        owner.run("SELECT durable_notify.set_notify_policy('t', 'never')")
        each_continues(senders)
        owner.run("SELECT durable_notify.set_notify_policy('t', 'when_waiting')")

    due: list[str] = []
    for _ in range(4):
        owner.run(MIRROR, "t", "c")
        due += sent_during(senders, change)
        owner.run(MIRROR, "t", None)
        each_continues(senders)
    for one in senders:
        one.stop()
        assert one.failed == []
    told = legacy.payloads()
    assert len(told) == len(set(told))
    assert set(due) <= set(told)
    assert len(told) < sum(one.sent for one in senders)
