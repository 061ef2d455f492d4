"""Policies of topics: what set_notify_policy() does to publishers and to waiting sessions."""

from __future__ import annotations

import pytest
from psycopg import errors

from tests.support.observe import Listener, armed, barred, unannounced
from tests.support.sessions import Session, Sessions

SET = "SELECT durable_notify.set_notify_policy(%s, %s)"
WAKEUPS = "SELECT durable_notify.notify_policy(%s)"
BODY = "SELECT prosrc FROM pg_proc WHERE oid = 'durable_notify.notify_policy(text)'::regprocedure"
QUOTED = [
    "it's",
    'say"x"',
    "$1",
    "%s",
    "%L",
    "back\\slash",
    "\\';--",
    "WHEN",
    "SELECT",
    "{a,b}",
    "ü",
]


def set_and_tell(topic: str) -> tuple[str, str]:
    """What set_notify_policy() itself notifies."""
    return f"durable_notify:{topic}", "!"


# What they do


def test_always_rings_though_no_session_has_armed(
    sessions: Sessions, owner: Session, publisher: Session
) -> None:
    listener = Listener(sessions, "t", "")
    owner.run(SET, "t", "always")
    with publisher.transaction():
        first = publisher.publish()
        publisher.publish()
        publisher.publish(topic="another")
    told = set_and_tell("t")
    assert listener.heard() == [told, ("durable_notify:t", str(first)), ("durable_notify", "t")]


def test_never_rings_no_session(sessions: Sessions, owner: Session, publisher: Session) -> None:
    """Not even sessions that have armed: it was when_waiting then."""
    listener = Listener(sessions, "t", "", arm=True)
    owner.run(SET, "t", "never")
    publisher.publish()
    assert listener.heard() == [set_and_tell("t")]
    with pytest.raises(errors.InvalidParameterValue, match='topic "t" never rings') as refused:
        listener.session.run("SELECT durable_notify.arm('t')")
    assert "set_notify_policy()" in str(refused.value.diag.message_hint)


@pytest.mark.parametrize("policy", ["always", "never"])
def test_back_to_when_waiting(
    sessions: Sessions, owner: Session, publisher: Session, policy: str
) -> None:
    listener = Listener(sessions, "t")
    owner.run(SET, "t", policy)
    owner.run(SET, "t", "when_waiting")
    assert listener.heard() == [set_and_tell("t")] * 2
    publisher.publish()
    assert listener.heard() == []
    listener.arm("t")
    rung = publisher.publish()
    assert listener.heard() == [("durable_notify:t", str(rung))]


@pytest.mark.parametrize("policy", ["always", "never"])
def test_a_policy_is_for_what_else_rings_too(
    sessions: Sessions, owner: Session, policy: str
) -> None:
    """A retry, for example, goes by it."""
    owner.subscribe()
    owner.publish()
    batch = owner.claim()
    owner.run(SET, "t", policy)
    listener = Listener(sessions, "t")
    owner.settle(batch[0].token, retried=batch)
    assert listener.heard() == ([("durable_notify:t", "0")] if policy == "always" else [])


def test_sessions_that_have_published_before_learn_of_it(
    sessions: Sessions, owner: Session, publisher: Session
) -> None:
    """The policy stands in plans that they have cached."""
    listener = Listener(sessions, "t", arm=True)
    for _ in range(10):
        publisher.publish()
        listener.heard()
    owner.run(SET, "t", "never")
    listener.heard()
    publisher.publish()
    assert listener.heard() == []
    owner.run(SET, "t", "always")
    listener.heard()
    listener.session.run("SELECT durable_notify.disarm('t')")
    publisher.publish()
    assert len(listener.heard()) == 1


def test_a_publisher_under_way_as_the_policy_changes_is_known(
    sessions: Sessions, owner: Session, publisher: Session
) -> None:
    """It has not rung for what it published while the topic never rang."""
    owner.run(SET, "t", "never")
    publisher.begin()
    xid = publisher.draw_xid()
    publisher.publish()
    owner.run(SET, "t", "when_waiting")
    listener = Listener(sessions, "t", arm=True)
    assert unannounced(listener.session) == {xid}
    publisher.commit()
    assert listener.heard() == []


# PREPARE TRANSACTION


def test_prepared_while_a_consumer_waits(
    sessions: Sessions, owner: Session, publisher: Session
) -> None:
    """NOTIFY refuses it, as the documentation says; a topic that never rings is for that."""
    Listener(sessions, "t", arm=True)
    publisher.begin()
    publisher.publish()
    with pytest.raises(errors.FeatureNotSupported, match="cannot PREPARE a transaction"):
        publisher.run("PREPARE TRANSACTION 'two phases'")
    owner.run(SET, "t", "never")
    with publisher.transaction():
        publisher.publish()
        publisher.run("PREPARE TRANSACTION 'two phases'")
    publisher.run("COMMIT PREPARED 'two phases'")
    assert publisher.value("SELECT count(*) FROM durable_notify.outbox") == 1


def test_prepared_while_no_consumer_waits(sessions: Sessions, publisher: Session) -> None:
    with publisher.transaction():
        publisher.publish()
        publisher.run("PREPARE TRANSACTION 'two phases'")
    publisher.run("ROLLBACK PREPARED 'two phases'")


# How it is kept


def test_the_function_comes_back_byte_for_byte(owner: Session) -> None:
    before = owner.value(BODY)
    query = "SELECT pg_get_functiondef('durable_notify.notify_policy(text)'::regprocedure)"
    definition = owner.value(query)
    for topic in ("t", *QUOTED):
        owner.run(SET, topic, "always")
        owner.run(SET, topic, "never")
    assert owner.value(BODY) != before
    for topic in ("t", *QUOTED):
        owner.run(SET, topic, "when_waiting")
    assert owner.value(BODY) == before
    assert owner.value(query) == definition
    assert owner.run("TABLE durable_notify.topic_notify_policy") == []


def test_it_keeps_its_documentation(owner: Session) -> None:
    owner.run(SET, "t", "always")
    documentation, _, _ = owner.value(BODY).partition("SELECT")
    assert "Rewritten by set_notify_policy()" in documentation


def test_each_topic_has_its_own(owner: Session) -> None:
    owner.run(SET, "a", "always")
    owner.run(SET, "b", "never")
    owner.run(SET, "c", "always")
    owner.run(SET, "c", "when_waiting")
    found = {topic: owner.value(WAKEUPS, topic) for topic in ["a", "b", "c", "A", "ab", ""]}
    assert found.pop("a") == "always"
    assert found.pop("b") == "never"
    assert set(found.values()) == {"when_waiting"}
    assert owner.value(WAKEUPS, None) == "when_waiting"


@pytest.mark.parametrize("topic", QUOTED)
def test_names_with_quotes(
    sessions: Sessions, owner: Session, publisher: Session, topic: str
) -> None:
    listener = Listener(sessions, topic)
    owner.run(SET, topic, "always")
    assert owner.value(WAKEUPS, topic) == "always"
    assert owner.value(WAKEUPS, "t") == "when_waiting"
    assert [payload for _, payload in listener.heard()] == ["!"]
    first = publisher.publish(topic=topic)
    assert [payload for _, payload in listener.heard()] == [str(first)]


@pytest.mark.parametrize("policy", ["", "sometimes", "ALWAYS", None])
def test_not_a_policy(owner: Session, policy: str | None) -> None:
    before = owner.value(BODY)
    with pytest.raises(errors.InvalidParameterValue, match="use when_waiting, always or never"):
        owner.run(SET, "t", policy)
    assert owner.value(BODY) == before


@pytest.mark.parametrize("topic", ["", "a b", "a*", ">", "x" * 256])
def test_not_a_topic(owner: Session, topic: str) -> None:
    before = owner.value(BODY)
    with pytest.raises(errors.CheckViolation, match="topic_notify_policy_topic_is_a_name"):
        owner.run(SET, topic, "always")
    assert owner.value(BODY) == before


def test_rolled_back(sessions: Sessions, owner: Session, publisher: Session) -> None:
    listener = Listener(sessions, "t")
    before = owner.value(BODY)
    owner.begin()
    owner.run(SET, "t", "always")
    owner.rollback()
    publisher.publish()
    assert listener.heard() == []
    assert owner.value(BODY) == before


def test_two_at_once_both_count(sessions: Sessions) -> None:
    one, two = sessions.take(2)
    one.begin()
    one.run(SET, "a", "always")
    work = two.start(SET, "b", "never")
    sessions.wait_until_blocked(two, work)
    one.commit()
    work.result()
    assert [one.value(WAKEUPS, topic) for topic in "abc"] == ["always", "never", "when_waiting"]


def test_two_at_once_of_which_one_rolls_back(sessions: Sessions) -> None:
    one, two = sessions.take(2)
    one.begin()
    one.run(SET, "a", "always")
    work = two.start(SET, "a", "never")
    sessions.wait_until_blocked(two, work)
    one.rollback()
    work.result()
    assert one.value(WAKEUPS, "a") == "never"


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_refused_in_frozen_transactions(sessions: Sessions, isolation: str) -> None:
    """Its snapshot could leave out what another has said since, and take that back."""
    one = sessions.session()
    one.begin(isolation)
    with pytest.raises(errors.InvalidParameterValue, match="READ COMMITTED"):
        one.run(SET, "b", "never")
    one.rollback()
    assert one.value(WAKEUPS, "b") == "when_waiting"


def test_publishers_continue_while_it_changes(sessions: Sessions, owner: Session) -> None:
    """They neither wait for it nor does it wait for them."""
    publisher, other = sessions.take(2)
    for session in (publisher, other, owner):
        session.run("SET lock_timeout = '1s'")
    publisher.begin()
    publisher.publish()
    owner.begin()
    owner.run(SET, "t", "always")
    publisher.publish()
    other.publish()
    owner.commit()
    publisher.publish()
    publisher.commit()


def test_sleeping_sessions_are_notified(sessions: Sessions, owner: Session) -> None:
    """On the channel they listen to, whatever the policy was: they are to read it again."""
    listener = Listener(sessions, "t")
    for policy in ("never", "always", "when_waiting", "when_waiting"):
        owner.run(SET, "t", policy)
        assert listener.heard() == [set_and_tell("t")]


def test_armed_all_at_once_by_policy(sessions: Sessions, owner: Session) -> None:
    listener = Listener(sessions, "a")
    owner.run(SET, "a", "always")
    owner.run(SET, "b", "never")
    with barred(sessions.session(), "b"):
        found = listener.session.value("SELECT durable_notify._arm_topics('{a,b,c}')")
    assert (found["silent"], found["barred"]) == (["b"], [])
    assert armed(owner.connection, "abc", listener.session.pid) == {"a", "c"}
