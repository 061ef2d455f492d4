"""Operator events are switched on and off; their types take what the database publishes."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import operator_events as oe
from tests.support.api import Api, maybe_await
from tests.support.cli import fails, good, run

Connection = psycopg.Connection[tuple[Any, ...]]


async def test_by_the_python_half(api: Api, dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as caller:
        assert await maybe_await(admin.set_operator_events(caller, "loss", group="g"))
        assert not await maybe_await(admin.set_operator_events(caller, "loss", group="g"))
        (found,) = await maybe_await(admin.operator_events(caller))
        assert (found.kind, found.group) == ("loss", "g")
        assert await maybe_await(
            admin.set_operator_events(caller, "loss", group="g", enabled=False)
        )
        with pytest.raises(dn.InvalidArgument, match="invalid kind"):
            await maybe_await(admin.set_operator_events(caller, "other"))
        with pytest.raises(dn.errors.UnknownGroup):
            await maybe_await(admin.set_operator_events(caller, "loss", group="h"))
        assert await maybe_await(admin.operator_events(caller)) == []


def test_by_the_command_line(dsn: str, conn: Connection) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    assert "now published" in good("operator-events", "on", "loss", "--group", "g", dsn=dsn)
    assert "already published" in good("operator-events", "on", "loss", "--group", "g", dsn=dsn)
    assert "durable_notify.loss" in good("operator-events", "list", dsn=dsn)
    (found,) = json.loads(good("operator-events", "list", "--json", dsn=dsn))
    assert (found["kind"], found["group"]) == ("loss", "g")
    good("operator-events", "on", "dead_letter", dsn=dsn)
    fails(run("operator-events", "off", "dead_letter", "--group", "g", dsn=dsn), 2, "all groups")
    assert "now not published" in good("operator-events", "off", "loss", "--group", "g", dsn=dsn)


def test_the_types(conn: Connection) -> None:
    """A group that consumes by the types gets objects, of each kind that the tests of SQL publish."""
    payloads = {
        oe.dead_letter: {"group": "g", "topic": "t", "id": 1, "attempts": 1, "reason": "attempts", "error_type": None, "more": True},
        oe.loss: {"group": "g", "topic": "t", "first_id": 1, "last_id": 3, "messages": 3, "reason": "max_age 01:00:00"},
        oe.group_failing: {"group": "g", "topic": "t", "state": "ended"},
        oe.retention_alarm: {"group": None, "topic": "t", "state": "began", "bytes": 5},
    }  # fmt: skip
    for topic, payload in payloads.items():
        dn.Publisher().publish(conn, topic.name, payload)
    with dn.Reader(
        conn.info.dsn, topics=list(payloads), start="beginning", until_empty=True
    ) as reader:
        found = {message.topic: message.payload for message in reader}
    assert found[oe.dead_letter.name] == oe.DeadLettered("g", "t", 1, 1, "attempts", more=True)
    assert found[oe.loss.name].messages == 3
    assert found[oe.group_failing.name] == oe.GroupFailing("g", "t", "ended")
    assert found[oe.retention_alarm.name].group is None
