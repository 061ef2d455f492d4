"""The grants of docs/roles.md are enough, and not more than the page says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from tests.docs.pages import blocks
from tests.support.cli import good
from tests.support.postgres import CHECKOUT
from tests.support.roles import roles


@pytest.fixture
def as_role(dsn: str) -> Iterator[dict[str, str]]:
    """A DSN for each role of the page; it has the rights that the page gives it, and no others."""
    page = CHECKOUT / "docs" / "roles.md"
    (block,) = (b.text for b in blocks(page) if b.text.startswith("$ durable-notify grant"))
    lines = block.splitlines()
    with roles(dsn, {}) as made:
        for command, says in zip(lines[::2], lines[1::2], strict=True):
            _, _, verb, role, *rights = shlex.split(command)
            name = made.make(role)
            assert good(verb, name, *rights, dsn=dsn) == says.replace(role, name, 1) + "\n"
        yield {role: make_conninfo(made.set_role(role)) for role in made.names}


def test_publisher(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"], autocommit=True) as connection:
        publisher = dn.Publisher()
        publisher.publish(connection, "orders.eu", {"a": 1}, key="k", headers={"h": 1})
        publisher.publish(connection, "orders.eu", 1, delay=1, ttl=60, dedup_key="d")
        publisher.publish_many(connection, "orders.eu", [1, b"2", dn.NewMessage(3, "k", ttl=5)])
        for refused in (
            "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('orders.eu', '1')",
            "SELECT payload FROM durable_notify.outbox",
            "SELECT durable_notify.subscribe('g', '{orders.eu}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not publish"):
            publisher.publish(connection, "payments", 1)


def test_importer(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["importer"], autocommit=True) as connection:
        insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1') RETURNING id"
        assert connection.execute(insert.encode()).fetchall() == [(1,)]
        for refused in (
            "INSERT INTO durable_notify.outbox (topic, payload, xid) VALUES ('t', '1', '3')",
            "SELECT payload FROM durable_notify.outbox",
            "DELETE FROM durable_notify.outbox",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused.encode())


def test_reader(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"]) as connection:
        dn.Publisher().publish_many(connection, "orders.eu", range(3))
    for start in ("beginning", "latest"):
        with dn.Reader(
            as_role["reader"], topics=["orders.*"], start=start, until_empty=True
        ) as reader:
            assert [m.payload for m in reader] == ([0, 1, 2] if start == "beginning" else [])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        with dn.Reader(as_role["reader"], topics=["payments"], until_empty=True) as reader:
            next(reader)


def test_consumer(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"]) as connection:
        dn.Publisher().publish_many(connection, "orders.eu", range(6))
    consumer = dn.Consumer(
        as_role["consumer"],
        group=dn.Group("billing", retry=dn.RetryPolicy(max_attempts=2)),
        topics=["orders.*"],
        until_empty=True,
        poll_interval=None,
    )
    seen = []

    def handle(message: dn.Message) -> None:
        seen.append((message.payload, message.attempt))
        if (message.payload, message.attempt) == (1, 1) or message.payload == 2:
            message.retry(0)
        elif message.payload == 3:
            message.reject()
        elif message.payload == 4:
            message.extend(60)
        elif message.payload == 5:
            with psycopg.connect(as_role["consumer"]) as connection:
                message.ack(connection)

    consumer.run(handle)
    assert sorted(seen) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1), (5, 1)]
    with psycopg.connect(as_role["consumer"]) as connection:
        assert dn.Admin().replay(connection, "billing", "orders.eu", after=0) == 6
        (status,) = dn.Admin().status(connection)
        assert (status.unread, status.dead) == (6, 2)
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with refused, psycopg.connect(as_role["consumer"]) as connection:
        dn.Publisher().publish(connection, "orders.eu", 1)


def test_observer(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"]) as connection:
        dn.Publisher().publish(connection, "orders.eu", 1)
    with psycopg.connect(as_role["observer"], autocommit=True) as connection:
        admin = dn.Admin()
        assert [line.topic for line in admin.status(connection)] == ["orders.eu"]
        assert admin.groups(connection) == admin.audit(connection) == []
        assert admin.dead_letters(connection) == admin.replay_jobs(connection) == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT durable_notify.subscribe('g', '{t}')")
