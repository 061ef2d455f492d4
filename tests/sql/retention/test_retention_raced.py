"""What is removed, beside redeliveries and groups that have yet to begin."""

from __future__ import annotations

import pytest

from tests.support.injection import plant
from tests.support.retention import advance_watermark, age, maintain, outbox_ids, retain
from tests.support.schedules import drain
from tests.support.sessions import Sessions, ids


@pytest.mark.parametrize("planted", [False, True])
def test_a_replay_that_an_old_snapshot_does_not_see(sessions: Sessions, planted: bool) -> None:
    """Removing at REPEATABLE READ, as a database's default could have it, removes nothing and says so."""
    one, remover = sessions.readers(2)
    retain(one, when_settled=True)
    first = one.publish()
    one.ack(one.claim())
    advance_watermark(one)
    if planted:
        plant(one, "_lock_removal", ("<> 'read committed'", "IS NULL"))
    remover.begin("repeatable read")
    assert one.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == 1
    remove = "SELECT durable_notify._delete_expired('t')"
    if planted:
        assert remover.value(remove) == 1
        remover.commit()
        assert drain(one) == []
        return
    said: list[str | None] = []
    remover.connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
    assert remover.value(remove) == 0
    assert any("READ COMMITTED" in str(text) for text in said)
    remover.commit()
    assert drain(one) == [first]


@pytest.mark.parametrize("how", [{"when_settled": True}, {"max_age": "1 day"}])
def test_a_group_that_has_yet_to_discover_a_topic(
    sessions: Sessions, how: dict[str, object]
) -> None:
    """Its pattern says that it gets all of it, though it has no subscription yet."""
    one, late = sessions.take(2)
    late.subscribe("late", "orders.*")
    retain(one, "orders.new", **how)
    first = one.publish(topic="orders.new")
    age(one, first, "orders.new")
    one.subscribe("g", "orders.new")
    one.ack(one.claim(topics="orders.new"))
    advance_watermark(one)
    assert one.value("SELECT durable_notify.retention_watermark('orders.new')") == 0
    assert one.value("SELECT durable_notify._delete_expired('orders.new')") == 0
    maintain(one)
    assert outbox_ids(one, "orders.new") == [first]
    claimed = late.claim(group="late", topics="orders.new")
    assert ids(claimed) == [first]
    late.ack(claimed)
    maintain(one)
    assert outbox_ids(one, "orders.new") == []


def test_a_group_that_never_consumed_loses_what_is_too_old(sessions: Sessions) -> None:
    one = sessions.session()
    one.subscribe("late", "orders.*")
    retain(one, "orders.new", max_age="1 day", on_lag="lose")
    age(one, one.publish(topic="orders.new"), "orders.new")
    maintain(one)
    assert outbox_ids(one, "orders.new") == []
    assert one.run("SELECT group_name, messages FROM durable_notify.lost_messages()") == [
        ("late", 1)
    ]


def test_no_group_waits_for_another_that_is_busy(sessions: Sessions) -> None:
    """Of several that lag one loses at a time."""
    one = sessions.session()
    for group in ("a", "b"):
        one.subscribe(group)
    retain(one, max_age="1 day", on_lag="lose")
    age(one, one.publish())
    advance_watermark(one)
    below = "SELECT durable_notify._record_losses('t', 100)"
    groups = "SELECT group_name FROM durable_notify.lost_messages()"
    assert one.value(below) == 1
    assert one.column(groups) == ["a"]
    assert one.value(below) == 1
    assert one.column(groups) == ["b", "a"]
    assert one.value(below) == 0


@pytest.mark.parametrize(
    "again",
    [
        "SELECT redelivered FROM durable_notify.seek('g', 't', 0)",
        "SELECT durable_notify.seek('g', 't', 0)",
        "SELECT durable_notify.start_replay('g', 't')",
        "SELECT durable_notify.redrive('g', everything => true)",
    ],
)
def test_claims_continue_while_a_redelivery_waits(sessions: Sessions, again: str) -> None:
    """For maintenance, which takes long when it copies a partition."""
    one, remover, asking = sessions.readers(3)
    first = one.publish()
    remover.begin()
    assert remover.value("SELECT durable_notify._lock_removal()")
    work = asking.start(again)
    sessions.wait_until_blocked(asking, work)
    one.run("SET statement_timeout = '4s'")
    assert ids(one.claim()) == [first]
    remover.commit()
    work.result()
