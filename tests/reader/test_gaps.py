"""What a reader with a token has missed: exactly what retention removed after its place."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify._core.position import Position, decode, encode
from durable_notify.embedded import Server
from durable_notify.errors import InvalidArgument
from tests.support.injection import plant
from tests.support.sessions import Sessions

Connection = psycopg.Connection[Any]


def put(connection: Connection, topic: str = "t") -> int:
    return dn.Publisher().publish(connection, topic, {})


def remove(conn: Connection, topic: str = "t") -> None:
    """Remove what every group has settled; there is none."""
    conn.execute(
        "SELECT durable_notify.set_retention(%s, max_age => '1 microsecond', on_lag => 'lose')",
        [topic],
    )
    for _ in range(2):
        conn.execute("SELECT pg_current_xact_id(), durable_notify._advance_watermark()")
    while conn.execute("SELECT durable_notify._delete_expired(%s)", [topic]).fetchone() != (0,):
        pass
    conn.execute("SELECT durable_notify.delete_retention(%s)", [topic])


def token_of(dsn: str, start: str = "beginning", topics: tuple[str, ...] = ("t",)) -> str:
    """Read what there is; returns the place after it."""
    with dn.Reader(dsn, topics=topics, start=start, until_empty=True) as reader:
        for _ in reader:
            pass
        return reader.token


def gaps(dsn: str, token: str, topics: tuple[str, ...] = ("t",)) -> dict[str, int]:
    with dn.Reader(dsn, topics=topics, start=token, until_empty=True) as reader:
        return dict(reader.gaps)


def test_what_was_read_is_no_gap(dsn: str, conn: Connection) -> None:
    put(conn)
    last = put(conn)
    token = token_of(dsn)
    remove(conn)
    assert gaps(dsn, token) == {}  # its place is gone, and nothing after it
    put(conn)
    assert gaps(dsn, token) == {}
    remove(conn)
    assert gaps(dsn, token) == {"t": last}


def test_of_each_topic(dsn: str, conn: Connection) -> None:
    put(conn, "a")
    first = put(conn, "b")
    token = token_of(dsn, topics=("a", "b"))
    put(conn, "b")
    remove(conn, "a")
    remove(conn, "b")
    assert gaps(dsn, token, ("a", "b")) == {"b": first}


def test_a_topic_that_was_empty(dsn: str, conn: Connection) -> None:
    token = token_of(dsn, "now")
    put(conn)
    assert gaps(dsn, token) == {}
    remove(conn)
    assert gaps(dsn, token) == {"t": 0}
    assert gaps(dsn, "beginning") == {}


def test_a_late_one_that_was_never_read(dsn: str, conn: Connection) -> None:
    """Its id is below the place of the token: only its transaction tells."""
    with psycopg.connect(dsn) as late:
        put(late)
        last = put(conn)
        token = token_of(dsn)
        late.commit()
    remove(conn)
    assert gaps(dsn, token) == {"t": last}


def test_ids_alone_are_caught(dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the highest id that was removed decides."""
    monkeypatch.setattr(
        "durable_notify._sync.reader.misses", lambda position, removed, _: removed > position.h0
    )
    with psycopg.connect(dsn) as late:
        put(late)
        put(conn)
        token = token_of(dsn)
        late.commit()
    remove(conn)
    assert gaps(dsn, token) == {}


def test_what_was_deleted_by_hand(dsn: str, conn: Connection) -> None:
    last = put(conn)
    token = token_of(dsn)
    conn.execute("DELETE FROM durable_notify.outbox")
    assert gaps(dsn, token) == {"t": last}


def test_compaction_is_no_gap(dsn: str, conn: Connection) -> None:
    for _ in range(3):
        dn.Publisher().publish(conn, "t", {}, key="k")
    token = token_of(dsn)
    dn.Publisher().publish(conn, "t", {}, key="k")
    dn.Admin().set_retention(conn, "t", compact=True)
    dn.Maintenance(dsn).run_once()
    with dn.Reader(dsn, topics=["t"], start=token, until_empty=True) as reader:
        assert len(list(reader)) == 1


def test_a_token_ahead_of_the_server(dsn: str, conn: Connection) -> None:
    """A fail-over has lost what it was given for."""
    put(conn)
    token = token_of(dsn)
    log, positions = decode(token)
    place = positions["t"]
    ahead = Position("9000:9000000:", place.h0, None, None, 0)
    for lost in (ahead, Position(place.s0, place.h0, ahead.s0, place.h0, 0)):
        with pytest.raises(InvalidArgument, match="ahead of this server"):
            gaps(dsn, encode(log, {"t": lost}))
    assert gaps(dsn, token) == {}


def token_before_a_crash(server: Server) -> tuple[int, str]:
    """Publish, draw transaction ids that nothing writes, and read; returns what was there."""
    # From its start on, the writer of the log waits for so long.
    server.restart(settings={"wal_writer_delay": "10s", "autovacuum": "off"})
    with Sessions(server.dsn()) as them:
        (one,) = them.take(1)
        message_id = one.publish()
        for _ in range(5):
            one.run("SELECT pg_current_xact_id()")
        token = token_of(server.dsn())
    server.stop("immediate")
    server.start()
    return message_id, token


def test_a_token_outlasts_a_crash(private_server: Server) -> None:
    """It does not depend on transactions that the server forgets, because they wrote nothing."""
    dsn = private_server.dsn()
    schema.migrate(dsn)
    first, token = token_before_a_crash(private_server)
    assert gaps(dsn, token) == {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        second = put(connection)
    with dn.Reader(dsn, topics=["t"], start=token, until_empty=True) as reader:
        assert [message.id for message in reader] == [second]
    assert second > first


def test_a_token_with_what_a_crash_forgets_is_noticed(private_server: Server) -> None:
    """Planted: it is refused. On a busy machine the log may be written before the crash."""
    dsn = private_server.dsn()
    schema.migrate(dsn)
    with Sessions(dsn) as them:
        plant(them.take(1)[0], "read", ("_durable_snapshot(topic)", "_committed_snapshot()"))
    for _ in range(5):
        _, token = token_before_a_crash(private_server)
        try:
            gaps(dsn, token)
        except InvalidArgument:
            return
    pytest.fail("unnoticed")


def test_a_token_is_of_its_topic_alone(dsn: str, conn: Connection) -> None:
    """What others write is not in it; nothing is read twice, whatever was removed meanwhile."""
    put(conn)
    before = decode(token_of(dsn))[1]["t"]
    for _ in range(3):
        put(conn, "another")
    assert decode(token_of(dsn))[1]["t"] == before
    with psycopg.connect(dsn) as open_one, dn.Reader(dsn, topics=["t"]) as reader:
        next(reader)
        late = put(open_one)
        removed = put(conn)
        assert next(reader).id == removed
        conn.execute("DELETE FROM durable_notify.outbox WHERE id = %s", [removed])
        following = put(conn)
        assert next(reader).id == following
        open_one.commit()
        assert next(reader).id == late
        last = put(conn)
        assert next(reader).id == last
