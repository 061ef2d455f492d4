"""Readers without a group: every message, once, from the given start."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._core.position import decode, encode
from tests.support.api import AnyReader, Api, read_everything
from tests.support.cli import good, objects, run
from tests.support.injection import plant
from tests.support.observe import asleep, send, terminate, value
from tests.support.sessions import Sessions
from tests.support.wait import wait_until

Connection = psycopg.Connection[Any]


async def test_every_reader_gets_everything(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(5))
    dn.Publisher().publish(conn, "t", b"\x00", key="k", headers={"h": 1})
    for _ in range(2):
        *first, last = await read_everything(api, dsn, batch_size=2)
        assert [m.id for m in first] == ids
        assert (last.payload, last.key, last.headers, last.topic) == (b"\x00", "k", {"h": 1}, "t")
    assert value(conn, "SELECT count(*) FROM durable_notify.position") == 0


async def test_a_full_topic_does_not_starve_the_others(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, range(20), "a")
    send(conn, range(20), "b")
    got = await read_everything(api, dsn, "a", "b", batch_size=5)
    assert [m.topic for m in got[::5]] == ["a", "b"] * 4
    assert {topic: [m.payload for m in got if m.topic == topic] for topic in ("a", "b")} == {
        "a": list(range(20)),
        "b": list(range(20)),
    }


async def test_where_it_starts(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    between = value(conn, "SELECT clock_timestamp()")
    send(conn, [2])
    assert [m.payload for m in await read_everything(api, dsn, start=between)] == [2]
    async with AnyReader(api, dsn, start="now") as reading:
        send(conn, [3])
        assert (await reading.next()).payload == 3
        assert reading.reader.token
    old = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert [m.payload for m in await read_everything(api, dsn, start=old)] == [1, 2, 3]


async def test_woken_and_waiting_for_a_late_commit(api: Api, dsn: str, conn: Connection) -> None:
    async with AnyReader(api, dsn) as reading:
        with psycopg.connect(dsn) as slow:
            first = dn.Publisher().publish(slow, "t", "late")
            (second,) = send(conn, ["early"])
            assert (await reading.next()).id == second
            waiting = asyncio.ensure_future(reading.next())
            await asleep(reading.reader)
            assert not waiting.done()
            slow.commit()
            assert (await waiting).id == first


async def test_a_token_continues_after_its_message(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, range(3), "a")
    send(conn, range(3, 6), "b")
    found = await read_everything(api, dsn, "a", "b", batch_size=2)
    for index, message in enumerate(found):
        rest = await read_everything(api, dsn, "a", "b", start=message.token)
        assert sorted(m.id for m in rest) == sorted(m.id for m in found[index + 1 :])
    assert decode(encode(*decode(found[0].token))) == decode(found[0].token)


async def test_an_erased_message_is_no_gap(api: Api, dsn: str, conn: Connection) -> None:
    """At the place of a token it is one only if everything up to there was removed."""
    for key in ("kept", "erased"):
        dn.Publisher().publish(conn, "t", 1, key=key)
    *_, last = await read_everything(api, dsn)
    dn.Publisher().publish(conn, "t", 2, key="new")
    for key, gaps in (("erased", {}), ("kept", {"t": last.id})):
        conn.execute("CALL durable_notify.erase(%s)", [key])
        async with AnyReader(api, dsn, "t", start=last.token, until_empty=True) as reading:
            assert [m.payload for m in await reading.rest()] == [2]
            assert reading.reader.gaps == gaps


@pytest.mark.parametrize(
    "token", ["", "r1.", "r1.AAAA", "nonsense", "r1.eJyrVkrOz0lVslJKL8ovLVCqBQAlSAR5"]
)
async def test_not_a_token(api: Api, dsn: str, token: str) -> None:
    with pytest.raises(dn.InvalidArgument, match="token"):
        AnyReader(api, dsn, start=token)


async def test_options_that_cannot_be(api: Api, dsn: str) -> None:
    naive = dt.datetime(2020, 1, 1)  # noqa: DTZ001
    for options in ({"start": naive}, {"start": 7}, {"poll_interval": 0}, {"batch_size": 0}):
        with pytest.raises(dn.InvalidArgument):
            AnyReader(api, dsn, **options)
    reading = AnyReader(api, dsn)
    with pytest.raises(dn.errors.ConsumerClosed):
        await reading.next()


async def test_patterns(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1], "a.x")
    async with AnyReader(api, dsn, "a.*", "t") as reading:
        assert (await reading.next()).payload == 1
        for n, topic in enumerate(("a.y", "t", "a.z", "a.y"), 2):
            send(conn, [0], "b.y")
            send(conn, [n], topic)
            message = await reading.next()
            assert (message.payload, message.topic) == (n, topic)


async def test_latest(api: Api, dsn: str, conn: Connection) -> None:
    for n, key in enumerate(("a", "b", None, "a", "c", "b")):
        dn.Publisher().publish(conn, "t", n, key=key)
    dn.Publisher().publish(
        conn, "t", "gone", key="c", expires_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    )
    async with AnyReader(api, dsn, start="latest") as reading:
        assert {m.key: m.payload for m in await reading.take(2)} == {"a": 3, "b": 5}
        send(conn, ["live"])
        message = await reading.next()
        assert message.payload == "live"
    rest = await read_everything(api, dsn, start=message.token)
    assert rest == []
    assert await read_everything(api, dsn, "empty", start="latest") == []


async def test_latest_then_live_under_writers(api: Api, dsn: str, conn: Connection) -> None:
    """No gap and nothing twice: the cache ends up with the latest of the outbox."""
    stop = asyncio.Event()
    last: dict[str, int] = {}

    async def write(seed: int) -> None:
        dice = random.Random(seed)
        async with await psycopg.AsyncConnection.connect(dsn) as mine:
            while not stop.is_set():
                for _ in range(dice.randint(1, 4)):
                    key = f"{seed}-{dice.randint(1, 5)}"
                    sent = await dn.AsyncPublisher().publish(mine, "t", 0, key=key)
                    pending = {key: sent}
                    await asyncio.sleep(dice.random() * 0.003)
                    last.update(pending)
                await mine.commit()

    writers = [asyncio.ensure_future(write(seed)) for seed in range(3)]
    await wait_until(lambda: len(last) > 10)
    async with AnyReader(api, dsn, start="latest", batch_size=7) as reading:
        seen: dict[str, int] = {}
        ids: list[int] = []
        for _ in range(40):
            message = await reading.next()
            seen[message.key] = max(seen.get(message.key, 0), message.id)
            ids.append(message.id)
        stop.set()
        await asyncio.gather(*writers)
        dn.Publisher().publish(conn, "t", "end")
        while (message := await reading.next()).payload != "end":
            seen[message.key] = max(seen.get(message.key, 0), message.id)
            ids.append(message.id)
    assert len(ids) == len(set(ids))
    assert seen == last


async def test_expired_and_delayed(api: Api, dsn: str, conn: Connection) -> None:
    publisher = dn.Publisher()
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    publisher.publish(conn, "t", "gone", expires_at=past)
    publisher.publish(conn, "t", "delayed", delay=3600)
    publisher.publish(conn, "t", "gone too", expires_at=past)
    assert [m.payload for m in await read_everything(api, dsn)] == ["delayed"]
    assert [m.payload for m in await read_everything(api, dsn, batch_size=1)] == ["delayed"]


async def test_its_connections_are_cut(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with AnyReader(api, dsn) as reading:
        assert (await reading.next()).payload == 1
        assert len(terminate(conn, "durable_notify reader")) == 1
        assert len(terminate(conn, "durable_notify listener")) == 1
        send(conn, [2])
        assert (await reading.next()).payload == 2


async def test_stop_ends_it(api: Api, dsn: str, conn: Connection) -> None:
    async with AnyReader(api, dsn) as reading:
        waiting = asyncio.ensure_future(reading.next())
        await asleep(reading.reader)
        reading.reader.stop()
        assert await waiting is None


async def test_it_needs_no_more_than_select(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1])
    async with AnyReader(api, f"{dsn}&options=-c%20default_transaction_read_only%3Don") as reading:
        assert (await reading.next()).payload == 1


def schedule(sessions: Sessions, seed: int) -> tuple[list[int], list[int]]:
    """Writers that hold transactions open; a reader that restarts from its token."""
    dice = random.Random(seed)
    reader, *writers = sessions.take(4)
    position: list[Any] = ["3:3:", 0, None, None, 0]
    sent: list[int] = []
    read: list[int] = []

    def some() -> None:
        query = """SELECT window_s0::text, window_h0, window_s1::text, window_h1, id
                     FROM durable_notify.read('t', %s, %s, %s, %s, %s, %s)"""
        rows = reader.run(query, *position, dice.randint(1, 4))
        for row in rows[: dice.randint(0, len(rows))]:  # it is killed in mid-batch
            read.append(row[4])
            position[:] = row

    open_now: dict[Any, list[int]] = {}
    for _ in range(80):
        writer, roll = dice.choice(writers), dice.random()
        if roll < 0.35:
            some()
        elif writer not in open_now:
            writer.begin()
            open_now[writer] = [writer.publish()]
        elif roll < 0.7:
            open_now[writer].append(writer.publish())
        elif roll < 0.9:
            writer.commit()
            sent += open_now.pop(writer)
        else:
            writer.rollback()
            del open_now[writer]
    for writer, ids in open_now.items():
        writer.commit()
        sent += ids
    for _ in range(300):
        some()
    return sent, read


@pytest.mark.parametrize("seed", range(12))
def test_tokens_at_random(dsn: str, seed: int) -> None:
    with Sessions(dsn) as sessions:
        sent, read = schedule(sessions, seed)
        assert sorted(read) == sorted(sent), f"seed {seed}"


def test_a_reader_that_forgets_stragglers_is_caught(dsn: str) -> None:
    with Sessions(dsn) as sessions:
        director = sessions.session()
        plant(director, "_stragglers", ("RETURN QUERY", "RETURN; RETURN QUERY"))
        sent, read = schedule(sessions, 3)
        assert sorted(read) != sorted(sent), "the planted fault is gone"


def test_on_the_command_line(dsn: str, conn: Connection) -> None:
    for n, key in enumerate("aab"):
        dn.Publisher().publish(conn, "t", n, key=key)
    found = objects(good("read", "t", "--until-empty", dsn=dsn))
    assert [m["payload"] for m in found] == [0, 1, 2]
    rest = objects(good("read", "t", "--until-empty", "--after", found[1]["token"], dsn=dsn))
    assert [m["payload"] for m in rest] == [2]
    latest = objects(good("read", "t", "--until-empty", "--from", "latest", dsn=dsn))
    assert sorted((m["key"], m["payload"]) for m in latest) == [("a", 1), ("b", 2)]
    assert objects(good("read", "t", "--until-empty", "--from", "now", dsn=dsn)) == []
    assert len(objects(good("read", "*", "--until-empty", "--from", "1h", dsn=dsn))) == 3
    assert run("read", "t", "--after", "nonsense", dsn=dsn).returncode in (1, 2)
    assert json.loads(good("status", "--json", dsn=dsn))[0]["group"] is None
