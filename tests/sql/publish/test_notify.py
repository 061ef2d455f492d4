"""notify(): what pg_notify() does, durably."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from durable_notify.topics import check_topic
from tests.security.hostile import any_name, fuzz, sendable
from tests.support.injection import plant
from tests.support.names import CHANNELS
from tests.support.observe import Listener
from tests.support.roles import roles
from tests.support.sessions import Session, Sessions

MIRROR = "SELECT durable_notify.set_mirror(%s, %s)"
NOTIFY = "SELECT durable_notify.notify(%s, %s)"
TOPIC_OF = "SELECT durable_notify.topic_of_channel(%s)"
OUTBOX = "SELECT topic, key, payload, headers FROM durable_notify.outbox ORDER BY id"
LIMIT = 7999  # bytes, of what NOTIFY takes


def test_notify(owner: Session, publisher: Session, legacy: Listener) -> None:
    assert publisher.run(NOTIFY, "c", "hello") == publisher.run("SELECT pg_notify('c', 'old')")
    assert legacy.payloads() == ["hello", "old"]
    header = {"notified": {"channel": "c", "pid": publisher.pid}}
    assert owner.run(OUTBOX) == [("c", None, "hello", header)]
    owner.subscribe(topics="c")
    assert [m.payload for m in owner.claim(topics="c")] == ["hello"]


def verdict(session: Session, query: str, channel: str | None) -> str:
    """'ok', or the SQLSTATE."""
    try:
        session.run(query, channel)
    except psycopg.Error as error:
        return str(error.sqlstate)
    return "ok"


def test_the_channels_that_pg_notify_refuses(sessions: Sessions, owner: Session) -> None:
    """And no others: each name is heard, or refused with the same SQLSTATE."""
    listener = Listener(sessions)
    for channel in (None, "", "x" * 63, "x" * 64, "ü" * 31, "ü" * 32, "durable_notify", *CHANNELS):
        if channel and len(channel.encode()) < 64:
            listener.hear(channel)
        expected = verdict(owner, "SELECT pg_catalog.pg_notify(%s, 'x')", channel)
        before = listener.heard()
        assert verdict(owner, "SELECT durable_notify.notify(%s, 'x')", channel) == expected
        assert listener.heard() == before
        published = owner.run("DELETE FROM durable_notify.outbox RETURNING payload")
        assert len(published) == (expected == "ok") == len(before)


def test_no_payload(owner: Session, publisher: Session, legacy: Listener) -> None:
    publisher.run(NOTIFY, "c", None)
    publisher.run("SELECT pg_notify('c', NULL)")
    assert legacy.payloads() == ["", ""]
    assert [row[2] for row in owner.run(OUTBOX)] == [""]


def test_payloads_at_the_limit_and_over_it(
    owner: Session, publisher: Session, legacy: Listener
) -> None:
    """Where pg_notify() refuses, the message is published, and its id notified."""
    texts = ["x" * LIMIT, "x" * (LIMIT + 1), "ü" * 3999, "ü" * 4000, "x" * 10**6]
    for text in texts:
        publisher.run(NOTIFY, "c", text)
    assert legacy.payloads() == [texts[0], "2", texts[2], "4", "5"]
    assert [row[2] for row in owner.run(OUTBOX)] == texts
    with pytest.raises(errors.InvalidParameterValue, match="payload string too long"):
        publisher.run("SELECT pg_notify('c', %s)", texts[1])


def test_notified_once_if_the_topic_is_mirrored_to_the_channel(
    owner: Session, publisher: Session, legacy: Listener
) -> None:
    owner.run(MIRROR, "c", "c")
    publisher.run(NOTIFY, "c", "a")
    publisher.run(NOTIFY, "c", "x" * 9000)
    legacy.hear("d")
    owner.run(MIRROR, "c", "d")
    publisher.run(NOTIFY, "c", "b")
    assert sorted(legacy.heard()) == [("c", "2"), ("c", "a"), ("c", "b"), ("d", "b")]


def test_notify_in_transactions(owner: Session, publisher: Session, legacy: Listener) -> None:
    with publisher.transaction():
        for payload in ("a", "b", "a"):
            publisher.run(NOTIFY, "c", payload)
        publisher.run("SAVEPOINT s")
        publisher.run(NOTIFY, "c", "never")
        publisher.run("ROLLBACK TO s")
    publisher.begin()
    publisher.run(NOTIFY, "c", "never")
    publisher.rollback()
    assert legacy.payloads() == ["a", "b"]
    assert [row[2] for row in owner.run(OUTBOX)] == ["a", "b", "a"]


@pytest.mark.parametrize("policy", ["when_waiting", "always", "never"])
def test_notify_whatever_the_policy(
    sessions: Sessions, owner: Session, publisher: Session, legacy: Listener, policy: str
) -> None:
    """Its channel is notified by all; the wake-ups of its topic go by the policy."""
    waiting = Listener(sessions, "c", arm=True)
    owner.run("SELECT durable_notify.set_notify_policy('c', %s)", policy)
    waiting.heard()
    publisher.run(NOTIFY, "c", "x")
    assert legacy.payloads() == ["x"]
    assert waiting.payloads() == ([] if policy == "never" else ["1"])
    with pytest.raises(errors.FeatureNotSupported, match="cannot PREPARE a transaction"):
        with publisher.transaction():
            publisher.run(NOTIFY, "c", "x")
            publisher.run("PREPARE TRANSACTION 'p'")
    assert owner.value("SELECT count(*) FROM durable_notify.outbox") == 1


def test_who_may_notify(dsn: str, owner: Session, sessions: Sessions) -> None:
    listener = Listener(sessions)
    listener.hear("orders.eu", "orders eu", "payments")
    granted = {
        "publisher": [("publish", ["orders.*", "orders%20eu"], None)],
        "consumer": [("consume", ["orders.*"], "g")],
        "stranger": [],
    }
    with roles(dsn, granted) as cast:  # type: ignore[arg-type]
        with psycopg.connect(cast.login("publisher"), autocommit=True) as publisher:
            publisher.execute(NOTIFY, ["orders.eu", "1"])
            publisher.execute(NOTIFY, ["orders eu", "2"])
            with pytest.raises(errors.InsufficientPrivilege, match="may not publish") as refused:
                publisher.execute(NOTIFY, ["payments", "3"])
            assert "durable-notify grant" in str(refused.value.diag.message_hint)
        for kind in ("consumer", "stranger"):
            with psycopg.connect(cast.login(kind), autocommit=True) as other:
                with pytest.raises(errors.InsufficientPrivilege):
                    other.execute(NOTIFY, ["orders.eu", "4"])
    assert listener.heard() == [("orders.eu", "1"), ("orders eu", "2")]
    assert len(owner.run(OUTBOX)) == 2


# topic_of_channel()


@pytest.mark.parametrize("scs", ["on", "off"])
def test_topic_of_channel(owner: Session, scs: str) -> None:
    owner.run(f"SET standard_conforming_strings = {scs}")
    for channel, topic in (
        ("orders", "orders"), ("Orders.eu-1_", "Orders.eu-1_"), ("a b", "a%20b"), ("*", "%2A"), (">", "%3E"),
        ("100%", "100%25"), ("%20", "%2520"), ("a\nb", "a%0Ab"), ("\u0085", "%C2%85"), ("\u00a0", "%C2%A0"),
        ("ü", "ü"), ("", ""), (None, None),
    ):  # fmt: skip
        assert owner.value(TOPIC_OF, channel) == topic


channels = any_name.filter(lambda name: sendable(name) and 1 <= len(name.encode()) <= 63)
EVERY = st.one_of(
    channels,
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15),
)


def comes_back(connection: psycopg.Connection[Any], channel: str) -> None:
    row = connection.execute(TOPIC_OF, [channel]).fetchone()
    assert row is not None
    check_topic(row[0])
    assert unquote(row[0], errors="strict") == channel


@fuzz(300)
@given(channel=EVERY)
def test_each_channel_has_a_topic_of_its_own(conn: psycopg.Connection[Any], channel: str) -> None:
    """It is a topic's name, and the channel's name can be read from it."""
    comes_back(conn, channel)


def test_one_topic_for_two_channels_would_be_noticed(
    owner: Session, conn: psycopg.Connection[Any]
) -> None:
    plant(owner, "topic_of_channel", ("*>%]", "*>]"))
    with pytest.raises(AssertionError):
        comes_back(conn, "a%20b")
