"""A URL of SQLAlchemy's is a DSN, wherever one is given."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify.diagnostics.doctor import diagnose
from tests.schema.test_alembic_drivers import url
from tests.support.cli import good


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_url_of_sqlalchemys(driver: str, empty_dsn: str) -> None:
    given = url(driver, empty_dsn)
    schema.migrate(given)
    assert schema.snapshot(given) == schema.snapshot(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        dn.Publisher().publish(connection, "t", 1)
    got: list[Any] = []
    consumer = dn.Consumer(given, group="g", topics=["t"], listen_dsn=given, until_empty=True)
    consumer.run(lambda message: got.append(message.payload))
    assert got == [1]
    with dn.Reader(given, topics=["t"], listen_dsn=given) as reader:
        assert next(reader).payload == 1
    dn.Maintenance(given).run_once()
    diagnose(given, given)
    assert '"t"' in good("--dsn", given, "status", "--json")
