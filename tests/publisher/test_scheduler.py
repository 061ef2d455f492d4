"""The scheduler: code declares, rows say when, and any number of processes publish each tick once."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schedules as definitions
from tests.support.api import Api, in_thread, maybe_await
from tests.support.cli import COMMAND, fails, good, run, start
from tests.support.injection import DatabaseClock
from tests.support.sessions import Sessions
from tests.support.wait import eventually, wait_until

Connection = psycopg.Connection[tuple[Any, ...]]
NIGHTLY = dn.Schedule(
    name="nightly", topic="t", payload={"n": 1}, cron="0 3 * * *", time_zone="Europe/Berlin"
)
HOURLY = dn.Schedule(name="hourly", topic="t", every=3600, missed="all", key="k")


def ticks(conn: Connection) -> list[tuple[str, str]]:
    query = "SELECT headers ->> 'schedule', headers ->> 'scheduled_for' FROM durable_notify.outbox ORDER BY id"
    return [(name, at) for name, at in conn.execute(query)]


def make_due(conn: Connection, ago: str = "1 second") -> None:
    conn.execute(
        "UPDATE durable_notify.schedule SET next_at = date_trunc('second', now()) - %s::interval",
        [ago],
    )


async def call(method: Any, *args: Any) -> Any:
    return await maybe_await(method(*args))


async def test_what_the_code_declares(api: Api, dsn: str, conn: Connection) -> None:
    assert await call(api.Scheduler(dsn, [NIGHTLY, HOURLY], program="shop").run_once) == 0
    dn.Admin().set_schedule(conn, dn.Schedule(name="by hand", topic="t", every=60))
    before = {one.name: one for one in dn.Admin().schedules(conn)}
    assert {name: one.program for name, one in before.items()} == {
        "nightly": "shop",
        "hourly": "shop",
        "by hand": None,
    }
    assert (
        before["nightly"]
        .next_runs(2)[0]
        .astimezone(definitions.Ticks(None, 1, "Europe/Berlin").zone)
        .hour
        == 3
    )
    await call(api.Scheduler(dsn, [NIGHTLY, HOURLY], program="shop").run_once)
    assert {one.name: one.next_at for one in dn.Admin().schedules(conn)} == {
        name: one.next_at for name, one in before.items()
    }
    await call(api.Scheduler(dsn, [HOURLY], program="shop").run_once)
    await call(api.Scheduler(dsn).run_once)  # declares none, and deletes none
    assert {one.name for one in dn.Admin().schedules(conn)} == {"hourly", "by hand"}


async def test_it_publishes_and_sleeps_until_the_next(api: Api, dsn: str, conn: Connection) -> None:
    scheduler = api.Scheduler(dsn, [NIGHTLY, HOURLY], program="shop")
    await call(scheduler.run_once)
    make_due(conn, "2 hours 1 second")
    task = asyncio.create_task(_run(api, scheduler))
    await wait_until(lambda: len(ticks(conn)) == 4)
    assert Counter(name for name, _ in ticks(conn)) == {"nightly": 1, "hourly": 3}
    scheduler.stop()
    await asyncio.wait_for(task, 10)
    assert all(one.seconds > 0 for one in dn.Admin().schedules(conn))
    with dn.Reader(dsn, topics=["t"], start="beginning", until_empty=True) as reader:
        message = next(m for m in reader if m.headers["schedule"] == "nightly")
    assert message.payload == {"n": 1}


async def _run(api: Api, scheduler: Any) -> None:
    if isinstance(scheduler, dn.AsyncScheduler):
        await scheduler.run()
    else:
        await in_thread(scheduler.run)


async def test_several_at_once_publish_each_tick_once(dsn: str, conn: Connection) -> None:
    names = [f"s{number}" for number in range(100)]
    for name in names:
        dn.Admin().set_schedule(conn, dn.Schedule(name=name, topic="t", every=60))
    make_due(conn)
    several = [dn.AsyncScheduler(dsn) for _ in range(4)]
    published = await asyncio.gather(*(one.run_once() for one in several))
    assert sum(published) == 100
    assert Counter(name for name, _ in ticks(conn)) == dict.fromkeys(names, 1)


async def test_one_that_fails_does_not_stop_the_others(
    dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for one in (NIGHTLY, HOURLY):
        dn.Admin().set_schedule(conn, one)
    conn.execute(
        "UPDATE durable_notify.schedule SET time_zone = 'Mars/Olympus' WHERE name = 'nightly'"
    )
    make_due(conn)
    scheduler = dn.AsyncScheduler(dsn)
    task = asyncio.create_task(scheduler.run())
    await wait_until(lambda: [name for name, _ in ticks(conn)] == ["hourly"])
    await wait_until(lambda: "Mars/Olympus" in caplog.text)
    scheduler.stop()
    await asyncio.wait_for(task, 10)


async def test_a_clock_that_is_wrong(
    dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the process does not count."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=400)

    monkeypatch.setattr(definitions, "datetime", Wrong)
    schedule = dn.Schedule(name="hourly", topic="t", every=3600)
    assert await dn.AsyncScheduler(dsn, [schedule], program="x").run_once() == 0
    (found,) = dn.Admin().schedules(conn)
    assert found.seconds == pytest.approx(3600, abs=60)
    assert await dn.AsyncScheduler(dsn).run_once() == 0


async def test_the_databases_clock_goes_back(
    dsn: str, conn: Connection, sessions: Sessions
) -> None:
    """As after a fail-over: what was published is not published again."""
    clock = DatabaseClock(sessions.session())
    dn.Admin().set_schedule(conn, HOURLY)
    clock.set("2 hours")
    assert await dn.AsyncScheduler(dsn).run_once() == 2
    for off in ("0", "-3 hours", "2 hours", "2 hours 59 minutes"):
        clock.set(off)
        assert await dn.AsyncScheduler(dsn).run_once() == 0
    clock.set("3 hours 1 minute")
    assert await dn.AsyncScheduler(dsn).run_once() == 1
    assert len(set(ticks(conn))) == 3


async def test_by_the_admin(api: Api, dsn: str, conn: Connection) -> None:
    admin = api.Admin()
    async with api.connect(dsn, autocommit=True) as caller:
        assert await call(admin.set_schedule, caller, HOURLY) is True
        assert await call(admin.set_schedule, caller, HOURLY) is False
        await call(admin.pause_schedule, caller, "hourly")
        (found,) = await call(admin.schedules, caller)
        assert (found.paused_at is None, found.next_runs(3), found.seconds) == (False, [], None)
        make_due(conn, "90 minutes")
        due = conn.execute("SELECT next_at FROM durable_notify.schedule").fetchone()
        await call(admin.resume_schedule, caller, "hourly")
        (found,) = await call(admin.schedules, caller)
        assert due is not None
        assert found.next_at == due[0] + timedelta(hours=2), "in step, and later than now"
        number = await call(admin.run_schedule, caller, "hourly")
        assert len(ticks(conn)) == 1
        assert number
        await call(admin.delete_schedule, caller, "hourly")
        for method in (
            admin.pause_schedule,
            admin.resume_schedule,
            admin.delete_schedule,
            admin.run_schedule,
        ):
            with pytest.raises(dn.InvalidArgument, match="no schedule"):
                await call(method, caller, "hourly")


def test_what_is_refused(dsn: str) -> None:
    with pytest.raises(dn.InvalidArgument, match="same name"):
        dn.Scheduler(dsn, [NIGHTLY, NIGHTLY], program="x")
    with pytest.raises(dn.InvalidArgument, match="name of the program"):
        dn.Scheduler(dsn, [NIGHTLY])
    with pytest.raises(dn.InvalidArgument, match="not a Schedule"):
        dn.Scheduler(dsn, ["nightly"], program="x")  # type: ignore[list-item]


def test_by_the_command_line(dsn: str, conn: Connection, tmp_path: Path) -> None:
    out = good(
        "schedule",
        "set",
        "nightly",
        "t",
        '{"n": 1}',
        "--cron",
        "30 2 * * *",
        "--time-zone",
        "Europe/Berlin",
        dsn=dsn,
    )
    assert "02:30:00 CE" in out
    assert "nightly" in good("schedule", "list", dsn=dsn)
    (found,) = json.loads(good("schedule", "list", "--json", dsn=dsn))
    assert (found["payload"], len(found["next"])) == ({"n": 1}, 3)
    make_due(conn)
    assert "published 1" in good("schedule", "run", "--once", dsn=dsn)
    good("schedule", "pause", "nightly", dsn=dsn)
    assert "paused" in good("schedule", "list", dsn=dsn)
    good("schedule", "resume", "nightly", dsn=dsn)
    assert "published message" in good("schedule", "now", "nightly", dsn=dsn)
    good("schedule", "delete", "nightly", dsn=dsn)
    fails(run("schedule", "pause", "nightly", dsn=dsn), 2, "no schedule")
    fails(run("schedule", "set", "x", "t", "{", "--every", "10m", dsn=dsn), 2, "not JSON")
    fails(run("schedule", "set", "x", "t", "--cron", "x", dsn=dsn), 2, "cannot be read")
    assert good("schedule", "list", dsn=dsn) == ""


PROGRAM = """
import durable_notify as dn
schedules = [dn.Schedule(name="each second", topic="t", every=1, missed="all")]
"""


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(100)
def test_processes_that_are_killed(dsn: str, conn: Connection, tmp_path: Path) -> None:
    """Two at a time; whichever published last is killed. No tick is missing, none is there twice."""
    (tmp_path / "periodic.py").write_text(PROGRAM, encoding="utf-8")
    command = ("schedule", "run", "periodic:schedules")
    running = [start(*command, dsn=dsn, cwd=tmp_path) for _ in range(2)]
    try:
        for seconds in (2, 4, 6):
            eventually(lambda enough=seconds: len(ticks(conn)) >= enough, 40)  # type: ignore[misc]
            running[0].send_signal(signal.SIGKILL)
            running.pop(0).communicate(timeout=20)
            running.append(start(*command, dsn=dsn, cwd=tmp_path))
        eventually(lambda: len(ticks(conn)) >= 9, 40)
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
            process.communicate()
    found = [datetime.fromisoformat(at) for _, at in ticks(conn)]
    assert found == [found[0] + timedelta(seconds=n) for n in range(len(found))]
    assert COMMAND
    assert found[0].tzinfo == UTC
