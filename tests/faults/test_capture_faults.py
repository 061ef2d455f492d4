"""Captures, their connections and the server killed under load.

Asserted of a channel whose senders never pause, whatever was killed: nothing is published twice;
what each sender sent is published in its order; whatever is missing was sent within a gap that is
in the audit, or had been heard by a process that was killed, whose last word is then the gap's
start. The planted variants: a capture that retries a batch without its number publishes it twice;
one that believes in every connection without an error reports no gap.
DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify._async import capture as async_capture
from durable_notify._sync import capture as sync_capture
from durable_notify.embedded import Server
from durable_notify.torture.proxy import Proxy
from tests.faults.chance import SEED, seconds
from tests.support.capture import (
    capturing,
    end_listening,
    gaps,
    listening_sessions,
    messages,
    notify,
    now,
)
from tests.support.cli import start
from tests.support.observe import value
from tests.support.pgbouncer import pooler
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]

SECONDS = seconds(4)
TRANSIENT = (psycopg.OperationalError, psycopg.InterfaceError)


class Senders:
    """Programs that know nothing of this library; each payload with the time before and after."""

    def __init__(self, dsn: str) -> None:
        self.sent: list[tuple[Any, Any, str]] = []
        self._dsn = dsn
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=[n]) for n in range(2)]
        for thread in self._threads:
            thread.start()

    def _send(self, sender: int) -> None:
        n = 0
        connection: Connection | None = None
        while not self._done.is_set():
            try:
                if connection is None:
                    connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=5)
                n += 1
                before = now(connection)
                notify(connection, "c", f"{sender} {n}")
                self.sent.append((before, now(connection), f"{sender} {n}"))
                time.sleep(0.002)
            except TRANSIENT:  # what was under way counts for nothing
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.05)
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Wait until some more are sent."""
        seen = len(self.sent)
        eventually(lambda: len(self.sent) > seen + 30)


@contextmanager
def sending(dsn: str) -> Iterator[Senders]:
    senders = Senders(dsn)
    try:
        yield senders
    finally:
        senders.stop()


def judge(conn: Connection, senders: Senders) -> str:
    """Fail where something was doubled, out of order, or lost in no gap."""
    got = messages(conn, "t")
    assert len(got) == len(set(got)), "published twice"
    for sender in "01":
        numbers = [int(text.split()[1]) for text in got if text.startswith(f"{sender} ")]
        assert numbers == sorted(numbers), "out of order"
    found, there = gaps(conn), set(got)
    lost = [one for one in senders.sent if one[2] not in there]
    for before, after, text in lost:
        assert any(since <= after and before <= until for since, until, _ in found), (
            f"{text} was lost in no gap"
        )
    return f"{len(senders.sent)} sent, {len(lost)} lost in {len(found)} gaps"


@pytest.mark.parametrize("api", ["sync", "async"])
def test_a_connection_that_only_looks_alive(
    api: str, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sync_capture, async_capture):
        monkeypatch.setattr(module, "SILENCE", 10_000)  # it knows its own old session at once
    with (
        Proxy(dsn) as proxy,
        capturing(api, proxy.dsn(), "c", "t", heartbeat_interval=0.5) as running,
    ):
        running.listens()
        notify(conn, "c", "before")
        eventually(lambda: messages(conn, "t") == ["before"])
        last = now(conn)
        proxy.blackhole()
        notify(conn, "c", "lost")
        eventually(lambda: running.capture._connection is None)  # it has found out
        proxy.forward(leave_dead=True)
        # The server still has the old session, with the lock: only the test can end it.
        running.listens(2)
        notify(conn, "c", "after")
        eventually(lambda: messages(conn, "t") == ["before", "after"])
        running.stop()
    eventually(lambda: not listening_sessions(conn))
    ((since, until, _),) = gaps(conn)
    assert since < last < until


@pytest.mark.parametrize("api", ["sync", "async"])
def test_what_is_on_its_way_when_it_is_stopped(api: str, dsn: str, conn: Connection) -> None:
    with Proxy(dsn) as proxy, capturing(api, proxy.dsn(), "c", "t") as running:
        running.listens()
        proxy.delay(0.3)
        notify(conn, "c", "a", "b")
        running.stop()
    assert messages(conn, "t") == ["a", "b"]


def test_an_active_one_that_only_looks_alive_is_replaced(dsn: str, conn: Connection) -> None:
    with Proxy(dsn) as proxy:
        with capturing("sync", proxy.dsn(), "c", "t", heartbeat_interval=0.3, grace=0) as first:
            first.listens()
            with capturing("async", dsn, "c", "t", heartbeat_interval=2) as second:
                second.stands_by()
                proxy.blackhole()
                second.listens()
                notify(conn, "c", "a")
                eventually(lambda: messages(conn, "t") == ["a"])
                proxy.forward()
                first.stands_by()
        assert len(gaps(conn)) == 1


@pytest.mark.slow
def test_connections_are_cut_anywhere(dsn: str, conn: Connection) -> None:
    """Also between a batch's commit and the answer: it is not published twice."""
    rng = random.Random(SEED)
    api = rng.choice(["sync", "async"])
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    with (
        Proxy(dsn) as proxy,
        capturing(api, proxy.dsn(), "c", "t", heartbeat_interval=1.0) as running,
    ):
        running.listens()
        with sending(dsn) as senders:
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                direction = rng.choice(["to_server", "to_client"])
                proxy.cut(after_bytes=rng.randrange(4000), direction=direction)  # type: ignore[arg-type]
                time.sleep(rng.uniform(0.05, 0.4))
            proxy.cut()
            times = len(running.said)
            running.listens(times + 1)
            senders.wait_for_more()
        running.stop()
    print(judge(conn, senders))


@pytest.mark.parametrize("batch", ["numbered", "not numbered"])
def test_an_answer_that_is_lost(
    batch: str, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is done and its answer lost: published once; twice by the planted variant."""
    if batch == "not numbered":
        unnumbered = sync_capture.sql.CAPTURE.replace(
            "%s, %s, %s, %s,", "%s, %s, %s || random(), %s,", 1
        )
        monkeypatch.setattr(sync_capture.sql, "CAPTURE", unnumbered)
    with Proxy(dsn) as proxy:
        with capturing(
            "sync", proxy.dsn(), "c", "t", listen_dsn=dsn, heartbeat_interval=60
        ) as running:
            running.listens()
            heard = "SELECT count(*) FROM durable_notify.capture WHERE heard_until IS NOT NULL"
            eventually(lambda: value(conn, heard) == 1)  # else the answer to this were lost
            proxy.cut(after_bytes=1, direction="to_client")
            notify(conn, "c", "a")
            eventually(lambda: running.capture.published == 1)
            running.stop()
    assert messages(conn, "t") == (["a"] if batch == "numbered" else ["a", "a"])
    assert gaps(conn) == []


@pytest.mark.server
@pytest.mark.parametrize("api", ["sync", "async"])
def test_through_a_pooler(api: str, dsn: str, conn: Connection) -> None:
    """In transaction mode it cannot hear: refused, unless it listens directly. It leaves no lock."""
    with pooler(dsn, "transaction") as pooled:
        with capturing(api, pooled.dsn, "c", "t", heartbeat_interval=0.5) as running:
            with pytest.raises(dn.errors.ListenUnavailable, match="direct listen_dsn"):
                running.ended()
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s"
        assert value(conn, locks, sync_capture.LOCKS) == 0
        with capturing(api, pooled.dsn, "c", "t", listen_dsn=dsn) as running:
            running.listens()
            notify(conn, "c", "a")
            running.stop()
    assert messages(conn, "t") == ["a"]


def begin(dsn: str) -> subprocess.Popen[bytes]:
    return start("bridge", "capture", "c", "--topic", "t", "--heartbeat-interval", "1", dsn=dsn)


def wait_for(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stderr is not None
    while word not in (line := process.stderr.readline()):
        assert line, "it ended"


@pytest.mark.slow
def test_the_active_process_is_killed(dsn: str, conn: Connection) -> None:
    with contextlib.ExitStack() as stack:
        first, second = begin(dsn), None
        stack.callback(first.communicate)
        stack.callback(first.kill)
        wait_for(first, b"listening to")
        second = begin(dsn)
        stack.callback(second.communicate)
        stack.callback(second.kill)
        wait_for(second, b"standing by")
        with sending(dsn) as senders:
            senders.wait_for_more()
            eventually(lambda: len(messages(conn, "t")) > 10)
            first.send_signal(signal.SIGKILL)
            wait_for(second, b"listening to")
            senders.wait_for_more()
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    print(judge(conn, senders))
    assert len(gaps(conn)) == 1


@pytest.mark.slow
def test_the_server_is_killed(private_server: Server) -> None:
    dsn = private_server.dsn()
    schema.migrate(dsn)
    with capturing("async", dsn, "c", "t", heartbeat_interval=1.0) as running:
        running.listens()
        with sending(dsn) as senders:
            senders.wait_for_more()
            private_server.kill()
            private_server.start()
            running.listens(2)
            senders.wait_for_more()
        running.stop()
    with psycopg.connect(dsn, autocommit=True) as conn:
        print(judge(conn, senders))
        assert len(gaps(conn)) == 1


def test_planted_a_gap_that_is_not_reported(dsn: str, conn: Connection, monkeypatch: Any) -> None:
    """The judge sees it."""
    monkeypatch.setattr(sync_capture.Capture, "_report", lambda *_: None)
    with capturing("sync", dsn, "c", "t") as running:
        running.listens()
        with sending(dsn) as senders:
            senders.wait_for_more()
            # It stays away for some messages.
            monkeypatch.setattr(running.capture, "_pause", lambda _: senders.wait_for_more())
            end_listening(conn)
            running.listens(2)
        running.stop()
    with pytest.raises(AssertionError, match="lost in no gap"):
        judge(conn, senders)
