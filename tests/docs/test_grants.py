"""The grants of docs/migrations.md are enough, and not more than the page says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from tests.docs.pages import CHECKOUT, blocks

ROLES = ("publisher", "consumer", "observer")


@pytest.fixture
def as_role(dsn: str) -> Iterator[dict[str, str]]:
    """A DSN for each role of the page; it has the rights that the page gives it, and no others."""
    page = CHECKOUT / "docs" / "migrations.md"
    grants = [block.text for block in blocks(page) if block.text.startswith("GRANT")]
    assert len(grants) == len(ROLES)
    names = {role: f"dn_{role}_{uuid.uuid4().hex[:12]}" for role in ROLES}
    with psycopg.connect(dsn, autocommit=True) as connection:
        try:
            for role, grant in zip(ROLES, grants, strict=True):
                connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(names[role])))
                connection.execute(grant.replace(f"TO {role};", f"TO {names[role]};").encode())
            yield {
                role: make_conninfo(dsn, options=f"-c role={name}") for role, name in names.items()
            }
        finally:
            for name in names.values():
                query = sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name))
                connection.execute(query)


def test_publisher(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"]) as connection:
        publisher = dn.Publisher()
        publisher.publish(connection, "t", {"a": 1}, key="k", headers={"h": 1})
        publisher.publish_many(connection, "t", [1, b"2", dn.Outgoing(3, "k")])
        connection.execute("INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')")
    with psycopg.connect(as_role["publisher"], autocommit=True) as connection:
        for refused in (
            "INSERT INTO durable_notify.outbox (topic, payload, xid) VALUES ('t', '1', '3')",
            "SELECT payload FROM durable_notify.outbox",
            "DELETE FROM durable_notify.outbox",
            "SELECT durable_notify.subscribe('g', '{t}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused.encode())


def test_consumer(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"]) as connection:
        dn.Publisher().publish_many(connection, "t", range(6))
    consumer = dn.Consumer(
        as_role["consumer"], group="g", topics=["t"], until_empty=True, max_attempts=2, poll=None
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
        assert dn.Admin().replay(connection, "g", "t", after=0) == 6
        (status,) = dn.Admin().status(connection)
        assert (status.waiting, status.dead) == (6, 2)
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with refused, psycopg.connect(as_role["consumer"]) as connection:
        dn.Publisher().publish(connection, "t", 1)


def test_observer(as_role: dict[str, str]) -> None:
    with psycopg.connect(as_role["publisher"]) as connection:
        dn.Publisher().publish(connection, "t", 1)
    with psycopg.connect(as_role["observer"]) as connection:
        assert [line.topic for line in dn.Admin().status(connection)] == ["t"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT durable_notify.subscribe('g', '{t}')")
