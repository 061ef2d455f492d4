"""A dump is restored into another cluster in the midst of work: nothing unread is lost.

The new cluster's transaction ids are lower than, among, higher than the old one's, or an epoch
ahead; lower ones pass the old ones afterwards. Asserted:

- until `reanchor`, publishing works and loses nothing, and every reader is refused and
  told the command;
- after it every group gets exactly what it had not been delivered: nothing is lost, nothing that was
  settled is redelivered, only what was leased may come twice; keys and strict groups keep their order;
  a running replay continues; leases of the old cluster can still be settled.

Other ways to move: test_moves.py. DURABLE_NOTIFY_SEED repeats a run's decisions,
DURABLE_NOTIFY_TRIALS makes more of them.
"""

from __future__ import annotations

import asyncio
import os
import random

import psycopg
import pytest

import durable_notify as dn
from durable_notify.embedded import Server
from tests.faults.chance import SEED
from tests.faults.moving import carry_on, in_the_midst, judge, reanchor
from tests.support.api import Api, Recorder
from tests.support.clusters import (
    Clusters,
    advance,
    copy_by_dump,
    database,
    migrated,
    several_hosts,
)
from tests.support.injection import Plant, plant
from tests.support.missing import slow_but
from tests.support.observe import asleep, leased, send
from tests.support.sessions import Session, Sessions
from tests.support.wait import wait_until, with_timeout

pytestmark = pytest.mark.server

TRIALS = int(os.environ.get("DURABLE_NOTIFY_TRIALS", "1"))
OLD = 40  # the page on which the old cluster's transaction ids begin
COUNTERS: dict[str, dict[str, int]] = {
    "lower": {},
    "among": {"page": OLD},
    "higher": {"page": 2 * OLD},
    "epoch": {"epoch": 1},
}
FORMATS = ["custom", "plain", "inserts"]


@pytest.fixture(scope="module")
def old(servers: Clusters) -> Server:
    return migrated(servers.fresh(page=OLD))


@pytest.mark.timeout(100 + 20 * TRIALS)
@pytest.mark.parametrize("counter", slow_but(COUNTERS, "lower"))
def test_dump_and_restore(servers: Clusters, old: Server, counter: str) -> None:
    new = servers.fresh(**COUNTERS[counter])
    for trial in range(TRIALS):
        seed = f"{SEED}/{trial}"
        rng = random.Random(seed)
        how = rng.choice(FORMATS)
        print(f"DURABLE_NOTIFY_SEED={SEED}, trial {trial}, {how}")
        source, target = database(old, "moving", "template"), database(new, "moved")
        with Sessions(source) as before:
            company = in_the_midst(before, seed, rng)
            copy_by_dump(servers, source, target, how)
        with Sessions(target) as after:
            reanchor(company, after, rng)
        if counter == "lower" and trial == TRIALS - 1:
            advance(new, OLD)  # until here the old ones were in the future; now they are reused
        with Sessions(target) as after:
            carry_on(company, after, rng)


# What it does to consumers.


@pytest.mark.slow
async def test_a_running_consumer_ends_with_the_remedy(api: Api, servers: Clusters) -> None:
    """The old server goes, and what its DSN leads to is a restored dump."""
    old, new = migrated(servers.fresh()), servers.fresh()
    source, target = database(old, "app", "template"), database(new, "app")
    consumer = api.consumer(several_hosts(old, new, dbname="app"))
    seen = Recorder()
    work = asyncio.ensure_future(consumer.run(seen))
    await asleep(consumer)
    with psycopg.connect(source, autocommit=True) as conn:
        send(conn, ["old"])
        await seen.got(1)
        await wait_until(lambda: leased(conn) == 0)
    copy_by_dump(servers, source, target, "plain")
    with psycopg.connect(target, autocommit=True) as conn:
        send(conn, ["new"])
    old.stop("immediate")
    with pytest.raises(dn.errors.ForeignCluster, match="durable-notify reanchor"):
        await with_timeout(work)
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("SELECT durable_notify.reanchor()")
    again = Recorder()
    await with_timeout(api.consumer(target, until_empty=True).run(again))
    assert [message.payload for message in again.messages] == ["new"]


# What the tests above are worth: each planted fault must be caught.


def no_anchor(session: Session) -> None:
    """No check notices that the outbox was restored elsewhere."""
    for function in ("_lock_group", "claim"):
        plant(session, function, ("= '{t,t}'", "IS NOT NULL"))


def xids_as_they_were(session: Session) -> None:
    """The outbox keeps the other cluster's transaction ids."""
    change = "ALTER TABLE durable_notify.outbox ALTER COLUMN xid TYPE xid8 USING '2'::xid8;"
    plant(session, "reanchor", (change, ""))


def stragglers_forgotten(session: Session) -> None:
    """What was in flight below the position does not come."""
    plant(session, "_reanchor_position", ("o.id <= pos.h0)", "o.id <= 0)"))


def read_from_the_beginning(session: Session) -> None:
    """What was delivered is redelivered."""
    place = "pos.h0 := GREATEST(old_pos.h0, old_pos.p);"
    plant(session, "_reanchor_position", (place, "pos.h0 := 0;"))


PLANTED: list[tuple[Plant, str]] = [
    (no_anchor, "lost"),
    (xids_as_they_were, "lost"),
    (stragglers_forgotten, "lost"),
    (read_from_the_beginning, "twice"),
]


@pytest.fixture(scope="module")
def elsewhere(servers: Clusters) -> Server:
    return servers.fresh()


@pytest.mark.slow
@pytest.mark.parametrize(("planted", "fault"), PLANTED)
def test_planted_fault_is_caught(
    servers: Clusters, old: Server, elsewhere: Server, planted: Plant, fault: str
) -> None:
    """Not every schedule has what it takes: a message that committed late, say."""
    for trial in range(10):
        if fault in moved_with(planted, servers, old, elsewhere, trial):
            return
    pytest.fail("not caught by 10 schedules")


def moved_with(
    planted: Plant, servers: Clusters, old: Server, elsewhere: Server, trial: int
) -> str:
    rng = random.Random(trial)
    source, target = database(old, "moving", "template"), database(elsewhere, "moved")
    with Sessions(source) as before:
        planted(before.session())
        company = in_the_midst(before, trial, rng)
        copy_by_dump(servers, source, target, "plain")
    with Sessions(target) as after:
        if planted is no_anchor:
            company.go_to(after, prepared=False)
        else:
            reanchor(company, after, rng)
        company.work(50)
        company.finish()
        return " / ".join(judge(company))
