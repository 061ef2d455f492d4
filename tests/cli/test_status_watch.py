"""status --watch: what it shows is so, at whatever width; how it ends; what it does without a database."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from rich.console import Console

from durable_notify.cli.status_watch import screen
from durable_notify.diagnostics import status
from durable_notify.diagnostics.status import GroupStatus, Lease, StatusSnapshot, take_snapshot
from tests.support.cli import COMMAND, PATIENCE, cli_environment, fails, run, start
from tests.support.observe import send
from tests.support.roles import roles

Connection = psycopg.Connection[Any]


def subscribe(conn: Connection, group: str = "g") -> None:
    conn.execute("SELECT durable_notify.subscribe(%s, ARRAY['t'])", [group])


def claim(conn: Connection, most: int, lease: str = "1 minute") -> list[tuple[int, int]]:
    query = "SELECT token, id FROM durable_notify.claim('g', ARRAY['t'], %s, %s, 'worker')"
    return conn.execute(query, [most, lease]).fetchall()


def test_a_look(conn: Connection) -> None:
    subscribe(conn)
    subscribe(conn, "other")
    send(conn, range(10))
    send(conn, range(3), "no-group")
    first = take_snapshot(conn)
    unread, mine, other = first.groups
    assert (unread.topic, unread.group, unread.lag, unread.rate_out) == (
        "no-group",
        None,
        None,
        None,
    )
    assert (mine.group, other.group) == ("g", "other")
    assert (mine.unread, mine.exact, mine.lag, mine.rate_in) == (10, True, 10, None)
    assert mine.oldest_unread_seconds is not None
    ((token, message), *_) = claim(conn, 4)
    conn.execute("SELECT durable_notify.settle(%s, ARRAY[%s]::bigint[])", [token, message])
    send(conn, range(20))
    second = take_snapshot(conn, first)
    seconds = (second.at - first.at).total_seconds()
    unread, mine, other = second.groups
    assert (mine.unread, mine.leased, mine.live_leases, mine.lag) == (26, 3, 1, 29)
    (lease,) = second.leases
    assert (lease.topic, lease.group, lease.owner, lease.messages) == ("t", "g", "worker", 3)
    assert 0 < lease.seconds < 60
    assert 0 < lease.seconds_left <= 60
    rates = [(round(s.rate_in * seconds), round(s.rate_out * seconds)) for s in (mine, other)]
    assert rates == [(20, 4), (20, 0)]
    assert unread.rate_in == 0
    # Taken back, what it was handed goes down: there is no rate.
    conn.execute("SELECT redelivered FROM durable_notify.seek('g', 't', 0)")
    third = take_snapshot(conn, second)
    assert third.groups[1].rate_out is None


def test_those_that_lag_most(conn: Connection) -> None:
    for number in range(1, 6):
        conn.execute("SELECT durable_notify.subscribe('g', ARRAY[%s])", [f"t{number}"])
        send(conn, range(number), f"t{number}")
    first = take_snapshot(conn, None, 2)
    assert [(one.topic, one.lag) for one in first.groups] == [("t4", 4), ("t5", 5)]
    assert first.left_out == 3
    assert "and 3 more that lag less" in lines(first, 80, 20)
    send(conn, range(10), "t1")
    second = take_snapshot(conn, first, 2)
    assert [(one.topic, one.lag) for one in second.groups] == [("t1", 11), ("t5", 5)]
    # What came to t1 since the first look is not known: it was not in it.
    assert [one.rate_in for one in second.groups] == [None, 0]
    assert take_snapshot(conn, second, 5).left_out == 0


def test_what_is_leased_is_seen_among_many(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_COUNT", 10)
    subscribe(conn)
    send(conn, range(100))
    first = take_snapshot(conn)
    assert first.groups[0].exact is False
    claim(conn, 7)
    second = take_snapshot(conn, first)
    seconds = (second.at - first.at).total_seconds()
    assert round((second.groups[0].rate_out or 0) * seconds) == 7


def test_messages_between(conn: Connection) -> None:
    send(conn, range(10))
    ((first, last),) = conn.execute("SELECT min(id), max(id) FROM durable_notify.outbox").fetchall()

    def between(after: int, upto: int, most: int = 100) -> Any:
        query = "SELECT durable_notify.messages_between('t', %s, %s, %s)"
        return conn.execute(query, [after, upto, most]).fetchone()

    assert between(0, last) == (10,)
    assert between(first, last - 1) == (8,)
    assert between(0, last, 5) == (5,)
    assert between(last, 0) == (0,)


def test_sessions_asleep_and_expired(conn: Connection, dsn: str) -> None:
    subscribe(conn)
    conn.execute(
        "INSERT INTO durable_notify.outbox (topic, payload, expires_at) VALUES ('t', '1', now() - interval '1 s')"
    )
    assert claim(conn, 5) == []
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("SELECT durable_notify.arm('t')")
        (found,) = take_snapshot(conn).groups
        assert (found.expired, found.asleep) == (1, 1)
    claim(conn, 1, "0.001 s")


def test_an_observer_sees_it_and_a_publisher_is_refused(conn: Connection, dsn: str) -> None:
    subscribe(conn)
    send(conn, range(2))
    with roles(
        dsn, {"observer": [("observe", None, None)], "publisher": [("publish", ["t"], None)]}
    ) as made:
        with psycopg.connect(made.login("observer"), autocommit=True) as session:
            assert take_snapshot(session, take_snapshot(session)).groups[0].unread == 2
        fails(run("status", "--watch", dsn=made.login("publisher")), 1, "--observe")


# what is shown


def many(count: int) -> StatusSnapshot:
    groups = [
        GroupStatus(f"a-topic-of-some-length-{i}", "a-group-of-some-length", 10**9, 10**9, i * 10**7, i < 3, 1e5,
                 12, 3, 300, 7, 5, 2, 12345.6, 0.25)
        for i in range(count)
    ]  # fmt: skip
    leases = [Lease("t", "g", f"worker-{i} \x1b[31m[bold]", 3.0, i - 1.0, 7) for i in range(10)]
    return StatusSnapshot(datetime.now(UTC), groups, leases)


def lines(
    seen: StatusSnapshot, width: int, height: int | None, trouble: str | None = None
) -> list[str]:
    console = Console(
        width=width, height=height or 100, force_terminal=True, no_color=True, color_system=None
    )
    with console.capture() as captured:
        console.print(screen(seen, width, height, trouble))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [8, 24, 50])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_it_fits_the_screen(width: int, height: int, count: int) -> None:
    found = lines(many(count), width, height, "the connection was lost, which is a long story")
    assert len(found) <= height
    assert max(map(len, found)) <= width


def test_what_a_narrow_terminal_leaves_out() -> None:
    def head(width: int) -> list[str]:
        return next(line for line in lines(many(1), width, 24) if "topic" in line).split()

    assert head(30)[:3] == ["topic", "group", "lag"]
    assert head(80)[:6] == ["topic", "group", "lag", "behind", "in/s", "out/s"]
    assert head(200) == [
        "topic", "group", "lag", "behind", "in/s", "out/s", "deferred", "leased", "dead", "expired", "asleep",
    ]  # fmt: skip


def test_the_worst_are_shown_and_no_escape_has_effect() -> None:
    text = "\n".join(lines(many(100), 200, 24))
    assert "a-topic-of-some-length-99" in text
    assert "a-topic-of-some-length-1 " not in text
    assert "more that lag less" in text
    text = "\n".join(lines(many(1), 200, 50))
    assert "\\x1b[31m[bold]" in text
    assert "~" not in text
    assert "expired" in text


# how it runs


def on_a_screen(dsn: str, key: bytes) -> tuple[int, str]:
    """Run it on a terminal; once the topic is shown, type a key."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "status", "--watch", "--interval", "0.1"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - for Ctrl-C
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn, TERM="xterm"),
    )  # fmt: skip
    os.close(theirs)
    output = b""
    typed = False
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        output += chunk
        if b"mytopic" in output and not typed:
            typed = True
            os.write(ours, key)
    os.close(ours)
    return process.wait(PATIENCE), output.decode()


@pytest.mark.parametrize("key", [b"xyQ", b"\x03"])
def test_on_a_terminal(dsn: str, conn: Connection, key: bytes) -> None:
    send(conn, range(3), "mytopic")
    status, said = on_a_screen(dsn, key)
    assert status == 0
    assert "Traceback" not in said
    assert "q: quit" in said
    assert (
        said.rfind("\x1b[?1049l") > said.find("\x1b[?1049h") > -1
    )  # the screen is as it was before


def test_a_stream_of_json(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    send(conn, range(3))
    process = start("status", "--watch", "--json", "--interval", "0.1", dsn=dsn)
    assert process.stdout is not None
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    assert first["groups"][0]["unread"] == 3
    assert first["groups"][0]["rate_in"] is None
    assert second["groups"][0]["rate_in"] == 0
    assert datetime.fromisoformat(first["at"]) < datetime.fromisoformat(second["at"])


def test_a_reader_that_has_seen_enough(dsn: str) -> None:
    process = start("status", "--watch", "--json", "--interval", "0.1", dsn=dsn)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 0
    process.stderr.close()


def test_the_connection_breaks_meanwhile(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    process = start("status", "--watch", "--interval", "0.1", dsn=dsn)
    assert process.stdout is not None

    def until(words: bytes) -> None:
        for line in process.stdout:  # type: ignore[union-attr]
            if words in line:
                return
        raise AssertionError(words)

    until(b"q: quit")
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'durable-notify status' AND datname = current_database()"
    )
    until(b"no news since")
    until(b"q: quit")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")


def test_there_is_no_database_at_the_start() -> None:
    fails(
        run("status", "--watch", dsn="postgresql://x@127.0.0.1:1/x"),
        1,
        "Is PostgreSQL running there?",
    )
    fails(run("status", "--interval", "1", dsn="postgresql://x@127.0.0.1:1/x"), 2, "--watch")
