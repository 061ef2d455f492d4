"""Fail-over step by step: what a consumer still holds of the old primary does no harm.

Each with one consumer of either half, which has a DSN of both hosts, polls never and is not
started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._sync.wakeups import listener as sync_listener
from durable_notify.embedded import Server
from tests.support.api import AnyReader, Api, Recorder, running
from tests.support.cli import fails, run
from tests.support.clusters import (
    REPLICATING,
    Clusters,
    caught_up,
    clusters,
    connect,
    cut_off,
    freeze,
    promote,
    several_hosts,
)
from tests.support.observe import LISTENER, asleep, backends, beat, outstanding, send, value
from tests.support.wait import wait_until, with_timeout

pytestmark = pytest.mark.server

LOST = 80  # so many ids are drawn while the standby is cut off; from the 33rd they are reused


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A migrated primary and its standby."""
    with clusters() as servers:
        yield make_pair(servers)


def make_pair(servers: Clusters) -> tuple[Server, Server]:
    primary = servers.fresh(REPLICATING)
    schema.migrate(primary.dsn())
    return primary, servers.standby(primary)


async def replicated(primary: Server) -> None:
    with connect(primary) as conn:
        await wait_until(lambda: caught_up(conn))


class Holding(Recorder):
    """A handler that keeps the messages with some payload until it is released."""

    def __init__(self, *payloads: Any) -> None:
        super().__init__(self._hold)
        self.gates = {payload: asyncio.Event() for payload in payloads}
        self.left: list[Any] = []

    async def _hold(self, message: Any) -> None:
        if message.payload in self.gates:
            await self.gates[message.payload].wait()
        self.left.append(message.payload)


@pytest.mark.slow
async def test_an_id_used_again_is_a_new_message(api: Api, pair: tuple[Server, Server]) -> None:
    """Handled, held by a handler, or once() done: on the old primary that was another message."""
    primary, standby = pair
    consumer = api.consumer(several_hosts(*pair), lease=60)
    seen = Holding(f"old {LOST}", f"new {LOST}")
    async with running(consumer, seen, concurrency=3):
        await asleep(consumer)
        with connect(primary) as conn:
            await replicated(primary)
            cut_off(conn)
            old = send(conn, [f"old {n}" for n in range(1, LOST + 1)])
            await seen.got(LOST)
            await wait_until(lambda: outstanding(conn) == 1)
            for message_id in old:
                assert value(conn, "SELECT durable_notify.once('g', %s)", message_id)
        primary.kill()
        promote(standby)
        with connect(standby) as conn:
            assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == 0
            new = send(conn, [f"new {n}" for n in range(1, LOST + 1)])
            again = set(old) & set(new)
            assert again, "no id was used again: this has shown nothing"
            await seen.got(2 * LOST)
            await wait_until(lambda: outstanding(conn) == 1)
            # The handler of the old one ends while the new one runs: it settles nothing.
            seen.gates[f"old {LOST}"].set()
            await wait_until(lambda: f"old {LOST}" in seen.left)
            later = send(conn, ["later"])
            await seen.got(2 * LOST + 1)
            await wait_until(lambda: outstanding(conn) == 1)
            seen.gates[f"new {LOST}"].set()
            await wait_until(lambda: outstanding(conn) == 0)
            for message_id in [*new, *later]:
                assert value(conn, "SELECT durable_notify.once('g', %s)", message_id)
    came = [(m.id, m.payload, m.attempt) for m in seen.messages[LOST:]]
    wanted = [(i, f"new {n}", 1) for n, i in enumerate(new, 1)] + [(later[0], "later", 1)]
    assert sorted(came) == sorted(wanted)


@pytest.mark.slow
async def test_a_key_held_from_before_is_released(api: Api, pair: tuple[Server, Server]) -> None:
    """A handler of the old primary's message holds its key; once it ends, the key continues."""
    primary, standby = pair
    consumer = api.consumer(several_hosts(*pair), lease=60)
    seen = Holding("old")
    async with running(consumer, seen, concurrency=3):
        await asleep(consumer)
        with connect(primary) as conn:
            await replicated(primary)
            cut_off(conn)
            dn.Publisher().publish(conn, "t", "old", key="k")
            await seen.got(1)
        primary.kill()
        promote(standby)
        with connect(standby) as conn:
            for payload in ("new", "newer"):
                dn.Publisher().publish(conn, "t", payload, key="k")
            send(conn, ["other"])
            await seen.got(2)
            seen.gates["old"].set()
            await seen.got(4)
            await wait_until(lambda: outstanding(conn) == 0)
    assert [m.payload for m in seen.messages] == ["old", "other", "new", "newer"]


@pytest.mark.parametrize("start", ["beginning", "now"])
async def test_a_reader_gets_what_replaced_a_lost_message(
    api: Api, pair: tuple[Server, Server], start: str
) -> None:
    """Its position is kept outside the database, in ids and transaction ids that are reused."""
    primary, standby = pair
    with connect(primary) as conn:
        send(conn, ["before"])
        async with AnyReader(api, several_hosts(*pair), start=start) as reading:
            before = 1 if start == "beginning" else 0
            kept = send(conn, ["kept"] if start == "beginning" else [])
            await reading.take(before + len(kept))
            await replicated(primary)
            cut_off(conn)
            old = [send(conn, [n])[0] for n in range(LOST)]
            assert [m.id for m in await reading.take(LOST)] == old
            primary.kill()
            promote(standby)
            with connect(standby) as there:
                new = [send(there, [f"new {n}"])[0] for n in range(LOST)]
                assert set(old) & set(new), "no id was used again: this has shown nothing"
                assert [m.payload for m in await reading.take(LOST)] == [
                    f"new {n}" for n in range(LOST)
                ]
                (last,) = send(there, ["last"])
                assert (await reading.next()).id == last


async def test_the_old_primary_hangs(
    api: Api, pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its connections and says nothing, as on a machine that is out of memory.

    The consumer sleeps: its listener finds out. Its other connections hang at their next use.
    """
    beat(monkeypatch, 0.5)
    for module in (async_listener, sync_listener):
        monkeypatch.setattr(module, "ANSWER", 1.0)
    primary, standby = pair
    consumer = api.consumer(several_hosts(*pair, connect_timeout=2))
    seen = Recorder()
    async with running(consumer, seen):
        await asleep(consumer)
        await replicated(primary)
        freeze(primary)
        promote(standby)
        with connect(standby) as conn:
            send(conn, ["new"])
            await seen.got(1)
            await wait_until(lambda: outstanding(conn) == 0)


async def test_a_standby_alone_is_refused(api: Api, pair: tuple[Server, Server]) -> None:
    _primary, standby = pair
    consumer = api.consumer(standby.dsn())
    with pytest.raises(psycopg.OperationalError, match="standby.*target_session_attrs=read-write"):
        await with_timeout(consumer.start())
    await consumer.close()
    done = run("consume", "t", "--group", "g", "--until-empty", dsn=standby.dsn())
    fails(done, 1, "standby", "target_session_attrs=read-write")


async def test_a_standby_reached_later_is_not_sat_on(
    api: Api, pair: tuple[Server, Server], caplog: pytest.LogCaptureFixture
) -> None:
    """A DSN of two hosts that does not ask for one that writes: the log says it, until it does."""
    primary, standby = pair
    consumer = api.consumer(several_hosts(*pair, target_session_attrs="any"))
    seen = Recorder()
    async with running(consumer, seen):
        await asleep(consumer)
        await replicated(primary)
        primary.kill()
        await wait_until(lambda: "target_session_attrs=read-write" in caplog.text)
        assert seen.messages == []
        promote(standby)
        with connect(standby) as conn:
            send(conn, ["new"])
            await seen.got(1)


async def test_a_primary_that_has_become_read_only_is_left(
    api: Api, pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fenced, not stopped: the connections stand, and what they lead to takes nothing any more."""
    beat(monkeypatch, 0.5)
    primary, standby = pair
    consumer = api.consumer(several_hosts(*pair))
    seen = Recorder()
    async with running(consumer, seen):
        await asleep(consumer)
        await replicated(primary)
        with connect(primary) as conn:
            conn.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            conn.execute("SELECT pg_reload_conf()")
            await wait_until(lambda: value(conn, "SHOW default_transaction_read_only") == "on")
            promote(standby)
            # Woken by the old one, it tries to claim there.
            conn.execute("SELECT pg_notify(durable_notify.channel('t'), '1')")
            with connect(standby) as new:
                send(new, ["new"])
                await seen.got(1)
                # So does the listener leave it, to be rung by the new one.
                await wait_until(lambda: bool(backends(new, LISTENER)))
                await asleep(consumer)
                send(new, ["newer"])
                await seen.got(2)
