"""Wherever a duration is taken: a number of seconds, or a timedelta; other values are refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import durable_notify as dn
from durable_notify.bridge.capture import AsyncCapture
from durable_notify.brokers.ingest import AsyncIngest
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.durations import in_seconds
from durable_notify.payloads import NewMessage, dedup_of, times_of

REFUSED = (-1, timedelta(-1), True, "30", float("nan"), float("inf"), 1e10, [1])


def relay(**options: Any) -> Any:
    return AsyncRelay("", broker_url="nats://h", group="g", topics=["t"], **options)


def ingest(**options: Any) -> Any:
    return AsyncIngest("", broker_url="nats://h", queue="q", topic="t", **options)


def consumer(half: Any) -> Callable[..., Any]:
    return lambda **options: half("", group="g", topics=["t"], **options)


def reader(half: Any) -> Callable[..., Any]:
    return lambda **options: half("", topics=["t"], **options)


def capture(**options: Any) -> Any:
    return AsyncCapture("", channel="c", topic="t", **options)


def times(**options: Any) -> Any:
    return times_of(NewMessage({}, **options))


def dedup(**options: Any) -> Any:
    return dedup_of(NewMessage({}, dedup_key="k", **options))


TAKEN = [
    *((consumer(half), name) for half in (dn.Consumer, dn.AsyncConsumer) for name in (
        "lease", "poll_interval", "idle_poll_interval", "heartbeat_interval", "handler_timeout"
    )),
    *((reader(half), name) for half in (dn.Reader, dn.AsyncReader) for name in (
        "poll_interval", "idle_poll_interval", "heartbeat_interval"
    )),
    (capture, "heartbeat_interval"), (capture, "grace"),
    *((lambda half=half, **options: half("", **options), name)
      for half in (dn.Maintenance, dn.AsyncMaintenance)
      for name in ("every", "inbox_age", "audit_age")),
    (dn.RetryPolicy, "base"), (dn.RetryPolicy, "max"), (dn.Retry, "delay"),
    (relay, "lease"), (ingest, "dedup_window"),
    (times, "delay"), (times, "ttl"), (dedup, "dedup_window"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name"), TAKEN)
def test_seconds_and_timedeltas(make: Any, name: str) -> None:
    for duration in (1, 1.5, timedelta(minutes=1)):
        make(**{name: duration})
    for duration in REFUSED:
        with pytest.raises(dn.InvalidArgument, match=f"{name}.* must be .* seconds, or a timed"):
            make(**{name: duration})


def test_a_duration_in_seconds() -> None:
    assert in_seconds("x", timedelta(minutes=1)) == 60.0
    assert in_seconds("x", 2) == 2.0
    assert in_seconds("x", 0, zero=True) == 0.0
    assert in_seconds("x", None, optional=True) is None
    for duration in (0, timedelta(), None):
        with pytest.raises(
            dn.InvalidArgument,
            match=r"^x must be a positive number of seconds, or a timedelta, up to 30 years, not ",
        ):
            in_seconds("x", duration)  # type: ignore[arg-type]
    with pytest.raises(dn.InvalidArgument, match="^x must be 0 or more seconds"):
        in_seconds("x", -1, zero=True)
