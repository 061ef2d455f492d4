"""Databases with a bit of everything in them, and roles that were granted some of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.roles import Roles, roles

SETUP = """
    SELECT durable_notify.subscribe('g', '{orders.eu,orders.us}');
    SELECT durable_notify.subscribe('h', '{orders.eu,payments}');
    SELECT durable_notify.configure('h', '{"order_by": "strict"}');
    SELECT durable_notify.publish('orders.eu', '{"secret": 1}', 'k') FROM generate_series(1, 4);
    SELECT durable_notify.publish('payments', '{"secret": 2}') FROM generate_series(1, 4);
    SELECT durable_notify.set_schedule('s', 'orders.eu', '1', NULL, '1 hour', 'UTC', '2000-01-01');
"""
GIVE_UP = """
    SELECT durable_notify.settle(token, rejected => ARRAY[id])
      FROM (SELECT * FROM durable_notify.claim(%s, ARRAY[%s], 1)) AS c"""
CLAIM = "SELECT token, id FROM durable_notify.claim(%s, ARRAY[%s], 1)"


@pytest.fixture
def furnished(conn: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Two groups that read, hold, have given up and are replayed; their leases: token and message."""
    for statement in SETUP.split(";\n"):
        conn.execute(statement.encode())
    leases = {}
    for group, topic in (("g", "orders.eu"), ("h", "orders.eu"), ("h", "payments")):
        conn.execute(GIVE_UP.encode(), [group, topic])
        held = conn.execute(CLAIM.encode(), [group, topic]).fetchone()
        assert held is not None
        leases[f"{group} {topic}"] = held
        conn.execute("SELECT durable_notify.start_replay(%s, %s)", [group, topic])
    return leases


@pytest.fixture
def cast(dsn: str) -> Iterator[Roles]:
    """A role of each kind."""
    with roles(dsn) as made:
        yield made
