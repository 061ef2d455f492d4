"""The database's clock is set, forth and back, under load.

It decides about leases, due times and the names of leases. Asserted: whatever it shows, nothing is lost
and nothing twice in effect; where it goes back, what waits by the clock waits for as long again at
most; a moment that is reached twice ends no consumer, and lets none settle what is another's.
DURABLE_NOTIFY_SECONDS makes the run longer, DURABLE_NOTIFY_SEED repeats its decisions.
"""

from __future__ import annotations

import random
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.faults.chance import SEED, seconds
from tests.faults.workload import DDL, Workload
from tests.support.api import Api, Recorder, running
from tests.support.injection import DatabaseClock, plant
from tests.support.observe import leased, outstanding, send
from tests.support.sessions import Sessions, ids
from tests.support.wait import wait_until

SECONDS = seconds(3)
EXCLUSIVE = """SELECT durable_notify.configure('g', '{"exclusive": true}')"""


@pytest.fixture
def clock(sessions: Sessions) -> DatabaseClock:
    return DatabaseClock(sessions.session())


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
def test_it_is_set_under_load(dsn: str, clock: DatabaseClock, sessions: Sessions) -> None:
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    rng = random.Random(SEED)
    (director,) = sessions.take(1)
    director.run(DDL)
    with Workload(dsn, pause=0.02, seed=SEED) as workload:
        until_then = time.monotonic() + SECONDS
        while time.monotonic() < until_then:
            clock.set(rng.choice(["1 hour", "-1 hour", "0", "10 seconds", "-3 seconds"]))
            workload.progress(5)
        clock.set("1 day")  # what was put off while it was ahead is due
        workload.drain(director.connection)
        workload.judge(director.connection)


def test_back_by_an_hour(clock: DatabaseClock, sessions: Sessions) -> None:
    """Running consumers continue; one that died before is found dead once its hour has passed twice."""
    alive, dead, publisher = sessions.readers(3)
    first, second = publisher.publish(), publisher.publish()
    mine, lost = alive.claim(1, lease="30 s"), dead.claim(1, lease="30 s")
    assert (ids(mine), ids(lost)) == ([first], [second])
    clock.set("-1 hour")
    assert alive.claim() == []
    assert alive.column("SELECT durable_notify.extend(%s, '30 s')", [mine[0].token])
    alive.ack(mine)
    third = publisher.publish()
    batch = alive.claim()
    assert ids(batch) == [third]
    alive.ack(batch)
    clock.set("31 s")
    again = alive.claim()
    assert [(m.id, m.attempt) for m in again] == [(second, 2)]
    with pytest.raises(errors.DatabaseError, match="superseded"):
        dead.ack(lost)
    alive.ack(again)


def test_forth_by_an_hour(clock: DatabaseClock, sessions: Sessions) -> None:
    """All leases have run out at once: the first to settle wins, and only one does."""
    first, second, publisher = sessions.readers(3)
    sent = [publisher.publish() for _ in range(2)]
    early = first.claim()
    clock.set("2 hours")
    first.settle(early[0].token, early[:1])
    again = second.claim()
    assert [(m.id, m.attempt) for m in again] == [(sent[1], 2)]
    with pytest.raises(errors.DatabaseError, match="superseded"):
        first.settle(early[0].token, early[1:])
    second.ack(again)
    assert leased(second.connection) == 0


def exclusive_group_after_a_step_back(clock: DatabaseClock, sessions: Sessions) -> list[int]:
    """A consumer has claimed, and keeps its lease; the clock is set back; another becomes active.

    What is out under leases while that one works.
    """
    old, new, publisher = sessions.readers(3)
    old.run(EXCLUSIVE)
    publisher.publish()
    claim = "SELECT token, id FROM durable_notify.claim('g', '{t}', 1, '10 s', 'x', %s)"
    ((token, _),) = old.run(claim, "old")
    clock.set("-1 hour")
    old.run("SELECT durable_notify.renew_active('g', 'old', '10 s')")
    old.run("SELECT durable_notify.extend(%s, '1 hour')", [token])
    clock.set("-59 minutes")
    publisher.publish()
    ((_, taken),) = new.run(claim, "new")
    out = new.column("SELECT unnest(ids) FROM durable_notify.lease")
    assert taken in out
    return sorted(out)


def test_the_active_consumer_is_fenced_whatever_the_clock(
    clock: DatabaseClock, sessions: Sessions
) -> None:
    assert len(exclusive_group_after_a_step_back(clock, sessions)) == 1


def test_a_fence_that_trusts_the_clock_is_seen(clock: DatabaseClock, sessions: Sessions) -> None:
    later = " OR l.claimed_at > clocks.clock_timestamp()"
    plant(sessions.session(), "_fenced_leases", (later, ""))
    assert len(exclusive_group_after_a_step_back(clock, sessions)) == 2


def test_a_reused_token_settles_nothing_of_anothers(
    clock: DatabaseClock, sessions: Sessions
) -> None:
    """The same session claims at the same moment once more; tokens have both in them."""
    reader, other, publisher = sessions.readers(3)
    first = publisher.publish()
    clock.freeze()
    stale = reader.claim(1)
    reader.run("SELECT durable_notify.release(%s, true)", [stale[0].token])
    assert ids(other.claim(1)) == [first]
    second = publisher.publish()
    again = reader.claim(1)
    assert again[0].token == stale[0].token
    assert ids(again) == [second]
    with pytest.raises(errors.DatabaseError, match="not all of .* are messages of lease"):
        reader.ack(stale)
    reader.ack(again)


@pytest.mark.parametrize("name", ["sync", "async"])
async def test_a_reused_token_ends_no_consumer(
    dsn: str, conn: psycopg.Connection[Any], clock: DatabaseClock, name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "durable_notify")
    sent = send(conn, [1, 2])
    clock.freeze()
    seen = Recorder(lambda _message: wait_until(lambda: "clock was set back" in caplog.text))
    consumer = Api(name).consumer(dsn, batch_size=1)
    async with running(consumer, seen, concurrency=2):
        await wait_until(lambda: "clock was set back" in caplog.text)
        clock.set("0")
        await seen.got(2)
        await wait_until(lambda: outstanding(conn) == 0)
    assert sorted(seen.ids) == sent
