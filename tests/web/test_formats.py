"""How pages write numbers, and forecast when a group has caught up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest

import durable_notify as dn
from durable_notify.web.formats import iso, number, rounded, size
from durable_notify.web.pages.groups import _drained
from durable_notify.web.sample import Total


def test_numbers_are_exact() -> None:
    assert number(12_345_678_901_234_567_890) == "12,345,678,901,234,567,890"
    assert [number(value) for value in (1.25, 0.000001, 2.0, 0)] == ["1.25", "1e-06", "2", "0"]
    assert number(20_000, exact=False) == "~20,000"
    assert [rounded(value) for value in (1.25, 2.0, None)] == ["1.2", "2", "-"]
    assert [size(value) for value in (1023, 1024, 2**60)] == [
        "1023 B",
        "1.0 KiB",
        "1,048,576.0 TiB",
    ]
    assert iso(1.5) == "1970-01-01T00:00:01.500Z"


def test_options_are_exact(conn: psycopg.Connection[Any], client: httpx.Client) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    retry = dn.RetryPolicy(base=90.5, factor=1.25, max=3661)
    dn.Admin().configure(conn, "g", retry=retry, rate_limit=0.25)
    text = client.get("/groups/g").text
    assert "base 90.5 s, factor 1.25, max 3,661 s" in text
    assert "0.25 a second" in text


@pytest.mark.parametrize(
    ("rate_out", "rates_in", "wanted"),
    [
        (30.0, (5.0, 5.0), 50.0),
        (30.0, (20.0, 10.0), None),  # what waits is not getting less
        (30.0, (None, None), 1000 / 30),
        (None, (5.0, 5.0), None),  # no second look yet
    ],
)
def test_when_a_group_has_caught_up(
    rate_out: float | None, rates_in: tuple[float | None, ...], wanted: float | None
) -> None:
    """1,000 messages wait; what is published meanwhile to its topics counts, and no more."""
    names = ("t", "u", "other")
    topics = {
        name: Total(name, 0, True, None, 0, 1, 1, rate_in=rate)
        for name, rate in zip(names, (*rates_in, 99.0), strict=True)
    }
    groups = {"g": Total("g", 1000, True, None, 0, 2, 2, rate_out=rate_out)}
    seen = SimpleNamespace(groups=groups, topics=topics, delivered={"g": {"t": 1, "u": 1}})
    sampler: Any = SimpleNamespace(seen=seen)
    assert _drained(sampler, "g") == wanted
    assert _drained(sampler, "unknown") is None
