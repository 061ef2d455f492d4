"""The listening connection: cut, deaf, or with the whole server gone. Nothing here polls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._sync.wakeups import listener as sync_listener
from durable_notify.embedded import Server
from durable_notify.topics import channel
from tests.support.api import Api, Recorder, collect, in_thread, running
from tests.support.injection import plant
from tests.support.observe import (
    LISTENER,
    asleep,
    backends,
    beat,
    listener_of,
    outstanding,
    send,
    terminate,
    value,
)
from tests.support.pgbouncer import pgbouncer
from tests.support.sessions import Sessions
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


async def test_what_was_missed_while_the_listener_was_cut_off_is_read(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Rung while no session listened: the reconnected listener wakes its consumers by itself."""
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen):
        for number in range(1, 4):
            await asleep(consumer)
            (old,) = terminate(conn, LISTENER)
            await wait_until(lambda old=old: old not in backends(conn, LISTENER))
            send(conn, [number])
            await seen.got(number)
            await wait_until(lambda old=old: backends(conn, LISTENER) not in ([], [old]))
    assert seen.attempts == [1, 1, 1]


async def test_several_consumers_are_woken_after_the_cut(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen = [Recorder(), Recorder()]
    consumers = [api.consumer(dsn, "g0", ["t"]), api.consumer(dsn, "g1", ["t", "u"])]
    async with running(consumers[0], seen[0]), running(consumers[1], seen[1]):
        await asleep(consumers[0])
        await asleep(consumers[1])
        (old,) = terminate(conn, LISTENER)
        await wait_until(lambda: old not in backends(conn, LISTENER))
        send(conn, [1])
        send(conn, [2], "u")
        await seen[0].got(1)
        await seen[1].got(2)
        assert len(backends(conn, LISTENER)) == 1


async def test_a_cut_is_logged(
    api: Api, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "durable_notify")
    consumer = api.consumer(dsn)
    async with running(consumer, Recorder()):
        await asleep(consumer)
        terminate(conn, LISTENER)
        await wait_until(lambda: "listening again" in caplog.text)
        await asleep(consumer)
    assert "the listening connection was lost, next try in" in caplog.text


async def test_a_lost_registration_is_noticed(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler that swaps sessions: the round trip looks at what is listened to."""
    beat(monkeypatch, 0.2)
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(consumer)
        # UNLISTEN cannot be done from outside; the listener only believes that it listens.
        listener = listener_of(consumer)
        listener.state.listening.add("durable_notify:never")
        consumer._subscription.channels = consumer._subscription.channels | {
            "durable_notify:never": "never"
        }
        listening = (
            "SELECT query LIKE '%%never%%' FROM pg_stat_activity WHERE application_name = %s"
        )
        await wait_until(
            lambda: (
                value(conn, f"{listening} AND datname = current_database()", LISTENER)
                or "durable_notify:never" in listener.state.listening
            )
        )
        send(conn, [1])
        await seen.got(1)


async def test_a_consumer_that_starts_while_the_listener_waits(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its channel is listened to at once, though the listener was waiting for something else."""
    async with api.consumer(dsn) as consumer:
        await asleep(consumer)
        listener = listener_of(consumer)
        command = listener._command
        added: list[Any] = []

        def beside(statement: str) -> Any:
            if statement.startswith("LISTEN") and "second" in statement:
                added.append(listener.add({channel("third"): "third"}))
            return command(statement)

        monkeypatch.setattr(listener, "_command", beside)
        added.append(listener.add({channel("second"): "second"}))
        await wait_until(lambda: channel("third") in listener.state.listening, 5)
        assert len(added) == 2
        listener._subscriptions -= set(added)


async def test_no_answer_on_the_listening_session(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stands, but the server does not answer: it is replaced."""
    beat(monkeypatch, 0.2)
    for module in (async_listener, sync_listener):
        monkeypatch.setattr(module, "ANSWER", 1.0)
    seen = Recorder()
    consumer = api.consumer(dsn)
    with psycopg.connect(dsn, autocommit=True) as blocker:
        async with running(consumer, seen):
            await asleep(consumer)
            (old,) = backends(conn, LISTENER)
            # A stopped process does not answer, and its socket stays open.
            import os
            import signal

            try:
                os.kill(old, signal.SIGSTOP)
            except (ProcessLookupError, PermissionError):
                pytest.skip("The server's processes are not to be seen from here")
            try:
                await wait_until(lambda: set(backends(blocker, LISTENER)) - {old})
                await asleep(consumer)
            finally:
                os.kill(old, signal.SIGCONT)
            send(conn, [1])
            await seen.got(1)


async def test_a_listener_for_each_dsn(api: Api, dsn: str, conn: Connection) -> None:
    other = dsn + ("&" if "?" in dsn else "?") + "connect_timeout=5"
    async with api.consumer(dsn, "g0") as one, api.consumer(other, "g1") as two:
        await asleep(one)
        await asleep(two)
        assert len(backends(conn, LISTENER)) == 2
    await wait_until(lambda: backends(conn, LISTENER) == [])


async def test_both_halves_in_one_process(dsn: str, conn: Connection) -> None:
    one, two = Api("async").consumer(dsn, "g0"), Api("sync").consumer(dsn, "g1")
    seen = [Recorder(), Recorder()]
    async with running(one, seen[0]), running(two, seen[1]):
        await asleep(one)
        await asleep(two)
        send(conn, [1])
        await seen[0].got(1)
        await seen[1].got(1)


async def test_consumers_that_come_and_go_leave_nothing(
    api: Api, dsn: str, conn: Connection
) -> None:
    for _ in range(5):
        await asyncio.gather(
            *(api.consumer(dsn, f"g{n}", until_empty=True).run(Recorder()) for n in range(3))
        )
    await wait_until(lambda: backends(conn, "durable_notify%") == [])
    for module in (async_listener, sync_listener):
        assert dsn not in {listened for _, listened in module._shared}


# The whole server gone


@pytest.fixture
def broken(private_server: Server) -> str:
    """A migrated database on a server to break."""
    schema.migrate(private_server.dsn())
    return private_server.dsn()


async def test_the_server_is_killed_under_an_idle_consumer(
    api: Api, private_server: Server, broken: str
) -> None:
    seen = Recorder()
    consumer = api.consumer(broken)
    async with running(consumer, seen):
        await asleep(consumer)
        await in_thread(private_server.kill)
        await in_thread(private_server.start)
        with psycopg.connect(broken, autocommit=True) as conn:
            send(conn, [1])
            await seen.got(1)
            await asleep(consumer)
            send(conn, [2])
            await seen.got(2)


async def test_the_server_is_killed_in_the_middle_of_work(
    api: Api, private_server: Server, broken: str
) -> None:
    """Twice: every message is handled, and what was acknowledged stays so."""
    with psycopg.connect(broken, autocommit=True) as conn:
        ids = send(conn, range(300))
    acknowledged: set[int] = set()
    late: set[int] = set()

    async def handle(message: Any) -> None:
        if message.id in acknowledged:
            late.add(message.id)
        await asyncio.sleep(0.005)
        await message.ack()
        acknowledged.add(message.id)

    seen = Recorder(handle)
    consumer = api.consumer(broken, lease=2, batch_size=20)
    async with running(consumer, seen, concurrency=4):
        for number in (50, 120):
            await seen.got(number)
            await in_thread(private_server.kill)
            await in_thread(private_server.start)
        with psycopg.connect(broken, autocommit=True) as conn:
            await wait_until(lambda: outstanding(conn) == 0, 40)
            assert set(seen.ids) == set(ids)
            assert late == set(), "acknowledged durably, and redelivered"


async def test_started_while_the_listener_cannot_connect(api: Api, dsn: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        await api.consumer(dsn, listen_dsn="host=/nowhere").start()


# Through a pooler


@pytest.fixture
def pooled(dsn: str) -> Iterator[str]:
    with pgbouncer(dsn) as through:
        yield through


@pytest.mark.usefixtures("impatient")
async def test_deaf_and_polling(
    api: Api, conn: Connection, pooled: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and polls every second although configured to poll every half a minute."""
    seen = Recorder()
    async with running(api.consumer(pooled, poll_interval=30), seen):
        await wait_until(lambda: "Set a direct listen_dsn" in caplog.text)
        for number in (1, 2):
            send(conn, [number])
            await seen.got(number)


@pytest.mark.usefixtures("impatient")
async def test_deaf_and_not_allowed_to_poll(api: Api, pooled: str, conn: Connection) -> None:
    with pytest.raises(
        dn.errors.ListenUnavailable, match="give a direct listen_dsn, or allow poll"
    ):
        await with_timeout(api.consumer(pooled).run(Recorder()))
    with pytest.raises(dn.errors.ListenUnavailable):
        async with api.consumer(pooled) as consumer:
            await collect(consumer, 1)


@pytest.mark.usefixtures("impatient")
async def test_a_direct_connection_for_listening(
    api: Api, dsn: str, pooled: str, conn: Connection
) -> None:
    seen = Recorder()
    consumer = api.consumer(pooled, listen_dsn=dsn)
    async with running(consumer, seen):
        for number in (1, 2):
            await asleep(consumer)
            send(conn, [number])
            await seen.got(number)
    assert outstanding(conn) == 0


async def test_publishing_through_a_pooler_wakes(
    api: Api, dsn: str, pooled: str, conn: Connection
) -> None:
    seen = Recorder()
    consumer = api.consumer(dsn)
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as through:
        async with running(consumer, seen):
            await asleep(consumer)
            send(through, [1])
            await seen.got(1)


NAMED_OTHERWISE = ("'durable_notify:' OPERATOR(pg_catalog.||) topic", "'other:' || topic")


@pytest.mark.parametrize("planted", [False, True])
async def test_the_database_names_the_channels(
    api: Api, dsn: str, sessions: Sessions, planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is computed here: it is woken. Planted: the database is not asked, and it knows that it is deaf."""
    session = sessions.session()
    plant(session, "channel", NAMED_OTHERWISE)
    if planted:

        async def aknow(self: Any, channels: set[str]) -> None:
            del self, channels

        def know(self: Any, channels: set[str]) -> None:
            del self, channels

        monkeypatch.setattr(async_listener.AsyncListener, "_ask_for_names", aknow)
        monkeypatch.setattr(sync_listener.Listener, "_ask_for_names", know)
    seen = Recorder()
    consumer = api.consumer(dsn, poll_interval=30 if planted else None)
    async with running(consumer, seen):
        if planted:
            await wait_until(
                lambda: consumer._subscription is not None and consumer._subscription.deaf
            )
            assert not consumer.health().hears
        else:
            await asleep(consumer)
            assert consumer.health().hears
        send(session.connection, [1])
        await seen.got(1)
