"""Erasure: of a key's messages nothing stays in any table, whatever is in progress meanwhile."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.retention import (
    age,
    lay_out_partitions,
    maintain,
    outbox_ids,
    reported_unsettled,
    retain,
    unsettled,
)
from tests.support.sessions import LONG_GONE, Session, Sessions, ids
from tests.support.wait import eventually

KEY = "person-1"
WAITS = """
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'
                      AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep'))"""
BY_SQL = "CALL durable_notify.erase(%s)"
TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind = 'r'"""


def traces(session: Session, text: str = KEY) -> dict[str, int]:
    """By table, the rows in which a text is found."""
    counts = {
        table: session.value(f"SELECT count(*) FROM {table} x WHERE strpos(x::text, %s) > 0", text)
        for table in session.column(TABLES)
    }
    return {table.removeprefix("durable_notify."): n for table, n in counts.items() if n}


def erase(session: Session, key: str = KEY, **options: Any) -> dict[str, int]:
    names = "".join(f", {name} => %s" for name in options)
    found = session.value(f"CALL durable_notify.erase(%s{names})", key, *options.values())
    assert isinstance(found, dict)
    return found


def publish(session: Session, key: str | None = KEY, **options: Any) -> int:
    names = "".join(f", {name} => %s" for name in options)
    query = f"SELECT durable_notify.publish('t', %s::jsonb, %s{names})"
    found = session.value(query, f'"about {key}"', key, *options.values())
    assert isinstance(found, int)
    return found


def everywhere(session: Session) -> None:
    """Have messages of the key in all places, and one of another key beside each."""
    session.run("SELECT durable_notify.configure('g', '{\"order_by\": \"none\"}')")
    for key in (KEY, "other"):
        for _ in ("dead", "retried", "acked", "unread"):
            publish(session, key)
    batch = session.claim(7)
    for dead, retried, acked in (batch[:3], batch[4:]):
        session.run(
            "SELECT durable_notify.settle(%s, rejected => %s, reject_reasons => %s, reject_errors => %s)",
            dead.token, [dead.id], [f"about {dead.key}"], [f'{{"message": "about {dead.key}"}}'],
        )  # fmt: skip
        session.run(
            "SELECT durable_notify.settle(%s, retried => %s, retry_delays => '{1h}', retry_errors => %s)",
            retried.token, [retried.id], [f'{{"message": "about {retried.key}"}}'],
        )  # fmt: skip
        session.run("SELECT durable_notify.once('g', %s)", acked.id)
        session.settle(acked.token, [acked])
        publish(session, acked.key, delay="1 hour")
        publish(session, acked.key, dedup_key=f"once for {acked.key}")
    session.settle(batch[3].token, [batch[3]])
    session.run("SELECT durable_notify.start_replay('g', 't', keys => %s)", [KEY, "other"])


def test_it_is_gone_from_every_table(sessions: Sessions) -> None:
    owner = sessions.reader()
    everywhere(owner)
    before = traces(owner)
    assert {"outbox_default", "dead_letter", "deferred", "dedup", "replay_job"} >= before.keys() - {
        "outbox_1"
    }
    others = traces(owner, "other")
    expected = {
        "messages": 6, "dead_letters": 1, "waiting": 1, "dedup_keys": 1, "once": 1, "replays": 1,
    }  # fmt: skip
    assert erase(owner, dry_run=True) == expected
    assert traces(owner) == before
    assert erase(owner) == expected
    assert traces(owner) == {}
    assert traces(owner, "other") == others
    assert erase(owner) == {}


def test_what_is_claimed_afterwards(sessions: Sessions) -> None:
    """Positions hold, and nothing that is left is skipped or redelivered."""
    owner = sessions.reader()
    publish(owner)
    first = publish(owner, "other")
    publish(owner)
    assert ids(owner.claim(2)) == [first - 1, first]
    last = publish(owner, "third")
    publish(owner)
    erase(owner)
    assert outbox_ids(owner) == [first, last]
    assert unsettled(owner) == {"g": [first, last]}
    assert ids(owner.claim()) == [last]
    owner.run(LONG_GONE)
    again = owner.claim()
    assert ids(again) == [first, last]
    owner.ack(again)
    owner.run("SELECT durable_notify.seek('g', 't', 0)")
    assert ids(owner.claim()) == [first, last]


@pytest.mark.parametrize("order", ["key", "strict", "none"])
@pytest.mark.parametrize("how", ["acked", "retried", "rejected", "expired", "released"])
def test_a_consumer_that_holds_it(sessions: Sessions, order: str, how: str) -> None:
    """It may acknowledge; what it retries, rejects or leaves is gone. Others of the lease are not."""
    owner = sessions.reader()
    owner.run(
        "SELECT durable_notify.configure('g', jsonb_build_object('order_by', %s::text))", order
    )
    gone, kept = publish(owner), publish(owner, "other")
    held = owner.claim()
    assert erase(owner) == {"messages": 1, "leased": 1}
    if how in ("acked", "retried", "rejected"):
        owner.run(f"SELECT durable_notify.settle(%s, {how} => %s)", held[0].token, [gone])
    elif how == "expired":
        owner.run(LONG_GONE)
    owner.run("SELECT durable_notify.release(%s)", [held[0].token])
    assert traces(owner) == {}
    assert [m.id for m in owner.claim()] == [kept]
    assert owner.run("SELECT * FROM durable_notify.dead_letter") == []
    assert owner.run("SELECT * FROM durable_notify.deferred") == []


def test_later_messages_of_its_key_are_gone_with_it(sessions: Sessions) -> None:
    owner = sessions.reader()
    for _ in range(3):
        publish(owner)
    held = owner.claim()
    erase(owner)
    owner.settle(held[0].token, retried=held[:1])
    assert owner.run("SELECT * FROM durable_notify.deferred") == []
    assert owner.claim() == []


def test_a_strict_group_continues(sessions: Sessions) -> None:
    """What was held back by a message that is gone can go, and its consumers are woken."""
    owner, listener = sessions.reader(), sessions.session()
    owner.run("SELECT durable_notify.configure('g', '{\"order_by\": \"strict\"}')")
    publish(owner)
    behind = publish(owner, "other")
    held = owner.claim(1)
    owner.run(
        "SELECT durable_notify.settle(%s, retried => %s, retry_delays => '{1h}')",
        held[0].token,
        ids(held),
    )
    assert owner.claim() == []
    listener.listen()
    erase(owner)
    assert next(listener.connection.notifies(timeout=10)).channel
    assert ids(owner.claim()) == [behind]


def test_topics(sessions: Sessions) -> None:
    owner = sessions.session()
    for topic in ("orders.eu", "orders.us", "payments", "users"):
        owner.publish(topic=topic, key=KEY)
    assert erase(owner, topics=["orders.*", "users"], dry_run=True) == {"messages": 3}
    assert erase(owner, topics=["orders.eu"]) == {"messages": 1}
    assert erase(owner, topics=["missing"]) == {}
    assert erase(owner) == {"messages": 3}


def test_dead_letters_whose_messages_retention_has_removed(sessions: Sessions) -> None:
    owner = sessions.reader()
    publish(owner)
    owner.settle(owner.claim()[0].token, rejected=[1])
    owner.run("DELETE FROM durable_notify.outbox")
    assert erase(owner) == {"dead_letters": 1}
    assert traces(owner) == {}


def test_a_topic_is_looked_at_in_batches(sessions: Sessions) -> None:
    owner = sessions.reader()
    plant(
        owner,
        "erase_batch",
        ("ORDER BY o.id LIMIT 20000", "ORDER BY o.id LIMIT 2"),
        ("looked.messages = 20000", "looked.messages = 2"),
    )
    for key in (KEY, "other", "other", KEY, "other", KEY, "other"):
        publish(owner, key)
    places, after, batches = 0, (None, None), 0
    while True:
        ((topic, upto, found),) = owner.run(
            "SELECT * FROM durable_notify.erase_batch(%s, NULL, %s, %s)", KEY, *after
        )
        if topic is None:
            break
        after, batches = (topic, upto), batches + 1
        places += found.get("messages", 0)
    assert (places, batches) == (3, 4)
    assert len(outbox_ids(owner)) == 4
    assert traces(owner) == {}
    assert len(owner.run("SELECT 1 FROM durable_notify.audit")) == 3


def test_it_is_audited_without_the_key(sessions: Sessions) -> None:
    owner = sessions.session()
    owner.publish(key=KEY)
    erase(owner, why="request 17")
    ((action, group, topic, messages, why, details),) = owner.run(
        "SELECT action, group_name, topic, messages, why, details FROM durable_notify.audit_entries()"
    )
    assert (action, group, topic, messages, why) == ("erase", "", "t", 1, "request 17")
    assert details == {
        "key_sha256": owner.value("SELECT encode(sha256(%s), 'hex')", KEY.encode()),
        "places": {"messages": 1},
    }


def test_it_is_no_loss(sessions: Sessions) -> None:
    owner = sessions.reader()
    publish(owner)
    age(owner, upto=publish(owner, "other"))
    retain(owner, max_age="1 hour", on_lag="lose")
    erase(owner)
    maintain(owner)
    assert owner.column("SELECT messages FROM durable_notify.lost_messages()") == [1]


def test_retention_counts_what_is_left(sessions: Sessions) -> None:
    owner = sessions.reader()
    retain(owner, max_bytes=10**9, compact=True)
    for key in (KEY, "other", KEY, "other"):
        publish(owner, key)
    owner.ack(owner.claim())
    maintain(owner)
    assert owner.value("SELECT sum(messages) FROM durable_notify.topic_size") == 2
    assert erase(owner) == {"messages": 1, "compacted_keys": 1}
    assert owner.value("SELECT sum(messages) FROM durable_notify.topic_size") == 1
    assert traces(owner) == {}
    assert reported_unsettled(owner) == {"g": outbox_ids(owner)[-1] + 1}


def test_a_partition_that_is_being_rewritten(sessions: Sessions) -> None:
    """Its copy, which takes its place later, loses the message, too."""
    owner = sessions.session()
    lay_out_partitions(owner, 3)
    for key in (KEY, "a", "b", "c", "d", "e"):
        publish(owner, key)
    ((name, first, end),) = owner.run(
        "SELECT name::text, first_id, next_id FROM durable_notify.partitions() LIMIT 1"
    )
    owner.run("SELECT durable_notify._copy_partition(%s, %s, %s)", name, first, end)
    owner.run(
        "UPDATE durable_notify.partition_settings SET copied = %s, copied_by = pg_current_xact_id()",
        first,
    )
    assert erase(owner) == {"messages": 1}
    assert traces(owner) == {}


def test_publishers_that_may_commit_more(sessions: Sessions) -> None:
    owner, publisher = sessions.take(2)
    owner.publish(key=KEY)
    publisher.begin()
    publisher.publish(key=KEY)
    assert erase(owner) == {"messages": 1, "publishers": 1}
    publisher.commit()
    assert erase(owner) == {"messages": 1}


OPEN = {
    "a retry": 'SELECT durable_notify.settle({token}, retried => \'{{1}}\', retry_errors => \'{{"{{\\"message\\": \\"person-1\\"}}"}}\')',
    "a rejection": "SELECT durable_notify.settle({token}, rejected => '{{1}}')",
    "a redrive": "SELECT durable_notify.redrive('g', everything => true)",
    "a seek": "SELECT durable_notify.seek('g', 't', 0)",
    "a release": "SELECT durable_notify.release('{{{token}}}')",
    "a publisher": "SELECT durable_notify.publish('t', '1', dedup_key => 'd')",
    "a claim": "SELECT durable_notify.claim('g', '{{t}}')",
}


@pytest.mark.parametrize("what", OPEN)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_it_waits_for_what_copies(sessions: Sessions, what: str, end: str) -> None:
    """Nothing that an open transaction has copied or sent back stays once both have ended."""
    owner, other, watcher = sessions.readers(3)
    publish(owner, dedup_key="d")
    publish(owner)
    held = owner.claim(1)
    other.begin()
    other.run(OPEN[what].format(token=held[0].token))
    work = owner.start(BY_SQL, KEY)
    eventually(lambda: watcher.value(WAITS, owner.pid))
    other.run(end)
    work.result(20)
    assert traces(owner).keys() <= {"lease"}
    owner.run(LONG_GONE)
    assert owner.claim() == []
    assert traces(owner) == {}


def test_it_gives_up_and_says_why(sessions: Sessions) -> None:
    owner, other = sessions.readers(2)
    plant(owner, "_lock_for_erasure", ("interval '5 seconds'", "interval '0.1 seconds'"))
    publish(owner)
    token = owner.claim()[0].token
    other.begin()
    other.settle(token, rejected=[1])
    with pytest.raises(psycopg.errors.LockNotAvailable, match="is in use") as error:
        erase(owner)
    assert "Try again" in str(error.value.diag.message_hint)
    assert traces(owner) != {}


@pytest.mark.parametrize("how", ["retried", "rejected"])
def test_an_older_snapshot_copies_nothing(sessions: Sessions, how: str) -> None:
    owner, other = sessions.readers(2)
    publish(owner)
    token = owner.claim()[0].token
    other.begin("repeatable read")
    erase(owner)
    with pytest.raises(psycopg.errors.SerializationFailure):
        other.run(f"SELECT durable_notify.settle(%s, {how} => '{{1}}')", token)
    other.rollback()
    assert traces(owner).keys() <= {"lease"}


def test_an_open_erasure_holds_up_no_acknowledgement(sessions: Sessions) -> None:
    owner, other = sessions.readers(2)
    publish(owner)
    kept = publish(owner, "other")
    held = owner.claim()
    owner.begin()
    owner.run("SELECT * FROM durable_notify.erase_batch(%s)", KEY)
    other.run("SET lock_timeout = '1ms'")
    other.settle(held[0].token, [1])
    assert other.publish() == kept + 1
    owner.commit()
    other.settle(held[0].token, [kept])
    assert ids(owner.claim()) == [kept + 1]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT durable_notify.erase_batch('')", "no key"),
        ("SELECT durable_notify.erase_batch(NULL)", "no key"),
    ],
)
def test_what_is_refused(sessions: Sessions, query: str, said: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        sessions.session().run(query)


def test_a_frozen_snapshot_is_refused(sessions: Sessions) -> None:
    owner = sessions.session()
    with (
        pytest.raises(psycopg.errors.InvalidParameterValue, match="READ COMMITTED"),
        owner.transaction("repeatable read"),
    ):
        owner.run("SELECT durable_notify.erase_batch(%s)", KEY)


PLANTS = {
    "a retry": (
        "_lock_for_erasure",
        "UPDATE durable_notify.ordering o SET changes = o.changes + 1 WHERE",
        "PERFORM FROM durable_notify.ordering o WHERE",
    ),
    "a rejection": ("settle", "+ pg_catalog.cardinality(rejected) > 0", "> 0"),
    "a claim": (
        "_lock_for_erasure",
        "PERFORM durable_notify._acquire_group_lock(reader.group_id);",
        "",
    ),
}


@pytest.mark.parametrize("what", PLANTS)
def test_without_its_lock_a_copy_stays(sessions: Sessions, what: str) -> None:
    """What the tests above would miss, were they not to look for it."""
    owner, other = sessions.readers(2)
    owner.run("SELECT durable_notify.configure('g', '{\"on_expiry\": \"dead_letter\"}')")
    publish(owner)
    token = 0
    if what == "a claim":
        owner.run("UPDATE durable_notify.outbox SET expires_at = '2000-01-01'")
    else:
        token = owner.claim(1)[0].token
    function, *change = PLANTS[what]
    plant(owner, function, (change[0], change[1]))
    other.begin()
    other.run(OPEN[what].format(token=token))
    erase(owner)
    other.commit()
    assert traces(owner).keys() & {"dead_letter", "deferred"}
