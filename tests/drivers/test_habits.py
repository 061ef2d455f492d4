"""What programs do to their drivers changes nothing of what is published and read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import asyncpg
import django.db
import psycopg
import psycopg2.extensions
import psycopg2.extras
import pytest
from django.conf import settings
from django.db import models, transaction
from django.test.utils import CaptureQueriesContext

import durable_notify as dn
from tests.drivers.kits import of_asyncpg, of_django, where
from tests.drivers.test_publishing import KILL, payloads

Connection = psycopg.Connection[Any]
publisher, admin = dn.Publisher(), dn.Admin()
HEADERS = {"h": [1]}
MANY = [dn.NewMessage({"n": 1}, key="NULL", headers=HEADERS), dn.NewMessage([None]), b"\xff"]
KEPT = [({"n": 1}, "NULL", HEADERS, None), ([None], None, None, None), (None, None, None, b"\xff")]


def rows(conn: Connection, topic: str) -> list[Any]:
    query = (
        "SELECT payload, key, headers, data FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
    )
    return conn.execute(query, [topic]).fetchall()


# psycopg2


@pytest.fixture
def lists_as_json() -> Iterator[None]:
    """As a program does that stores lists and dictionaries in columns of JSON."""
    psycopg2.extensions.register_adapter(list, psycopg2.extras.Json)
    psycopg2.extensions.register_adapter(dict, psycopg2.extras.Json)
    yield
    from psycopg2._psycopg import List

    psycopg2.extensions.register_adapter(list, List)
    del psycopg2.extensions.adapters[(dict, psycopg2.extensions.ISQLQuote)]


@pytest.mark.parametrize(
    "factory", ["RealDictCursor", "NamedTupleCursor", "DictCursor", "LoggingCursor"]
)
def test_psycopg2(
    dsn: str, conn: Connection, topic: str, lists_as_json: None, factory: str
) -> None:
    kind = getattr(psycopg2.extras, factory)
    connection = psycopg2.connect(dsn, cursor_factory=kind)
    with connection:
        one = publisher.publish(connection, topic, {"n": 1}, key="NULL", headers=HEADERS)
        many = publisher.publish_many(connection, topic, MANY[1:])
        assert sorted([one, *many]) == [one, *many]
        conn.execute("SELECT durable_notify.subscribe('habits', '{t}')")
        groups = [group for group in admin.groups(connection) if group.name == "habits"]
        assert groups[0].topics == ["t"]
        assert groups[0].created_at.tzinfo is not None
    connection.close()
    assert rows(conn, topic) == KEPT


def test_a_block_of_psycopg2_in_autocommit_mode(dsn: str, conn: Connection, topic: str) -> None:
    """It is a transaction, which no call of ours commits."""
    conn.execute("SELECT durable_notify.subscribe('blocks', '{t}')")
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with contextlib.suppress(ZeroDivisionError), connection:
        admin.pause(connection, "blocks")
        publisher.publish(connection, topic, 1)
        raise ZeroDivisionError
    connection.close()
    (group,) = [one for one in admin.groups(conn) if one.name == "blocks"]
    assert group.paused_at is None
    assert payloads(conn, topic) == []


# asyncpg


class Odd(asyncpg.Record):  # type: ignore[misc, unused-ignore]
    def __iter__(self) -> Any:
        return iter(self.keys())


@pytest.mark.parametrize(
    "options", [{}, {"statement_cache_size": 0}, {"record_class": Odd}], ids=repr
)
async def test_asyncpg(dsn: str, conn: Connection, topic: str, options: Any) -> None:
    connection = await asyncpg.connect(**where(dsn), **options)
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
    apublisher, aadmin = dn.AsyncPublisher(), dn.AsyncAdmin()
    async with of_asyncpg(connection).transaction():
        one = await apublisher.publish(connection, topic, {"n": 1}, key="NULL", headers=HEADERS)
        many = await apublisher.publish_many(connection, topic, MANY[1:])
        assert sorted([one, *many]) == [one, *many]
        conn.execute("SELECT durable_notify.subscribe('habits', '{t}')")
        await aadmin.configure(connection, "habits", retry=dn.RetryPolicy(max_attempts=3))
        entries = await aadmin.audit(connection, "habits", limit=1)
        assert isinstance(entries[0].details, dict)
    await connection.close()
    assert rows(conn, topic) == KEPT


# Django


@pytest.fixture
def connection(dsn: str) -> Iterator[Any]:
    with of_django(dsn):
        yield django.db.connection


def test_django_logs_our_statements(connection: Any, conn: Connection, topic: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        publisher.publish(connection, topic, "50%")
        publisher.publish_many(connection, topic, [1, 2])
    assert [query["sql"].partition("(")[0] for query in queries] == [
        "SELECT durable_notify.publish",
        "SELECT durable_notify.publish_many",
    ]
    assert topic in queries[0]["sql"]
    assert payloads(conn, topic) == ["50%", 1, 2]


def test_djangos_wrappers_see_our_statements(connection: Any, conn: Connection, topic: str) -> None:
    seen: list[str] = []

    def blocker(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        if len(seen) == 2:
            raise PermissionError("no queries here")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(blocker):
        publisher.publish(connection, topic, 1)
        with pytest.raises(PermissionError):
            publisher.publish(connection, topic, 2)
    assert len(seen) == 2
    assert payloads(conn, topic) == [1]


def test_django_refuses_a_broken_transaction(connection: Any, conn: Connection, topic: str) -> None:
    with transaction.atomic():
        publisher.publish(connection, topic, 1)
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            publisher.publish(connection, topic, 2)
    assert payloads(conn, topic) == []


def test_errors_of_a_connection_that_has_died_are_djangos(
    connection: Any, conn: Connection, topic: str
) -> None:
    with pytest.raises(django.db.Error), transaction.atomic():
        publisher.publish(connection, topic, 1)
        conn.execute(KILL)
        for _ in range(2):
            with pytest.raises(django.db.Error):
                publisher.publish(connection, topic, 2)
        raise django.db.Error
    assert payloads(conn, topic) == []


def test_beside_djangos_models(connection: Any, conn: Connection, topic: str) -> None:
    class Order(models.Model):  # noqa: DJ008
        item = models.TextField()

        class Meta:
            app_label = topic

    with connection.schema_editor() as editor:
        editor.create_model(Order)
    for undo in (True, False):
        with transaction.atomic():
            order = Order.objects.create(item="tea")
            with transaction.atomic():
                publisher.publish(connection, topic, {"order": order.pk})
            transaction.on_commit(lambda: publisher.publish(connection, f"{topic}.hook", 1))
            if undo:
                transaction.set_rollback(True)
    assert payloads(conn, topic) == [{"order": order.pk}]
    assert payloads(conn, f"{topic}.hook") == [1]
    assert Order.objects.count() == 1


def test_django_with_another_alias(connection: Any, conn: Connection, topic: str) -> None:
    connections = django.db.connections
    connections.databases["other"] = {**connections.databases["default"]}
    try:
        with transaction.atomic(using="other"):
            publisher.publish(connections["other"], topic, 1)
            assert payloads(conn, topic) == []
        assert payloads(conn, topic) == [1]
    finally:
        connections["other"].close()
        del connections["other"]
        del connections.databases["other"]


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("server_side", [True, False])
def test_times_of_django_have_a_zone(
    dsn: str, conn: Connection, topic: str, use_tz: bool, server_side: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(settings, "USE_TZ", use_tz)
    monkeypatch.setattr(settings, "TIME_ZONE", "Asia/Kathmandu")
    conn.execute("SELECT durable_notify.subscribe('habits', '{t}')")
    with of_django(dsn) as connection:
        connection.settings_dict["OPTIONS"] = {"server_side_binding": server_side}
        try:
            with transaction.atomic():
                publisher.publish_many(connection, topic, MANY)
                publisher.publish(connection, topic, 1, deliver_at=datetime.now().astimezone())
            (group,) = [one for one in admin.groups(connection) if one.name == "habits"]
        finally:
            connection.settings_dict["OPTIONS"] = {}
    (other,) = [one for one in admin.groups(conn) if one.name == "habits"]
    assert group == other
    assert rows(conn, topic)[:3] == KEPT
