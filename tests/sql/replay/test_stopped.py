"""The way out of replays that fail again and again: seek with drop_waiting."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.cli import good
from tests.support.injection import plant
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions, ids

FAIL = "SELECT durable_notify.settle(%s, retried => %s, retry_delays => array_fill('0'::interval, ARRAY[%s]))"
COUNT = "SELECT reason, count(*) FROM durable_notify.deferred GROUP BY 1 ORDER BY 1"


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


def fail(one: Session, most: int = 100) -> list[int]:
    """Claim, and have every message fail; it is due again at once."""
    batch = one.claim(most)
    if batch:
        first = {message.key: message for message in reversed(batch)}
        failed = [m.id for m in batch if m.key is None or first[m.key].id == m.id]
        one.run(FAIL, batch[0].token, failed, len(failed))
    return ids(batch)


def a_loop(sessions: Sessions) -> Session:
    """Handled once, replayed, and failing now: with keys and without, in parts."""
    one = sessions.reader()
    for number in range(12):
        one.publish(number, key=[None, "k", "l"][number % 3])
    assert len(drain(one)) == 12
    assert one.run("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == [(12,)]
    assert fail(one, 6)
    return one


def test_seek_alone_does_not_end_it(sessions: Sessions) -> None:
    """What was found: what failed once comes back, and with it what waits for its key."""
    one = a_loop(sessions)
    one.run("SELECT durable_notify.seek('g', 't', to_now => true)")
    assert one.run(COUNT) == [("key", 2), ("retry", 4)]
    assert fail(one)
    assert fail(one)


def test_it_ends(sessions: Sessions) -> None:
    one = a_loop(sessions)
    one.publish("new", key="k")
    delayed = one.value("SELECT durable_notify.publish('t', '1', deliver_at => now() + '1 day')")
    assert 13 in fail(one)  # it is parked, or failed, too; and the delayed one was looked at
    seek = "SELECT * FROM durable_notify.seek('g', 't', 12, drop_waiting => true, dry_run => {})"
    ((redelivered, skipped),) = one.run(seek.format("true"))
    waiting = dict(one.run(COUNT))
    assert one.run(seek.format("false")) == [(redelivered, skipped)]
    assert skipped == sum(waiting.values()) - 2, "all but 13 and the delayed one"
    # What is above the id is delivered; nothing of the replay is.
    assert drain(one) == [13]
    one.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")
    one.run("UPDATE durable_notify.outbox SET deliver_at = NULL")
    assert drain(one) == [delayed]
    assert drain(one) == []


def test_a_job_ends_with_it(sessions: Sessions) -> None:
    one = sessions.reader()
    one.run(
        "INSERT INTO durable_notify.outbox (topic, payload) SELECT 't', '1' FROM generate_series(1, 600)"
    )
    drain(one, 600)
    job = one.value("SELECT job_id FROM durable_notify.start_replay('g', 't')")
    one.run("SELECT durable_notify.advance_replays('g', '{t}')")
    assert fail(one)
    new = one.publish("new")
    assert one.run(
        "SELECT * FROM durable_notify.seek('g', 't', 0, drop_waiting => true, dry_run => true)"
    )
    one.run("SELECT durable_notify.seek('g', 't', 600, drop_waiting => true)")
    assert one.run("SELECT job_id, state FROM durable_notify.replay_jobs()") == [(job, "cancelled")]
    assert one.value("SELECT durable_notify.advance_replays('g', '{t}')") is None
    assert drain(one) == [new]
    assert one.value("SELECT durable_notify.cancel_replay(%s)", job) is False


def test_what_a_consumer_holds_stays_its_own(sessions: Sessions) -> None:
    one = a_loop(sessions)
    held = one.claim(2)
    one.run("SELECT durable_notify.seek('g', 't', to_now => true, drop_waiting => true)")
    one.run(FAIL, held[0].token, ids(held[:1]), 1)
    assert held[0].id in drain(one), "hence pause first"


def test_on_the_command_line(sessions: Sessions, dsn: str) -> None:
    one = a_loop(sessions)
    good("group", "pause", "g", dsn=dsn)
    command = ("seek", "--group", "g", "--topic", "t", "--now", "--drop-waiting")
    assert good(*command, "--dry-run", dsn=dsn) == "0 would be redelivered, 12 skipped\n"
    assert good(*command, "--yes", "--why", "wrong fix", dsn=dsn) == "0 redelivered, 12 skipped\n"
    good("group", "resume", "g", dsn=dsn)
    assert drain(one) == []
    last = next(e for e in json.loads(good("audit", "--json", dsn=dsn)) if e["action"] == "seek")
    assert last["why"] == "wrong fix"
    assert last["details"]["skipped"] == 12


def test_a_planted_fault_is_caught(sessions: Sessions) -> None:
    """Parked ones forgotten."""
    plant(
        sessions.session(),
        "_drop_waiting",
        (
            "           AND (d.message_id <= upto AND d.reason <> 'delivery'",
            "           AND (d.message_id <= upto AND d.reason = 'retry'",
        ),
    )
    with pytest.raises(AssertionError):
        test_it_ends(sessions)
