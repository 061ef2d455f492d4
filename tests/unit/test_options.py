"""Options of consumers that cannot work are refused at once."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import pytest

import durable_notify as dn
from durable_notify.groups import GroupSettings
from durable_notify.options import ConsumerOptions, ConsumerSettings

BAD_DURATIONS = (0, -1, float("nan"), float("inf"), "30", True, 1e10, dt.timedelta(-1))


def test_defaults() -> None:
    options = ConsumerOptions.of("g", ("t",), {})
    assert options.group == dn.Group("g", start="beginning")
    assert options.group.stored == {}
    assert options.poll_interval == 30.0
    assert options.owner.endswith(f":{os.getpid()}")


@pytest.mark.parametrize("consumer", [dn.AsyncConsumer, dn.Consumer])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            (name, value)
            for name in ("lease", "poll_interval", "idle_poll_interval", "heartbeat_interval")
            for value in BAD_DURATIONS
        ),
        ("lease", None), ("heartbeat_interval", None),
        ("on_error", {KeyError: None}), ("on_error", 1), ("on_error", {"x": dn.Ack()}),
        *(("batch_size", value) for value in (0, -1, 10_001, 1.5, "10", True, None)),
        *(("prefetch", value) for value in (0, 1_000_001, 2.0)),
        ("group", ""), ("group", "a\nb"), ("group", None), ("topics", []), ("topics", "t"),
        ("topics", ["a b"]), ("owner", 7), ("owner", "a\x00b"),
    ],
)  # fmt: skip
def test_options_that_cannot_work(consumer: Any, option: str, value: Any) -> None:
    with pytest.raises(dn.InvalidArgument, match=option.removesuffix("s")):
        consumer("", **{"group": "g", "topics": ["t"], option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("start", "end"), ("start", None), ("start", 0), ("start", ["now"]),
        ("start", dt.datetime(2026, 1, 1)),  # noqa: DTZ001
        ("order_by", "id"), ("exclusive", 1), ("on_expiry", "keep"), ("rate_limit", 0),
        ("rate_limit", True), ("max_in_flight", 0), ("park_limit", 0), ("retry", 5),
        ("retry", {"max_attempts": 3}), ("name", ""), ("name", None),
    ],
)  # fmt: skip
def test_options_of_a_group_that_cannot_work(option: str, value: Any) -> None:
    what = "group" if option == "name" else option
    with pytest.raises(dn.InvalidArgument, match=what):
        dn.Group(**{"name": "g", option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((name, value) for name in ("base", "max") for value in BAD_DURATIONS),
        *(("max_attempts", value) for value in (0, 2**31, 1.0, True)),
        ("factor", 0.5), ("factor", 101), ("factor", "2"),
        *(("delays", value) for value in (5, "5", {5}, [-1], [True], ["5"], [None], [1] * 101)),
    ],
)  # fmt: skip
def test_retry_policies_that_cannot_work(option: str, value: Any) -> None:
    with pytest.raises(dn.InvalidArgument, match=option):
        dn.RetryPolicy(**{option: value})


@pytest.mark.parametrize("consumer", [dn.AsyncConsumer, dn.Consumer])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("poll_interval", None), ("lease", 1), ("idle_poll_interval", 3600),
        ("idle_poll_interval", None), ("heartbeat_interval", 0.5), ("batch_size", 10_000),
        ("prefetch", 1), ("until_empty", True), ("owner", "me"),
    ],
)  # fmt: skip
def test_options_that_can(consumer: Any, option: str, value: Any) -> None:
    options = consumer("", group="g", topics=["t"], **{option: value}).options
    assert getattr(options, option) == value


def test_what_a_group_stores_is_what_was_given() -> None:
    retry = dn.RetryPolicy(max_attempts=3, base=dt.timedelta(minutes=1))
    group = dn.Group("g", start="now", order_by="none", exclusive=False, retry=retry)
    assert group.stored == {
        "order_by": "none", "exclusive": False, "max_attempts": 3, "retry_base": 60.0,
    }  # fmt: skip
    assert dn.Group("g").stored == {}
    consumer = dn.Consumer("", group=group, topics=["t"])
    assert consumer.options.group == group


def test_a_group_shows_what_was_given() -> None:
    retry = dn.RetryPolicy(max_attempts=3)
    assert repr(dn.Group("g")) == "dn.Group('g')"
    assert repr(dn.Group("g", order_by="none", retry=retry)) == (
        "dn.Group('g', order_by='none', retry=dn.RetryPolicy(max_attempts=3))"
    )


def test_unknown_options() -> None:
    with pytest.raises(dn.InvalidArgument, match="Did you mean lease"):
        dn.Consumer("", group="g", topics=["t"], leese=30)  # type: ignore[call-arg]


def test_what_may_be_given_is_what_there_is() -> None:
    assert {*ConsumerSettings.__annotations__, "group", "topics"} == set(
        ConsumerOptions.__dataclass_fields__
    )
    assert {*GroupSettings.__annotations__, "name", "start"} == set(dn.Group.__dataclass_fields__)


@pytest.mark.parametrize("option", [*ConsumerSettings.__annotations__, "group", "topics"])
def test_each_is_documented(option: str) -> None:
    assert f" {option}: " in (ConsumerOptions.__doc__ or "")


@pytest.mark.parametrize("kind", [dn.Group, dn.RetryPolicy])
def test_each_of_a_group_is_documented(kind: Any) -> None:
    for option in kind.__dataclass_fields__:
        assert f" {option}: " in kind.__doc__


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "2", True])
def test_concurrency(concurrency: Any) -> None:
    consumer = dn.Consumer("", group="g", topics=["t"])
    with pytest.raises(dn.InvalidArgument, match="concurrency"):
        consumer.run(print, concurrency=concurrency)
    with pytest.raises(dn.InvalidArgument, match="concurrency"):
        dn.Consumer("", group="g", topics=["t"], concurrency=concurrency)


@pytest.mark.parametrize("reader", [dn.AsyncReader, dn.Reader])
@pytest.mark.parametrize("option", ["poll_interval", "idle_poll_interval", "heartbeat_interval"])
def test_readers_check_theirs(reader: Any, option: str) -> None:
    with pytest.raises(dn.InvalidArgument, match=option):
        reader("", topics=["t"], **{option: 0})
