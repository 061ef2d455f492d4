"""What may go from the log, and when: never what a group has not settled, unless it is to lose it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.support.planting import plant
from tests.support.retaining import FAR, log, retain, says, seal, unsettled
from tests.support.schedule import Message, Stage, ids

GROUPS = ("a", "b")


@pytest.fixture
def stage(dsn: str) -> Iterator[Stage]:
    with Stage(dsn) as made:
        yield made


class Schedule:
    """Publishers with open transactions, groups that claim, settle, retry, go back; and removals."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.rng = random.Random(seed)
        self.one = stage.session()
        self.writers = {session: [] for session in stage.take(3)}  # type: dict[Session, list[int]]
        self.held: list[tuple[str, list[Message]]] = []
        self.committed: list[int] = []
        self.settled: dict[str, set[int]] = {group: set() for group in GROUPS}
        for group in GROUPS:
            self.one.subscribe(group)
        retain(self.one, when_settled=True)

    def step(self) -> None:
        kind = self.rng.choice(
            ["publish"] * 4
            + ["end"] * 3
            + ["claim"] * 4
            + ["settle"] * 4
            + ["back", "remove", "compare"]
        )
        getattr(self, kind)()

    def publish(self) -> None:
        writer = self.rng.choice(list(self.writers))
        if not self.writers[writer]:
            writer.begin()
        self.writers[writer].append(writer.publish(key=self.rng.choice([None, "k", "l"])))

    def end(self) -> None:
        writer = self.rng.choice(list(self.writers))
        if published := self.writers[writer]:
            if self.rng.random() < 0.8:
                writer.commit()
                self.committed += published
            else:
                writer.rollback()
            self.writers[writer] = []

    def claim(self) -> None:
        group = self.rng.choice(GROUPS)
        if batch := self.one.claim(self.rng.randint(1, 4), group):
            self.held.append((group, batch))

    def settle(self) -> None:
        if not self.held:
            return
        group, batch = self.held.pop(self.rng.randrange(len(self.held)))
        whole = self.rng.random() < 0.6
        acked = batch if whole else batch[: self.rng.randint(0, len(batch))]
        self.one.settle(batch[0].token, acked)
        self.settled[group] |= set(ids(acked))
        if acked != batch:
            self.one.run("SELECT durable_notify.release(ARRAY[%s]::bigint[])", batch[0].token)

    def back(self) -> None:
        known = log(self.one)
        if known:
            group, to = self.rng.choice(GROUPS), self.rng.choice(known)
            self.one.run("SELECT durable_notify.replay(%s, 't', %s)", group, to)

    def remove(self) -> None:
        self.one.run("SELECT durable_notify.seal_log()")
        self.one.run("SELECT durable_notify.remove_rows('t')")

    def compare(self) -> None:
        there, bad = log(self.one), unsettled(self.one)
        for group, below in says(self.one).items():
            expected = min(bad.get(group, [FAR]))
            assert next((i for i in there if i >= below), FAR) == expected, (group, below, bad)

    def finish(self) -> None:
        for writer, published in self.writers.items():
            if published:
                writer.commit()
                self.committed += published
                self.writers[writer] = []
        while self.held:
            self.settle()
        for group in GROUPS:
            while batch := self.one.claim(100, group):
                self.one.ack(batch)
                self.settled[group] |= set(ids(batch))
        self.compare()


def play(stage: Stage, seeds: range) -> None:
    """What is said to be settled is; nothing goes that a group has not; in the end all that is goes."""
    for seed in seeds:
        schedule = Schedule(stage, seed)
        for _ in range(200):
            schedule.step()
        schedule.finish()
        for group in GROUPS:
            lost = set(schedule.committed) - schedule.settled[group]
            assert not lost, f"group {group} lost {lost}, seed {seed}"
        seal(schedule.one)
        while schedule.one.value("SELECT durable_notify.remove_rows('t')"):
            pass
        assert log(schedule.one) == [], seed


@pytest.mark.parametrize("first", [0, 4])
def test_random_schedules(stage: Stage, first: int) -> None:
    play(stage, range(first, first + 4))


@pytest.mark.parametrize(
    "changes",
    [
        [
            (
                "upto,\n        GREATEST(place.h0",
                "upto,\n        9223372036854775807, GREATEST(place.h0 + 1000",
            )
        ],
        [
            (
                "SELECT d.message_id FROM durable_notify.deferred d",
                "SELECT NULL::bigint FROM durable_notify.deferred d",
            )
        ],
        [("SELECT pg_catalog.min(m.id) FROM", "SELECT pg_catalog.min(m.id) + 1000 FROM")],
        [("LEAST(place.h0, last), 1)));", "-1, 1)));")],
    ],
    ids=["undelivered", "deferred", "leased", "late"],
)
def test_a_planted_fault_is_caught(stage: Stage, changes: list[tuple[str, str]]) -> None:
    plant(stage.session(), "settled_below", *changes)
    with pytest.raises(AssertionError):
        play(stage, range(8))
