"""Python and SQL accept the same names and channels."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

import durable_notify as dn
import durable_notify.topics
from durable_notify.topics import channel
from tests.support.names import NASTY_NAMES

Connection = psycopg.Connection[Any]


def accepts(conn: Connection, statement: str, name: str) -> bool:
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(statement.encode(), [name])
    except (errors.CheckViolation, psycopg.DataError, UnicodeEncodeError):
        return False
    return True


@pytest.mark.parametrize(
    ("check", "statement"),
    [
        (dn.topics.check_topic, "SELECT durable_notify.publish(%s, '1')"),
        (dn.topics.check_pattern, "SELECT durable_notify.subscribe('g', ARRAY[%s])"),
        (dn.topics.check_key, "SELECT durable_notify.publish('t', '1', %s)"),
        (dn.topics.check_group, "SELECT durable_notify.subscribe(%s, '{}')"),
    ],
)
def test_names_are_judged_alike(conn: Connection, check: Any, statement: str) -> None:
    different = []
    for name in NASTY_NAMES:
        try:
            check(name)
            good = True
        except dn.InvalidArgument:
            good = False
        if accepts(conn, statement, name) is not good:
            different.append((name, good))
    assert different == []


def test_channels_are_alike(conn: Connection) -> None:
    names = [name for name in NASTY_NAMES if "\x00" not in name]
    query = "SELECT durable_notify.channel(t) FROM unnest(%s::text[]) AS t"
    assert [c for (c,) in conn.execute(query, [names])] == [channel(name) for name in names]


def test_every_good_topic_can_be_listened_to(dsn: str, conn: Connection) -> None:
    for name in ['"quoted"', "'x'", "%s", "ü" * 24, "ü" * 25, "a" * 255, "😀"]:
        conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel(name))))
        conn.execute("SELECT durable_notify.arm(%s)", [name])
        with psycopg.connect(dsn, autocommit=True) as other:  # a session does not ring for itself
            dn.Publisher().publish(other, name, 1)
        (notify,) = conn.notifies(timeout=5, stop_after=1)
        assert notify.channel == channel(name)
        conn.execute("UNLISTEN *")
