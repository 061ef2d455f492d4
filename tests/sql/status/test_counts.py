"""status() agrees with a count of each subscription by itself, in states made at random."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.injection import plant
from tests.support.sessions import Session, Sessions

GROUPS = ("a", "b")
TOPICS = ("t", "u")
STEPS = 50
#: What status() says, and what counting each subscription says.
STATUS = """
    SELECT c.topic, c.group_name, c.is_exact, c.unread, c.oldest_unread
      FROM durable_notify.status(%s) c WHERE c.group_name IS NOT NULL ORDER BY 1, 2"""
COUNTED = """
    SELECT s.topic, g.name, count(u.id), (SELECT o.created_at FROM durable_notify.outbox o WHERE o.id = min(u.id))
      FROM durable_notify.subscription s
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
      LEFT JOIN LATERAL durable_notify._unread(s.id) u ON true
     GROUP BY s.id, s.topic, g.name ORDER BY 1, 2"""


LATE = """
    SELECT count(*) FROM durable_notify.subscription s
     WHERE (SELECT c.stragglers FROM durable_notify._count_stragglers(s.topic, s.id, NULL) c) > 0"""


class States:
    """Publishers with open transactions, groups that read a little, go back and go forward."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        self.random = random.Random(seed)
        self.reader, *self.writers = sessions.readers(5)
        self.open: set[Session] = set()
        for group in GROUPS:
            query = "SELECT durable_notify.subscribe(%s, %s::text[])"
            self.reader.run(query, group, list(TOPICS))
            options = '{"order_by": "none"}'
            self.reader.run("SELECT durable_notify.configure(%s, %s::jsonb)", group, options)
        if seed == 1:
            self.partition()

    def partition(self) -> None:
        """Make small partitions, of which one is missing: its rows go to outbox_default."""
        settings = "INSERT INTO durable_notify.partition_settings (min_width, ahead) VALUES (9, 6)"
        self.reader.run(settings)
        for (name,) in self.reader.run("SELECT name::text FROM durable_notify.partitions()"):
            self.reader.run(f"DROP TABLE {name}")
        while self.reader.value("SELECT durable_notify.create_partitions()"):
            pass
        second = (
            "SELECT name::text FROM durable_notify.partitions() ORDER BY first_id OFFSET 1 LIMIT 1"
        )
        self.reader.run(f"DROP TABLE {self.reader.value(second)}")

    def step(self) -> None:
        self.random.choice(
            [self.publish] * 6
            + [self.end] * 3
            + [self.claim] * 8
            + [self.disorder] * 4
            + [self.seek]
        )()

    def publish(self) -> None:
        writer = self.random.choice(self.writers)
        if writer not in self.open and self.random.random() < 0.6:
            writer.begin()
            self.open.add(writer)
        writer.run(
            "INSERT INTO durable_notify.outbox (topic, payload) SELECT %s, '1'"
            " FROM generate_series(1, %s)",
            self.random.choice(TOPICS), self.random.choice([1, 1, 2, 5]),
        )  # fmt: skip

    def end(self) -> None:
        if self.open:
            writer = self.random.choice(sorted(self.open, key=self.writers.index))
            self.open.remove(writer)
            writer.run(self.random.choice(["COMMIT", "COMMIT", "ROLLBACK"]))

    def finish(self) -> None:
        """End all transactions: others would wait for their locks."""
        while self.open:
            self.end()

    def claim(self, topic: str | None = None, most: int | None = None) -> None:
        query = "SELECT count(*) FROM durable_notify.claim(%s, ARRAY[%s], %s)"
        most = most or self.random.choice([1, 1, 3, 100, 100])
        topic = topic or self.random.choice(TOPICS)
        self.reader.run(query, self.random.choice(GROUPS), topic, most)

    def seek(self) -> None:
        last = self.reader.value("SELECT COALESCE(max(id), 0) FROM durable_notify.outbox")
        query = "SELECT durable_notify.seek(%s, %s, %s)"
        group, topic = self.random.choice(GROUPS), self.random.choice(TOPICS)
        self.reader.run(query, group, topic, self.random.randint(last // 2, last))

    def disorder(self) -> None:
        """Commit the later id first, while its transaction is the oldest, and claim in between."""
        first, second, third = self.random.sample(self.writers, 3)
        if self.open.isdisjoint({first, second, third}):
            topic = self.random.choice(TOPICS)
            for writer in (first, second, third):
                writer.begin()
                writer.draw_xid()
            self.open |= {second, third}
            third.publish(topic=topic)
            first.publish(topic=topic)
            first.commit()
            self.claim(topic, 100)
            second.publish(topic=topic)
            if self.random.random() < 0.5:
                third.commit()
                self.open.remove(third)


def differences(states: States) -> list[Any]:
    """Return where they differ; a bound of 3 must give an exact count below, and an estimate above."""
    found: list[Any] = []
    counted = states.reader.run(COUNTED)
    for bound in (None, 3, 10_000):
        for said, true in zip(states.reader.run(STATUS, bound), counted, strict=True):
            topic, group, exact, unread, oldest = said
            wanted = bound is None or true[2] < bound
            agrees = (
                (unread, oldest) == true[2:] if exact else bound is not None and unread >= bound
            )
            if (topic, group) != true[:2] or exact != wanted or not agrees:
                found.append((bound, said, true))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_counts_agree(sessions: Sessions, seed: int) -> None:
    states = States(sessions, seed)
    late = 0
    for _ in range(STEPS):
        states.step()
        assert not differences(states)
        late += states.reader.value(LATE)
    assert late  # else this would show nothing


FAULTS = {
    "no straggler past xmax": ("_places", "t.first_ids[x.later] <= r.upto OR", ""),
    "no straggler of the list": (
        "_places",
        "(t.xids[n.later] = k.xid OR",
        "(false AND t.xids[n.later] = k.xid OR",
    ),
    "no straggler of the window": ("_places", "r.in_stragglers OR", ""),
    "one place off": ("_places", "-1 - r.upto", "- r.upto"),
    "the first is not the oldest": (
        "_first_after",
        "ORDER BY f.id LIMIT 1) AS p",
        "ORDER BY f.id DESC LIMIT 1) AS p",
    ),
    "no other partition is asked": ("_first_after", "p.id IS NULL AND", "false AND"),
    "the newest is the oldest": (
        "_places",
        "THEN -t.ids[x.newer] END AS first_id",
        "THEN -t.ids[1] END AS first_id",
    ),
    "only the newest transaction": ("_newest", "ROWS UNBOUNDED PRECEDING", "ROWS CURRENT ROW"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(sessions: Sessions, fault: str) -> None:
    function, old, new = FAULTS[fault]
    for seed in (1, 0, *range(2, 8)):  # 1 makes its partitions while there are no messages
        states = States(sessions, seed)
        plant(states.reader, function, (old, new)) if seed == 1 else None
        for _ in range(STEPS):
            states.step()
            if differences(states):
                return
        states.finish()
    pytest.fail("unnoticed")
