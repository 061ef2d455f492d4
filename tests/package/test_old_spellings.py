"""What is at the top of the package; and the spellings from before 0.1, which warn."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

import durable_notify as dn
from durable_notify.bridge.capture import AsyncCapture
from durable_notify.brokers.ingest import AsyncIngest
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.deprecated import _MOVED

FRONT_DOOR = """
    Publisher AsyncPublisher NewMessage Topic Webhooks
    Consumer AsyncConsumer Message AsyncMessage Group RetryPolicy Ack Retry Reject
    run run_async Middleware
    Reader AsyncReader AsyncWebhooks
    Admin AsyncAdmin Maintenance AsyncMaintenance Schedule Scheduler AsyncScheduler
    DurableNotifyError InvalidArgument LeaseLost
    errors models __version__
"""
WAS_THERE = [(name, module) for module, names in _MOVED.items() for name in names]
HALVES = pytest.mark.parametrize("half", [dn.Consumer, dn.AsyncConsumer])
READERS = pytest.mark.parametrize("half", [dn.Reader, dn.AsyncReader])


def test_the_front_door() -> None:
    assert set(dn.__all__) == set(FRONT_DOOR.split())
    assert dn.__all__ == sorted(dn.__all__)
    public = {name for name in vars(dn) if not name.startswith("_")}
    others = {name for name in public if f"durable_notify.{name}" not in sys.modules}
    assert others <= {*dn.__all__, "TYPE_CHECKING"}


@contextmanager
def warning(*texts: str) -> Iterator[None]:
    """The body warns of this, with its own line as the place."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(one.message) for one in caught] == list(texts)
    assert {(one.category, one.filename) for one in caught} == {(DeprecationWarning, __file__)}


@pytest.mark.parametrize(("name", "module"), WAS_THERE)
def test_what_has_left_is_found_with_a_warning(name: str, module: str) -> None:
    with warning(f"durable_notify.{name} is now durable_notify.{module}.{name}"):
        found = getattr(dn, name)
    assert found is getattr(importlib.import_module(f"durable_notify.{module}"), name)


def test_what_there_never_was() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        dn.Nothing  # type: ignore[attr-defined]  # noqa: B018


@HALVES
def test_options_of_a_group_given_to_a_consumer(half: Any) -> None:
    text = (
        "start, order_by, max_attempts, retry_base, max_in_flight: options of the group. Write "
        "group=dn.Group('g', start='now', order_by='none', "
        "retry=dn.RetryPolicy(max_attempts=5, base=2.0))"
    )
    with warning(text):
        consumer = half(
            "", group="g", topics=["t"], start="now", order_by="none", max_attempts=5,
            retry_base=timedelta(seconds=2), max_in_flight=None, lease=7,
        )  # fmt: skip
    retry = dn.RetryPolicy(max_attempts=5, base=2)
    assert consumer.options.group == dn.Group("g", start="now", order_by="none", retry=retry)
    assert consumer.options.lease == 7


@HALVES
def test_options_of_a_group_given_twice(half: Any) -> None:
    with pytest.raises(dn.InvalidArgument, match="give order_by to dn.Group"):
        half("", group=dn.Group("g"), topics=["t"], order_by="none")


@HALVES
def test_they_are_checked_as_before(half: Any) -> None:
    with pytest.raises(dn.InvalidArgument, match="order_by must be one of none, key, strict"):
        half("", group="g", topics=["t"], order_by="id")


@pytest.mark.parametrize("old", ["poll", "idle_poll", "heartbeat"])
@pytest.mark.parametrize("half", [dn.Consumer, dn.AsyncConsumer, dn.Reader, dn.AsyncReader])
def test_intervals(half: Any, old: str) -> None:
    about = {"topics": ["t"]} | ({"group": "g"} if "Consumer" in half.__name__ else {})
    with warning(f"{old}= is now {old}_interval="):
        made = half("", **about, **{old: 7})
    if "Consumer" in half.__name__:
        assert getattr(made.options, f"{old}_interval") == 7
    else:
        assert getattr(made, f"_{old}") == 7
    with pytest.raises(dn.InvalidArgument, match=f"give {old}_interval, and not {old} too"):
        half("", **about, **{old: 7, f"{old}_interval": 7})


def test_the_size_of_a_batch() -> None:
    about: dict[str, Any] = {"broker_url": "nats://h", "group": "g"}
    with warning("batch= is now batch_size="):
        relay = AsyncRelay("", **about, topics=["t"], batch=7)
    assert (relay._batch_size, relay._consumer.options.prefetch) == (7, 14)
    with warning("batch= is now batch_size="):
        ingest = AsyncIngest("", **about, queue="q", topic="t", batch=7)
    assert ingest._batch_size == 7


@READERS
def test_topics_by_position(half: Any) -> None:
    with warning("give topics by name: topics=..."):
        reader = half("", ["t", "u"])
    assert reader._wanted == ("t", "u")
    with pytest.raises(TypeError, match="topics was given twice"):
        half("", ["t"], topics=["t"])
    with warning("give topics by name: topics=..."), pytest.raises(TypeError):
        half("", ["t"], "now")


def test_captures() -> None:
    old = ("give channel by name: channel=...", "give topic by name: topic=...")
    with warning(*old, "heartbeat= is now heartbeat_interval="):
        capture: Any = AsyncCapture("", "c", "t", heartbeat=3)  # type: ignore[call-arg, misc]
    assert (capture.channel, capture.topic, capture._heartbeat) == ("c", "t", 3)


def test_relays() -> None:
    about: dict[str, Any] = {"group": "g", "topics": ["t"], "to": "nats://h", "start": "now"}
    text = "start: options of the group. Write group=dn.Group('g', start='now')"
    with warning("to= is now broker_url=", text):
        relay = AsyncRelay("", **about)
    assert relay._consumer.options.group == dn.Group("g", start="now")


def test_ingests() -> None:
    about: dict[str, Any] = {"queue": "q", "topic": "t", "source": "nats://h", "window": 7}
    with warning("source= is now broker_url=", "window= is now dedup_window="):
        ingest = AsyncIngest("", **about)
    assert ingest._window == 7


def test_a_retry_policy_in_parts(conn: Any) -> None:
    text = (
        "max_attempts, retry_max: parts of the policy. Write "
        "retry=dn.RetryPolicy(max_attempts=3, max=9)"
    )
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    about: dict[str, Any] = {"max_attempts": 3, "retry_max": 9, "order_by": "none"}
    with warning(text):
        dn.Admin().configure(conn, "g", **about)
    with pytest.raises(dn.InvalidArgument, match="give max_attempts to the RetryPolicy"):
        dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(base=1), **about)
    (group,) = dn.Admin().groups(conn)
    assert (group.max_attempts, group.retry_max, group.order_by) == (3, 9.0, "none")
