"""An acknowledgement whose connection breaks: the database is asked what became of it.

Asserted: what the handler is told is true. It was settled if the message is not redelivered, and
was refused if it is, whether the lease is still there, was reclaimed, or was lost in a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.torture.proxy import Direction, Proxy
from tests.conftest import Connection
from tests.faults.traffic import END_ALL_LEASES
from tests.support.api import Api, running
from tests.support.injection import plant
from tests.support.observe import send, value
from tests.support.sessions import Session
from tests.support.wait import wait_until

NOTED = "SELECT count(*) FROM durable_notify.settlement"
AGAIN = "SELECT id FROM durable_notify.claim('g', '{t}')"
pytestmark = pytest.mark.usefixtures("all_at_once")


def taken_over(conn: Connection) -> list[int]:
    """Another consumer gets what the lease left."""
    conn.execute(END_ALL_LEASES.encode())
    return [message_id for (message_id,) in conn.execute(AGAIN.encode())]


def taken_over_and_settled(conn: Connection) -> list[int]:
    taken_over(conn)
    conn.execute("SELECT durable_notify.settle(token, ids) FROM durable_notify.lease")
    return []


def forgotten(conn: Connection) -> list[int]:
    """A crash of the server lost the claim, which need not be durable, and with it the lease."""
    conn.execute("DELETE FROM durable_notify.lease")
    conn.execute("UPDATE durable_notify.position SET p = 0, h0 = 0, lease_tokens = '{}'")
    return [message_id for (message_id,) in conn.execute(AGAIN.encode())]


async def outcome(
    api: Api, dsn: str, conn: Connection, direction: Direction,
    meanwhile: Callable[[Connection], list[int]] | None,
) -> tuple[BaseException | None, bool]:  # fmt: skip
    """What a handler is told of its ack, and whether its message is redelivered."""
    before, first, _ = send(conn, [0, 1, 2])
    told: list[BaseException | None] = []
    again: list[int] = []

    async def handle(message: Any) -> None:
        if message.id == before:
            await message.ack()  # which opens the connection
        if message.id != first or told:
            return
        proxy.blackhole(direction)
        acknowledging: Awaitable[None] = asyncio.ensure_future(message.ack())
        lease = message._lease
        await wait_until(lambda: first not in lease.open and not len(lease.pending))
        if direction == "to_client":
            await wait_until(lambda: value(conn, NOTED) == 2)
        else:
            await asyncio.sleep(0.1)  # it is on its way: nothing tells when it is in the black hole
        if meanwhile is not None:
            again.extend(meanwhile(conn))
        proxy.forward(leave_dead=True)
        proxy.cut()
        try:
            await acknowledging
        except dn.errors.SettleError as error:
            told.append(error)
        else:
            told.append(None)

    with Proxy(dsn) as proxy:
        consumer = api.consumer(proxy.dsn(), group="g", batch_size=3, poll_interval=0.2)
        async with running(consumer, handle):
            await wait_until(lambda: told)
    return told[0], first in again


@pytest.mark.parametrize("meanwhile", [None, taken_over, taken_over_and_settled])
async def test_it_had_arrived(
    api: Api, dsn: str, conn: Connection, meanwhile: Callable[[Connection], list[int]] | None
) -> None:
    assert await outcome(api, dsn, conn, "to_client", meanwhile) == (None, False)


async def test_it_had_not_arrived(api: Api, dsn: str, conn: Connection) -> None:
    assert await outcome(api, dsn, conn, "to_server", None) == (None, False)


@pytest.mark.parametrize("meanwhile", [taken_over, forgotten])
async def test_another_consumer_has_it(
    api: Api, dsn: str, conn: Connection, meanwhile: Callable[[Connection], list[int]]
) -> None:
    told, redelivered = await outcome(api, dsn, conn, "to_server", meanwhile)
    assert redelivered
    assert isinstance(told, dn.LeaseLost)


async def test_a_guess_is_caught(api: Api, dsn: str, conn: Connection) -> None:
    """Planted: to take for settled whatever has no lease any more."""
    session = Session(dsn)
    plant(session, "unacknowledged", ("WHERE found.is_out OR found.is_dead", "WHERE false"))
    session.close()
    assert await outcome(api, dsn, conn, "to_server", taken_over) == (None, True)


@pytest.mark.parametrize("how", ["retried", "rejected"])
def test_what_is_still_out(dsn: str, conn: psycopg.Connection[Any], how: str) -> None:
    ask = "SELECT * FROM durable_notify.unacknowledged('g', %s)"
    session = Session(dsn)
    session.subscribe()
    sent = send(conn, range(4))
    assert conn.execute(ask, (sent,)).fetchall() == [(i, False) for i in sent]  # not delivered yet
    claimed = session.claim(3)
    assert conn.execute(ask, (sent,)).fetchall() == [(i, False) for i in sent]
    session.settle(claimed[0].token, acked=[sent[0]], **{how: [sent[1]]})
    dead = how == "rejected"
    assert conn.execute(ask, (sent,)).fetchall() == [
        (sent[1], dead), (sent[2], False), (sent[3], False),
    ]  # fmt: skip
    session.close()
