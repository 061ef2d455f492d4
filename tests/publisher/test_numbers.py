"""Numbers are unchanged: a float is the same float, an int has every digit."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import durable_notify as dn
from durable_notify.payloads import encode

Connection = psycopg.Connection[Any]

FLOATS = [
    0.0, 1.0, -1.0, 0.1 + 0.2, 1e15, 1e16, -1e16, 1.2345e16, 1e22, 1e23, 2.0**53, 2.0**63, 1.5e300,
    sys.float_info.max, -sys.float_info.max, sys.float_info.min, 5e-324, 1e-7, 123456789.123456789,
]  # fmt: skip
INTS = [0, 1, -1, 2**53 + 1, 2**63, 2**64 + 1, 10**16, 10**300, -(10**30), 7 * 10**4299]
#: Texts with what a number looks like in them: they are left alone.
TEXTS = ["1e+16", "x1e+16y", '"1e+16', "\\1e+16", '\\"1e16', "1e16", "3e5a-4e5", "e+", "1e+16\n"]


def alike(sent: Any, came: Any) -> bool:
    return type(sent) is type(came) and repr(sent) == repr(came)


def through(conn: Connection, sent: Any, publisher: dn.Publisher | None = None) -> Any:
    """Return a value as it is after storage."""
    message_id = (publisher or dn.Publisher()).publish(conn, "t", sent, headers={"sent": sent})
    query = "SELECT payload::text, headers::text FROM durable_notify.outbox WHERE id = %s"
    row = conn.execute(query, (message_id,)).fetchone()
    assert row is not None
    payload = json.loads(row[0])
    if publisher is None:
        assert repr(json.loads(row[1])) == repr({"sent": payload})
    return payload


@pytest.mark.parametrize("number", FLOATS + INTS)
def test_odd_numbers(conn: Connection, number: float) -> None:
    assert alike(number, through(conn, number))
    assert alike([number, {"x": number}], through(conn, [number, {"x": number}]))


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_left_alone(conn: Connection, text: str) -> None:
    sent = {text: text, "and": 1e16, "list": [text, -1e17, text]}
    assert through(conn, sent) == sent
    compact = dn.Publisher(dumps=lambda value: json.dumps(value).replace("e+", "e"))
    assert through(conn, [text.replace("e+", "e"), 1e16], compact) == [
        text.replace("e+", "e"),
        1e16,
    ]


def test_any_numbers(conn: Connection) -> None:
    numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
    numbers |= st.integers(-400, 400).map(lambda power: float(f"1.5e{power}") if power < 308 else 0)

    @given(st.lists(numbers, max_size=50))
    def check(sent: list[float]) -> None:
        plus = [number or abs(number) for number in sent]  # jsonb has no -0.0
        assert alike(plus, through(conn, sent))

    check()


def test_zero_has_no_sign(conn: Connection) -> None:
    assert math.copysign(1, through(conn, -0.0)) == 1


def test_what_a_consumer_gets(dsn: str, conn: Connection) -> None:
    dn.Publisher().publish_many(conn, "t", FLOATS + INTS)
    got: list[Any] = []
    consumer = dn.Consumer(dsn, group="g", topics=["t"], until_empty=True)
    consumer.run(lambda message: got.append(message.payload))
    assert alike(FLOATS + INTS, got)


@pytest.mark.parametrize("made", ["1e16", "1E16", "1e+16", "1.0e16", "10000000000000000.0"])
def test_dumps_of_others(conn: Connection, made: str) -> None:
    """As orjson writes it, and others."""
    assert alike(1e16, through(conn, None, dn.Publisher(dumps=lambda _: made)))


def test_numbers_that_no_float_is(conn: Connection) -> None:
    for made in ("1e131073", "1e999999999999"):
        with pytest.raises((dn.errors.PayloadError, psycopg.DataError)):
            dn.Publisher(dumps=lambda _, made=made: made).publish(conn, "t", None)


@pytest.mark.parametrize(
    "made",
    ['"' * 500_001 + "1e5", '"\\' * 500_000 + "1e5", "1" * 1_000_000 + "e5 1e5", "1e5." * 250_000],
)
def test_large_texts_take_no_quadratic_time(made: str) -> None:
    """What is no JSON is PostgreSQL's to refuse."""
    with contextlib.suppress(dn.errors.PayloadError):
        encode(dn.NewMessage(None), lambda _: made)
