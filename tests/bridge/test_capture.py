"""A channel of NOTIFY made durable: nothing heard is lost or doubled, and gaps are recorded."""

from __future__ import annotations

import random
import signal
import threading
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.bridge.capture import Capture
from durable_notify.errors import CaptureIncomplete
from durable_notify.topics import check_channel
from tests.support.capture import (
    arrive,
    capturing,
    durably,
    end_listening,
    gaps,
    listening_sessions,
    messages,
    notify,
    now,
)
from tests.support.cli import end, fails, good, run, start
from tests.support.observe import value
from tests.support.roles import roles
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]

TEXTS = [
    "", "a", "Ü 注文 😀", "it's \"quoted\" \\ $1 %s", '{"id": 1}', "two\nlines", "\x01\x7f", "x" * 7999
]  # fmt: skip


def test_what_is_heard_is_published_as_text(api: str, dsn: str, conn: Connection) -> None:
    with capturing(api, dsn, "c", "t") as running:
        running.listens()
        notify(conn, "c", *TEXTS)
        notify(conn, "C", "of another channel")
        arrive(conn, "t", TEXTS)
    query = "SELECT DISTINCT headers FROM durable_notify.outbox"
    assert value(conn, query) == {"captured": {"channel": "c", "pid": conn.info.backend_pid}}
    assert gaps(conn) == []


def test_as_json_if_it_is_json(api: str, dsn: str, conn: Connection) -> None:
    with capturing(api, dsn, "c", "t", as_json=True) as running:
        running.listens()
        odd = [r'"\u0000"', r'"\ud800"', "NaN", "1e999999", "{", "", "[" * 7000]
        notify(conn, "c", '{"id": 1}', "17", "null", '"text"', " [1] ", *odd)
        arrive(conn, "t", [{"id": 1}, 17, None, "text", [1], *odd])


@pytest.mark.parametrize(
    "channel",
    ["MyChannel", 'a"b', "it's", "with space", "a;b", "%s", "{}", "*", ">", "注" * 21, "a" * 63],
)
def test_channels_of_any_name(channel: str, dsn: str, conn: Connection) -> None:
    with capturing("sync", dsn, channel, "t") as running:
        running.listens()
        notify(conn, channel, "one", "two")
        arrive(conn, "t", ["one", "two"])


@pytest.mark.parametrize(
    ("channel", "word"),
    [
        ("", "empty"),
        ("a" * 64, "64 bytes"),
        ("注" * 22, "66 bytes"),
        ("durable_notify", "wake-ups"),
        ("durable_notify:orders", "wake-ups"),
        ("durable_notify#" + "a" * 32, "wake-ups"),
    ],
)
def test_channels_that_are_refused(channel: str, word: str) -> None:
    with pytest.raises(dn.InvalidArgument, match=word):
        check_channel(channel)
    with pytest.raises(dn.InvalidArgument, match=word):
        Capture("host=/nowhere", channel=channel, topic="t")


def test_bad_arguments() -> None:
    # Before a database is looked for: there is none here.
    fails(run("bridge", "capture", "a" * 64, "--topic", "t", dsn="host=/nowhere"), 2, "64 bytes")
    fails(run("bridge", "capture", "c", "--topic", "a b", dsn="host=/nowhere"), 2, "white space")
    fails(
        run("bridge", "capture", "c", "--topic", "t", dsn="host=/nowhere"), 1, "Check host and port"
    )


def test_without_the_schema(empty_dsn: str) -> None:
    fails(run("bridge", "capture", "c", "--topic", "t", dsn=empty_dsn), 1, "durable-notify migrate")


def test_order_of_each_sender_and_nothing_lost_at_a_graceful_stop(
    api: str, dsn: str, conn: Connection
) -> None:
    with capturing(api, dsn, "c", "t") as running:
        running.listens()

        def send(sender: int) -> None:
            with psycopg.connect(dsn) as connection:
                for n in range(0, 1000, 5):
                    notify(connection, "c", *(f"{sender} {n + k}" for k in range(5)))
                    connection.commit()

        threads = [threading.Thread(target=send, args=[sender]) for sender in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        running.stop()  # at once: what was sent by now is heard and published first
        assert running.capture.published == 4000
    got = messages(conn, "t")
    for sender in range(4):
        mine = [text for text in got if text.startswith(f"{sender} ")]
        assert mine == [f"{sender} {n}" for n in range(1000)]


def test_identical_ones_of_a_transaction_are_one(dsn: str, conn: Connection) -> None:
    with capturing("sync", dsn, "c", "t") as running:
        running.listens()
        with conn.transaction():
            notify(conn, "c", "a", "a", "b")
        notify(conn, "c", "a")
        arrive(conn, "t", ["a", "b", "a"])


def test_a_connection_that_dies(
    api: str, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with capturing(api, dsn, "c", "t") as running:
        running.listens()
        notify(conn, "c", "before")
        arrive(conn, "t", ["before"])
        dying = now(conn)
        end_listening(conn)
        running.listens(2)
        notify(conn, "c", "after")
        arrive(conn, "t", ["before", "after"])
        back = now(conn)
        running.stop()
    ((since, until, why),) = gaps(conn)
    assert since < dying < until < back
    assert "connection" in why
    assert f"from {since.isoformat()} to {until.isoformat()}" in " ".join(
        record.getMessage().replace("Z", "+00:00") for record in caplog.records
    )
    (entry,) = dn.Admin().audit(conn)
    assert (entry.action, entry.topic, entry.group) == ("capture gap", "t", "")
    assert entry.details is not None
    assert entry.details["channel"] == "c"


def test_what_is_lost_lies_in_a_gap(api: str, dsn: str, conn: Connection) -> None:
    """Sessions are ended while senders run: each payload has its own time."""
    done = threading.Event()
    sent: list[tuple[Any, str]] = []

    def send() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            n = 0
            while not done.is_set():
                n += 1
                query = "SELECT pg_notify('c', %s), clock_timestamp()"
                row = connection.execute(query, [str(n)]).fetchone()
                assert row is not None
                sent.append((row[1], str(n)))

    with capturing(api, dsn, "c", "t") as running:
        running.listens()
        thread = threading.Thread(target=send)
        thread.start()
        try:
            for times in range(2, 5):
                seen = len(sent)
                eventually(lambda seen=seen: len(sent) > seen + 50)  # type: ignore[misc]
                end_listening(conn)
                running.listens(times)
        finally:
            done.set()
            thread.join()
        running.stop()
    got = messages(conn, "t")
    assert len(got) == len(set(got)), "doubled"
    assert got == sorted(got, key=int), "out of order"
    found = gaps(conn)
    assert len(found) == 3
    lost = [(at, text) for at, text in sent if text not in set(got)]
    for at, text in lost:
        assert any(since <= at <= until for since, until, _ in found), f"{text} was lost in no gap"


def test_a_restart_says_the_gap_in_between(dsn: str, conn: Connection) -> None:
    with capturing("sync", dsn, "c", "t") as running:
        running.listens()
        notify(conn, "c", "heard")
        running.stop()
    stopped = now(conn)
    notify(conn, "c", "no session hears this")
    with capturing("async", dsn, "c", "t") as running:
        running.listens()
        started = now(conn)
        notify(conn, "c", "heard again")
        arrive(conn, "t", ["heard", "heard again"])
        running.stop()
    ((since, until, why),) = gaps(conn)
    assert since < stopped < until < started
    assert why == "no capture was running"


def test_one_is_active_and_the_other_stands_by(dsn: str, conn: Connection) -> None:
    with capturing("sync", dsn, "c", "t") as first:
        first.listens()
        with capturing("async", dsn, "c", "t") as second:
            second.stands_by()
            with capturing("sync", dsn, "c", "other topic".replace(" ", "_")) as other:
                other.listens()  # another topic is another capture
            notify(conn, "c", "to the first")
            arrive(conn, "t", ["to the first"])
            first.stop()
            second.listens()
            notify(conn, "c", "to the second")
            arrive(conn, "t", ["to the first", "to the second"])
            second.stop()
        assert (first.capture.published, second.capture.published) == (1, 1)
        assert len(gaps(conn)) == 1


def test_one_that_stands_by_can_be_stopped(api: str, dsn: str) -> None:
    with capturing("sync", dsn, "c", "t") as first:
        first.listens()
        with capturing(api, dsn, "c", "t") as second:
            second.stands_by()
            second.stop()


def test_a_topic_mirrored_to_the_channel_is_refused(api: str, dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.set_mirror('t', 'c')")
    with (
        capturing(api, dsn, "c", "t") as running,
        pytest.raises(dn.InvalidArgument, match="publish each message again"),
    ):
        running.ended()
    fails(run("bridge", "capture", "c", "--topic", "t", dsn=dsn), 2, "mirrored to channel")
    with capturing(api, dsn, "c", "other") as running:
        running.listens()
        conn.execute("""SELECT durable_notify.publish('t', '"x"')""")
        arrive(conn, "other", ["x"])


def test_a_mirror_that_comes_later_ends_it(api: str, dsn: str, conn: Connection) -> None:
    with capturing(api, dsn, "c", "t") as running:
        running.listens()
        conn.execute("SELECT durable_notify.set_mirror('t', 'c')")
        conn.execute("""SELECT durable_notify.publish('t', '"x"')""")
        with pytest.raises(dn.InvalidArgument, match="is now mirrored"):
            running.ended()
    assert messages(conn, "t") == ["x"]


# What notify() has published is not published again.


def test_what_notify_published_is_not_published_again(api: str, dsn: str, conn: Connection) -> None:
    with capturing(api, dsn, "c", "c") as running:
        running.listens()
        durably(conn, "c", "a", "a", "long " + "x" * 9000)
        notify(conn, "c", "a")  # the same payload and sender: captured
        with conn.transaction():
            durably(conn, "c", "b", "b")  # two messages, one notification
        notify(conn, "c", "b")
        running.stop()
        assert (running.capture.passed_over, running.capture.published) == (4, 2)
    got = messages(conn, "c")
    assert sorted(got) == sorted(["a", "a", "a", "b", "b", "b", "long " + "x" * 9000])


def test_what_notify_published_elsewhere_is_captured(dsn: str, conn: Connection) -> None:
    with capturing("sync", dsn, "c", "t") as running:
        running.listens()
        durably(conn, "c", "a")
        arrive(conn, "t", ["a"])
    assert messages(conn, "c") == ["a"]


def test_messages_of_before_match_nothing(dsn: str, conn: Connection) -> None:
    durably(conn, "c", "a")
    with capturing("sync", dsn, "c", "c") as running:
        running.listens()
        notify(conn, "c", "a")
        arrive(conn, "c", ["a", "a"])
        end_listening(conn)
        eventually(lambda: not listening_sessions(conn))
        durably(conn, "c", "b")  # most likely not heard
        running.listens(2)
        running.stop()
    before = messages(conn, "c")
    with capturing("sync", dsn, "c", "c") as running:
        running.listens()
        notify(conn, "c", "b")
        running.stop()
    assert messages(conn, "c") == [*before, "b"]


def test_forged_headers_do_no_harm(dsn: str, conn: Connection) -> None:
    with capturing("sync", dsn, "c", "c") as running:
        running.listens()
        for forged in ('{"notified": 1}', '{"notified": {"channel": "c", "pid": "x"}}'):
            conn.execute("SELECT durable_notify.publish('c', '1', headers => %s)", [forged])
        notify(conn, "c", "a")
        arrive(conn, "c", [1, 1, "a"])


@pytest.mark.usefixtures("marks_often")
def test_marks_in_between(api: str, dsn: str, conn: Connection) -> None:
    """A message accounts for one notification, however many marks follow."""
    waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    with (
        psycopg.connect(dsn) as locking,
        capturing(api, dsn, "c", "c", heartbeat_interval=30.0) as running,
    ):
        running.listens()
        locking.execute("LOCK TABLE durable_notify.capture IN ACCESS EXCLUSIVE MODE")
        notify(conn, "c", "b")
        eventually(lambda: value(conn, waits, "durable_notify.capture"))
        for text in "axyz":
            last = running.capture._beat_at
            notify(conn, "c", text)
            eventually(lambda last=last: running.capture._beat_at > last)  # type: ignore[misc]
        durably(conn, "c", "a")  # accounts for one of the two
        locking.rollback()
        running.stop()
        assert (running.capture.passed_over, running.capture.published) == (1, 5)
    assert sorted(messages(conn, "c")) == ["a", "a", "b", "x", "y", "z"]


@pytest.mark.usefixtures("marks_often")
@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_notify_and_pg_notify(seed: int, dsn: str, conn: Connection) -> None:
    """Senders mix both at random, long transactions stay open meanwhile: the numbers are right."""
    rng = random.Random(seed)
    wanted: dict[str, int] = {}
    mutex = threading.Lock()

    def send(number: int) -> None:
        own = random.Random(f"{seed} {number}")
        with psycopg.connect(dsn) as connection:
            for _ in range(60):
                raw: set[str] = set()
                durable: list[str] = []
                for _ in range(own.randint(1, 4)):
                    text = own.choice("abc")
                    if own.random() < 0.5 and text not in durable:
                        notify(connection, "c", text)
                        raw.add(text)
                    elif text not in raw:
                        durably(connection, "c", text)
                        durable.append(text)
                if own.random() < 0.2:
                    connection.rollback()
                    continue
                connection.commit()
                with mutex:
                    for text in [*raw, *durable]:
                        wanted[text] = wanted.get(text, 0) + 1

    with (
        psycopg.connect(dsn) as old,
        # A server that a busy machine makes late must not seem dead: what it sends then is a gap.
        capturing(rng.choice(["sync", "async"]), dsn, "c", "c", heartbeat_interval=30.0) as running,
    ):
        durably(old, "c", "late")
        running.listens()
        threads = [threading.Thread(target=send, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        old.commit()
        notify(conn, "c", "late")
        running.stop()
        assert running.capture.published
        assert running.capture.passed_over
    got = messages(conn, "c")
    assert {text: got.count(text) for text in set(got)} == {**wanted, "late": 2}


# What cannot be published is kept.


def test_it_is_kept_while_it_cannot_be_published(api: str, dsn: str, conn: Connection) -> None:
    with capturing(api, dsn, "c", "t", max_waiting=100) as running:
        running.listens()
        with psycopg.connect(dsn) as locking:
            locking.execute("LOCK TABLE durable_notify.outbox IN ACCESS EXCLUSIVE MODE")
            notify(conn, "c", *map(str, range(100)))
            eventually(lambda: not listening_sessions(conn))  # enough is kept
            full = now(conn)
            notify(conn, "c", "lost")
        running.listens(2)
        notify(conn, "c", "after")
        arrive(conn, "t", [*map(str, range(100)), "after"])
        running.stop()
    ((since, until, why),) = gaps(conn)
    assert since < full < until
    assert why == "100 notifications waited to be published"


def test_what_is_kept_is_counted_if_it_has_to_end(api: str, dsn: str, conn: Connection) -> None:
    with capturing(api, dsn, "c", "t", grace=0.1, heartbeat_interval=0.5) as running:
        running.listens()
        with psycopg.connect(dsn) as locking:
            locking.execute("LOCK TABLE durable_notify.outbox IN ACCESS EXCLUSIVE MODE")
            notify(conn, "c", "a", "b")
            eventually(lambda: running.capture._buffer.waiting == 2)
            with pytest.raises(CaptureIncomplete, match="2 notifications of channel c"):
                running.stop()


def test_a_batch_whose_commit_was_in_doubt_is_published_once(dsn: str, conn: Connection) -> None:
    waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    query = "SELECT durable_notify.capture('t', 'c', 'w', %s, %s, %s)"

    def capture(connection: Connection, batch: int) -> Any:
        return value(connection, query, batch, [f"in {batch}"], [1])

    def capture_again(batch: int, got: list[bool]) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            got.append(capture(connection, batch))

    assert capture(conn, 1)
    assert not capture(conn, 1)
    for batch, committed in ((2, True), (3, False)):
        with psycopg.connect(dsn) as lost:
            capture(lost, batch)  # its connection is lost, and its commit still under way
            got: list[bool] = []
            again = threading.Thread(target=capture_again, args=[batch, got])
            again.start()
            eventually(lambda: value(conn, waits))
            lost.commit() if committed else lost.rollback()
            again.join()
            assert got == [not committed]
    conn.execute("DELETE FROM durable_notify.capture")  # forgotten after a day
    assert capture(conn, 4)
    assert messages(conn, "t") == ["in 1", "in 2", "in 3", "in 4"]


def test_with_the_right_to_publish_and_no_other(dsn: str, conn: Connection) -> None:
    kinds = {"may": [("publish", ["t", "c"], None)], "not": [("publish", ["other"], None)]}
    with roles(dsn, kinds) as made:
        with capturing("sync", made.login("may"), "c", "c") as running:
            running.listens()
            notify(conn, "c", "a")
            durably(conn, "c", "b")
            end_listening(conn)
            running.listens(2)
            notify(conn, "c", "d")
            running.stop()
        assert sorted(messages(conn, "c")) == ["a", "b", "d"]
        done = run("bridge", "capture", "c", "--topic", "t", dsn=made.login("not"))
        fails(done, 1, "may not publish", "durable-notify grant")
        assert len(gaps(conn)) == 1


def test_the_command(dsn: str, conn: Connection) -> None:
    process = start("bridge", "capture", "c", "--topic", "t", "--json", dsn=dsn)
    assert process.stderr is not None
    said = []
    while not (line := process.stderr.readline().decode()).startswith("listening"):
        assert line, said
        said.append(line)
    text = "".join(said)
    for word in ("no capture listens", "crashes", "transaction", "durable once it is heard"):
        assert word in text
    notify(conn, "c", *(str(n) for n in range(300)))
    process.send_signal(signal.SIGTERM)
    printed, errors = end(process)
    assert process.returncode == 0, errors
    assert printed == []
    assert messages(conn, "t") == list(range(300))
    process = start("bridge", "capture", "c", "--topic", "t", dsn=dsn)
    eventually(lambda: bool(gaps(conn)))
    process.send_signal(signal.SIGINT)
    _, errors = end(process)
    assert process.returncode == 0
    assert "warning: gap: notifications of channel c from 2" in errors
    assert "capture gap" in good("audit", dsn=dsn)
