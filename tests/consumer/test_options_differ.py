"""Consumers of a group that were given different options: each says so, and names both values."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import events
from durable_notify._async.consumer import upkeep as async_upkeep
from durable_notify._sync.consumer import upkeep as sync_upkeep
from tests.support.api import Api, entered
from tests.support.observe import value
from tests.support.wait import wait_until

Connection = psycopg.Connection[Any]

OTHERS: dict[str, tuple[Any, Any]] = {
    "order_by": ("key", "none"), "exclusive": (False, True), "max_attempts": (20, 5),
    "retry_base": (1, 0.25), "retry_factor": (2.0, 1.5), "retry_max": (300, 7),
    "retry_delays": ([], [5.0, 30.0]),
    "on_expiry": ("drop", "dead_letter"), "park_limit": (10_000, 9), "max_in_flight": (3, 4),
    "rate_limit": (100.0, 2.5),
}  # fmt: skip


def group_with(which: int) -> dn.Group:
    given = {name: values[which] for name, values in OTHERS.items()}
    retry = dn.RetryPolicy(
        max_attempts=given.pop("max_attempts"), base=given.pop("retry_base"),
        factor=given.pop("retry_factor"), max=given.pop("retry_max"), delays=given.pop("retry_delays"),
    )  # fmt: skip
    return dn.Group("g", retry=retry, **given)


async def started(api: Api, dsn: str, told: list[Any], group: str | dn.Group) -> None:
    make = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer: Any = make(dsn, group=group, topics=["t"], until_empty=True, on_event=told.append)
    async with entered(consumer):
        pass


def differing(told: list[Any]) -> list[tuple[str, str, str]]:
    return [
        (one.option, one.stored, one.given) for one in told if isinstance(one, events.OptionDiffers)
    ]


async def test_the_one_that_starts_says_what_it_changes(
    api: Api, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    await started(api, dsn, told, group_with(0))
    await started(api, dsn, told, group_with(0))
    await started(api, dsn, told, "g")
    assert not differing(told)
    await started(api, dsn, told, group_with(1))
    assert {name for name, _, _ in differing(told)} == set(OTHERS)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("max_attempts was 20, and this consumer was given 5" in text for text in warned)


async def test_the_one_that_runs_says_what_was_changed(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Once of each value."""
    for module in (async_upkeep, sync_upkeep):
        monkeypatch.setattr(module, "COMPARE", 0.0)
    told: list[Any] = []
    policy = dn.RetryPolicy(max_attempts=20, base=0.5)
    async with api.consumer(dsn, on_event=told.append, retry=policy, heartbeat_interval=0.05):
        dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(max_attempts=7))
        await wait_until(lambda: differing(told))
        dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(max_attempts=8))
        await wait_until(lambda: len(differing(told)) == 2)
    assert differing(told) == [("max_attempts", "7", "20"), ("max_attempts", "8", "20")]
    assert "max_attempts is 7, and this consumer was given 20" in caplog.text
    assert value(conn, "SELECT max_attempts FROM durable_notify.groups()") == 8
