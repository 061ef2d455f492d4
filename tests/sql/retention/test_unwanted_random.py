"""Random partitions, claims, replays and snapshots: each snapshot has what its groups need."""

from __future__ import annotations

import pytest

from tests.sql.retention.test_retention import GROUPS, Schedule
from tests.support.injection import OLDER_SNAPSHOTS_PASSED_OVER, plant
from tests.support.retention import (
    advance_watermark,
    lay_out_partitions,
    make_partitions,
    outbox_ids,
    unsettled,
)
from tests.support.sessions import Session, Sessions, ids


class Partitions(Schedule):
    """The same in partitions of ten messages, which maintenance truncates, and backups beside it."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        lay_out_partitions(sessions.session(), 10)
        super().__init__(sessions, seed)
        self.free = list(sessions.take(2))
        self.backups: list[tuple[Session, set[int]]] = []
        self.emptied = 0

    def step(self) -> None:
        kinds = ["publish"] * 6 + ["end"] * 5 + ["claim"] * 6 + ["settle"] * 6
        kinds += (
            ["drain"] * 2
            + ["begin", "begin", "look", "tidy", "tidy", "note"]
            + ["back"] * (self.rng.random() < 0.3)
        )
        getattr(self, self.rng.choice(kinds))()

    def begin(self) -> None:
        if self.free:
            session = self.free.pop()
            session.begin("repeatable read")
            wanted = {i for found in unsettled(self.one).values() for i in found}
            self.backups.append((session, wanted))

    def look(self) -> None:
        if self.backups:
            session, wanted = self.backups.pop(0)
            lost = wanted - set(outbox_ids(session))
            assert not lost, f"a snapshot wants {lost} and has them not"
            session.commit()
            self.free.append(session)

    def drain(self) -> None:
        """The groups settle all there is, but for one now and then."""
        while self.held:
            self.settle()
        for group in GROUPS[: self.rng.randint(1, 4)]:
            while batch := self.one.claim(100, group):
                self.one.ack(batch)
                self.settled[group] |= set(ids(batch))

    def rest(self) -> None:
        """Wait until no transaction publishes: partitions can be created and closed."""
        for writer, published in self.writers.items():
            if published:
                writer.commit()
                self.committed += published
                self.writers[writer] = []

    def note(self) -> None:
        self.rest()
        self.one.run("SELECT durable_notify._advance_watermark()")
        self.one.run("SELECT durable_notify._close_partitions(), durable_notify._mark_unwanted()")

    def tidy(self) -> None:
        self.rest()
        make_partitions(self.one)
        self.one.run("SELECT durable_notify._advance_watermark()")
        while done := self.one.value("SELECT durable_notify._truncate_partition()"):
            self.emptied += done
        self.one.run("SELECT durable_notify.maintain_partitions()")

    def finish(self) -> None:
        while self.backups:
            self.look()
        super().finish()


def play(sessions: Sessions, seed: int) -> None:
    """Nothing goes that a group or a snapshot needs; in the end all that was closed goes."""
    schedule = Partitions(sessions, seed)
    for _ in range(300):
        schedule.step()
    schedule.finish()
    for group in GROUPS:
        lost = set(schedule.committed) - schedule.settled[group]
        assert not lost, f"group {group} lost {lost}, seed {seed}"
    assert schedule.emptied > 10
    advance_watermark(schedule.one)
    for _ in range(3):
        schedule.note()
        schedule.tidy()
    assert schedule.one.value("SELECT count(*) FROM durable_notify.unwanted_partition") == 0


@pytest.mark.parametrize("seed", range(2))
def test_random_schedules(sessions: Sessions, seed: int) -> None:
    play(sessions, seed)


@pytest.mark.parametrize(
    ("function", "change"),
    [
        ("_older_snapshots", OLDER_SNAPSHOTS_PASSED_OVER),
        ("_is_removable", ("RETURN false;", "RETURN true;")),
    ],
)
def test_a_planted_fault_is_caught(
    sessions: Sessions, function: str, change: tuple[str, str]
) -> None:
    plant(sessions.session(), function, change)
    with pytest.raises(AssertionError, match="wants|lost"):
        play(sessions, 0)
