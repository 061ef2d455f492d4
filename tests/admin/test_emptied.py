"""The schema emptied between tests: by empty_all(), and by TRUNCATE, whose error names empty_all()."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify.errors import SchemaError
from tests.support.roles import roles
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]

publisher = dn.Publisher()
#: Settings made by hand, which stay.
KEPT = {
    "schema_version", "access", "topic_retention", "record_age", "topic_notify_policy", "topic_mirror", "partition_settings",
    "capture", "cluster_identity",
}  # fmt: skip
GROUPS = {"consumer_group", "ordering", "group_pattern", "subscription", "position", "webhook"}


def consumed(dsn: str, group: str = "g", **options: Any) -> list[Any]:
    got: list[Any] = []
    consumer = dn.Consumer(dsn, group=group, topics=["t"], until_empty=True, **options)
    consumer.run(lambda message: got.append(message.payload))
    return got


def tables(conn: Connection) -> list[str]:
    query = """
        SELECT c.relname FROM pg_class c
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind IN ('r', 'p')
           AND NOT c.relispartition ORDER BY 1"""
    return [name for (name,) in conn.execute(query)]


def filled(conn: Connection) -> set[str]:
    """Return the tables that have rows."""
    query = "SELECT EXISTS (SELECT FROM durable_notify.{})"
    return {
        name
        for name in tables(conn)
        if conn.execute(query.format(name).encode()).fetchone() == (True,)
    }


def truncate(conn: Connection, how: str = "", leave: frozenset[str] = frozenset()) -> None:
    names = [f"durable_notify.{name}" for name in tables(conn) if name not in leave]
    conn.execute(f"TRUNCATE {', '.join(names)} {how}".encode())


def fill(dsn: str, conn: Connection) -> None:
    """Write rows of every kind."""
    conn.execute("SELECT durable_notify.set_notify_policy('t', 'always')")
    conn.execute("SELECT durable_notify.set_mirror('t', 'heard')")
    dn.Admin().set_retention(conn, "t", max_age=3600)
    publisher.publish_many(conn, "t", [1, 2, 3])
    publisher.publish(conn, "t", 4, dedup_key="once")
    conn.execute("SELECT durable_notify.subscribe('g', '{t,p.*}')")
    conn.execute("SELECT durable_notify.create_webhook('g', '{t}', 'https://x')")
    dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(max_attempts=7), rate_limit=1000)
    consumer = dn.Consumer(dsn, group="g", topics=["t"])
    with consumer:
        message = next(consumer)
        assert message.once(conn)
        message.reject()
        next(consumer).retry(3600)
        dn.Admin().pause(conn, "g")
        dn.Admin().resume(conn, "g")
    dn.Admin().seek(conn, "g", "t", after=0)
    dn.Admin().start_replay(conn, "g", "t", after=0)
    dn.Maintenance(dsn).run_once()


def test_all_of_it_goes_but_what_was_set_up(dsn: str, conn: Connection) -> None:
    with roles(dsn) as made:
        fill(dsn, conn)
        before = filled(conn)
        assert {
            "outbox",
            "dead_letter",
            "processed_message",
            "dedup",
            "audit",
            "replay_job",
            "maintenance",
        } <= before
        last = conn.execute("SELECT max(id) FROM durable_notify.outbox").fetchone()
        schema.empty_all(dsn)
        assert filled(conn) <= KEPT
        assert filled(conn) >= before & KEPT
        assert conn.execute(
            "SELECT durable_notify.notify_policy('t'), durable_notify.mirror_of('t')"
        ).fetchone() == ("always", "heard")
        with psycopg.connect(made.login("consumer")) as role:
            role.execute("SELECT durable_notify.subscribe('g', '{orders.new}')")
    assert last is not None
    assert publisher.publish(conn, "t", "new") > last[0]
    assert consumed(dsn) == ["new"]
    schema.empty_all(dsn)
    assert consumed(dsn) == []
    with psycopg.connect(dsn) as connection:
        schema.check(connection)


def test_groups_start_from_the_beginning(dsn: str, conn: Connection) -> None:
    fill(dsn, conn)
    before = conn.execute("SELECT * FROM durable_notify.groups()").fetchall()
    schema.empty_all(dsn, keep_groups=True)
    assert filled(conn) <= KEPT | GROUPS
    assert conn.execute("SELECT * FROM durable_notify.groups()").fetchall() == before
    publisher.publish(conn, "t", "new")
    assert consumed(dsn) == ["new"]


@contextmanager
def running(dsn: str, seen: list[Any], ended: list[BaseException]) -> Iterator[None]:
    """A consumer that runs all the while."""
    consumer = dn.Consumer(dsn, group="g", topics=["t"], poll_interval=None)

    def run() -> None:
        try:
            consumer.run(lambda message: seen.append(message.payload), concurrency=2)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_running_consumers_continue_if_groups_stay(dsn: str, conn: Connection) -> None:
    """Also while they claim and settle: neither waits for the other for ever."""
    seen: list[Any] = []
    ended: list[BaseException] = []
    with running(dsn, seen, ended):
        for number in range(20):
            publisher.publish_many(conn, "t", range(50))
            schema.empty_all(dsn, keep_groups=True)
            publisher.publish(conn, "t", f"last {number}")
            eventually(lambda number=number: f"last {number}" in seen)
    assert ended == []


def test_consumers_that_run_end_with_their_group(dsn: str, conn: Connection) -> None:
    seen: list[Any] = []
    ended: list[BaseException] = []
    with running(dsn, seen, ended):
        publisher.publish(conn, "t", 1)
        eventually(lambda: seen == [1])
        schema.empty_all(dsn)
        publisher.publish(conn, "t", 2)
        eventually(lambda: ended)
    assert isinstance(ended[0], dn.errors.UnknownGroup)


def test_it_is_part_of_a_transaction(dsn: str, conn: Connection) -> None:
    publisher.publish(conn, "t", 1)
    with psycopg.connect(dsn) as connection:
        publisher.publish(connection, "t", 2)
        schema.empty_all(connection)
        publisher.publish(connection, "t", 3)
        schema.empty_all(connection, keep_groups=True)
        publisher.publish(connection, "t", 4)
        connection.rollback()
        schema.empty_all(connection)
        connection.rollback()
    assert consumed(dsn) == [1]
    with psycopg.connect(dsn) as connection:
        schema.empty_all(connection)
        publisher.publish(connection, "t", 5)
    assert consumed(dsn) == [5]


def test_for_the_owner_only(dsn: str, conn: Connection) -> None:
    publisher.publish(conn, "t", 1)
    with roles(dsn) as made:
        for kind in made.names:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                schema.empty_all(made.login(kind))
    assert consumed(dsn) == [1]


def test_it_waits_only_briefly_for_a_lock(dsn: str, conn: Connection) -> None:
    with psycopg.connect(dsn) as connection:
        publisher.publish(connection, "t", 1)
        with pytest.raises(
            psycopg.errors.LockNotAvailable, match="a connection of the test itself"
        ):
            schema.empty_all(dsn)
        connection.commit()
    assert consumed(dsn) == [1]


@pytest.mark.parametrize("how", ["", "RESTART IDENTITY CASCADE"])
def test_after_a_truncate_of_all_tables(dsn: str, conn: Connection, how: str) -> None:
    fill(dsn, conn)
    # As maintenance leaves it when partitions are full.
    conn.execute(
        "INSERT INTO durable_notify.partition_settings (closed_below) VALUES (1000000) ON CONFLICT (only_one) DO UPDATE SET closed_below = 1000000"
    )
    conn.execute("SELECT durable_notify._set_closed_below(1000000, '3')")
    truncate(conn, how, frozenset({"schema_version"}))
    publisher.publish(conn, "t", 1)
    for call in (lambda: consumed(dsn), lambda: next(dn.Reader(dsn, topics=["t"]).__enter__())):
        with pytest.raises(dn.errors.ForeignCluster) as error:
            call()
        for words in (
            "cluster_identity is empty",
            "TRUNCATE of all tables",
            "SELECT durable_notify.empty_all()",
        ):
            assert words in str(error.value)
        assert "another cluster" not in str(error.value)
    schema.empty_all(dsn)
    publisher.publish(conn, "t", 2)
    assert consumed(dsn) == [2]


def test_closed_partitions_take_rows_again(dsn: str, conn: Connection) -> None:
    fill(dsn, conn)
    query = "SELECT tableoid::regclass FROM durable_notify.outbox LIMIT 1"
    row = conn.execute(query).fetchone()
    assert row is not None
    conn.execute("SELECT durable_notify._close_partition(%s::regclass)", row)
    conn.execute("TRUNCATE durable_notify.outbox RESTART IDENTITY")
    publisher.publish(conn, "t", 1)
    assert consumed(dsn) == [1]


def test_after_a_truncate_messages_can_be_kept(dsn: str, conn: Connection) -> None:
    """The other remedy that is named."""
    publisher.publish_many(conn, "t", [1, 2])
    assert consumed(dsn) == [1, 2]
    publisher.publish(conn, "t", 3)
    conn.execute("TRUNCATE durable_notify.cluster_identity")
    dn.Admin().reanchor(conn)
    assert consumed(dsn) == [3]


def test_after_a_truncate_of_the_version_as_well(dsn: str, conn: Connection) -> None:
    truncate(conn)
    for call in (lambda: consumed(dsn), lambda: schema.migrate(dsn)):
        with pytest.raises(
            SchemaError, match="schema_version is empty, as after a TRUNCATE"
        ) as error:
            call()
        assert not isinstance(error.value, dn.errors.SchemaMissing)
    remedy = str(error.value).split("`")[1]
    conn.execute(remedy.encode())
    schema.migrate(dsn)
    publisher.publish(conn, "t", 1)
    assert consumed(dsn) == [1]


@pytest.mark.parametrize(
    "statement",
    ["TRUNCATE durable_notify.outbox RESTART IDENTITY", "DELETE FROM durable_notify.outbox"],
)
def test_the_outbox_alone_may_be_emptied(dsn: str, conn: Connection, statement: str) -> None:
    for number in range(3):
        publisher.publish(conn, "t", number)
        assert consumed(dsn) == [number]
        conn.execute(statement.encode())


def test_ids_that_are_drawn_again_are_read(dsn: str, conn: Connection) -> None:
    """Below what is closed, archived and compacted, as maintenance leaves it when partitions are full."""
    conn.execute("SELECT setval('durable_notify.outbox_id_seq', 1000001)")
    conn.execute("INSERT INTO durable_notify.partition_settings (closed_below) VALUES (1000000)")
    conn.execute("SELECT durable_notify._set_closed_below(1000000, '3')")
    conn.execute(
        "INSERT INTO durable_notify.maintenance_progress VALUES ('t', 1000000, NULL, 1000000, 1000000)"
    )
    publisher.publish(conn, "t", 0)
    assert consumed(dsn) == [0]
    conn.execute("TRUNCATE durable_notify.outbox RESTART IDENTITY")
    publisher.publish(conn, "t", 1)
    assert consumed(dsn) == [1]
    publisher.publish(conn, "t", 2)
    assert consumed(dsn) == [2]
    assert consumed(dsn, "new") == [1, 2]
    row = conn.execute(
        "SELECT max(archived_below), max(compacted_below) FROM durable_notify.maintenance_progress"
    )
    assert row.fetchone() == (1, 1)
