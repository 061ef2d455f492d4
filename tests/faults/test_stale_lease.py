"""A consumer that cannot reach the database past its lease: what it holds is another's by then.

Asserted: once it is back it delivers nothing that was reclaimed, and continues with what is new; if
no consumer has reclaimed the lease, it continues with that.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from durable_notify._async.consumer.leases import AsyncLeaseManager
from durable_notify._sync.consumer.leases import LeaseManager
from durable_notify.torture.proxy import Proxy
from tests.conftest import Connection
from tests.faults.test_unknown_outcomes import taken_over_and_settled
from tests.support.api import Api, running
from tests.support.observe import send
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("all_at_once")


async def delivered(api: Api, dsn: str, conn: Connection, *, taken: bool) -> list[Any]:
    """What a consumer delivers that is cut off, in its first message, for longer than its lease."""
    send(conn, ["first", "second", "third"])
    got: list[Any] = []

    async def handle(message: Any) -> None:
        got.append(message.payload)
        if got == ["first"]:
            proxy.blackhole()
            if taken:
                taken_over_and_settled(conn)
            lease = message._lease
            await wait_until(lambda: time.monotonic() - lease.sure_at > 1.0)
            proxy.forward(leave_dead=True)
            proxy.cut()

    with Proxy(dsn) as proxy:
        consumer = api.consumer(proxy.dsn(), group="g", lease=1.0, poll_interval=0.2)
        async with running(consumer, handle):
            await wait_until(lambda: got)
            await wait_until(lambda: taken or "third" in got)
            send(conn, ["last"])
            await wait_until(lambda: "last" in got)
    return got


async def test_what_was_reclaimed_is_not_delivered(api: Api, dsn: str, conn: Connection) -> None:
    assert await delivered(api, dsn, conn, taken=True) == ["first", "last"]


async def test_what_was_not_reclaimed_is_delivered(api: Api, dsn: str, conn: Connection) -> None:
    # Its own next claim may be quicker, and take over what its lease left.
    got = await delivered(api, dsn, conn, taken=False)
    assert set(got) == {"first", "second", "third", "last"}


async def test_a_delivery_of_what_was_reclaimed_is_caught(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: to believe that a lease is still there."""
    for settler in (AsyncLeaseManager, LeaseManager):
        monkeypatch.setattr(settler, "is_sure", lambda _self, _lease: True)
    got = await delivered(api, dsn, conn, taken=True)
    assert got[:3] == ["first", "second", "third"]
