"""Signals: at every moment, for one consumer of a process and for two."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._core import signals
from durable_notify._core.signals import handle_signals
from tests.support.api import Api, in_thread
from tests.support.observe import leased, outstanding, send, value
from tests.support.postgres import CHECKOUT
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]
MOMENTS = ("starting", "claiming", "handling", "settling", "closing")


def signalled(api: Api, dsn: str, moment: str, number: int, *groups: str) -> str:
    """Run consumers that are signalled at a moment; returns what they said."""
    module = [sys.executable, "-m", "tests.programs.signalled"]
    done = subprocess.run(
        [*module, api.name, dsn, moment, str(int(number)), *groups], cwd=CHECKOUT,
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert "at the moment" in done.stdout
    assert done.stdout.endswith("ended\n")
    return done.stdout


@pytest.mark.parametrize(
    ("moment", "number"),
    [*((moment, signal.SIGTERM) for moment in MOMENTS), ("handling", signal.SIGINT)],
)
def test_one_consumer(
    api: Api, dsn: str, conn: Connection, moment: str, number: signal.Signals
) -> None:
    """It ends, exit status 0; what it had is settled or given back."""
    send(conn, range(5))
    signalled(api, dsn, moment, number, "g")
    assert leased(conn) == 0
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_two_consumers_of_one_loop(dsn: str, conn: Connection, moment: str) -> None:
    """One signal ends both, whichever was first."""
    send(conn, range(5))
    signalled(Api("async"), dsn, moment, signal.SIGTERM, "g", "h")
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0


@pytest.mark.parametrize("moment", ["starting", "handling", "settling"])
def test_consumers_that_run_together(api: Api, dsn: str, conn: Connection, moment: str) -> None:
    """One signal ends all, whichever was first."""
    send(conn, range(5))
    signalled(api, dsn, moment, signal.SIGTERM, "g", "h", "--together")
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0


def test_a_second_signal_for_consumers_that_run_together(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(5))
    said = signalled(api, dsn, "never returns twice", signal.SIGTERM, "g", "h", "--together")
    assert "1 handlers do not end: no longer waiting for them" in said
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0


@pytest.mark.parametrize("moment", ["closing twice", "never returns twice"])
def test_a_second_signal(api: Api, dsn: str, conn: Connection, moment: str) -> None:
    """It ends at once, waiting for no handler, and has given back what it could: uncounted."""
    ids = send(conn, range(5))
    said = signalled(api, dsn, moment, signal.SIGTERM, "g")
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0
    if moment == "never returns twice":
        assert "1 handlers do not end: no longer waiting for them" in said
        query = "SELECT array_agg(id ORDER BY id) FROM durable_notify.claim('g', '{t}', 9)"
        assert value(conn, query) == ids
        assert value(conn, "SELECT max(attempt) FROM durable_notify.claim('g', '{t}', 9)") is None


async def test_handlers_that_are_waited_for_are_named(
    api: Api, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    ids = send(conn, range(2))
    begun: list[int] = []
    free = threading.Event()
    consumer: Any = (dn.AsyncConsumer if api.is_async else dn.Consumer)(
        dsn, group="g", topics=["t"], poll_interval=None
    )

    async def ahandle(message: Any) -> None:
        begun.append(message.id)
        await in_thread(free.wait)

    def handle(message: Any) -> None:
        begun.append(message.id)
        free.wait()

    def run() -> Any:
        return consumer.run(ahandle if api.is_async else handle, concurrency=2)

    task = asyncio.ensure_future(run() if api.is_async else in_thread(run))
    await wait_until(lambda: len(begun) == 2)
    consumer.stop()
    await wait_until(lambda: "waiting for 2 handlers" in caplog.text)
    assert all(str(message_id) in caplog.text for message_id in ids)
    free.set()
    await with_timeout(task)
    assert outstanding(conn) == 0


# Whose handler a signal has


@contextlib.contextmanager
def as_they_are() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in signals.NUMBERS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def own(*_: object) -> None: ...


@pytest.fixture
def told() -> Iterator[list[str]]:
    with as_they_are():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield []


def noting(told: list[str], name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    return (lambda: told.append(f"stop {name}")), (lambda: told.append(f"hurry {name}"))


def raise_it() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_all_are_told(told: list[str]) -> None:
    with handle_signals(*noting(told, "a")), handle_signals(*noting(told, "b")):
        raise_it()
        assert told == ["stop a", "stop b"]
        raise_it()
        assert told[2:] == ["hurry a", "hurry b"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a third would end it
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_first_ends_before_the_second(told: list[str]) -> None:
    with contextlib.ExitStack() as later:
        with handle_signals(*noting(told, "a")):
            later.enter_context(handle_signals(*noting(told, "b")))
        raise_it()
        assert told == ["stop b"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_the_application_sets_since_is_left(told: list[str]) -> None:
    with handle_signals(*noting(told, "a")):
        signal.signal(signal.SIGTERM, own)
    assert signal.getsignal(signal.SIGTERM) is own


def test_what_the_application_had_is_left(told: list[str]) -> None:
    signal.signal(signal.SIGTERM, own)
    with handle_signals(*noting(told, "a")):
        assert signal.getsignal(signal.SIGTERM) is own
        raise_it()
    assert not told


def test_a_handler_that_calls_the_one_before(told: list[str]) -> None:
    """A handler of the application's that was set since may call the one it has replaced."""
    with handle_signals(*noting(told, "a")):
        before: Any = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, _frame: before(number, None))
        raise_it()
        assert told == ["stop a"]
    signal.signal(signal.SIGTERM, own)


def test_one_that_begins_while_others_end(told: list[str]) -> None:
    with handle_signals(*noting(told, "a")):
        raise_it()
        with handle_signals(*noting(told, "b")):
            assert told == ["stop a", "stop b"]
    told.clear()
    with handle_signals(*noting(told, "c")):
        assert not told


async def test_a_loop_s_own_handler_that_is_set_since(told: list[str]) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    with handle_signals(*noting(told, "a")):
        loop.add_signal_handler(signal.SIGTERM, heard.set)
    raise_it()
    await with_timeout(heard.wait())
    assert not told
    loop.remove_signal_handler(signal.SIGTERM)


def test_in_another_thread(told: list[str]) -> None:
    def body() -> Any:
        with handle_signals(*noting(told, "a")):
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(body).result() is signal.SIG_DFL


# Forks


FORK = multiprocessing.get_context("fork")


def in_a_child(body: Callable[[], None]) -> None:
    """Run something in a forked process; fail as it does."""
    reader, writer = FORK.Pipe()

    def child() -> None:
        try:
            body()
        except BaseException as error:
            writer.send(f"{type(error).__name__}: {error}")
        else:
            writer.send("")

    process = FORK.Process(target=child)
    process.start()
    try:
        assert reader.poll(20), "it hangs"
        assert not (said := reader.recv()), said
    finally:
        process.kill()
        process.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_consumer_after_a_fork(dsn: str, conn: Connection) -> None:
    """Whatever is called says so at once; the parent's is none the worse for it."""
    send(conn, range(3))
    fresh = dn.Consumer(dsn, group="fresh", topics=["t"])
    with dn.Consumer(dsn, group="g", topics=["t"], until_empty=True) as consumer:
        message = next(consumer)
        batches = consumer.batches(size=2)

        def used() -> None:
            for what in (
                lambda: next(consumer), lambda: next(batches), lambda: consumer.run(print),
                lambda: consumer.run_batches(print), lambda: fresh.run(print), fresh.start,
                message.ack, message.retry, message.reject, lambda: message.extend(1.0),
                lambda: message.ack(conn), lambda: consumer.settle_soon(message, dn.Ack()),
                lambda: message.transaction().__enter__(),
            ):  # fmt: skip
                with pytest.raises(dn.errors.UsedAfterFork, match="fork"):
                    what()
            consumer.close()

        in_a_child(used)
        message.ack()
        for other in consumer:
            other.ack()
    assert outstanding(conn) == 6 - 3 - 3 or outstanding(conn) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_reader_after_a_fork(dsn: str, conn: Connection) -> None:
    """The child may close it, and its parent still reads; a reader of the child's own does, too."""
    send(conn, range(3))
    fresh = dn.Reader(dsn, topics=["t"])
    with dn.Reader(dsn, topics=["t"], batch_size=1, until_empty=True) as reader:
        next(reader)

        def used() -> None:
            for what in (lambda: next(reader), fresh.__enter__):
                with pytest.raises(dn.errors.UsedAfterFork, match="fork"):
                    what()
            reader.close()
            fresh.close()
            with dn.Reader(dsn, topics=["t"], until_empty=True) as own:
                assert len(list(own)) == 3

        in_a_child(used)
        assert len(list(reader)) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_new_one_after_a_fork(dsn: str, conn: Connection) -> None:
    """A child with a consumer of its own, beside its parent's."""
    send(conn, range(3))
    with dn.Consumer(dsn, group="g", topics=["t"], poll_interval=None):
        in_a_child(lambda: dn.Consumer(dsn, group="h", topics=["t"], until_empty=True).run(own))
    query = "SELECT unread + deferred + leased FROM durable_notify.status() WHERE group_name = 'h'"
    assert value(conn, query) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_handlers_of_a_module_after_a_fork(dsn: str, conn: Connection) -> None:
    """A server that loads an application and then forks: each child may run its consumer."""
    send(conn, range(3))
    consumer = dn.Consumer(dsn, group="h", poll_interval=None, until_empty=True)
    consumer.on("t")(own)
    in_a_child(consumer.run)
    assert outstanding(conn) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_ends_by_a_signal(told: list[str]) -> None:
    """The handler that it inherits is its parent's."""
    with handle_signals(*noting(told, "a")):
        reader, writer = FORK.Pipe()
        process = FORK.Process(target=lambda: (writer.send(1), time.sleep(60)))
        process.start()
        assert reader.poll(20)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        process.join(20)
        assert process.exitcode == -signal.SIGTERM


# A second run


async def test_it_runs_once(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(1))
    consumer = api.consumer(dsn, until_empty=True)
    await with_timeout(consumer.run(nothing))
    for again in (consumer.run(nothing), consumer.run(nothing, concurrency=3)):
        with pytest.raises(dn.errors.ConsumerClosed, match="make a new one"):
            await with_timeout(again)


async def test_it_does_not_run_twice_at_once(api: Api, dsn: str, conn: Connection) -> None:
    from tests.support.api import running
    from tests.support.observe import asleep

    consumer = api.consumer(dsn)
    async with running(consumer, nothing):
        await asleep(consumer)
        with pytest.raises(dn.errors.ConsumerClosed, match="runs already"):
            await with_timeout(consumer.run(nothing))
        assert send(conn, [1])
        await wait_until(lambda: outstanding(conn) == 0)


async def nothing(_message: Any) -> None: ...
