"""Options of consumers that cannot work are refused at once."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import pytest

import durable_notify as dn
from durable_notify.options import ConsumerOptions, ConsumerSettings, GroupSettings


def test_defaults() -> None:
    options = ConsumerOptions("g", ("t",))
    assert options.start == "beginning"
    assert options.poll == 30.0
    assert options.max_attempts is None
    assert options.owner.endswith(f":{os.getpid()}")


@pytest.mark.parametrize("consumer", [dn.AsyncConsumer, dn.Consumer])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("start", "end"), ("start", None), ("start", 0), ("start", ["now"]),
        ("start", dt.datetime(2026, 1, 1)),  # noqa: DTZ001
        *(
            (name, value)
            for name in ("lease", "poll", "idle_poll", "heartbeat", "retry_base", "retry_max")
            for value in (0, -1, float("nan"), float("inf"), "30", True, 1e10)
        ),
        ("lease", None), ("heartbeat", None), ("retry_factor", 0.5), ("order_by", "id"), ("exclusive", 1),
        ("on_error", {KeyError: None}), ("on_error", 1), ("on_error", {"x": dn.Ack()}),
        ("on_expiry", "keep"), ("rate_limit", 0), ("max_in_flight", 0), ("park_limit", 0),
        *(("batch_size", value) for value in (0, -1, 10_001, 1.5, "10", True, None)),
        *(("prefetch", value) for value in (0, 1_000_001, 2.0)),
        *(("max_attempts", value) for value in (0, 2**31, 1.0)),
        ("group", ""), ("group", "a\nb"), ("group", None), ("topics", []), ("topics", "t"),
        ("topics", ["a b"]), ("owner", 7), ("owner", "a\x00b"),
    ],
)  # fmt: skip
def test_options_that_cannot_work(consumer: Any, option: str, value: Any) -> None:
    with pytest.raises(dn.InvalidArgument, match=option.removesuffix("s")):
        consumer("", **{"group": "g", "topics": ["t"], option: value})


@pytest.mark.parametrize("consumer", [dn.AsyncConsumer, dn.Consumer])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("start", "now"), ("start", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), ("poll", None), ("lease", 1),
        ("idle_poll", 3600), ("idle_poll", None), ("heartbeat", 0.5),
        ("batch_size", 10_000), ("prefetch", 1), ("max_attempts", 1), ("until_empty", True),
        ("owner", "me"),
    ],
)  # fmt: skip
def test_options_that_can(consumer: Any, option: str, value: Any) -> None:
    options = consumer("", group="g", topics=["t"], **{option: value}).options
    assert getattr(options, option) == value


def test_unknown_options() -> None:
    with pytest.raises(dn.InvalidArgument, match="Did you mean lease"):
        dn.Consumer("", group="g", topics=["t"], leese=30)  # type: ignore[call-arg]


def test_what_may_be_given_is_what_there_is() -> None:
    assert {*ConsumerSettings.__annotations__, "group", "topics"} == set(
        ConsumerOptions.__dataclass_fields__
    )


@pytest.mark.parametrize("option", [*ConsumerSettings.__annotations__, "group", "topics"])
def test_each_is_documented(option: str) -> None:
    of_the_group = option in GroupSettings.__annotations__
    documented_by = GroupSettings if of_the_group else ConsumerOptions
    assert f" {option}: " in (documented_by.__doc__ or "")


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "2", True])
def test_concurrency(concurrency: Any) -> None:
    consumer = dn.Consumer("", group="g", topics=["t"])
    with pytest.raises(dn.InvalidArgument, match="concurrency"):
        consumer.run(print, concurrency=concurrency)
    with pytest.raises(dn.InvalidArgument, match="concurrency"):
        dn.Consumer("", group="g", topics=["t"], concurrency=concurrency)


@pytest.mark.parametrize("reader", [dn.AsyncReader, dn.Reader])
@pytest.mark.parametrize("option", ["poll", "idle_poll", "heartbeat"])
def test_readers_check_theirs(reader: Any, option: str) -> None:
    with pytest.raises(dn.InvalidArgument, match=option):
        reader("", ["t"], **{option: 0})
