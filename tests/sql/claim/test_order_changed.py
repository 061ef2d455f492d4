"""order_by is changed while messages are delivered and retried: none is stuck, nothing hangs."""

from __future__ import annotations

import logging
import threading

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

import durable_notify as dn
from tests.support.injection import plant
from tests.support.schedules import drain
from tests.support.sessions import LONG_GONE, Message, Session, Sessions, ids
from tests.support.wait import BOUND, eventually

CONFIGURE = "SELECT durable_notify.configure('g', %s)"
RELEASE = "SELECT durable_notify.release(%s)"
KEYS = "SELECT key FROM durable_notify.deferred ORDER BY message_id, seq"
ORDERS = ["none", "key", "strict"]
CHANGES = [(old, new) for old in ORDERS for new in ORDERS if old != new]


def ready(sessions: Sessions, count: int, order_by: str) -> list[Session]:
    several = sessions.take(count)
    several[0].subscribe()
    several[0].run(CONFIGURE, Jsonb({"order_by": order_by, "retry_base": 0, "retry_max": 0}))
    return several


def change(session: Session, order_by: str) -> None:
    session.run(CONFIGURE, Jsonb({"order_by": order_by}))


def retry_whole(session: Session, held: list[Message]) -> None:
    session.settle(held[0].token, retried=held)


def retry_in_part(session: Session, held: list[Message]) -> None:
    session.settle(held[0].token, retried=held[:1])


def give_back(session: Session, held: list[Message]) -> None:
    session.run(RELEASE, [held[0].token])


SENDS = [retry_whole, retry_in_part, give_back]


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_retry_in_an_open_transaction_follows_the_new_order(
    sessions: Sessions, old: str, new: str, send: object
) -> None:
    one, handler, admin = ready(sessions, 3, old)
    published = [one.publish(key=key) for key in "ab"]
    held = one.claim()
    handler.begin()
    assert callable(send)
    send(handler, held)
    changing = admin.start(CONFIGURE, Jsonb({"order_by": new}))
    assert one.claim() == []  # claims continue: it does not wait with the group's lock held
    handler.commit()
    changing.result(timeout=BOUND)
    wanted = {"none": {None}, "key": {"a", "b"}, "strict": {""}}[new]
    assert set(one.column(KEYS)) <= wanted
    one.run(LONG_GONE)
    assert sorted(drain(one)) == published


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_what_was_delivered_before_follows_the_new_order(
    sessions: Sessions, old: str, new: str, send: object
) -> None:
    one, two = ready(sessions, 2, old)
    published = [one.publish(key=key) for key in "ab"]
    held = two.claim()
    change(one, new)
    assert callable(send)
    send(two, held)
    wanted = {"none": {None}, "key": {"a", "b"}, "strict": {""}}[new]
    assert set(one.column(KEYS)) <= wanted
    one.run(LONG_GONE)
    assert sorted(drain(one)) == published


def test_keys_of_leases_from_before_are_kept_apart(sessions: Sessions) -> None:
    """Delivered in a group without order, they hold back what follows once there is one."""
    one, two = ready(sessions, 2, "none")
    first = one.publish(key="k")
    held = two.claim()
    change(one, "key")
    second = one.publish(key="k")
    assert one.claim() == []
    two.ack(held)
    assert ids(one.claim()) == [second]
    assert first < second


def test_planted_the_order_is_not_held(sessions: Sessions) -> None:
    """Without the row of ordering a retry on its way keeps its key for good."""
    one, handler, admin = ready(sessions, 3, "key")
    plant(one, "_lock_ordering", ("FOR SHARE OF o", ""))
    published = [one.publish(key=key) for key in "ab"]
    held = one.claim()
    handler.begin()
    handler.settle(held[0].token, retried=held)
    change(admin, "none")
    handler.commit()
    assert one.column(KEYS) == ["a", "b"]
    assert drain(one) == []
    assert published


def test_a_change_of_order_gives_up_in_words_and_changes_nothing(sessions: Sessions) -> None:
    one, handler, admin = ready(sessions, 3, "key")
    one.publish(key="k")
    held = one.claim()
    handler.begin()
    handler.settle(held[0].token, retried=held)
    patience = "interval '5 seconds'"
    plant(admin, "_lock_group_and", (patience, "interval '0.1 seconds'"))
    with pytest.raises(errors.LockNotAvailable, match='group "g" is in use'):
        change(admin, "none")
    admin.run(CONFIGURE, Jsonb({"order_by": "key", "max_attempts": 3}))  # what it is already
    handler.commit()
    change(admin, "none")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_an_older_snapshot_does_not_change_the_order(sessions: Sessions, isolation: str) -> None:
    """It would not see what has begun to wait since."""
    one, two = ready(sessions, 2, "key")
    two.begin(isolation)
    with pytest.raises(psycopg.DatabaseError, match="READ COMMITTED") as caught:
        change(two, "none")
    assert caught.value.sqlstate == "22023"
    two.rollback()
    two.begin(isolation)
    two.run(CONFIGURE, Jsonb({"max_attempts": 7}))
    two.commit()
    options = "SELECT order_by, max_attempts FROM durable_notify.consumer_group"
    assert one.run(options) == [("key", 7)]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_handler_with_an_older_snapshot_is_told_to_try_again(
    sessions: Sessions, isolation: str
) -> None:
    one, handler = ready(sessions, 2, "key")
    published = [one.publish(key="k")]
    held = one.claim()
    handler.begin(isolation)
    change(one, "none")
    with pytest.raises(errors.SerializationFailure):
        handler.settle(held[0].token, retried=held)
    handler.rollback()
    handler.settle(held[0].token, retried=held)
    assert drain(one) == published


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_redrive_with_an_older_snapshot_is_refused(sessions: Sessions, isolation: str) -> None:
    """Its message would wait under a key that the group does not keep any more."""
    one, operator = ready(sessions, 2, "key")
    dead = one.publish(key="k")
    held = one.claim()
    one.settle(held[0].token, rejected=held)
    redrive = "SELECT durable_notify.redrive('g', everything => true)"
    operator.begin(isolation)
    change(one, "none")
    with pytest.raises(errors.InvalidParameterValue, match="READ COMMITTED"):
        operator.run(redrive)
    operator.rollback()
    assert operator.value(redrive) == 1
    assert one.run(KEYS) == [(None,)]
    assert drain(one) == [dead]


@pytest.mark.parametrize(
    ("old", "new", "key"), [("none", "key", "k"), ("none", "strict", "k"), ("key", "strict", None)]
)
def test_a_lease_from_before_is_looked_at_with_pauses(
    sessions: Sessions, old: str, new: str, key: str | None
) -> None:
    """It held back nothing then, and rings for nothing when it is settled."""
    one, handler = ready(sessions, 2, old)
    one.publish(key=key)
    held = handler.claim()
    change(one, new)
    waiting = one.publish(key="k")
    assert one.claim() == []
    assert 0.3 < one.value("SELECT durable_notify.next_due('g', '{t}')") <= 0.5
    handler.ack(held)
    assert drain(one) == [waiting]


def test_a_consumer_with_a_new_order_starts_once_it_can(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    one, handler = ready(sessions, 2, "key")
    published = [one.publish(key="k")]
    held = one.claim()
    handler.begin()
    handler.settle(held[0].token, retried=held)
    plant(one, "_lock_group_and", ("interval '5 seconds'", "interval '0.1 seconds'"))
    got: list[int] = []
    consumer = dn.Consumer(
        sessions.dsn,
        group=dn.Group("g", order_by="none"),
        topics=["t"],
        until_empty=True,
        maintenance=False,
    )
    with caplog.at_level(logging.INFO, "durable_notify"):
        running = threading.Thread(
            target=consumer.run, args=(lambda message: got.append(message.id),)
        )
        running.start()
        eventually(lambda: "waiting for group 'g'" in caplog.text)
        handler.commit()
        running.join(BOUND)
    assert got == published
