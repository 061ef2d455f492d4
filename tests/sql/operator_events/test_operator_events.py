"""Operator events: with what they tell, without payloads, and never about themselves."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.retention import age, maintain, retain
from tests.support.sessions import Session, Sessions, ids

SECRET = "secret-of-a-person"


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    """Group g reads topic t; every kind of events of all groups is published."""
    session = sessions.reader()
    for kind in ("dead_letter", "loss", "group_failing", "retention_alarm"):
        switch(session, kind)
    return session


def switch(session: Session, kind: str, group: str | None = None, *, on: bool = True) -> Any:
    return session.value("SELECT durable_notify.set_operator_events(%s, %s, %s)", kind, group, on)


def events(session: Session, kind: str = "dead_letter") -> list[dict[str, Any]]:
    return session.column(
        "SELECT payload FROM durable_notify.outbox WHERE topic = %s ORDER BY id",
        f"durable_notify.{kind}",
    )


def reject(session: Session, group: str = "g", topic: str = "t", reason: str = SECRET) -> int:
    message = session.claim(1, group, topic)[0]
    session.run(
        "SELECT durable_notify.settle(%s, rejected => %s, reject_reasons => %s, reject_errors => %s)",
        message.token,
        [message.id],
        [reason],
        [json.dumps({"type": "ValueError", "message": SECRET, "traceback": SECRET})],
    )
    return message.id


def test_a_dead_letter(owner: Session, sessions: Sessions) -> None:
    """In the transaction of the dead letter, and with nothing that a payload or an error says."""
    other = sessions.session()
    owner.publish(SECRET, key=SECRET)
    owner.begin()
    number = reject(owner)
    assert events(other) == []
    owner.rollback()
    assert events(owner) == []
    owner.begin()
    owner.run("SELECT durable_notify.release(ARRAY(SELECT token FROM durable_notify.lease))")
    owner.commit()
    assert reject(owner) == number
    assert events(owner) == [
        {
            "group": "g", "topic": "t", "id": number, "attempts": 1, "reason": "rejected",
            "error_type": "ValueError",
        }
    ]  # fmt: skip
    query = "SELECT count(*) FROM durable_notify.outbox o WHERE topic <> 't' AND o::text LIKE %s"
    assert owner.value(query, f"%{SECRET}%") == 0


@pytest.mark.parametrize("reason", ["attempts", "expired", "dropped"])
def test_why(owner: Session, reason: str) -> None:
    owner.run(
        'SELECT durable_notify.configure(\'g\', \'{"max_attempts": 1, "on_expiry": "dead_letter"}\')'
    )
    owner.publish(SECRET)
    if reason == "expired":
        owner.run("UPDATE durable_notify.outbox SET expires_at = '2000-01-01'")
        owner.claim()
    elif reason == "attempts":
        batch = owner.claim()
        error = json.dumps({"type": "E", "message": SECRET})
        owner.run(
            "SELECT durable_notify.settle(%s, retried => '{1}', retry_errors => %s)",
            batch[0].token,
            [error],
        )
    else:
        owner.run("SELECT durable_notify.configure('g', '{\"max_attempts\": 9}')")
        owner.settle(owner.claim()[0].token, retried=[1])
        owner.run("SELECT durable_notify.drop_retries('g', everything => true, why => %s)", SECRET)
    (event,) = events(owner)
    assert event["reason"] == reason
    assert SECRET not in str(event)


def test_only_what_is_switched_on(sessions: Sessions) -> None:
    owner = sessions.reader()
    owner.subscribe("h")
    for _ in range(4):
        owner.publish()
    reject(owner)
    assert events(owner) == []
    assert switch(owner, "dead_letter", "h") is True
    assert switch(owner, "dead_letter", "h") is False
    reject(owner)
    reject(owner, "h")
    assert [event["group"] for event in events(owner)] == ["h"]
    owner.run("SELECT durable_notify.rename_group('h', 'i')")
    reject(owner, "i")
    assert [event["group"] for event in events(owner)] == ["h", "i"]
    switch(owner, "dead_letter")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="for all groups"):
        switch(owner, "dead_letter", "i", on=False)
    reject(owner)
    assert [event["group"] for event in events(owner)] == ["h", "i", "g"]
    assert switch(owner, "dead_letter", on=False) is True
    assert switch(owner, "dead_letter", on=False) is False
    assert owner.run("SELECT kind, group_name FROM durable_notify.operator_events()") == [
        ("dead_letter", "i")
    ]


@pytest.mark.parametrize("topics", ["durable_notify.dead_letter", "durable_notify.>", ">"])
def test_what_gets_them_is_exempt(owner: Session, topics: str) -> None:
    """A group that alerts, and fails, is not told of that, or it would fail once more."""
    owner.publish()
    reject(owner)
    owner.subscribe("alerts", f"{topics} more")
    owner.run("SELECT durable_notify.discover('alerts', ARRAY[%s])", topics)
    owner.publish(topic="more")
    reject(owner, "alerts", "durable_notify.dead_letter")
    reject(owner, "alerts", "more")
    assert [event["group"] for event in events(owner)] == ["g"]


def test_without_the_guard_events_make_events(owner: Session) -> None:
    """The planted fault: it takes turns with itself for ever."""
    plant(
        owner,
        "_publish_event",
        ("topic ~ '^durable_notify[.]'", "false"),
        ("OR durable_notify._gets_operator_events(group_name)", ""),
    )
    owner.subscribe("alerts", "durable_notify.dead_letter")
    owner.publish()
    reject(owner)
    for _ in range(5):
        reject(owner, "alerts", "durable_notify.dead_letter")
    assert len(events(owner)) == 6


def test_a_flood_is_rationed(owner: Session) -> None:
    owner.subscribe("h", "u")
    for _ in range(25):
        owner.publish()
    batch = owner.claim()
    owner.settle(batch[0].token, rejected=batch)
    found = events(owner)
    assert len(found) == 20
    assert [event.get("more", False) for event in found] == [False] * 19 + [True]
    owner.publish(topic="u")
    reject(owner, "h", "u")
    assert events(owner)[-1]["group"] == "h"
    owner.run("UPDATE durable_notify.outbox SET created_at = created_at - interval '1 minute'")
    owner.publish()
    last = reject(owner)
    assert events(owner)[-1]["id"] == last


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_in_a_handlers_transaction(owner: Session, sessions: Sessions, level: str) -> None:
    """Two at once do not wait for each other, nor fail."""
    other = sessions.session()
    for _ in range(2):
        owner.publish()
    one, two = (owner.claim(1)[0] for _ in range(2))
    owner.begin(level)
    other.begin(level)
    other.run("SET LOCAL lock_timeout = '1ms'")
    owner.settle(one.token, rejected=[one.id])
    other.settle(two.token, rejected=[two.id])
    owner.commit()
    other.commit()
    assert [event["id"] for event in events(owner)] == ids([one, two])


def test_a_loss(owner: Session) -> None:
    age(owner, upto=max(owner.publish(SECRET) for _ in range(3)))
    retain(owner, max_age="1 hour", on_lag="lose")
    maintain(owner)
    (event,) = events(owner, "loss")
    assert event == {
        "group": "g", "topic": "t", "first_id": 1, "last_id": 3, "messages": 3,
        "reason": "max_age 01:00:00",
    }  # fmt: skip


def test_a_group_that_fails(owner: Session) -> None:
    """Published once when it begins, also while a consumer holds the message, and once at its end."""
    owner.publish()
    for attempt in range(1, 8):
        batch = owner.claim()
        maintain(owner)
        owner.settle(batch[0].token, retried=batch)
        maintain(owner)
        found = events(owner, "group_failing")
        assert len(found) == (attempt >= 5)
    assert found == [
        {"group": "g", "topic": "t", "state": "began", "messages": 1, "attempts": 5, "held": 0}
    ]
    owner.ack(owner.claim())
    maintain(owner)
    assert events(owner, "group_failing")[1:] == [{"group": "g", "topic": "t", "state": "ended"}]
    maintain(owner)
    assert len(events(owner, "group_failing")) == 2


def test_a_group_whose_consumer_waits(owner: Session) -> None:
    """As a relay does while its endpoint is down: it holds its messages, and counts no attempt."""
    owner.publish()
    batch = owner.claim()
    maintain(owner)
    assert events(owner, "group_failing") == []
    owner.run("UPDATE durable_notify.lease SET claimed_at = now() - interval '61 minutes'")
    maintain(owner)
    about = {"group": "g", "topic": "t", "state": "began", "messages": 1, "attempts": 0, "held": 1}
    assert events(owner, "group_failing") == [about]
    owner.ack(batch)
    maintain(owner)
    assert events(owner, "group_failing")[1]["state"] == "ended"


def test_an_endpoint_that_fails(owner: Session) -> None:
    """For 5 minutes; also after it was paused for that, until it works again."""
    owner.run(
        "INSERT INTO durable_notify.webhook (group_id, url, topics, failing_since)"
        " SELECT id, 'https://a.example', '{t}', now() FROM durable_notify.consumer_group"
    )
    maintain(owner)
    assert events(owner, "group_failing") == []
    owner.run("UPDATE durable_notify.webhook SET failing_since = now() - interval '6 minutes'")
    maintain(owner)
    owner.run("SELECT durable_notify.pause('g')")
    maintain(owner)
    about = {"group": "g", "topic": None, "state": "began", "webhook": True}
    assert events(owner, "group_failing") == [about]
    owner.run("UPDATE durable_notify.webhook SET failing_since = NULL")
    maintain(owner)
    assert [event["state"] for event in events(owner, "group_failing")] == ["began", "ended"]


def test_a_group_with_few_attempts_fails_before_the_last(owner: Session) -> None:
    owner.run("SELECT durable_notify.configure('g', '{\"max_attempts\": 2}')")
    owner.publish()
    owner.settle(owner.claim()[0].token, retried=[1])
    maintain(owner)
    assert len(events(owner, "group_failing")) == 1
    switch(owner, "group_failing", on=False)
    maintain(owner)
    assert len(events(owner, "group_failing")) == 1, "no end of what is switched off"


def test_a_retention_alarm(owner: Session) -> None:
    retain(owner, max_age="1 hour", alarm_bytes=1)
    age(owner, upto=max(owner.publish() for _ in range(3)))
    maintain(owner)
    maintain(owner)
    (event,) = events(owner, "retention_alarm")
    assert (event["group"], event["topic"], event["state"]) == ("g", "t", "began")
    assert event["bytes"] > 100
    owner.ack(owner.claim())
    maintain(owner)
    assert events(owner, "retention_alarm")[1:] == [{"group": "g", "topic": "t", "state": "ended"}]


def test_what_is_refused(sessions: Sessions) -> None:
    owner = sessions.session()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid kind"):
        switch(owner, "nothing")
    with pytest.raises(psycopg.DatabaseError, match="no consumer group"):
        switch(owner, "loss", "missing")
