"""The database moves to another cluster in the midst of work: nothing undelivered is lost.

Asserted for dump and restore (the new cluster's transaction ids lower than, among, higher than the
old one's, or an epoch ahead), for logical replication, and for a restore into the same cluster:

- until `reanchor`, publishing works, and everybody who would read is refused and told the command;
- after it every group gets exactly what it had not been handed: nothing is lost, nothing that was
  settled comes again, only what was leased comes twice; keys and strict groups keep their order; a
  running replay goes on; leases of the old cluster can still be settled.

Asserted for point-in-time recovery, pg_upgrade and a copy made from a template: the same, with
nothing to be done.

DURABLE_NOTIFY_SEED repeats a run's decisions, DURABLE_NOTIFY_TRIALS makes more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

import durable_notify as dn
from durable_notify import schema
from durable_notify.embedded import Server
from tests.support.binaries import binaries_of
from tests.support.clusters import PAGE, REPLICATING, Clusters, client, clusters, connect, of_server
from tests.support.moving import Company, judge, refused, still_to_come
from tests.support.schedule import Session, Stage

TRIALS = int(os.environ.get("DURABLE_NOTIFY_TRIALS", "1"))
SEED = os.environ.get("DURABLE_NOTIFY_SEED") or str(random.SystemRandom().randrange(10**9))
OLD = 40  # the page on which the old cluster's transaction ids begin
COUNTERS = {"lower": {}, "among": {"page": OLD}, "higher": {"page": 2 * OLD}, "epoch": {"epoch": 1}}
FORMATS = {
    "custom": ["--format=custom"],
    "plain": ["--format=plain"],
    "inserts": ["--format=plain", "--rows-per-insert=7"],
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Clusters]:
    with clusters() as them:
        yield them


@pytest.fixture(scope="module")
def old(servers: Clusters) -> Server:
    server = servers.fresh(REPLICATING, page=OLD)
    with connect(server) as conn:
        conn.execute("CREATE DATABASE template TEMPLATE template0")
    schema.migrate(server.dsn("template"))
    return server


@pytest.fixture(scope="module", params=COUNTERS)
def new(request: pytest.FixtureRequest, servers: Clusters) -> Server:
    return servers.fresh(REPLICATING, **COUNTERS[request.param])


def database(server: Server, name: str, template: str = "template0") -> str:
    with connect(server) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return server.dsn(name)


def copy_by_dump(source: str, target: str, servers: Clusters, how: str) -> None:
    """pg_dump, and pg_restore or psql."""
    file = servers.folder / "dump"
    client(servers.bindir, "pg_dump", *FORMATS[how], "--file", file, source)
    if how == "custom":
        client(servers.bindir, "pg_restore", "--exit-on-error", "--dbname", target, file)
    else:
        options = ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file", file]
        client(servers.bindir, "psql", *options, target)


def in_the_midst(stage: Stage, seed: object, rng: random.Random) -> Company:
    """Publishers and consumers that have been at work for a while, and are."""
    company = Company(stage, seed)
    company.work(rng.randrange(60, 140))
    company.start_replay()
    company.work(rng.randrange(40))
    company.unfinished()
    company.work(rng.randrange(20))
    return company


def carry_on(company: Company, stage: Stage, rng: random.Random, *, prepared: bool = False) -> None:
    """Go on where nobody has to do anything."""
    company.go_to(stage, prepared=prepared)
    waiting = still_to_come(stage.session())
    company.work(rng.randrange(40, 100))
    company.finish()
    verdict = judge(company, waiting)
    print(f"{verdict.messages} messages, {verdict.waiting} deliveries to come at the move")
    assert not verdict, verdict.faults
    assert verdict.waiting > 0


def reanchored(company: Company, stage: Stage, rng: random.Random) -> None:
    """Be refused, publish all the same, re-anchor, and go on."""
    company.go_to(stage, prepared=False)
    session = stage.session()
    refused(session)
    company.publish(rng.randrange(30))
    for publisher in company.publishers:
        publisher.finish()  # reanchor() would wait for them
    refused(session)
    rows = session.run("SELECT * FROM durable_notify.reanchor('moved')")
    assert {group for group, _, _ in rows} == {"g", "h", "n", "s", "r", "i"}
    assert session.run("SELECT * FROM durable_notify.reanchor()") == []
    undelivered = {group: count for group, _, count in rows}
    assert undelivered["i"] == len(company.history.sent)
    carry_on(company, stage, rng)


@pytest.mark.timeout(100 + 15 * TRIALS)
def test_dump_and_restore(servers: Clusters, old: Server, new: Server) -> None:
    for trial in range(TRIALS):
        seed = f"{SEED}/{trial}"
        rng = random.Random(seed)
        how = rng.choice(list(FORMATS))
        print(f"DURABLE_NOTIFY_SEED={SEED}, trial {trial}, {how}")
        source, target = database(old, "moving", "template"), database(new, "moved")
        with Stage(source) as before:
            company = in_the_midst(before, seed, rng)
            copy_by_dump(source, target, servers, how)
        with Stage(target) as after:
            reanchored(company, after, rng)
