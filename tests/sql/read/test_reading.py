"""Readers without a group, in SQL, inside a transaction that publishes itself."""

from __future__ import annotations

import pytest

from tests.support.injection import plant
from tests.support.sessions import Sessions, SqlReader

COMMITTED = ("durable_notify._durable_snapshot(topic)", "pg_catalog.pg_current_snapshot()")


@pytest.mark.parametrize("planted", [False, True])
def test_reading_in_a_transaction_that_publishes(sessions: Sessions, planted: bool) -> None:
    """What it has published comes once it has committed, and so does what it publishes after."""
    one, other = sessions.take(2)
    if planted:
        plant(one, "read", COMMITTED)
    one.begin()
    first = one.publish()
    between = other.publish()
    reader = SqlReader(one)
    found = reader.rest()
    assert found == ([first, between] if planted else [between])
    if planted:
        return  # it was given what may yet be rolled back
    second = one.publish()
    last = other.publish()
    found += reader.rest()
    one.commit()
    found += reader.rest()
    assert sorted(found) == [first, between, second, last]


@pytest.mark.parametrize("planted", [False, True])
def test_the_latest_in_a_transaction_that_publishes(sessions: Sessions, planted: bool) -> None:
    one, other = sessions.take(2)
    if planted:
        plant(one, "latest", COMMITTED)
    one.begin()
    first = one.publish(key="a")
    other.publish(key="b")
    rows = one.run("SELECT s0::text, h0, key FROM durable_notify.latest('t')")
    assert [key for *_, key in rows] == (["a", "b"] if planted else ["b"])
    second = one.publish(key="a")
    one.commit()
    reader = SqlReader(one, *rows[0][:2])
    assert reader.rest() == ([second] if planted else [first, second])
