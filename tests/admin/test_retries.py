"""Messages that wait for a retry: found, counted, retried now, dropped; and what their claims see."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.api import Api, maybe_await
from tests.support.cli import good, run

Connection = psycopg.Connection[tuple[Any, ...]]
ERRORS = {"a": "KeyError", "b": "ValueError"}


@pytest.fixture
def sent(conn: Connection) -> list[int]:
    """Three messages that failed once in group g, with retries in an hour; a fourth is parked."""
    ids = [
        dn.Publisher().publish(conn, topic, payload, key=key)
        for topic, payload, key in (("t", 1, "a"), ("t", 2, "b"), ("u", 3, "a"), ("t", 4, "a"))
    ]
    conn.execute("SELECT durable_notify.subscribe('g', '{t,u}')")
    dn.Admin().configure(conn, "g", retry=dn.RetryPolicy(max_attempts=5, base=3600, max=3600))
    fail(conn)
    return ids


def fail(conn: Connection) -> list[tuple[int, int]]:
    """Claim all, and fail them but for what waits for its key; return ids and attempts."""
    seen = []
    claim = "SELECT token, id, key, attempt FROM durable_notify.claim('g', '{t,u}') ORDER BY id"
    rows = conn.execute(claim).fetchall()
    keys: set[tuple[int, str]] = set()
    for token, message_id, key, attempt in rows:
        seen.append((message_id, attempt))
        if (token, key) in keys:
            continue
        keys.add((token, key))
        error = json.dumps({"type": ERRORS[key], "message": f"no {key}", "traceback": "at\n"})
        conn.execute(
            "SELECT durable_notify.settle(%s, retried => ARRAY[%s::int8], retry_errors => ARRAY[%s::jsonb])",
            [token, message_id, error],
        )
    return seen


CHOICES: list[tuple[dict[str, Any], list[int]]] = [
    ({"topic": "t"}, [0, 1]),
    ({"key": "a"}, [0, 2]),
    ({"error_type": "ValueError"}, [1]),
    ({"since": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, [0, 1, 2]),
    ({"until": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, []),
    ({"everything": True}, [0, 1, 2]),
]


@pytest.mark.parametrize(("choice", "indexes"), CHOICES)
async def test_retried_now(
    api: Api,
    dsn: str,
    conn: Connection,
    sent: list[int],
    choice: dict[str, Any],
    indexes: list[int],
) -> None:
    wanted = [sent[index] for index in indexes]
    admin = api.Admin()
    conditions = {name: of for name, of in choice.items() if name != "everything"}
    assert fail(conn) == []
    async with api.connect(dsn) as mine:
        found = await maybe_await(admin.retries(mine, "g", **conditions))
        assert sorted(one.id for one in found) == wanted
        assert await maybe_await(admin.retry_now(mine, "g", why="tried", **choice)) == len(wanted)
        await maybe_await(mine.commit())
    seen = fail(conn)
    assert [one for one in seen if one[0] != sent[3]] == [(message_id, 2) for message_id in wanted]
    audited = conn.execute(
        "SELECT sum(messages) FROM durable_notify.audit WHERE action = 'retry' AND why = 'tried'"
    ).fetchone()
    assert audited == (len(wanted) or None,)


async def test_what_is_shown(api: Api, dsn: str, conn: Connection, sent: list[int]) -> None:
    async with api.connect(dsn) as mine:
        (one,) = await maybe_await(api.Admin().retries(mine, ids=sent[0]))
        assert len(await maybe_await(api.Admin().retries(mine, limit=2))) == 2
        counts = await maybe_await(api.Admin().retry_counts(mine, "g"))
    assert (one.topic, one.key, one.payload, one.attempt, one.max_attempts) == ("t", "a", 1, 1, 5)
    assert one.error == {"type": "KeyError", "message": "no a", "traceback": "at\n"}
    assert 1700 < (one.due_at - dt.datetime.now(dt.UTC)).total_seconds() < 3700
    assert [(c.topic, c.error_type, c.messages, c.max_attempt, c.example) for c in counts] == [
        ("t", "KeyError", 1, 1, "no a"), ("t", "ValueError", 1, 1, "no b"), ("u", "KeyError", 1, 1, "no a"),
    ]  # fmt: skip


def test_dropped_messages_are_dead_letters_and_free_their_keys(
    conn: Connection, sent: list[int]
) -> None:
    admin = dn.Admin()
    assert admin.drop_retries(conn, "g", topic="t", key="a", why="a bad file") == 1
    (letter,) = admin.dead_letters(conn)
    assert (letter.id, letter.attempt, letter.reason) == (sent[0], 1, "dropped: a bad file")
    assert letter.error is not None
    assert letter.error["type"] == "KeyError"
    assert fail(conn) == [(sent[3], 1)]  # the next of its key
    assert admin.redrive(conn, "g", ids=sent[0]) == 1
    assert admin.retries(conn, "g", ids=sent[0]) == []  # it waits for its first attempt


def test_rolled_back_nothing_happened(dsn: str, conn: Connection, sent: list[int]) -> None:
    with psycopg.connect(dsn) as mine:
        assert dn.Admin().drop_retries(mine, "g", key="b") == 1
        assert dn.Admin().retry_now(mine, "g", everything=True) == 2
        mine.rollback()
    assert len(dn.Admin().retries(conn)) == 3
    assert fail(conn) == []


def test_a_consumer_that_sleeps_is_woken(dsn: str, conn: Connection, sent: list[int]) -> None:
    conn.execute("SELECT durable_notify.set_notify_policy('t', 'always')")
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("""LISTEN "durable_notify:t" """)
        dn.Admin().retry_now(conn, "g", topic="t")
        assert len(list(listener.notifies(timeout=20, stop_after=1))) == 1


def test_refused(conn: Connection, sent: list[int]) -> None:
    for change in (dn.Admin().retry_now, dn.Admin().drop_retries):
        with pytest.raises(dn.InvalidArgument, match="no condition"):
            change(conn, "g")
        with pytest.raises(dn.errors.UnknownGroup):
            change(conn, "h", everything=True)
        with pytest.raises(dn.InvalidArgument, match="unknown condition"):
            change(conn, "g", colour="red")  # type: ignore[call-arg]
    with pytest.raises(dn.errors.UnknownGroup):
        dn.Admin().retries(conn, "h")
    with pytest.raises(dn.errors.UnknownGroup):
        dn.Admin().retry_counts(conn, "h")
    assert len(dn.Admin().retries(conn)) == 3


def test_by_command(dsn: str, conn: Connection, sent: list[int]) -> None:
    listed = good("retries", "--group", "g", dsn=dsn)
    assert "1 of 5" in listed
    assert "KeyError: no a" in listed
    found = json.loads(good("retries", "list", "--error", "ValueError", "--json", dsn=dsn))
    assert [one["id"] for one in found] == [sent[1]]
    shown = good("retries", "show", str(sent[1]), dsn=dsn)
    assert "attempts  1 of 5" in shown
    assert shown.endswith("at\n")
    assert run("retries", "show", str(sent[3]), dsn=dsn).returncode == 1
    assert "KeyError" in good("retries", "errors", dsn=dsn)
    counts = json.loads(good("retries", "errors", "--topic", "u", "--json", dsn=dsn))
    assert [(one["error_type"], one["messages"]) for one in counts] == [("KeyError", 1)]
    assert run("retries", "now", "--group", "g", dsn=dsn).returncode == 2
    said = good("retries", "now", "--group", "g", "--id", str(sent[1]), dsn=dsn)
    assert said == "1 message of g due now\n"
    said = good("retries", "drop", "--group", "g", "--all", "--yes", "--why", "x", dsn=dsn)
    assert said.startswith("3 messages of g dropped")
    assert len(dn.Admin().dead_letters(conn, "g")) == 3
    assert "No message waits" in run("retries", dsn=dsn).stderr
    assert "No message waits" in run("retries", "errors", dsn=dsn).stderr
