"""A lease that is settled in parts, in every way: what is out of order, and what is sent back."""

from __future__ import annotations

from itertools import product

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.sessions import Message, Session, Sessions

BEFORE, ACKED, RETRIED, LEFT = range(4)
"""What happens to a message: settled by an earlier part, settled by this one, or not."""


def right(keys: str, fates: tuple[int, ...]) -> list[int] | str:
    """The places that are sent back, or the error; a message without a key has no order."""
    later = [
        {fates[e] for e in range(place) if keys[e] == keys[place] != "-"}
        for place in range(len(keys))
    ]
    if any(fates[n] == ACKED and earlier & {RETRIED, LEFT} for n, earlier in enumerate(later)):
        return "DN007"
    return [n for n, earlier in enumerate(later) if fates[n] == LEFT and RETRIED in earlier]


def settle_a_part(
    session: Session, batch: list[Message], fates: tuple[int, ...]
) -> list[int] | str:
    """Settle so, and take it back."""
    token = batch[0].token
    session.begin()
    try:
        for message, fate in zip(batch, fates, strict=True):
            if fate == BEFORE:
                insert = "INSERT INTO durable_notify.settlement VALUES (%s, %s)"
                session.run(insert, token, message.id)
        parts = [[m.id for m, f in zip(batch, fates, strict=True) if f == g] for g in (1, 2)]
        found = session.value("SELECT durable_notify.settle(%s, %s, %s)", token, *parts)
        return [n for n, message in enumerate(batch) if message.id in found]
    except psycopg.DatabaseError as error:
        return error.sqlstate or "no SQLSTATE"
    finally:
        session.rollback()


def faults(sessions: Sessions, keys: str, *planted: tuple[str, tuple[str, str]]) -> list[object]:
    """All ways to settle a part of a lease with these keys that end otherwise than they should."""
    reader, _ = sessions.readers(2)
    for function, change in planted:
        plant(reader, function, change)
    for key in keys:
        reader.publish(key=None if key == "-" else key)
    batch = reader.claim()
    return [
        (fates, found, expected)
        for fates in product(range(4), repeat=len(keys))
        if {ACKED, RETRIED} & set(fates)
        and (found := settle_a_part(reader, batch, fates)) != (expected := right(keys, fates))
    ]


@pytest.mark.parametrize("keys", ["abab", "aaba", "abbc", "a-a-"])
def test_every_way_to_settle_a_part(sessions: Sessions, keys: str) -> None:
    assert faults(sessions, keys) == []


@pytest.mark.parametrize(
    ("function", "change"),
    [
        ("_check_order", ("IF last > first THEN", "IF false THEN")),
        ("_check_order", ("IF last > first THEN", "IF last > first + 1 THEN")),
        ("_check_order", ("pg_catalog.max(a.ord)", "pg_catalog.min(a.ord)")),
        ("_check_order", ("a.id IN (SELECT pg_catalog.unnest(retried))", "false")),
        ("_out_of_order", ("m.key = unsettled.key AND ", "")),
        ("_out_of_order", ("a.id IN (SELECT pg_catalog.unnest(retried))", "false")),
        ("_out_of_order", (" AND m.ord > unsettled.ord", "")),
        ("_later_of_key", (" AND m.ord > first.ord", "")),
        ("_later_of_key", ("first.key = m.key AND ", "")),
    ],
)
def test_the_faults_are_seen(sessions: Sessions, function: str, change: tuple[str, str]) -> None:
    assert faults(sessions, "abbc", (function, change))
