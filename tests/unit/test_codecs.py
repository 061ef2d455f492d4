"""Types of payloads: what is published can be read, and what cannot be read says why."""

from __future__ import annotations

import dataclasses
import enum
import sys
import zlib
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from typing_extensions import TypedDict

import durable_notify as dn
from durable_notify.codecs import JsonCodec


class Item(pydantic.BaseModel):
    name: str
    price: float = 0.0


class Placed(pydantic.BaseModel):
    order_id: int = pydantic.Field(alias="orderId")
    items: list[Item] = []


@dataclasses.dataclass
class Paid:
    order_id: int
    items: list[Item] = dataclasses.field(default_factory=list)


class Sent(msgspec.Struct):
    order_id: int
    parcels: list[str] = []


class Refunded(TypedDict):
    order_id: int


PLACED = Placed(orderId=1, items=[Item(name="a", price=0.5)])


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Placed, PLACED, '{"orderId":1,"items":[{"name":"a","price":0.5}]}'),
        (Paid, Paid(1, [Item(name="a")]), '{"order_id":1,"items":[{"name":"a","price":0.0}]}'),
        (Sent, Sent(1, ["a"]), '{"order_id":1,"parcels":["a"]}'),
        (Refunded, {"order_id": 1}, '{"order_id":1}'),
        (list[int], [1, 2], "[1,2]"),
        (int, 10**30, str(10**30)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_value_is_published_as_json_and_read_back(kind: Any, value: Any, text: str) -> None:
    topic = dn.Topic("orders", kind)
    assert topic.encode(value) == text
    assert topic.read(text, None) == value
    assert topic.decode(JsonCodec(kind).encode(value)) == value


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (Placed, {"orderId": 1}, "the payload is not Placed, but dict"),
        (Paid, Sent(1), "the payload is not Paid, but Sent"),
        (Sent, 1, "the payload is not Sent, but int"),
        (
            list[int],
            [1, "secret"],
            r"the payload is not list\[int\]: 1: Input should be a valid int",
        ),
        # Their fields may hold anything.
        (Placed, Placed.model_construct(order_id="secret"), "not Placed: orderId: Input should be"),
        (
            Paid,
            Paid("secret"),
            "the payload is not Paid: order_id: Input should be a valid integer",
        ),
        (Paid, Paid(object()), "the payload is not Paid: Unable to serialize unknown type"),
        (Paid, Paid(1, [Item(name="\ud800")]), "the payload is not Paid: .*surrogates not allowed"),
        (
            Sent,
            Sent("secret"),
            r"the payload is not Sent: Expected `int`, got `str` - at `\$.order_id`",
        ),
        (Sent, Sent(object()), "the payload is not Sent: Encoding objects of type object"),
        (bytes, "text", "the payload is not bytes, but str"),
    ],
)
def test_what_consumers_could_not_read_is_refused(kind: Any, value: Any, why: str) -> None:
    with pytest.raises(dn.errors.PayloadError, match=why) as raised:
        dn.Topic("orders", kind).encode(value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        (
            Placed,
            '{"orderId":"secret"}',
            "the payload is not Placed: orderId: Input should be a valid",
        ),
        (Placed, '{"orderId":1,"items":[{}]}', "not Placed: items.0.name: Field required"),
        (Paid, "{}", "the payload is not Paid: order_id: Field required"),
        (Sent, '{"order_id":"secret"}', "the payload is not Sent: Expected `int`, got `str`"),
        (Sent, "[" * 3000, "the payload is not Sent"),
        (list[int], '["a","a","a","a","a","a","a"]', "; and 2 more$"),
        (bytes, "1", "the payload is not bytes, but JSON"),
    ],
)
def test_what_is_of_another_type_says_which_field(kind: Any, text: str, why: str) -> None:
    with pytest.raises(dn.errors.PayloadError, match=why) as raised:
        dn.Topic("orders", kind).read(text, None)
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_bytes_are_no_json() -> None:
    with pytest.raises(
        dn.errors.PayloadError, match="the payload is not Placed: it is bytes, not JSON"
    ):
        dn.Topic("orders", Placed).read(None, b"{}")
    assert dn.Topic("images", bytes).read(None, b"{}") == b"{}"


class Zipped:
    """A codec of a user's: compressed JSON."""

    def __init__(self, kind: Any) -> None:
        self._inner = JsonCodec(kind)

    def encode(self, value: Any) -> bytes:
        return zlib.compress(self._inner.encode_json(value).encode())

    def decode(self, payload: Any) -> Any:
        return self._inner.decode_json(zlib.decompress(payload))


def test_a_codec_of_ones_own() -> None:
    topic = dn.Topic("orders", Zipped(Placed))
    stored = topic.encode(PLACED)
    assert isinstance(stored, bytes)
    assert topic.read(None, stored) == PLACED
    with pytest.raises(dn.errors.PayloadError, match="orderId: Field required"):
        topic.read(None, zlib.compress(b"{}"))


def test_what_a_codec_raises_is_a_payload_error() -> None:
    topic = dn.Topic("orders", Zipped(Placed))
    with pytest.raises(
        dn.errors.PayloadError,
        match="the codec of topic 'orders' failed: error: Error -3 while decompress",
    ) as raised:
        topic.read(None, b"nothing")
    assert isinstance(raised.value.__cause__, zlib.error)
    with pytest.raises(
        dn.errors.PayloadError, match="the codec of topic 'orders' failed: TypeError"
    ):
        topic.read('"text"', None)


def test_wrong_topics_are_refused_when_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        def encode(self, value: Any) -> bytes: ...

    half: Any = Half()
    with pytest.raises(dn.InvalidArgument, match=r"has encode\(\), and a codec has encode\(\) and"):
        dn.Topic("orders", half)
    with pytest.raises(dn.InvalidArgument, match="pydantic cannot check Half: give another type"):
        dn.Topic("orders", Half)
    with pytest.raises(dn.InvalidArgument, match="'orders placed' has ' '"):
        dn.Topic("orders placed", Placed)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(dn.InvalidArgument, match="pip install 'durable-notify"):
        dn.Topic("orders", Paid)
    assert dn.Topic("orders", Sent).read('{"order_id":1}', None) == Sent(1)


class Colour(enum.Enum):
    RED = "red"


class Tagged(msgspec.Struct, tag="tagged"):
    pass


class Other(msgspec.Struct, tag="other"):
    pass


class Coloured(msgspec.Struct):
    colour: Colour = Colour.RED
    size: Literal["s", "m"] = "s"
    count: dict[Colour, int] = {}
    part: Tagged | Other | None = None


class Card(pydantic.BaseModel):
    kind: Literal["card"]


class Cash(pydantic.BaseModel):
    kind: Literal["cash"]


class Payment(pydantic.BaseModel):
    by: Annotated[Card | Cash, pydantic.Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("kind", "payload", "text"),
    [
        (Coloured, {"colour": "secret"}, "Invalid enum value - at `$.colour`"),
        (Coloured, {"size": "secret - at `$.x`"}, "Invalid enum value - at `$.size`"),
        (Coloured, {"count": {"secret": 1}}, "Invalid enum value - at `key` in `$.count`"),
        (Coloured, {"part": {"type": "secret"}}, "Invalid value - at `$.part.type`"),
        (Payment, {"by": {"kind": "secret"}}, "by: 'kind' should be one of 'card', 'cash'"),
    ],
)
def test_errors_have_no_values_of_enums_and_tags(kind: Any, payload: Any, text: str) -> None:
    with pytest.raises(dn.errors.PayloadError) as caught:
        dn.Topic("t", kind).decode(payload)
    assert str(caught.value) == f"the payload is not {kind.__name__}: {text}"
