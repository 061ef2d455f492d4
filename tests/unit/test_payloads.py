"""Payloads: what becomes JSON, and what is refused before anything is written."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any

import pydantic
import pytest

from durable_notify import InvalidArgument, NewMessage
from durable_notify import payloads as messages
from durable_notify.errors import PayloadError, PayloadTooLarge
from durable_notify.payloads import encode


def as_json(payload: Any) -> Any:
    text = encode(NewMessage(payload)).payload
    assert text is not None
    return json.loads(text)


@pytest.mark.parametrize(
    "payload",
    [
        None, True, False, 0, -1, 2**63, 10**300, 0.1, -0.0, 1e308, "", "text", "ü 注文 😀", "\x01\x7f",
        [], {}, [1, [2, [3]]], {"a": {"b": [None, True, 1.5, "x"]}}, {"": 0}, "a" * 100_000,
    ],
)  # fmt: skip
def test_json_stays_what_it_is(payload: Any) -> None:
    assert as_json(payload) == payload


@pytest.mark.parametrize("of", [bytes, bytearray, memoryview])
def test_bytes_have_a_column_of_their_own(of: Any) -> None:
    encoded = encode(NewMessage(of(b"\x00\xff")))
    assert encoded.payload is None
    assert encoded.data == b"\x00\xff"
    assert type(encoded.data) is bytes


def test_no_bytes_are_bytes() -> None:
    assert encode(NewMessage(b"")) == (None, None, None, b"")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": {"b": x}}])
def test_what_is_no_number_in_json(number: float, wrap: Any) -> None:
    with pytest.raises(PayloadError, match="payload is not JSON"):
        encode(NewMessage(wrap(number)))


@pytest.mark.parametrize(
    "payload", ["\x00", "a\x00b", {"a": ["\x00"]}, {"\x00": 1}, "\\\x00", "\\\\\x00", "u0000\x00"]
)
def test_nul_is_refused(payload: Any) -> None:
    with pytest.raises(PayloadError, match="NUL"):
        encode(NewMessage(payload))


@pytest.mark.parametrize(
    "payload", ["\\u0000", "\\\\u0000", {"\\u0000": "\\\\\\u0000"}, "\n\\u0000"]
)
def test_the_letters_of_an_escaped_nul_are_no_nul(payload: Any) -> None:
    assert as_json(payload) == payload


@pytest.mark.parametrize("payload", ["\ud800", "\udfff", "a\ud83d", ["\udc00"], {"\ud800": 1}])
def test_lone_surrogates_are_refused(payload: Any) -> None:
    with pytest.raises(PayloadError, match="lone surrogate"):
        encode(NewMessage(payload))


def test_too_deep() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PayloadError, match="deep"):
        encode(NewMessage(deep))
    while deep:  # freeing it at one stroke would go as deep
        deep = deep.pop()


def test_what_contains_itself() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = [loop]
    with pytest.raises(PayloadError, match=r"[Cc]ircular"):
        encode(NewMessage(loop))


def test_a_number_that_cannot_be_read_back() -> None:
    with pytest.raises(PayloadError, match="4300"):
        encode(NewMessage(10**5000))


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "payload",
    [
        dt.datetime.now(dt.UTC), dt.date(2026, 1, 1), decimal.Decimal("1.5"), uuid.uuid4(), {1, 2},
        object(), Colour.RED, {"a": b"bytes within"}, dict, pydantic.BaseModel,
    ],
)  # fmt: skip
def test_what_has_no_json_form_says_how_to_give_it_one(payload: Any) -> None:
    with pytest.raises(PayloadError, match="convert it, or give the publisher a dumps"):
        encode(NewMessage(payload))


def test_keys_that_are_no_strings() -> None:
    with pytest.raises(PayloadError):
        encode(NewMessage({(1, 2): 3}))


class Line(pydantic.BaseModel):
    at: dt.datetime
    amount: decimal.Decimal


class Order(pydantic.BaseModel):
    id: uuid.UUID
    lines: list[Line]


@dataclasses.dataclass
class Box:
    order: Order
    inner: Box | None = None


ORDER = Order(
    id=uuid.UUID(int=7), lines=[Line(at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), amount="1.50")]
)
ORDER_AS_JSON = {
    "id": "00000000-0000-0000-0000-000000000007",
    "lines": [{"at": "2026-01-02T00:00:00Z", "amount": "1.50"}],
}


def test_pydantic_models() -> None:
    assert as_json(ORDER) == ORDER_AS_JSON
    assert as_json({"orders": [ORDER]}) == {"orders": [ORDER_AS_JSON]}


def test_dataclasses_with_models_within() -> None:
    assert as_json(Box(ORDER, Box(ORDER))) == {
        "order": ORDER_AS_JSON,
        "inner": {"order": ORDER_AS_JSON, "inner": None},
    }


def test_a_model_that_has_no_json_form() -> None:
    class Odd(pydantic.BaseModel):
        value: float

    with pytest.raises(PayloadError, match="not JSON"):
        encode(NewMessage(Odd(value=float("nan"))))


def test_custom_dumps() -> None:
    encoded = encode(NewMessage({"at": dt.date(2026, 1, 2)}), lambda v: json.dumps(v, default=str))
    assert encoded.payload == '{"at": "2026-01-02"}'


def test_custom_dumps_to_bytes() -> None:
    """As orjson and msgspec do."""
    assert encode(NewMessage([1]), lambda v: json.dumps(v).encode()).payload == "[1]"


@pytest.mark.parametrize("made", [None, 7, b"\xff", bytearray(b"[]")])
def test_custom_dumps_to_something_else(made: Any) -> None:
    with pytest.raises(PayloadError):
        encode(NewMessage([1]), lambda _: made)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud800\ud800", "\udc00\ud800"])
def test_custom_dumps_that_escape_lone_surrogates(text: str) -> None:
    """As the standard library's does."""
    with pytest.raises(PayloadError, match="lone surrogate"):
        encode(NewMessage([text]), json.dumps)


@pytest.mark.parametrize("text", ["😀", "\\ud800", "a\U0010ffff\U00010000"])
def test_custom_dumps_that_escape_whole_characters(text: str) -> None:
    payload = encode(NewMessage(text), json.dumps).payload
    assert payload == json.dumps(text)


def test_custom_dumps_that_fail() -> None:
    def fail(_: Any) -> str:
        raise TypeError("no such thing")

    with pytest.raises(PayloadError, match="no such thing"):
        encode(NewMessage(1), fail)


@pytest.mark.parametrize("payload", ["x" * 99, b"x" * 101, "ü" * 50, ["x" * 99]])
def test_too_large(payload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_PAYLOAD_BYTES", 100)
    with pytest.raises(PayloadTooLarge, match=r"the maximum is 100\. Store it elsewhere"):
        encode(NewMessage(payload))


@pytest.mark.parametrize("payload", ["x" * 98, b"x" * 100, "ü" * 49])
def test_just_not_too_large(payload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_PAYLOAD_BYTES", 100)
    encode(NewMessage(payload))


def test_the_most_is_what_postgresql_takes() -> None:
    assert messages.MAX_PAYLOAD_BYTES == 268_435_455


def test_headers() -> None:
    assert encode(NewMessage(1, headers={"a": [1], "b": None})).headers == '{"a":[1],"b":null}'
    assert encode(NewMessage(1, headers={})).headers == "{}"
    assert encode(NewMessage(1)).headers is None


@pytest.mark.parametrize("headers", [[("a", 1)], "a=1", 7, {1: "a"}, {None: 1}])
def test_headers_of_the_wrong_kind(headers: Any) -> None:
    with pytest.raises(PayloadError, match="mapping from str"):
        encode(NewMessage(1, headers=headers))


@pytest.mark.parametrize("value", [float("nan"), "\x00", "\ud800", b"", object()])
def test_headers_that_are_not_json(value: Any) -> None:
    with pytest.raises(PayloadError, match="headers"):
        encode(NewMessage(1, headers={"a": value}))


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 1025, 7])
def test_bad_keys(key: Any) -> None:
    with pytest.raises(InvalidArgument, match="key"):
        encode(NewMessage(1, key=key))
