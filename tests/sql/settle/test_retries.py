"""Retries: when a message comes back, and who is woken for it."""

from __future__ import annotations

import pytest

from tests.sql.settle.test_leases import NEXT_DUE, RELEASE, lease
from tests.support.schedules import drain
from tests.support.sessions import LONG_GONE, Sessions, ids
from tests.support.wait import BOUND

RETRY = "SELECT durable_notify.settle(%s, retried => %s, retry_delays => %s::interval[])"


def test_retry_waits_for_its_time(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 3)
    reader.run(RETRY, batch[0].token, ids(batch), ["1 hour", "0", "0"])
    assert [(m.id, m.attempt) for m in other.claim()] == [(m.id, 2) for m in batch[1:]]
    reader.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")
    assert [(m.id, m.attempt) for m in other.claim()] == [(batch[0].id, 2)]


def test_retries_come_in_the_order_of_their_times(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 3)
    reader.run(RETRY, batch[0].token, ids(batch), ["-1 hour", "-3 hours", "-2 hours"])
    newest = reader.publish()
    expected = [batch[1].id, batch[2].id, batch[0].id, newest]
    assert drain(other, 1) == expected


def test_next_due(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 2)

    def due() -> float | None:
        seconds: float | None = reader.value(NEXT_DUE)
        return seconds

    def overdue() -> bool:
        """It is looked at again before long, and not at once."""
        return 0 < (due() or 0) <= 1

    def about(seconds: float) -> object:
        return pytest.approx(seconds, abs=60)

    assert due() == about(3600)
    reader.run("SELECT durable_notify.extend(%s, '2 hours')", [batch[0].token])
    assert due() == about(7200)
    reader.run(RETRY, batch[0].token, ids(batch[:1]), ["30 minutes"])
    assert due() == about(1800)
    reader.run(LONG_GONE)
    reader.run("DELETE FROM durable_notify.lease_deadline")
    assert overdue()
    other.ack(other.claim())
    assert due() == about(1800)
    reader.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")
    assert overdue()
    other.ack(other.claim())
    assert due() is None
    assert reader.value("SELECT durable_notify.next_due('no-such-group', '{t}')") is None


def test_retries_releases_and_replays_ring(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 2)
    other.listen()
    reader.settle(batch[0].token, retried=batch[:1])
    reader.column(RELEASE, [batch[0].token], False)
    reader.run("SELECT redelivered FROM durable_notify.seek('g', 't', 1)")
    rings = [n.payload for n in other.connection.notifies(timeout=BOUND, stop_after=3)]
    assert rings == ["0", "0", "0"]
