"""Nothing spins: what an idle consumer asks the database, in every state that it can be idle in.

Each state has a database of its own. All consumers run at the same time, and one window measures
them all, by pg_stat_statements: what the server has executed, not what the library means to send.
With `idle_poll_interval`, a consumer that a wake-up can reach sends nothing at all: it connects as
another role, by which it is told apart.
"""

from __future__ import annotations

import asyncio
import functools
import pprint
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from durable_notify import schema
from durable_notify._async.consumer import flusher as async_flusher
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._core import doorbells
from durable_notify._core.pacing import Patience, RingPacer
from durable_notify._sync.consumer import flusher as sync_flusher
from durable_notify._sync.wakeups import listener as sync_listener
from durable_notify.embedded import Server
from tests.support.api import Api, running
from tests.support.postgres import SETTINGS, needed_binaries, own_server
from tests.support.wait import wait_until
from tests.wakeups.idle_states import STATES, State, as_user

pytestmark = [pytest.mark.server, pytest.mark.slow]

#: How long to measure, in seconds, and how often at most: a slow machine may break a connection.
WINDOW, TRIES = 4.0, 3
QUERY = """
    SELECT d.datname, r.rolname, s.query, s.calls
      FROM pg_stat_statements s
      JOIN pg_database d ON d.oid = s.dbid JOIN pg_roles r ON r.oid = s.userid
     WHERE r.rolname IN ('consumer', 'suspended') AND s.toplevel
     ORDER BY s.calls DESC"""


@pytest.fixture(scope="module")
def counting() -> Iterator[Server]:
    """A server that counts statements, with a migrated database."""
    more = {"shared_preload_libraries": "pg_stat_statements", "max_connections": "800"}
    with own_server(needed_binaries(), SETTINGS | more) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
            connection.execute("CREATE ROLE consumer SUPERUSER LOGIN")
            connection.execute("CREATE ROLE suspended SUPERUSER LOGIN")
            connection.execute("CREATE DATABASE migrated")
        schema.migrate(server.dsn("migrated"))
        yield server


@pytest.fixture
def _at_their_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that grow are as long from the start as they become."""
    monkeypatch.setattr(Patience, "missed", lambda self: setattr(self, "_factor", 2.0**20))
    monkeypatch.setattr(RingPacer, "FREE", 0)
    monkeypatch.setattr(RingPacer, "MIN", RingPacer.MAX)
    for module, name in (
        (doorbells, "LOOK"),
        (doorbells, "RETRY"),
        (async_flusher, "AGAIN"),
        (sync_flusher, "AGAIN"),
    ):
        monkeypatch.setattr(module, name, (getattr(module, name)[1],) * 2)
    for listener in (async_listener, sync_listener):
        monkeypatch.setattr(listener, "ANSWER", 1.0)  # those that are deaf know it soon


@pytest.mark.usefixtures("_at_their_longest")
async def test_an_idle_consumer_asks_at_most_twice_a_second(api: Api, counting: Server) -> None:
    async with AsyncExitStack() as stack:
        conn = stack.enter_context(psycopg.connect(counting.dsn(), autocommit=True))
        limits: dict[tuple[str, str], float] = {}
        consumers, must_sleep = [], []
        for one in STATES:
            place = stack.enter_context(one.place(counting, api))
            handler = functools.partial(one.handler, place)
            for user in ("consumer", "suspended") if one.asleep else ("consumer",):
                consumer = api.consumer(as_user(user, place.dsn), **options(one, user))
                await stack.enter_async_context(running(consumer, handler))
                consumers.append(consumer)
                limits[one.name, user] = 0 if user == "suspended" else one.most * WINDOW
                if one.asleep:
                    must_sleep.append(consumer)
            stack.push_async_callback(place.end)
        await wait_until(lambda: all(c.health().state == "sleeping" for c in must_sleep))
        for _ in range(TRIES):
            asked = await measure(conn)
            spins = {who: asked[who] for who in limits if asked[who].total() > limits[who]}
            if not spins:
                break
        for consumer in consumers:
            consumer.stop()
    assert not spins, f"statements in {WINDOW} s:\n{pprint.pformat(spins)}"


def options(one: State, user: str) -> dict[str, Any]:
    """Those of a consumer: no heartbeats, or so many that one would be seen."""
    given = {"heartbeat_interval": 3600.0, "maintenance": False} | one.options
    if user == "suspended":
        given |= {"idle_poll_interval": 3600.0, "heartbeat_interval": 1.0}
    return given


async def measure(conn: psycopg.Connection[Any]) -> dict[tuple[str, str], Counter[str]]:
    """Return how often consumers ran each statement, by database and role."""
    conn.execute("SELECT pg_stat_statements_reset()")
    await asyncio.sleep(WINDOW)
    asked: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for name, user, query, calls in conn.execute(QUERY):
        asked[name, user][" ".join(query.split())[:70]] += calls
    return asked
