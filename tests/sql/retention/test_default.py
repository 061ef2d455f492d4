"""What a fresh schema removes by itself: old messages that every group has settled, and old records."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.sql.retention.test_retention import Schedule, play
from tests.support.injection import plant
from tests.support.retention import age, maintain, outbox_ids, retain
from tests.support.schedules import drain
from tests.support.sessions import LONG_GONE, Session, Sessions


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


def policies(session: Session) -> list[tuple[object, ...]]:
    return session.run(
        "SELECT pattern, when_settled, min_age::text, max_age, on_lag FROM durable_notify.retention()"
    )


def test_what_a_fresh_schema_has(sessions: Sessions) -> None:
    one = sessions.session()
    assert policies(one) == [(">", True, "30 days", None, "block")]
    assert one.run("SELECT kind, age::text FROM durable_notify.record_ages()") == [
        ("inbox", "90 days"),
        ("audit", "365 days"),
    ]


def what_stays(sessions: Sessions) -> None:
    """Nothing is set. Old messages go once every group has settled them, and not before."""
    one = sessions.session()
    for group in ("fast", "slow"):
        one.subscribe(group)
    for number in range(6):
        one.publish(number)
    kept = one.publish(topic="read.by.no.group")
    young = one.publish()
    age(one, 6)
    age(one, kept, "read.by.no.group")
    drain(one, group="fast")
    assert maintain(one) == {}
    # One retried, one dead, one leased; the rest settled.
    batch = one.claim(3, "slow")
    one.settle(batch[0].token, acked=batch[:1], rejected=batch[1:2])
    assert maintain(one) == {"remove": 2}
    assert outbox_ids(one) == [3, 4, 5, 6, young]
    one.run(
        "SELECT durable_notify.settle(%s, retried => '{3}', retry_delays => '{1 hour}')",
        batch[0].token,
    )
    drain(one, group="slow")
    assert maintain(one) == {}
    assert outbox_ids(one) == [3, 4, 5, 6, young]
    one.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")
    held = one.claim(1, "slow")
    one.run(LONG_GONE)
    assert maintain(one)["leases"] == 1  # type: ignore[index]
    assert outbox_ids(one) == [3, 4, 5, 6, young]
    assert drain(one, group="slow") == [held[0].id]
    assert maintain(one) == {"remove": 4}
    assert outbox_ids(one) == [young]
    assert outbox_ids(one, "read.by.no.group") == [kept]
    one.run("SELECT durable_notify.delete_group('fast'), durable_notify.delete_group('slow')")
    age(one, young)
    assert maintain(one) == {}
    assert outbox_ids(one) == [young], "its groups are gone: the next one begins with it"


def test_what_stays(sessions: Sessions) -> None:
    what_stays(sessions)


PLANTED = {
    "a lagging group": ("_all_settled_watermark", "ORDER BY s.id LOOP", "ORDER BY s.id LIMIT 1 LOOP"),
    "a topic without a group": (
        "_due_watermark",
        "EXISTS (SELECT FROM durable_notify.subscription s WHERE s.topic = _due_watermark.topic)",
        "true",
    ),
    "the age": ("_due_watermark", "policy.min_age IS NULL", "true"),
    "a retry": (
        "_settled_watermark",
        "SELECT d.message_id FROM durable_notify.deferred d",
        "SELECT NULL::bigint FROM durable_notify.deferred d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("forgotten", PLANTED)
def test_a_default_that_forgets_is_caught(sessions: Sessions, forgotten: str) -> None:
    function, old, new = PLANTED[forgotten]
    plant(sessions.session(), function, (old, new))
    with pytest.raises(AssertionError):
        what_stays(sessions)


class Untouched(Schedule):
    """The same as with a policy, under the default; every message is old."""

    def set_up(self) -> None:
        assert len(policies(self.one)) == 1
        self.one.run("ALTER TABLE durable_notify.outbox ALTER created_at SET DEFAULT 'epoch'")


def test_a_pattern_or_a_topic_is_kept_for_ever(sessions: Sessions) -> None:
    one = sessions.session()
    topics = ("orders.eu", "orders.us", "other")
    one.subscribe("g", " ".join(topics))
    retain(one, "orders.*", forever=True)
    retain(one, "orders.us", when_settled=True)
    for topic in topics:
        age(one, one.publish(topic=topic), topic)
    while batch := one.claim(topics=" ".join(topics)):
        one.ack(batch)
    assert maintain(one) == {"remove": 2}
    assert [outbox_ids(one, topic) for topic in topics] == [[1], [], []]
    assert one.value("SELECT durable_notify.delete_retention('orders.*')")
    assert maintain(one) == {"remove": 1}
    assert one.value("SELECT durable_notify.delete_retention('>')")
    age(one, one.publish(topic="other"), "other")
    one.ack(one.claim(topics="other"))
    assert maintain(one) == {}
    assert outbox_ids(one, "other") == [4], "without any policy everything stays"


def test_a_group_that_lags_is_named(sessions: Sessions) -> None:
    one = sessions.session()
    one.subscribe("slow")
    one.publish()
    blockers = "SELECT topic, group_name, from_id, upto_id FROM durable_notify.retention_blockers()"
    assert one.run(blockers) == []
    age(one, 1)
    assert one.run(blockers) == [("t", "slow", 1, 1)]
    drain(one, group="slow")
    assert one.run(blockers) == []


def test_young_topics_cost_a_round_nothing(sessions: Sessions) -> None:
    """By default every topic has a policy: a step of its own is only for those with old messages."""
    one = sessions.reader()
    one.subscribe("g", "young")
    one.publish(topic="young")
    age(one, one.publish())
    steps = "SELECT topic FROM durable_notify.maintain_steps() WHERE topic IS NOT NULL"
    assert one.column(steps) == ["t"]
    one.run("SELECT durable_notify.set_retention('young', max_bytes => 1000)")
    assert one.column(steps) == ["young", "t", "young"]  # measured, then removed


REFUSED = {
    "min_age => '1 day'": "give when_settled",
    "min_age => '1 day', max_age => '2 days'": "give when_settled",
    "when_settled => true, min_age => '2 days', max_age => '1 day'": "give a longer max_age",
    "when_settled => true, min_age => '0'": "more than 0",
    "when_settled => true, min_age => '2000 years'": "1000 years",
    "forever => true, max_age => '1 day'": "forever removes nothing",
    "forever => true, archive => true": "forever removes nothing",
    "forever => NULL": "forever true or false",
    "max_bytes => NULL": "to keep everything, give forever",
}


def test_what_cannot_be_set(sessions: Sessions) -> None:
    one = sessions.session()
    for arguments, says in REFUSED.items():
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=says):
            one.run(f"SELECT durable_notify.set_retention('t', {arguments})")
    for arguments in ("'dance', '1 day'", "NULL, '1 day'", "'inbox', '0'", "'audit', '2000 years'"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="inbox or audit"):
            one.run(f"SELECT durable_notify.set_record_age({arguments})")
    assert policies(one) == [(">", True, "30 days", None, "block")]


def records(session: Session, days: int) -> None:
    """Have something be done once, and audited, so many days ago."""
    session.run(
        "INSERT INTO durable_notify.processed_message (group_id, message_id, created_at)"
        " SELECT g.id, %s, now() - make_interval(days => %s) FROM durable_notify.consumer_group g",
        days,
        days,
    )
    session.run(
        "INSERT INTO durable_notify.audit (at, action, group_name)"
        " VALUES (now() - make_interval(days => %s), 'test', 'g')",
        days,
    )


def test_records_go_by_themselves(sessions: Sessions) -> None:
    one = sessions.reader()
    one.run("DELETE FROM durable_notify.audit")
    for days in (89, 91, 364, 366):
        records(one, days)
    one.run("SELECT durable_notify.publish('t', '1', dedup_key => 'x', dedup_window => '1 us')")
    assert maintain(one) == {"inbox": 3, "audit": 1, "dedup": 1}
    assert one.column("SELECT message_id FROM durable_notify.processed_message") == [89]
    one.run("SELECT durable_notify.set_record_age('inbox', NULL)")
    records(one, 1000)
    assert maintain(one) == {"audit": 1}
    one.run("SELECT durable_notify.set_record_age('inbox', '10 days')")
    assert maintain(one) == {"inbox": 2}
    # A round may be told other ages.
    records(one, 5)
    assert one.value("CALL durable_notify.maintain(inbox_age => '4 days')") == {"inbox": 1}


def test_many_records_go_in_pieces(sessions: Sessions) -> None:
    one = sessions.reader()
    one.run(
        "INSERT INTO durable_notify.processed_message (group_id, message_id, created_at)"
        " SELECT g.id, n, 'epoch' FROM durable_notify.consumer_group g, generate_series(1, 12000) n"
    )
    assert one.value("SELECT durable_notify.maintain_begin('w', '0')")
    step = "SELECT durable_notify.maintain_step('w', 'inbox')"
    assert [one.value(step) for _ in range(3)] == [10000, 2000, 0]


@pytest.mark.parametrize("first", [0, 3])
def test_random_schedules(sessions: Sessions, first: int) -> None:
    play(sessions, range(first, first + 3), Untouched)
