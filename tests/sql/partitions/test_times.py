"""Where a time is in the log, without an index on created_at: beside a search of all rows."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from tests.support.injection import Plant, plant
from tests.support.retention import advance_watermark, lay_out_partitions, make_partitions, retain
from tests.support.sessions import Sessions

WIDTH = 400  # in a hundred stretches
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
PUBLISH = """
    INSERT INTO durable_notify.outbox (topic, payload, created_at)
    SELECT CASE WHEN n %% 4 = 0 THEN 'u' ELSE 't' END, '1', time
      FROM unnest(%s::timestamptz[]) WITH ORDINALITY AS times (time, n)"""
FORCED = """
    INSERT INTO durable_notify.outbox (id, topic, payload, xid, created_at) OVERRIDING SYSTEM VALUE
    VALUES (%s, 'replicated', '1', '3', %s) ON CONFLICT DO NOTHING"""
#: Times, the answer, and that of a search of all rows.
COMPARE = """
    SELECT w.since, durable_notify._id_before(t.topic, w.since),
           COALESCE((SELECT min(o.id) - 1 FROM durable_notify.outbox o WHERE o.topic = t.topic AND o.created_at >= w.since),
                    (SELECT max(o.id) FROM durable_notify.outbox o WHERE o.topic = t.topic), 0)
      FROM unnest(%s::timestamptz[]) AS w (since), unnest('{t,u,replicated}'::text[]) AS t (topic)"""
READ = "SELECT COALESCE(sum(idx_tup_fetch), 0) FROM pg_stat_xact_user_tables WHERE relname LIKE 'outbox%'"


class Log:
    """An outbox in small partitions, with a clock of its own that others set."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        self.dice = random.Random(seed)
        self.owner, self.late, self.replica = sessions.take(3)
        self.replica.run("SET session_replication_role = replica")
        self.clock = NOON
        self.in_flight = False
        lay_out_partitions(self.owner, WIDTH)
        retain(self.owner, max_age="100 years")

    def times(self, number: int) -> list[dt.datetime]:
        """So many times in a row; sometimes the clock is set, or a message has a time of its own."""
        found = []
        for _ in range(number):
            self.clock += dt.timedelta(seconds=self.dice.random())
            if self.dice.random() < 0.01:
                self.clock += dt.timedelta(seconds=self.dice.randint(-300, 300))
            odd = self.dice.random() < 0.02
            shift = self.dice.randint(-3600, 3600) if odd else 0
            found.append(self.clock + dt.timedelta(seconds=shift))
        return found

    def publish(self) -> None:
        self.owner.run(PUBLISH, self.times(WIDTH // 2))
        make_partitions(self.owner)

    def publish_late(self) -> None:
        """Publish in a transaction that stays open, or end it."""
        if self.in_flight:
            self.late.commit()
        else:
            self.late.begin()
            self.late.run(PUBLISH, self.times(3))
        self.in_flight = not self.in_flight

    def remove(self) -> None:
        query = "DELETE FROM durable_notify.outbox WHERE id %% 3 = %s"
        self.owner.run(query, self.dice.randint(0, 2))

    def replicate(self) -> None:
        """Have replication bring a row with an id that was drawn before."""
        top = self.owner.value("SELECT max(id) FROM durable_notify.outbox") or 1
        self.replica.run(FORCED, self.dice.randint(1, top), self.clock + dt.timedelta(seconds=60))

    def empty(self) -> None:
        if not self.in_flight:
            self.owner.run("TRUNCATE durable_notify.outbox RESTART IDENTITY")

    def maintain(self) -> None:
        advance_watermark(self.owner)
        for step in ("maintain_partitions", "_record_times"):
            while self.owner.value(f"SELECT durable_notify.{step}()"):
                pass

    def compare(self) -> None:
        """Compare answers about times near those of messages."""
        wanted = self.owner.column("SELECT created_at FROM durable_notify.outbox")
        times = self.dice.sample(wanted, min(10, len(wanted)))
        times += [time + dt.timedelta(seconds=self.dice.uniform(-30, 30)) for time in times]
        for since, found, right in self.owner.run(COMPARE, [*times, NOON, self.clock]):
            assert found == right, since


def run(sessions: Sessions, seed: int, steps: int = 25, planted: Plant | None = None) -> None:
    """Publish, commit late, remove, replicate, empty and maintain by turns."""
    log = Log(sessions, seed)
    if planted:
        planted(log.owner)
    other = (log.publish_late, log.remove, log.replicate, log.empty)
    for _ in range(steps):
        log.dice.choice((log.publish,) * 8 + (log.maintain,) * 4 + other)()
        log.compare()


#: What would be wrong: function, what stands there, what is planted, a seed that shows it.
WRONG = {
    "open partitions too": (
        "_record_times",
        "p.next_id <= (SELECT l.closed_below FROM durable_notify.partition_settings l)",
        "true",
        0,
    ),
    "the last, not the latest": (
        "_record_times",
        "pg_catalog.max(o.created_at)",
        "(pg_catalog.array_agg(o.created_at ORDER BY o.id DESC))[1]",
        0,
    ),
    "kept when ids are drawn again": (
        "_reset_maintenance",
        "DELETE FROM durable_notify.stretch_time;",
        "",
        0,
    ),
    "up to the time": ("_id_before", "t.latest < since", "t.latest <= since", 0),
    "after the stretch": ("_id_before", "o.id >= gap.low", "o.id > gap.low", 0),
    "bisection": (
        "_id_before",
        "FOR gap IN",
        "RETURN COALESCE(durable_notify._first_id_since(topic, since) - 1, 0); FOR gap IN",
        0,
    ),
}


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_that_of_a_search_of_all_rows(sessions: Sessions, seed: int) -> None:
    run(sessions, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_planted(sessions: Sessions, name: str) -> None:
    function, right, wrong, seed = WRONG[name]
    with pytest.raises(AssertionError):
        run(sessions, seed, 60, lambda owner: plant(owner, function, (right, wrong)))


@pytest.mark.parametrize("planted", [False, True])
def test_replication_brings_a_row_to_a_recorded_stretch(sessions: Sessions, planted: bool) -> None:
    log = Log(sessions, 0)
    log.owner.run(PUBLISH, [NOON] * 5 * WIDTH)
    log.owner.run(PUBLISH.replace("'u'", "'t'"), [NOON + dt.timedelta(seconds=9)])
    log.maintain()
    if planted:
        plant(log.owner, "_mark_replicated", ("t.next_id > message_id", "false"))
    log.replica.run(FORCED, 5, NOON + dt.timedelta(seconds=60))
    found = log.owner.run(COMPARE, [NOON + dt.timedelta(seconds=30)])[-1][1:]
    assert found == ((5, 4) if planted else (4, 4))


def test_it_reads_little(sessions: Sessions) -> None:
    """Of the closed partitions a stretch, then the open ones, if the time is not before."""
    log = Log(sessions, 0)
    query = """
        INSERT INTO durable_notify.outbox (topic, payload, created_at)
        SELECT 't', '1', %s::timestamptz + interval '1 s' * n FROM generate_series(1, 400) AS n"""
    for number in range(20):
        log.owner.run(query, NOON + dt.timedelta(seconds=400 * number))
        make_partitions(log.owner)
    log.maintain()
    for after in (1, 2500, 6000, 10**6):
        with log.owner.transaction():
            before = log.owner.value(READ)
            since = NOON + dt.timedelta(seconds=after)
            log.owner.run("SELECT durable_notify._id_before('t', %s)", since)
            assert log.owner.value(READ) - before < WIDTH, after
