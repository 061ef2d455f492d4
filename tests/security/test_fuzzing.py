"""Whatever is given, it comes back as it was, or is refused before anything is written.

From Python, both halves, through SQL and by plain INSERT. A canary stands in the database, and dies
where a value becomes a part of the SQL.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import durable_notify as dn
from durable_notify.topics import check_topic
from tests.security.hostile import (
    any_name,
    contents,
    fuzz,
    headers,
    names,
    payloads,
    same,
    sendable,
    texts,
)
from tests.support.api import Api, collect, maybe_await
from tests.support.injection import plant
from tests.support.names import NASTY_NAMES
from tests.support.observe import asleep, value
from tests.support.sessions import Session
from tests.support.wait import with_timeout

Connection = psycopg.Connection[Any]
#: What a refusal in SQL may be: ours, a constraint's, data's, or an index entry's that is too long.
OURS = ("22", "23514", "54000")


@pytest.fixture(autouse=True)
def canary(request: pytest.FixtureRequest) -> Iterator[None]:
    """What changed SQL would kill: a table, a message, and the number of functions."""
    if "dsn" not in request.fixturenames:
        yield
        return
    with psycopg.connect(request.getfixturevalue("dsn"), autocommit=True) as connection:
        functions = (
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'durable_notify'::regnamespace"
        )
        before = value(connection, functions)
        connection.execute("CREATE TABLE canary AS SELECT 'alive' AS state")
        yield
        assert value(connection, "SELECT state FROM canary") == "alive"
        assert value(connection, functions) == before


@dataclass(frozen=True)
class Given:
    topic: Any
    content: Any
    key: Any
    headers: Any
    dedup_key: Any


messages = st.builds(
    Given,
    topic=any_name,
    content=contents,
    key=st.one_of(st.none(), any_name),
    headers=headers,
    dedup_key=st.one_of(st.none(), st.none(), any_name),
)
many = st.lists(messages, min_size=8, max_size=20)


def count(connection: Connection) -> int:
    return int(value(connection, "SELECT count(*) FROM durable_notify.outbox"))


async def publish(api: Api, mine: Any, message: Given) -> int | None:
    """Publish it; None where it was refused."""
    options = {"key": message.key, "headers": message.headers, "dedup_key": message.dedup_key}
    try:
        return int(
            await maybe_await(
                api.Publisher().publish(mine, message.topic, message.content, **options)
            )
        )
    except dn.InvalidArgument:
        return None


def check(message: Any, sent: Given) -> None:
    assert (message.topic, message.key) == (sent.topic, sent.key)
    assert same(message.payload, sent.content)
    assert same(dict(message.headers), sent.headers or {})


@fuzz(6)
@given(tried=many, group=names, reason=texts, why=st.one_of(st.none(), texts), owner=any_name)
def test_there_and_back(
    api: Api, dsn: str, tried: list[Given], group: str, reason: str, why: Any, owner: str
) -> None:
    asyncio.run(there_and_back(api, dsn, tried, group, reason, why, owner))


async def there_and_back(
    api: Api, dsn: str, tried: list[Given], group: str, reason: str, why: Any, owner: str
) -> None:
    """Publish, consume, reject, look at the dead letters, send them again, replay, read."""
    sent: dict[int, Given] = {}
    async with api.connect(dsn, autocommit=True) as mine:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("TRUNCATE durable_notify.outbox")
            conn.execute("TRUNCATE durable_notify.dedup, durable_notify.audit")
            for message in tried:
                before = count(conn)
                new = await publish(api, mine, message)
                assert count(conn) == before + (new is not None and new not in sent)
                if new is not None:
                    sent.setdefault(new, message)
            topics = sorted({message.topic for message in sent.values()})
            if not topics:
                return
            if not sendable(owner):
                with pytest.raises(dn.InvalidArgument):
                    api.consumer(dsn, group, topics, owner=owner)
                owner = "owner"
            options = {"until_empty": True, "owner": owner, "order_by": "none"}
            await give_up(api, dsn, group, topics, sent, reason, options)
            await dead_letters(api, mine, group, sent, reason, why)
            again = await consumed(api.consumer(dsn, group, topics, **options))
            assert sorted(again) == sorted(sent)
            for topic in topics:
                replayed = await maybe_await(api.Admin().replay(mine, group, topic, after=0))
                assert replayed == sum(one.topic == topic for one in sent.values())
            again = await consumed(api.consumer(dsn, group, topics, **options))
            for number, message in again.items():
                check(message, sent[number])
            await read(api, dsn, topics, sent)
            status = await maybe_await(api.Admin().status(mine))
            assert {(one.topic, one.group) for one in status} == {(t, group) for t in topics}
            await maybe_await(api.Admin().delete_group(mine, group))


async def give_up(
    api: Api, dsn: str, group: str, topics: Any, sent: Any, reason: str, options: Any
) -> None:
    async def reject(message: Any) -> None:
        check(message, sent[message.id])
        await message.reject(reason)

    await with_timeout(api.consumer(dsn, group, topics, **options).run(reject))


async def consumed(consumer: Any) -> dict[int, Any]:
    found: dict[int, Any] = {}
    await with_timeout(consumer.run(lambda message: found.__setitem__(message.id, message)))
    return found


async def dead_letters(
    api: Api, mine: Any, group: str, sent: dict[int, Given], reason: str, why: Any
) -> None:
    """What was rejected is there whole; it is found by its key; and the audit has why."""
    admin = api.Admin()
    found = {letter.id: letter for letter in await maybe_await(admin.dead_letters(mine, group))}
    assert found.keys() == sent.keys()
    kept = reason.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    for number, letter in found.items():
        check(letter, sent[number])
        assert letter.reason == kept
    for key in {one.key for one in sent.values() if one.key is not None}:
        chosen = await maybe_await(admin.dead_letters(mine, group, key=key))
        assert {one.id for one in chosen} == {n for n, one in sent.items() if one.key == key}
    if why is not None and not sendable(why):
        with pytest.raises(dn.InvalidArgument):
            await maybe_await(admin.redrive(mine, group, everything=True, why=why))
        why = None
    assert await maybe_await(admin.redrive(mine, group, everything=True, why=why)) == len(sent)
    audit = [one for one in await maybe_await(admin.audit(mine, group)) if one.action == "redrive"]
    assert {(one.group, one.topic, one.why) for one in audit} == {
        (group, one.topic, why) for one in sent.values()
    }


async def read(api: Api, dsn: str, topics: list[str], sent: dict[int, Given]) -> None:
    """A reader has the same, and continues from any message's token."""
    classes = dn.AsyncReader if api.is_async else dn.Reader

    def all_of(start: str) -> Any:
        return classes(dsn, topics=topics, start=start, until_empty=True)

    def now(start: str) -> list[Any]:
        with all_of(start) as reader:
            return list(reader)

    async def later(start: str) -> list[Any]:
        if not api.is_async:
            return await asyncio.to_thread(now, start)
        async with all_of(start) as reader:
            return [message async for message in reader]

    found = await later("beginning")
    assert sorted(message.id for message in found) == sorted(sent)
    for message in found:
        check(message, sent[message.id])
    rest = await later(found[len(found) // 2].token)
    assert len(rest) == len(found) - len(found) // 2 - 1


def tried_in_sql(conn: Connection, query: str, params: Any) -> tuple[int | None, str]:
    """Return the new message's id, or the SQLSTATE with which it was refused."""
    try:
        return value(conn, query, *params), ""
    except psycopg.Error as error:
        return None, error.sqlstate or ""


PLAIN_INSERT = (
    "INSERT INTO durable_notify.outbox (topic, payload, key, headers)"
    " VALUES (%s, %s::jsonb, %s, %s::jsonb) RETURNING id"
)


@fuzz(25)
@given(tried=many)
def test_by_sql(conn: Connection, tried: list[Given]) -> None:
    """publish() and a plain INSERT take what Python takes, and give it back; else a plain SQLSTATE."""
    for message in tried:
        strings = (message.topic, message.key or "", message.dedup_key or "")
        try:
            payload = json.dumps(message.content, allow_nan=False, ensure_ascii=False)
            given = (
                None if message.headers is None else json.dumps(message.headers, ensure_ascii=False)
            )
        except (TypeError, ValueError):
            continue
        if not all(map(sendable, (*strings, payload, given or ""))):
            continue
        before = count(conn)
        params = (message.topic, payload, message.key, given)
        for query in ("SELECT durable_notify.publish(%s, %s::jsonb, %s, %s::jsonb)", PLAIN_INSERT):
            number, state = tried_in_sql(conn, query, params)
            if number is None:
                assert state.startswith(OURS), (state, message)
                assert count(conn) == before
                continue
            before += 1
            found = conn.execute(
                "SELECT topic, key, payload::text, headers::text FROM durable_notify.outbox"
                " WHERE topic = %s AND id = %s", [message.topic, number],
            ).fetchone()  # fmt: skip
            assert found is not None
            assert found[:2] == (message.topic, message.key)
            assert same(json.loads(found[2]), message.content)


hostile_text = st.one_of(names, texts)


@fuzz(40)
@given(
    text=hostile_text,
    payload=st.one_of(payloads, st.binary(max_size=3)),
    which=st.sampled_from(
        ["group", "topic", "both", "why", "path", "payload", "policy", "key", "error"]
    ),
)
def test_administration(api: Api, dsn: str, text: str, payload: Any, which: str) -> None:
    """Every call works on nothing but its own, or says InvalidArgument, or that there is no such."""
    asyncio.run(administration(api, dsn, text, payload, which))


async def administration(api: Api, dsn: str, text: str, payload: Any, which: str) -> None:
    group = text if which in ("group", "both") else "g"
    topic = text if which in ("topic", "both") else "t"
    why = text if which == "why" else None
    admin = api.Admin()
    conditions = {
        "path": {"path": text}, "payload": {"payload": payload, "headers": {"a": payload}},
        "key": {"keys": [text, "other"]},
    }.get(which, {})  # fmt: skip
    calls = [
        lambda c: admin.configure(c, group, retry=dn.RetryPolicy(max_attempts=3)),
        lambda c: admin.configure(c, "g", **{text: payload}),
        lambda c: admin.configure(c, "g", order_by=text),
        lambda c: admin.pause(c, group),
        lambda c: admin.rename_group(c, "g", text),
        lambda c: admin.dead_letters(c, group, topic=text, key=text, error_type=text),
        lambda c: admin.discard(c, group, topic=text, key=text, error_type=text, why=why),
        lambda c: admin.audit(c, text),
        lambda c: admin.replay(c, group, topic, after=0),
        lambda c: admin.seek(c, group, topic, now=True, why=why),
        lambda c: admin.start_replay(c, group, topic, why=why, **conditions),
        lambda c: admin.set_notify_policy(c, topic, text if which == "policy" else "always"),
        lambda c: admin.notify_policy(c, topic),
        lambda c: admin.blocking_publishers(c, group),
    ]
    async with api.connect(dsn) as mine:
        await maybe_await(mine.execute("SELECT durable_notify.subscribe('g', '{t}')"))
        for call in calls:
            await maybe_await(mine.execute("SAVEPOINT before"))
            with suppress(dn.InvalidArgument, dn.errors.UnknownGroup, dn.errors.UnknownTopic):
                await maybe_await(call(mine))
            await maybe_await(mine.execute("ROLLBACK TO before"))
        await maybe_await(mine.rollback())


def policies(conn: Connection, tried: dict[str, str], strings: str = "on") -> None:
    """Set how topics wake, and see that each has its own policy, and no other has one."""
    with conn.transaction(force_rollback=True):
        if conn.info.server_version < 190000:
            conn.execute(f"SET LOCAL standard_conforming_strings = {strings}")
        for topic, policy in tried.items():
            conn.execute("SELECT durable_notify.set_notify_policy(%s, %s)", [topic, policy])
        for topic, policy in tried.items():
            assert value(conn, "SELECT durable_notify.notify_policy(%s)", topic) == policy, topic
            assert value(conn, "SELECT durable_notify.notify_policy(%s)", f"{topic}x") in (
                "when_waiting", tried.get(f"{topic}x")
            )  # fmt: skip
            conn.execute("SELECT durable_notify.publish(%s, '1')", [topic])
        body = value(conn, "SELECT prosrc FROM pg_proc WHERE proname = 'notify_policy'")
        assert "How what is published to a topic wakes its consumers" in body


def is_topic(name: str) -> bool:
    try:
        check_topic(name)
    except dn.InvalidArgument:
        return False
    return True


good_topics = any_name.filter(is_topic)


@fuzz(60)
@given(
    tried=st.dictionaries(
        good_topics, st.sampled_from(["always", "never", "when_waiting"]), min_size=1, max_size=6
    ),
    strings=st.sampled_from(["on", "off"]),
)
def test_the_function_that_is_rewritten(
    conn: Connection, tried: dict[str, str], strings: str
) -> None:
    policies(conn, tried, strings)


def test_a_topic_put_into_sql_as_it_is_would_be_noticed(dsn: str, conn: Connection) -> None:
    session = Session(dsn)
    plant(
        session, "set_notify_policy", ("OPERATOR(pg_catalog.=) %L", "OPERATOR(pg_catalog.=) ''%s''")
    )
    session.connection.close()
    policies(conn, {"plain": "always"})
    with pytest.raises((AssertionError, psycopg.Error)):
        policies(conn, {"it's": "always"})


SETTINGS = ["", "standard_conforming_strings=off", "client_encoding=latin1"]


@pytest.mark.parametrize("setting", SETTINGS)
async def test_every_topic_wakes_its_consumer(
    api: Api, dsn: str, conn: Connection, setting: str
) -> None:
    """The listening session writes names into LISTEN and its doorbells' SQL: each wakes, none other."""
    topics = [name for name in NASTY_NAMES if is_topic(name)]
    topics += [
        "durable_notify",
        "durable_notify:t",
        "';SELECT",
        "a\\';--",
        "$$",
        '"";',
        "{,}",
        '{"a"}',
    ]
    topics = sorted(set(topics))
    name, _, wanted = setting.partition("=")
    theirs = dsn
    if name == "client_encoding":
        theirs = psycopg.conninfo.make_conninfo(dsn, client_encoding=wanted)
    elif name and conn.info.server_version < 190000:
        database = conn.info.dbname
        conn.execute(f'ALTER DATABASE "{database}" SET {name} = {wanted}')
    async with api.consumer(theirs, topics=topics) as consumer:
        for topic in topics:
            await asleep(consumer)
            number = dn.Publisher().publish(conn, topic, topic)
            (message,) = await collect(consumer, 1)
            assert (message.id, message.topic, message.payload) == (number, topic, topic)
            await message.ack()


@pytest.mark.parametrize(
    "outcome",
    [
        dn.Reject("a\0b\ud800", {"type": "\0", "message": "\ud800"}),
        dn.Retry(0, {"type": "\ud800", "traceback": "\0"}),
    ],
    ids=["reject", "retry"],
)
async def test_an_outcome_that_json_cannot_hold_does_not_block_the_others(
    api: Api, dsn: str, conn: Connection, outcome: Any
) -> None:
    """It used to fail the settling of everything after it, for ever."""
    numbers = dn.Publisher().publish_many(conn, "t", ["bad", "good"])
    handled: list[int] = []

    def handle(message: Any) -> None:
        if message.payload == "bad" and message.attempt == 1:
            raise ValueError
        handled.append(message.id)

    rules = {ValueError: outcome}
    options = {"until_empty": True, "on_error": rules, "order_by": "none"}
    await with_timeout(api.consumer(dsn, topics=["t"], **options).run(handle))
    assert numbers[1] in handled
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0
    letters = await asyncio.to_thread(lambda: dn.Admin().dead_letters(conn, "g"))
    assert [letter.reason for letter in letters] == (
        ["a\ufffdb?"] if isinstance(outcome, dn.Reject) else []
    )
