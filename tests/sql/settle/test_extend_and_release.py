"""Extending a lease, and giving its messages back."""

from __future__ import annotations

import pytest

from tests.sql.settle.test_leases import EXTEND, RELEASE, lease, refused
from tests.support.observe import Listener
from tests.support.schedules import claim_and_ack
from tests.support.sessions import LONG_GONE, Sessions, ids


def test_extended_leases_are_not_taken_over(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 2)
    reader.run(LONG_GONE)
    assert reader.column(EXTEND, [batch[0].token]) == [batch[0].token]
    assert other.claim() == []
    reader.run("UPDATE durable_notify.lease_deadline SET deadline = 'epoch'")
    assert ids(other.claim()) == ids(batch)


def test_extending_can_shorten(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 1)
    reader.column("SELECT durable_notify.extend(%s, '0')", [batch[0].token])
    assert ids(other.claim()) == ids(batch)


def test_extend_returns_what_is_held(sessions: Sessions) -> None:
    reader, other, first = lease(sessions, 1)
    reader.publish()
    second = reader.claim()
    reader.publish()
    third = reader.claim()
    tokens = [m.token for m in (*third, *second, *first)]
    reader.ack(second)
    reader.run(LONG_GONE + " WHERE token = %s", first[0].token)
    assert ids(other.claim()) == ids(first)
    assert reader.column(EXTEND, tokens) == [third[0].token]
    assert reader.column(EXTEND, [999]) == []
    assert reader.column(EXTEND, []) == []


@pytest.mark.parametrize("settled", [1, 2])
def test_extend_waits_for_no_open_settle(sessions: Sessions, settled: int) -> None:
    reader, other, batch = lease(sessions, 2)
    token = batch[0].token
    other.publish()
    (second,) = other.claim()
    reader.begin()
    reader.settle(token, batch[:settled])
    # What is settled whole in an open transaction is not extended, and cannot be taken over.
    extended = [token, second.token] if settled == 1 else [second.token]
    assert other.column(EXTEND, [token, second.token]) == extended
    assert other.column("SELECT token FROM durable_notify.lease_deadline ORDER BY 1") == extended
    reader.commit()


# Giving back.


@pytest.mark.parametrize("counted", [False, True])
def test_release(sessions: Sessions, counted: bool) -> None:
    """What is given back comes first, in the order in which it was published."""
    reader, other, first = lease(sessions, 2)
    reader.publish()
    reader.publish()
    second = reader.claim(1)
    later = reader.claim(1)
    reader.settle(first[0].token, first[1:])
    tokens = [second[0].token, first[0].token]
    assert reader.column(RELEASE, tokens, counted) == []
    newest = reader.publish()
    found = [(m.id, m.attempt) for m in other.claim()]
    attempt = 2 if counted else 1
    assert found == [(first[0].id, attempt), (second[0].id, attempt), (newest, 1)]
    with refused("DN001"):
        reader.settle(first[0].token, first[:1])
    reader.ack(later)


def test_release_passes_by_an_open_settle(sessions: Sessions) -> None:
    reader, other, batch = lease(sessions, 2)
    token = batch[0].token
    reader.begin()
    reader.settle(token, batch[:1])
    other.run("SET lock_timeout = '1s'")
    assert other.column(RELEASE, [token], False) == [token]
    reader.commit()
    assert other.column(RELEASE, [token], False) == []
    assert claim_and_ack(other) == ids(batch[1:])


def test_release_rings_only_if_something_was_given_back(sessions: Sessions) -> None:
    """A consumer asks again and again while a handler's transaction is open."""
    reader, other, batch = lease(sessions, 2)
    hears, token = Listener(sessions, "t", arm=True), batch[0].token
    reader.begin()
    reader.settle(token, batch[:1])
    assert other.column(RELEASE, [token], False) == [token]
    assert hears.heard() == []
    reader.rollback()
    assert other.column(RELEASE, [token], False) == []
    assert hears.payloads() == ["0"]


def test_release_of_nothing(sessions: Sessions) -> None:
    reader = sessions.session()
    assert reader.column(RELEASE, [999], False) == []
    assert reader.column(RELEASE, [], False) == []
