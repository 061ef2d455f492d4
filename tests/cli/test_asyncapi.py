"""The AsyncAPI document of a module's topics is one, by AsyncAPI's own schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.cli import invoke

SCHEMA = json.loads(Path(__file__).with_name("asyncapi-3.0.0.json").read_text())
MODULE = '''"""What the shop publishes."""
import dataclasses
import msgspec
import pydantic
import durable_notify as dn

__version__ = "2.1"

class Item(pydantic.BaseModel):
    name: str

class Placed(pydantic.BaseModel):
    """An order was placed."""
    order_id: int
    items: list[Item] = []

class Parcel(msgspec.Struct):
    weight: float

class Sent(msgspec.Struct):
    order_id: int
    parcels: list[Parcel] = []

@dataclasses.dataclass
class Paid:
    order_id: int
    item: Item

class Secret:
    def encode(self, value): ...
    def decode(self, payload): ...

orders = dn.Topic("orders", Placed)
_sent = dn.Topic("orders.sent", Sent)
paid = dn.Topic("payments.*.>", Paid)
images = dn.Topic("images/large", bytes)
small = dn.Topic("images_large", bytes)
secrets = dn.Topic("secrets", Secret())
numbers = dn.Topic("numbers", list[int])
'''


def described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> tuple[int, str, str]:
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        return invoke("asyncapi", name, dsn="")
    finally:
        sys.modules.pop(name, None)


def resolved(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if "$ref" in value else []
        return found + [one for inner in value.values() for one in references(inner)]
    return [one for inner in value for one in references(inner)] if isinstance(value, list) else []


def test_a_module_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = described(tmp_path, monkeypatch, "shop_topics", MODULE)
    assert status == 0
    document = json.loads(out)
    jsonschema.Draft7Validator(SCHEMA).validate(document)
    for reference in references(document):
        resolved(document, reference)
    assert document["info"] == {
        "title": "shop_topics", "version": "2.1", "description": "What the shop publishes.",
    }  # fmt: skip
    addresses = {key: channel["address"] for key, channel in document["channels"].items()}
    assert addresses == {
        "images_large": "images/large", "images_large_2": "images_large", "numbers": "numbers",
        "orders": "orders", "orders.sent": "orders.sent", "secrets": "secrets",
        "payments._._": "payments.{word1}.{word2}",
    }  # fmt: skip
    messages = document["components"]["messages"]
    assert messages["images_large"] == {"name": "bytes", "contentType": "application/octet-stream"}
    assert messages["orders"] == {
        "name": "Placed", "payload": {"$ref": "#/components/schemas/orders"},
    }  # fmt: skip
    # The schemas, followed from the document, tell good payloads from bad ones.
    for key, good, bad in (
        ("orders", {"order_id": 1, "items": [{"name": "a"}]}, {"order_id": 1, "items": [{}]}),
        ("orders.sent", {"order_id": 1, "parcels": [{"weight": 1}]}, {"parcels": []}),
        ("payments._._", {"order_id": 1, "item": {"name": "a"}}, {"order_id": 1, "item": 1}),
        ("numbers", [1], ["a"]),
    ):
        payload = {**document, **messages[key]["payload"]}
        validator = jsonschema.Draft202012Validator(payload)
        assert validator.is_valid(good), key
        assert not validator.is_valid(bad), key


def test_a_plan_that_the_schema_refuses_is_seen() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate({"asyncapi": "3.0.0", "channels": {}})


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("no_topics", "", "module no_topics has no topic: define one at its top level"),
        (
            "two_topics",
            "import durable_notify as dn\na = dn.Topic('a', int)\nb = dn.Topic('a', int)",
            "there are two topics 'a': make one of them",
        ),
        ("broken_topics", "1 / 0", "module broken_topics could not be imported: ZeroDivisionError"),
    ],
)
def test_problems_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, why: str
) -> None:
    status, _, err = described(tmp_path, monkeypatch, name, text)
    assert status == (1 if "imported" in why else 2)
    assert why in err
