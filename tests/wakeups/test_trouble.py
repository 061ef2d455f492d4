"""Doorbells in the way of strangers, policies, lost sessions and full tables. Nothing here polls.

If a topic cannot ring, its consumers poll each second, whatever their options say.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.support.api import Api, Recorder, running
from tests.support.injection import plant
from tests.support.observe import (
    LISTENER,
    armed,
    asleep,
    backends,
    barred,
    beat,
    count_armed,
    listener_of,
    send,
    terminate,
    value,
)
from tests.support.sessions import Sessions
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]
SET = "SELECT durable_notify.set_notify_policy(%s, %s)"
LOOKS = 3.0
"""Seconds within which a poll each second has found something, on a slow machine too."""


def unarmed(consumer: Any) -> bool:
    """Whether a consumer knows that some topic does not ring."""
    subscription = consumer._subscription
    return (
        subscription is not None
        and subscription.hears
        and bool(subscription._state.doorbells.refused)
        and not subscription.arming
    )


# A stranger holds a key


async def test_a_stranger_at_the_key(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    """It looks each second for as long as that lasts, and hears again right after."""
    seen, consumer = Recorder(), api.consumer(dsn, topics=["t", "u"])
    stranger = sessions.session()
    with barred(stranger, "t"):
        task = asyncio.ensure_future(consumer.run(seen))
        await wait_until(lambda: unarmed(consumer))
        assert armed(conn, "tu") == {"u"}
        for number in (1, 2):
            send(conn, [number])
            await with_timeout(seen.got(number), LOOKS)
        send(conn, [3], "u")  # which rings
        await seen.got(3)
    await wait_until(lambda: armed(conn, "tu") == {"t", "u"}, LOOKS)
    await asleep(consumer)
    send(conn, [4])
    await seen.got(4)
    consumer.stop()
    await with_timeout(task)


async def test_a_stranger_gets_the_key_while_the_listener_is_cut_off(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    seen, consumer = Recorder(), api.consumer(dsn)
    stranger = sessions.session()
    async with running(consumer, seen):
        await asleep(consumer)
        lock = stranger.start("SELECT pg_advisory_lock(1685024362, hashtext('t'))")
        sessions.wait_until_blocked(stranger, lock)
        terminate(conn, LISTENER)
        lock.result()
        await wait_until(lambda: unarmed(consumer))
        send(conn, [1])
        await with_timeout(seen.got(1), LOOKS)
        stranger.run("SELECT pg_advisory_unlock_all()")
        await asleep(consumer)
        send(conn, [2])
        await seen.got(2)


async def test_a_stranger_waits_for_the_key(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    seen, consumer = Recorder(), api.consumer(dsn)
    stranger = sessions.session()
    async with running(consumer, seen):
        await asleep(consumer)
        lock = stranger.start("SELECT pg_advisory_lock(1685024362, hashtext('t'))")
        sessions.wait_until_blocked(stranger, lock)
        send(conn, [1])
        try:
            await seen.got(1)
        finally:
            consumer.stop()
            await wait_until(lambda: backends(conn, LISTENER) == [])
            lock.result()


# Policies


async def test_a_topic_that_never_rings(api: Api, dsn: str, conn: Connection) -> None:
    conn.execute(SET, ["t", "never"])
    seen, consumer = Recorder(), api.consumer(dsn, topics=["t", "u"])
    async with running(consumer, seen):
        await wait_until(lambda: unarmed(consumer))
        assert armed(conn, "tu") == {"u"}
        for number in (1, 2):
            send(conn, [number])
            await with_timeout(seen.got(number), LOOKS)


async def test_two_phases_on_a_topic_that_never_rings(
    api: Api, dsn: str, conn: Connection, sessions: Sessions
) -> None:
    conn.execute(SET, ["t", "never"])
    publisher = sessions.session()
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await wait_until(lambda: unarmed(consumer))
        publisher.begin()
        publisher.publish()
        publisher.run("PREPARE TRANSACTION 'two phases'")
        publisher.run("COMMIT PREPARED 'two phases'")
        await with_timeout(seen.got(1), LOOKS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("never", "when_waiting"),
        ("never", "always"),
        ("always", "when_waiting"),
        ("when_waiting", "always"),
        ("when_waiting", "never"),
        ("always", "never"),
    ],
)
async def test_a_policy_that_changes_while_it_sleeps(
    api: Api, dsn: str, conn: Connection, before: str, after: str
) -> None:
    conn.execute(SET, ["t", before])
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await (wait_until(lambda: unarmed(consumer)) if before == "never" else asleep(consumer))
        send(conn, [1])
        await with_timeout(seen.got(1), LOOKS)
        await (wait_until(lambda: unarmed(consumer)) if before == "never" else asleep(consumer))
        conn.execute(SET, ["t", after])
        expected = set() if after == "never" else {"t"}
        await wait_until(lambda: armed(conn, "t") == expected, LOOKS)
        for number in (2, 3):
            send(conn, [number])
            await with_timeout(seen.got(number), LOOKS)


# Sessions that lose what they had


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the session often."""
    beat(monkeypatch, 0.2)


def swapped(api: Api, listener: Any, monkeypatch: pytest.MonkeyPatch, *losses: str) -> list[str]:
    """Have the session lose things right before it is looked at: what was lost, once it has been."""
    command, lost = listener._command, []

    def sync_lossy(statement: str) -> Any:
        if "pg_listening_channels" in statement and not lost:
            lost.extend(losses)
            for loss in losses:
                command(loss)
        return command(statement)

    async def async_lossy(statement: str) -> Any:
        if "pg_listening_channels" in statement and not lost:
            lost.extend(losses)
            for loss in losses:
                await command(loss)
        return await command(statement)

    monkeypatch.setattr(listener, "_command", async_lossy if api.is_async else sync_lossy)
    return lost


BOTH = ["UNLISTEN *", "SELECT pg_advisory_unlock_all()"]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    "losses", [BOTH[:1], BOTH[1:], BOTH], ids=["channels", "doorbells", "both"]
)
async def test_a_session_that_has_lost_something(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, losses: list[str],
) -> None:  # fmt: skip
    """As behind a pooler that swaps sessions: what was not heard of meanwhile is read."""
    seen, consumer = Recorder(), api.consumer(dsn, topics=["t", "u"])
    async with running(consumer, seen):
        await asleep(consumer)
        insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')"
        with psycopg.connect(dsn) as slow:
            slow.execute(insert)  # rings, but is not heard
            lost = swapped(api, listener_of(consumer), monkeypatch, *losses)
            await wait_until(lambda: lost)
        await seen.got(1)
        await wait_until(lambda: armed(conn, "tu") == {"t", "u"})
        await asleep(consumer)
        send(conn, [2], "u")
        await seen.got(2)
    assert "the session had stopped listening to" in caplog.text


@pytest.mark.usefixtures("brisk")
async def test_a_session_that_has_lost_nothing_is_left_alone(
    api: Api, dsn: str, conn: Connection, twins: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Two of its topics have one key, and so one lock."""
    consumer = api.consumer(dsn, topics=["t", "u", "v.*", *twins])
    async with running(consumer, Recorder()):
        await asleep(consumer)
        checked = listener_of(consumer)._checked_at
        await wait_until(lambda: listener_of(consumer)._checked_at > checked + 0.5)
        assert count_armed(conn) == 4
    assert "lost its locks" not in caplog.text


@pytest.mark.parametrize("why", ["a topic never rings", "a publisher stays open"])
async def test_the_session_is_looked_at_though_there_is_something_to_do(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    beat(monkeypatch, 1.2)  # longer than there is nothing to do
    with psycopg.connect(dsn) as slow:
        if why == "a topic never rings":
            conn.execute(SET, ["u", "never"])
        else:
            send(slow, ["not yet"])
        consumer = api.consumer(dsn, topics=["t", "u"])
        async with running(consumer, Recorder()):
            await wait_until(
                lambda: consumer._subscription is not None and consumer._subscription.hears
            )
            looked = swapped(api, listener_of(consumer), monkeypatch, "SELECT")
            await wait_until(lambda: looked, LOOKS)


# What the server, or chance, does to doorbells


async def test_a_full_table_of_locks(
    api: Api, dsn: str, conn: Connection, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """Its consumers look each second; the session stays."""
    full = "RAISE EXCEPTION 'out of shared memory' USING ERRCODE = 'out_of_memory';"
    loop = "FOREACH wanted IN ARRAY topics LOOP"
    plant(sessions.session(), "_arm_topics", (loop, f"{full} {loop}"))
    seen, consumer = Recorder(), api.consumer(dsn)
    async with running(consumer, seen):
        await wait_until(lambda: unarmed(consumer), LOOKS)
        for number in (1, 2):
            send(conn, [number])
            await with_timeout(seen.got(number), LOOKS)
        assert listener_of(consumer).reconnects == 0
    assert "consumers poll" in caplog.text


@pytest.fixture
def twins(conn: Connection) -> list[str]:
    """Two topics with one key: a hash has 32 bits."""
    query = """
        SELECT array_agg(n::text) FROM generate_series(1, 400000) AS n
         GROUP BY hashtext(n::text) HAVING count(*) = 2 LIMIT 1"""
    return list(value(conn, query))


async def test_two_topics_with_one_key(
    api: Api, dsn: str, conn: Connection, twins: list[str]
) -> None:
    """The doorbell of one stays armed while the other's consumer works."""
    busy, idle = (api.consumer(dsn, topic, [topic], prefetch=1) for topic in twins)
    proceed, seen = asyncio.Event(), Recorder()
    handling = Recorder(lambda _: proceed.wait())
    async with running(busy, handling), running(idle, seen):
        await asleep(busy)
        await asleep(idle)
        send(conn, [1], twins[0])
        await handling.got(1)
        await wait_until(lambda: busy._subscription._state.doorbells.armed == {twins[1]})
        send(conn, [1], twins[1])
        await seen.got(1)
        proceed.set()
