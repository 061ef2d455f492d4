"""Readers without a group on a hot standby, whose snapshots do not list who is running.

A late commit comes when it commits, there as on the primary, and nothing comes twice. What a snapshot
there wants stays on the primary, where the standby gives feedback.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from durable_notify.embedded import Server
from tests.support.clusters import (
    REPLICATING,
    caught_up,
    clusters,
    connect,
    database,
    migrated,
    promote,
)
from tests.support.injection import plant
from tests.support.retention import (
    advance_watermark,
    lay_out_partitions,
    make_partitions,
    outbox_ids,
    retain,
)
from tests.support.schedules import drain
from tests.support.sessions import Session, Sessions, SqlReader
from tests.support.wait import eventually

pytestmark = pytest.mark.server

TOLD = "SELECT count(backend_xmin) > 0 FROM pg_stat_replication"
LATEST = "SELECT s0::text, h0, id, key FROM durable_notify.latest('t')"
FEEDBACK = {"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s"}
ON_A_STANDBY = ("pg_catalog.pg_is_in_recovery()", "false")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Server, Server]]:
    with clusters() as servers:
        primary = migrated(servers.fresh(REPLICATING))
        yield primary, servers.standby(primary, FEEDBACK)


class Scene:
    """A database of a primary, and sessions there and on its standby."""

    def __init__(self, pair: tuple[Server, Server], name: str) -> None:
        primary, self.standby = pair
        self.sessions = Sessions(database(primary, name, "template"))
        self.watcher = connect(primary)
        self.name = name

    def __enter__(self) -> Scene:
        self.sessions.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.sessions.__exit__()
        self.watcher.close()

    def there(self) -> Session:
        """A session on the standby, which has all there is."""
        self.replicated()
        session = Session(self.standby.dsn(self.name))
        self.sessions.sessions.append(session)
        return session

    def replicated(self) -> None:
        eventually(lambda: caught_up(self.watcher), 60)


@pytest.mark.parametrize("planted", [False, True])
def test_a_late_commit(pair: tuple[Server, Server], planted: bool) -> None:
    with Scene(pair, "late") as scene:
        slow, fast = scene.sessions.take(2)
        if planted:
            plant(fast, "_committed_snapshot", ON_A_STANDBY)
        reader = SqlReader(scene.there())
        slow.begin()
        late = slow.publish()
        sent = [fast.publish() for _ in range(3)]
        scene.replicated()
        early = reader.rest()
        assert early == (sent if planted else [])
        slow.commit()
        sent.append(fast.publish())
        scene.replicated()
        assert early + reader.rest() == (sent if planted else [late, *sent])


@pytest.mark.parametrize("planted", [False, True])
def test_the_latest_and_what_follows(pair: tuple[Server, Server], planted: bool) -> None:
    """What is left out of the one comes with the other."""
    with Scene(pair, "latest") as scene:
        slow, fast = scene.sessions.take(2)
        if planted:
            plant(fast, "_committed_snapshot", ON_A_STANDBY)
        known = fast.publish(key="a")
        slow.begin()
        late = slow.publish(key="b")
        new = fast.publish(key="a")
        there = scene.there()
        rows = there.run(LATEST)
        assert [row[2:] for row in rows] == [(new if planted else known, "a")]
        reader = SqlReader(there, *rows[0][:2])
        slow.commit()
        scene.replicated()
        assert reader.rest() == ([] if planted else [late, new])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_schedules(pair: tuple[Server, Server], seed: int) -> None:
    rng = random.Random(f"standby {seed}")
    with Scene(pair, f"random{seed}") as scene:
        writers = scene.sessions.take(4)
        open_now: dict[Session, list[int]] = {}
        committed: list[int] = []
        found: list[int] = []
        reader = SqlReader(scene.there())
        for _ in range(120):
            what = rng.choice(["publish", "publish", "end", "read"])
            writer = rng.choice(writers)
            if what == "publish":
                if writer not in open_now:
                    writer.begin(rng.choice(["read committed", "repeatable read"]))
                if rng.random() < 0.3:
                    writer.run("SAVEPOINT s")
                open_now.setdefault(writer, []).append(writer.publish())
            elif what == "end" and writer in open_now:
                published = open_now.pop(writer)
                if rng.random() < 0.8:
                    writer.commit()
                    committed += published
                else:
                    writer.rollback()
            elif what == "read":
                scene.replicated()
                found += reader.read(rng.randint(1, 4))
        for writer in open_now:
            writer.rollback()
        committed.append(writers[0].publish())
        scene.replicated()
        found += reader.rest(rng.randint(1, 4))
        assert sorted(found) == sorted(committed)


def test_a_partition_that_a_snapshot_there_needs(pair: tuple[Server, Server]) -> None:
    """A backup of the standby, say."""
    with Scene(pair, "wanted") as scene:
        (owner,) = scene.sessions.take(1)
        lay_out_partitions(owner, 10)
        owner.subscribe()
        retain(owner, when_settled=True)
        sent = [owner.publish() for _ in range(10)]
        make_partitions(owner)
        owner.publish(topic="other")
        eventually(lambda: bool(owner.value(TOLD)))
        backup = scene.there()
        backup.begin("repeatable read")
        assert drain(owner) == sent
        advance_watermark(owner)
        owner.run("SELECT durable_notify._close_partitions(), durable_notify._mark_unwanted()")
        remove = "SELECT durable_notify._truncate_partition()"
        assert owner.value(remove) == 0
        scene.replicated()
        assert outbox_ids(backup) == sent
        assert owner.value(remove) == 0
        backup.commit()
        eventually(lambda: owner.value(remove) == 10)


@pytest.mark.slow
def test_a_standby_that_is_promoted_meanwhile() -> None:
    """Its places hold on the primary that it becomes."""
    with clusters() as servers:
        primary = migrated(servers.fresh(REPLICATING))
        pair = primary, servers.standby(primary)
        with Scene(pair, "promoted") as scene:
            slow, fast = scene.sessions.take(2)
            first = fast.publish()
            slow.begin()
            late = slow.publish()
            second = fast.publish()
            there = scene.there()
            reader = SqlReader(there)
            found = reader.rest()
            assert found == [first]
            slow.commit()
            scene.replicated()
            promote(pair[1])
            third = there.publish()
            assert found + reader.rest() == [first, late, second, third]
