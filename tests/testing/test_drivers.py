"""The kit on connections of every driver."""

from __future__ import annotations

from typing import Any

import pytest

import durable_notify as dn
from durable_notify import testing
from tests.drivers.kits import KITS, Kit
from tests.support.api import entered, maybe_await
from tests.support.missing import slow_but

QUICK = [
    kit for kit in KITS if kit.name in {"psycopg2", "asyncpg", "django", "async-session-asyncpg"}
]
each = pytest.mark.parametrize("kit", slow_but(KITS, *QUICK), ids=repr)


def of(kit: Kit, name: str) -> Any:
    """A function of the kit, for this kind of connection."""
    return getattr(testing, f"{name}_async" if kit.is_async else name)


@each
async def test_in_the_open_transaction(kit: Kit, dsn: str) -> None:
    publisher = kit.Publisher()
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            await opened.call(publisher.publish, "t", {"ü": 2**60}, key="k", headers={"by": "ann"})
            await opened.call(publisher.publish, "t", b"\x00\xff", delay=3600)
            (found, later) = await opened.call(of(kit, "assert_published"), "t", count=2)
            assert (found.payload, found.key, found.headers) == ({"ü": 2**60}, "k", {"by": "ann"})
            assert later.payload == b"\x00\xff"
            await opened.call(of(kit, "travel"), hours=2)
            (_, sooner) = await opened.call(of(kit, "published"), "t")
            assert (later.deliver_at - sooner.deliver_at).total_seconds() == 7200
        async with opened.transaction():
            await opened.call(of(kit, "assert_not_published"), "t")
            await opened.call(publisher.publish, "t", 1)
        async with opened.transaction():
            await opened.call(of(kit, "reset"))
            await opened.call(of(kit, "assert_not_published"), "t")


@each
async def test_a_message_lends_it(kit: Kit, dsn: str) -> None:
    if "run_sync" in kit.name:
        pytest.skip("its connection is not a handler's")
    async with kit.connect(dsn) as opened, opened.transaction(undo=True):
        message = of(kit, "message")(1, connection=opened.given)
        async with entered(message.transaction()) as given:
            assert given is opened.given
        assert message.outcome == dn.Ack()
        await maybe_await(message.once(opened.given))
