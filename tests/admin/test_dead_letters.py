"""Dead letters: found, redriven, discarded; atomically, once, and audited."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.api import Api, Recorder, maybe_await
from tests.support.cli import good, objects, on_a_terminal, run
from tests.support.injection import plant
from tests.support.observe import outstanding, value
from tests.support.sessions import Sessions, ids
from tests.support.wait import with_timeout

Connection = psycopg.Connection[Any]


def fail(message: Any) -> None:
    raise {"key": KeyError, "value": ValueError}[message.payload](message.id)


async def give_up(api: Api, dsn: str, conn: Connection) -> list[int]:
    """Four messages that group g gives up: of two topics, keys and kinds of exception."""
    sent = [
        dn.Publisher().publish(conn, topic, payload, key=key)
        for topic, payload, key in (
            ("t", "key", "a"), ("t", "value", "a"), ("t", "key", "b"), ("u", "value", None)
        )
    ]  # fmt: skip
    options = {"topics": ["t", "u"], "retry": dn.RetryPolicy(max_attempts=1), "until_empty": True}
    await with_timeout(api.consumer(dsn, **options).run(Recorder(fail)))
    return sent


CHOICES = [
    ({"topic": "t"}, [0, 1, 2]),
    ({"key": "a"}, [0, 1]),
    ({"error_type": "KeyError"}, [0, 2]),
    ({"error_type": "KeyError", "key": "a"}, [0]),
    ({"since": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, [0, 1, 2, 3]),
    ({"until": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, []),
    ({"everything": True}, [0, 1, 2, 3]),
]


@pytest.mark.parametrize(("choice", "indexes"), CHOICES)
async def test_chosen(
    api: Api, dsn: str, conn: Connection, choice: dict[str, Any], indexes: list[int]
) -> None:
    sent = await give_up(api, dsn, conn)
    wanted = [sent[index] for index in indexes]
    admin = api.Admin()
    conditions = {name: of for name, of in choice.items() if name != "everything"}
    async with api.connect(dsn) as mine:
        found = await maybe_await(admin.dead_letters(mine, "g", **conditions))
        assert [letter.id for letter in found] == wanted
        assert await maybe_await(admin.redrive(mine, "g", why="tried", **choice)) == len(wanted)
        await maybe_await(mine.commit())
        left = await maybe_await(admin.dead_letters(mine))
        assert sorted([*wanted, *(letter.id for letter in left)]) == sent
    seen = Recorder()
    await with_timeout(api.consumer(dsn, topics=["t", "u"], until_empty=True).run(seen))
    assert sorted(seen.ids) == wanted
    assert set(seen.attempts) <= {1}
    assert outstanding(conn) == 0


async def test_what_is_kept(api: Api, dsn: str, conn: Connection) -> None:
    first, *_ = await give_up(api, dsn, conn)
    async with api.connect(dsn) as mine:
        (letter,) = await maybe_await(api.Admin().dead_letters(mine, ids=first))
        assert len(await maybe_await(api.Admin().dead_letters(mine, limit=3))) == 3
    assert (letter.topic, letter.key, letter.payload, letter.attempt) == ("t", "a", "key", 1)
    assert letter.error["type"] == "KeyError"
    assert "in fail" in letter.error["traceback"]
    assert letter.reason == f"attempt 1 of 1 failed: KeyError: {first}"


async def test_rolled_back_nothing_happened(api: Api, dsn: str, conn: Connection) -> None:
    sent = await give_up(api, dsn, conn)
    async with api.connect(dsn) as mine:
        assert await maybe_await(api.Admin().redrive(mine, "g", ids=sent[:2])) == 2
        assert await maybe_await(api.Admin().discard(mine, "g", ids=sent[2:])) == 2
        await maybe_await(mine.rollback())
    assert len(dn.Admin().dead_letters(conn)) == 4
    assert value(conn, "SELECT count(*) FROM durable_notify.deferred") == 0
    actions = [entry.action for entry in dn.Admin().audit(conn)]
    assert actions == ["configure"]


async def test_discarded_and_audited(api: Api, dsn: str, conn: Connection) -> None:
    sent = await give_up(api, dsn, conn)
    async with api.connect(dsn, autocommit=True) as mine:
        admin = api.Admin()
        assert await maybe_await(admin.discard(mine, "g", everything=True, why="too old")) == 4
        assert await maybe_await(admin.dead_letters(mine)) == []
        entries = [
            entry for entry in await maybe_await(admin.audit(mine, "g")) if entry.why == "too old"
        ]
        assert sorted((entry.topic, entry.messages) for entry in entries) == [("t", 3), ("u", 1)]
        assert {entry.action for entry in entries} == {"discard"}
        assert {entry.who for entry in entries} == {value(conn, "SELECT session_user")}
        assert sorted(i for entry in entries for i in entry.details["ids"]) == sent
        assert await maybe_await(admin.audit(mine, "unknown")) == []
    seen = Recorder()
    await with_timeout(api.consumer(dsn, topics=["t", "u"], until_empty=True).run(seen))
    assert seen.messages == []


async def test_errors(api: Api, dsn: str, conn: Connection) -> None:
    sent = await give_up(api, dsn, conn)
    async with api.connect(dsn, autocommit=True) as mine:
        admin = api.Admin()
        for action in (admin.redrive, admin.discard):
            with pytest.raises(dn.InvalidArgument, match="everything"):
                await maybe_await(action(mine, "g"))
            with pytest.raises(dn.errors.UnknownGroup):
                await maybe_await(action(mine, "unknown", everything=True))
            with pytest.raises(dn.InvalidArgument, match="unknown condition"):
                await maybe_await(action(mine, "g", colour="red"))
            with pytest.raises(dn.InvalidArgument, match="time zone"):
                await maybe_await(action(mine, "g", since=dt.datetime(2020, 1, 1)))  # noqa: DTZ001
        conn.execute("DELETE FROM durable_notify.outbox WHERE id = %s", [sent[1]])
        with pytest.raises(dn.errors.MessageNotFound, match=str(sent[1])):
            await maybe_await(admin.redrive(mine, "g", everything=True))
    assert len(dn.Admin().dead_letters(conn)) == 4


def test_two_redrives_at_once(dsn: str) -> None:
    with Sessions(dsn) as sessions:
        one, two = sessions.readers(2)
        message = one.publish()
        (held,) = one.claim()
        one.settle(held.token, rejected=[message])
        query = "SELECT durable_notify.redrive('g', everything => true)"
        one.begin()
        assert one.value(query) == 1
        waiting = two.start(query)
        sessions.wait_until_blocked(two, waiting)
        one.commit()
        assert waiting.result() == [(0,)]
        assert ids(two.claim()) == [message]


def test_redriving_keeps_the_order(dsn: str) -> None:
    with Sessions(dsn) as sessions:
        one, two = sessions.readers(2)
        first, second, third = (one.publish(key="k") for _ in range(3))
        batch = one.claim(1)
        one.settle(batch[0].token, rejected=[first])
        (held,) = two.claim(1)
        assert held.id == second
        assert one.value("SELECT durable_notify.redrive('g', ids => %s)", [first]) == 1
        assert one.claim() == []  # its key is in progress
        two.ack([held])
        assert ids(one.claim()) == [first, third]


def test_a_redrive_that_forgets_the_key_is_caught(dsn: str) -> None:
    with Sessions(dsn) as sessions:
        one, two = sessions.readers(2)
        plant(one, "redrive", ("durable_notify._ordering_key(g.order_by, t.key)", "NULL"))
        first, second = (one.publish(key="k") for _ in range(2))
        batch = one.claim(1)
        one.settle(batch[0].token, rejected=[first])
        one.run("SELECT durable_notify.redrive('g', ids => %s)", [first])
        one.run("UPDATE durable_notify.deferred SET due_at = clock_timestamp() + interval '1 hour'")
        assert ids(two.claim()) == [second], "the planted fault is gone"


# The command line.


async def test_on_the_command_line(dsn: str, conn: Connection) -> None:
    sent = await give_up(Api("sync"), dsn, conn)
    listed = json.loads(good("dead-letters", "--group", "g", "--json", dsn=dsn))
    assert [row["id"] for row in listed] == sent
    listed = json.loads(
        good("dead-letters", "list", "--key", "a", "--since", "1h", "--json", dsn=dsn)
    )
    assert [row["id"] for row in listed] == sent[:2]
    shown = good("dead-letters", "show", str(sent[0]), dsn=dsn)
    assert f"message {sent[0]} of t, given up by g" in shown
    assert "KeyError" in shown
    assert "Traceback" in shown
    assert run("dead-letters", "show", "999", dsn=dsn).returncode == 1
    for words in (["redrive"], ["redrive", "--group", "g"], ["discard", "--group", "g"],
                  ["redrive", "--group", "g", "--all", "--key", "a"]):  # fmt: skip
        assert run("dead-letters", *words, dsn=dsn).returncode == 2
    said = good(
        "dead-letters", "redrive", "--group", "g", "--id", str(sent[3]), "--why", "w", dsn=dsn
    )
    assert said == "1 message sent to g again\n"
    consumed = objects(good("consume", "u", "--group", "g", "--until-empty", dsn=dsn))
    assert [message["id"] for message in consumed] == [sent[3]]
    status, shown = on_a_terminal(
        b"n\n", "dead-letters", "discard", "--group", "g", "--all", dsn=dsn
    )
    assert status == 1
    assert "Discard 3 messages of g?" in shown
    said = good("dead-letters", "discard", "--group", "g", "--all", "--yes", dsn=dsn)
    assert said == "3 messages of g discarded\n"
    audit = json.loads(good("audit", "--group", "g", "--json", "--limit", "5", dsn=dsn))
    assert [(entry["action"], entry["why"]) for entry in audit[:2]] == [
        ("discard", None),
        ("redrive", "w"),
    ]
    assert "redrive" in good("audit", dsn=dsn)
