"""Replay as a job, and seek: what is redelivered, and that nothing is lost by it."""

from __future__ import annotations

import datetime as dt
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from durable_notify._async.wakeups import subscription as async_subscription
from durable_notify._sync.wakeups import subscription as sync_subscription
from tests.support.api import Api, Recorder, maybe_await, running
from tests.support.cli import PATIENCE, good, on_a_terminal, run, start
from tests.support.injection import plant
from tests.support.observe import asleep, outstanding, value
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions, ids
from tests.support.wait import eventually, with_timeout

Connection = psycopg.Connection[Any]
ADVANCE = "SELECT durable_notify.advance_replays('g', '{t}')"


def history(conn: Connection) -> list[int]:
    """Ten messages with keys, headers and payloads to choose by."""
    publisher = dn.Publisher()
    return [
        publisher.publish(
            conn, "t", {"n": n, "tags": ["odd" if n % 2 else "even"]},
            key=f"k{n % 3}", headers={"source": "shop" if n < 5 else "web"},
        )
        for n in range(10)
    ]  # fmt: skip


def delivered_ids(conn: Connection) -> list[int]:
    """What was delivered, according to the live position, in any window."""
    query = """
        SELECT o.id FROM durable_notify.outbox o, durable_notify.position q
         WHERE pg_visible_in_snapshot(o.xid, q.s0) AND o.id <= q.h0
            OR q.s1 IS NOT NULL AND pg_visible_in_snapshot(o.xid, q.s1) AND o.id <= q.p
         ORDER BY o.id"""
    return [row[0] for row in conn.execute(query).fetchall()]


CONDITIONS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, list(range(10))),
    ({"after": 3}, list(range(3, 10))),
    ({"after": 3, "upto": 6}, [3, 4, 5]),
    ({"keys": "k1"}, [1, 4, 7]),
    ({"keys": ["k1", "k2"], "upto": 6}, [1, 2, 4, 5]),
    ({"headers": {"source": "web"}}, list(range(5, 10))),
    ({"payload": {"tags": ["odd"]}}, [1, 3, 5, 7, 9]),
    ({"path": "$.n ? (@ > 7)"}, [8, 9]),
    ({"since": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "keys": "k0"}, [0, 3, 6, 9]),
    ({"until": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, []),
]


@pytest.mark.parametrize(("conditions", "indexes"), CONDITIONS)
async def test_conditions(
    api: Api, dsn: str, conn: Connection, conditions: dict[str, Any], indexes: list[int]
) -> None:
    sent = history(conn)
    await with_timeout(api.consumer(dsn, until_empty=True).run(Recorder()))
    before = delivered_ids(conn)
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as mine:
        count = await maybe_await(admin.start_replay(mine, "g", "t", dry_run=True, **conditions))
        assert count == len(indexes)
        assert await maybe_await(admin.replay_jobs(mine)) == []
        job = await maybe_await(admin.start_replay(mine, "g", "t", why="w", **conditions))
        seen = Recorder()
        await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
        assert sorted(seen.ids) == [sent[index] for index in indexes]
        assert set(seen.attempts) <= {1}
        (found,) = await maybe_await(admin.replay_jobs(mine))
        assert (found.id, found.state, found.done, found.total) == (job, "done", count, count)
        assert not await maybe_await(admin.cancel_replay(mine, job))
    assert delivered_ids(conn) == before
    assert outstanding(conn) == 0


async def test_it_wakes_a_sleeping_consumer(api: Api, dsn: str, conn: Connection) -> None:
    sent = history(conn)
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen):
        await seen.got(10)
        await asleep(getattr(consumer, "consumer", consumer))
        dn.Admin().start_replay(conn, "g", "t", keys="k0", rate_limit=1000)
        await seen.got(14)
    assert seen.ids[10:] == [sent[n] for n in (0, 3, 6, 9)]


async def test_started_just_before_it_asks_to_be_rung(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No session waits yet, so nothing rings: the read after arming the doorbell must find it."""
    sent = history(conn)
    started: list[Any] = []
    for subscription in (async_subscription.AsyncSubscription, sync_subscription.Subscription):

        def arm(self: Any, arms: Any = subscription.arm) -> None:
            if not started and len(seen.ids) == 10:
                started.append(dn.Admin().start_replay(conn, "g", "t", keys="k0"))
            arms(self)

        monkeypatch.setattr(subscription, "arm", arm)
    seen = Recorder()
    async with running(api.consumer(dsn), seen):
        await seen.got(14)
    assert seen.ids[10:] == [sent[n] for n in (0, 3, 6, 9)]


def test_what_was_not_delivered_comes_once(sessions: Sessions) -> None:
    one, slow = sessions.readers(2)
    delivered = [one.publish() for _ in range(3)]
    slow.begin()
    late = slow.publish()
    delivered.append(one.publish())
    assert sorted(drain(one)) == delivered
    new = one.publish()
    one.run("SELECT durable_notify.start_replay('g', 't')")
    slow.commit()
    again: list[int] = []
    for _ in range(5):
        one.run(ADVANCE)
        again += drain(one)
    assert sorted(again) == sorted([*delivered, late, new])


def test_the_past_for_a_new_group(sessions: Sessions) -> None:
    one = sessions.session()
    past = [one.publish() for _ in range(3)]
    one.subscribe(start_at="now")
    new = one.publish()
    assert one.value("SELECT total FROM durable_notify.start_replay('g', 't')") == 3
    one.run(ADVANCE)
    assert sorted(drain(one)) == [*past, new]


def test_a_crash_in_the_middle_and_two_at_once(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    sent = [one.publish() for _ in range(1200)]
    assert drain(one) == sent
    one.run("SELECT durable_notify.start_replay('g', 't')")
    one.begin()
    assert one.value(ADVANCE) == 0
    assert two.value(ADVANCE) is None  # another session advances it
    one.rollback()  # as when it dies
    found: list[int] = []
    while two.value(ADVANCE) is not None:
        found += drain(two)
    assert found + drain(two) == sent


def test_it_does_not_flood(sessions: Sessions) -> None:
    one = sessions.reader()
    one.run("SELECT durable_notify.publish_many('t', array_fill('1'::jsonb, '{3000}'))")
    one.run("SELECT durable_notify.seek('g', 't', to_now => true)")
    one.run("SELECT durable_notify.start_replay('g', 't')")
    for _ in range(5):
        due = one.value(ADVANCE)
    assert due == 0.2
    assert one.value("SELECT count(*) FROM durable_notify.deferred") == 1000


def test_a_slow_one_says_when_its_next_step_is(sessions: Sessions) -> None:
    one = sessions.reader()
    sent = [one.publish() for _ in range(2)]
    assert drain(one) == sent
    one.run("SELECT durable_notify.start_replay('g', 't', rate_limit => 0.01)")
    assert 90 < one.value(ADVANCE) <= 100
    one.run(
        "UPDATE durable_notify.replay_job SET stepped_at = clock_timestamp() - interval '101 s'"
    )
    assert one.value(ADVANCE) == 100


def test_rate(sessions: Sessions) -> None:
    one = sessions.reader()
    sent = [one.publish() for _ in range(60)]
    assert drain(one) == sent
    one.run("SELECT durable_notify.start_replay('g', 't', rate_limit => 10)")
    moved = "SELECT done FROM durable_notify.replay_job"
    back = "UPDATE durable_notify.replay_job SET stepped_at = clock_timestamp() - %s::interval"
    one.run(back, "-1 hour")
    assert 0 < one.value(ADVANCE) <= 0.2
    assert one.value(moved) == 0
    one.run(back, "0.55 seconds")
    one.run(ADVANCE)
    some = one.value(moved)
    assert 5 <= some < 10
    one.run(back, "1 day")  # stopped for long: it does not catch up
    one.run(ADVANCE)
    assert one.value(moved) == some + 10


def test_cancelled(sessions: Sessions) -> None:
    one = sessions.reader()
    sent = [one.publish() for _ in range(600)]
    assert drain(one) == sent
    job = one.value("SELECT job_id FROM durable_notify.start_replay('g', 't')")
    one.run(ADVANCE)
    batch = one.claim(10)
    assert one.value("SELECT durable_notify.cancel_replay(%s)", job)
    one.ack(batch)
    assert one.value(ADVANCE) is None
    assert one.claim() == []


def test_order_by_key_holds(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    old = one.publish(key="k")
    assert drain(one) == [old]
    one.run("SELECT durable_notify.start_replay('g', 't')")
    one.publish(key="k")
    (held,) = two.claim()
    one.run(ADVANCE)
    assert one.claim() == []  # its key is in progress
    two.ack([held])
    assert drain(one) == [old]


async def test_errors(api: Api, dsn: str, conn: Connection) -> None:
    history(conn)
    await with_timeout(api.consumer(dsn, until_empty=True).run(Recorder()))
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as mine:
        await maybe_await(admin.start_replay(mine, "g", "t", rate_limit=0.001))
        for bad in (
            {},
            {"rate_limit": 0},
            {"after": -1},
            {"colour": 1},
            {"since": dt.datetime(2020, 1, 1)},  # noqa: DTZ001
        ):
            with pytest.raises(dn.InvalidArgument):
                await maybe_await(admin.start_replay(mine, "g", "t", **bad))
        with pytest.raises(dn.errors.UnknownGroup):
            await maybe_await(admin.start_replay(mine, "unknown", "t"))
        with pytest.raises(dn.errors.UnknownTopic):
            await maybe_await(admin.start_replay(mine, "g", "u"))
        for bad in ({}, {"after": 1, "now": True}, {"after": -1}):
            with pytest.raises(dn.InvalidArgument):
                await maybe_await(admin.seek(mine, "g", "t", **bad))
        with pytest.raises(dn.errors.UnknownTopic):
            await maybe_await(admin.seek(mine, "g", "u", now=True))
        assert [job.state for job in await maybe_await(admin.replay_jobs(mine))] == ["running"]


# Seek.


async def test_seek(api: Api, dsn: str, conn: Connection) -> None:
    sent = history(conn)
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as mine:
        async with api.consumer(dsn) as _:
            pass
        await maybe_await(admin.seek(mine, "g", "t", after=0))
        middle = value(
            conn, "SELECT created_at FROM durable_notify.outbox ORDER BY id OFFSET 4 LIMIT 1"
        )
        assert await maybe_await(
            admin.seek(mine, "g", "t", since=middle, dry_run=True)
        ) == dn.models.SeekResult(0, 4)
        assert await maybe_await(admin.seek(mine, "g", "t", after=sent[6])) == dn.models.SeekResult(
            0, 7
        )
        seen = Recorder()
        await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
        assert seen.ids == sent[7:]
        assert await maybe_await(
            admin.seek(mine, "g", "t", after=sent[8], why="w")
        ) == dn.models.SeekResult(1, 0)
        assert await maybe_await(admin.seek(mine, "g", "t", now=True)) == dn.models.SeekResult(0, 1)
        (entry,) = [
            entry for entry in await maybe_await(admin.audit(mine, "g")) if entry.why == "w"
        ]
        assert (entry.action, entry.details["redelivered"]) == ("seek", 1)


async def test_replay_is_a_seek_that_never_goes_forward(
    api: Api, dsn: str, conn: Connection
) -> None:
    sent = history(conn)
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as mine:
        await with_timeout(api.consumer(dsn, until_empty=True).run(Recorder()))
        dry = admin.replay(mine, "g", "t", after=sent[7], dry_run=True)
        assert await maybe_await(dry) == 2
        assert await maybe_await(admin.replay(mine, "g", "t", after=sent[7], why="w")) == 2
        assert await maybe_await(admin.replay(mine, "g", "t", after=sent[9])) == 0
        seen = Recorder()
        await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
        assert seen.ids == sent[8:]
        ahead, back = await maybe_await(admin.audit(mine, "g"))
    assert (back.action, back.details["redelivered"], back.why) == ("seek", 2, "w")
    assert (ahead.details["redelivered"], ahead.details["skipped"]) == (0, 0)


def seek_at_random(sessions: Sessions, seed: int) -> tuple[set[int], set[int], set[int]]:
    """Publishers with open transactions, claims, seeks; what must come, may come, and came."""
    dice = random.Random(seed)
    one, *writers = sessions.take(4)
    one.subscribe()
    flying: dict[Session, list[int]] = {}
    committed: set[int] = set()
    skipped: set[int] = set()
    came: set[int] = set()
    for _ in range(90):
        writer, roll = dice.choice(writers), dice.random()
        if roll < 0.25:
            batch = one.claim(dice.randint(1, 3))
            came |= set(ids(batch))
            one.ack(batch)
        elif roll < 0.40 and committed:
            target = dice.choice(sorted(committed))
            position = one.position()
            one.run("SELECT durable_notify.seek('g', 't', after_id => %s)", target)
            if target >= max(position.h0, position.p):
                skipped |= {i for i in committed if i <= target} - came
        elif writer not in flying:
            writer.begin()
            flying[writer] = [writer.publish()]
        elif roll < 0.7:
            flying[writer].append(writer.publish())
        elif roll < 0.9:
            writer.commit()
            committed |= set(flying.pop(writer))
        else:
            writer.rollback()
            del flying[writer]
    for writer, found in flying.items():
        writer.commit()
        committed |= set(found)
    came |= set(drain(one))
    return committed - skipped, committed, came


@pytest.mark.parametrize("seed", range(12))
def test_seek_loses_no_straggler(sessions: Sessions, seed: int) -> None:
    must, may, came = seek_at_random(sessions, seed)
    assert must <= came <= may, f"seed {seed}: lost {must - came}, invented {came - may}"


def test_a_seek_that_forgets_what_is_in_flight_is_caught(sessions: Sessions) -> None:
    one, slow = sessions.readers(2)
    # As if every transaction there will be for a while had ended.
    over = "(pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint + 5)"
    everything = f"now_snapshot := ({over} || ':' || {over} || ':')::pg_snapshot;"
    plant(one, "seek", ("now_snapshot := durable_notify._committed_snapshot();", everything))
    slow.begin()
    slow.publish()
    one.publish()
    one.run("SELECT durable_notify.seek('g', 't', to_now => true)")
    slow.commit()
    assert drain(one) == [], "the planted fault is gone"


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_seek_from_an_older_position_is_told_to_try_again(
    sessions: Sessions, isolation: str
) -> None:
    one, operator = sessions.readers(2)
    seek = "SELECT durable_notify.seek('g', 't', to_now => true)"
    operator.begin(isolation)
    last = one.publish()
    assert drain(one) == [last]
    with pytest.raises(errors.SerializationFailure):
        operator.run(seek)
    operator.rollback()
    operator.run(seek)


def test_on_the_command_line(dsn: str, conn: Connection) -> None:
    sent = history(conn)
    good("consume", "t", "--group", "g", "--until-empty", dsn=dsn)
    words = ("replay-job", "start", "--group", "g", "--topic", "t")
    said = good(*words, "--payload", '{"tags": ["odd"]}', "--dry-run", dsn=dsn)
    assert said == "5 messages of t would be redelivered to g\n"
    said = good(*words, "--key", "k1", "--key", "k2", "--since", "1h", "--why", "w", dsn=dsn)
    assert said.endswith("6 messages of t are redelivered to g\n")
    (job,) = json.loads(good("replay-job", "list", "--json", dsn=dsn))
    assert (job["state"], job["total"], job["why"]) == ("running", 6, "w")
    assert (
        good("replay-job", "cancel", str(job["id"]), dsn=dsn)
        == f"replay {job['id']} is cancelled\n"
    )
    assert run("replay-job", "cancel", str(job["id"]), dsn=dsn).returncode == 1
    assert "cancelled" in good("replay-job", "list", dsn=dsn)
    assert run(*words, "--payload", "{", dsn=dsn).returncode == 2
    seek = ("seek", "--group", "g", "--topic", "t")
    assert (
        good(*seek, "--after", str(sent[7]), "--dry-run", dsn=dsn)
        == "2 would be redelivered, 0 skipped\n"
    )
    assert good(*seek, "--after", "0", "--yes", dsn=dsn) == "10 redelivered, 0 skipped\n"
    assert good(*seek, "--now", "--yes", dsn=dsn) == "0 redelivered, 10 skipped\n"
    assert run(*seek, dsn=dsn).returncode == 2


def test_following_shows_a_bar_on_a_terminal_only(dsn: str, conn: Connection) -> None:
    history(conn)
    good("consume", "t", "--group", "g", "--until-empty", dsn=dsn)
    words = ("replay-job", "start", "--group", "g", "--topic", "t", "--follow")

    def cancelled() -> bool:
        query = "SELECT j.job_id FROM durable_notify.replay_jobs() j WHERE j.state = 'running'"
        return any(
            conn.execute("SELECT durable_notify.cancel_replay(%s)", row).fetchone() == (True,)
            for row in conn.execute(query).fetchall()
        )

    process = start(*words, dsn=dsn)
    eventually(cancelled)
    out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    assert out.decode().splitlines()[1:] == ["replay 1 is cancelled: 0 of 10"]
    with ThreadPoolExecutor(1) as pool:
        terminal = pool.submit(on_a_terminal, b"", *words, dsn=dsn)
        eventually(cancelled)
        status, shown = terminal.result(PATIENCE)
    assert status == 0
    assert "━" in shown
    assert "replay 2 is cancelled: 0 of 10" in shown
