"""Tokens of places: they are what clients send, so anything."""

from __future__ import annotations

import base64
import zlib

import pytest

from durable_notify._core.position import BEGINNING, decode, encode
from durable_notify.errors import InvalidArgument
from durable_notify.web import StreamAccess
from durable_notify.web.streaming.place import Place

BASE = encode("log", {"a.b": BEGINNING})


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")


def test_round_trip() -> None:
    place = Place(BASE, frozenset({(7, 1_800_000_000_000_000), (2**62, 0)}))
    assert Place.of(place.token, ("a.*",)) == place
    assert Place.of(BASE, ("a.b",)) == Place(BASE)


def test_200_marks_fit() -> None:
    marks = frozenset((2**50 + 7919 * n, 1_800_000_000_000_000 + 104_729 * n) for n in range(200))
    assert len(Place(BASE, marks).token) < 4_000


def test_topics_that_are_not_asked_for_are_dropped() -> None:
    both = encode("log", {"a.b": BEGINNING, "c": BEGINNING})
    assert decode(Place.of(both, ("a.*",)).base) == ("log", {"a.b": BEGINNING})


@pytest.mark.parametrize(
    "rest",
    [
        "x", "====", packed("{}"), packed("[[1]]"), packed('[["1", 2]]'), packed("[[true, 1]]"),
        packed(str([[1, 1]] * 201)), packed("[" * 10_000), packed(" " * 5_000_000 + "[]"),
    ],
)  # fmt: skip
def test_what_is_no_place(rest: str) -> None:
    with pytest.raises(InvalidArgument, match="not a token of a stream|bytes, and may have"):
        Place.of(f"{BASE}~{rest}", ("a.b",))


@pytest.mark.parametrize(
    ("allowed", "wanted", "covered"),
    [
        ("a", "a", True), ("a", "b", False), ("a.*", "a.b", True), ("a.*", "a.*", True),
        ("a.*", "a.>", False), ("*.>", "a.>", True), (">", "a.>", True), ("a.>", "a.*", True),
        ("a.b", "a.*", False), ("a.*", "*.b", False), ("a.>", ">", False), ("*", ">", False),
    ],
)  # fmt: skip
def test_patterns_within_patterns(allowed: str, wanted: str, covered: bool) -> None:
    assert StreamAccess((allowed,)).covers(wanted) == covered
