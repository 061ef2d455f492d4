"""Compaction: of each key the latest message stays, beside live traffic."""

from __future__ import annotations

import random

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.retention import advance_watermark, age, maintain, outbox_ids, retain, unsettled
from tests.support.schedules import claim_and_ack, drain
from tests.support.sessions import Message, Session, Sessions, ids


def latest(session: Session) -> dict[str, int]:
    return dict(session.run("SELECT key, id FROM durable_notify.latest('t') WHERE id IS NOT NULL"))  # type: ignore[arg-type]


def compact_all(session: Session) -> None:
    while session.value("SELECT durable_notify._compact('t')"):
        pass


class Game:
    """Writers, a consumer and compaction: the steps of `play`."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        self.seed = f"seed {seed}"
        self.rng = random.Random(f"compact {seed}")
        self.one = sessions.session()
        self.writers = sessions.take(3)
        self.open_now: dict[Session, list[tuple[str, int]]] = {}
        self.newest: dict[str, int] = {}
        self.published: set[int] = set()
        self.delivered: set[int] = set()
        self.held: list[list[Message]] = []

    def publish(self) -> None:
        writer = self.rng.choice(self.writers)
        if writer not in self.open_now:
            writer.begin()
        key = self.rng.choice("abcde")
        self.open_now.setdefault(writer, []).append((key, writer.publish(key=key)))

    def end(self) -> None:
        if self.open_now:
            self.commit(self.rng.choice(list(self.open_now)))

    def commit(self, writer: Session) -> None:
        writer.commit()
        for key, message_id in self.open_now.pop(writer):
            self.published.add(message_id)
            self.newest[key] = max(self.newest.get(key, 0), message_id)

    def claim(self) -> None:
        if batch := self.one.claim(self.rng.randint(1, 5)):
            self.held.append(batch)

    def settle(self) -> None:
        if not self.held:
            return
        batch = self.held.pop(0)
        if self.rng.random() < 0.7:
            self.ack(batch)
        else:
            self.one.run("SELECT durable_notify.release(ARRAY[%s]::bigint[])", batch[0].token)

    def ack(self, batch: list[Message]) -> None:
        self.one.ack(batch)
        self.delivered |= set(ids(batch))

    def back(self) -> None:
        if self.rng.random() < 0.3:
            seek = (
                "SELECT redelivered FROM durable_notify.seek('g', 't', %s, backward_only => true)"
            )
            self.one.run(seek, self.rng.randint(0, 50))

    def compact(self) -> None:
        before = set(unsettled(self.one).get("g", []))
        self.one.run("SELECT durable_notify._advance_watermark()")
        self.one.run("SELECT durable_notify._compact('t')")
        assert before <= set(outbox_ids(self.one)), self.seed
        assert latest(self.one) == self.newest, self.seed


def play(sessions: Sessions, seed: int) -> None:
    """The latest of each key is as if nothing had gone, and nothing unsettled goes."""
    game = Game(sessions, seed)
    one, rng = game.one, game.rng
    plant(one, "_compact", ("ORDER BY o.id LIMIT 1000", f"ORDER BY o.id LIMIT {rng.randint(1, 7)}"))
    retain(one, compact=True)
    one.subscribe()
    steps = [game.publish] * 4 + [game.end] * 3 + [game.claim, game.settle] * 2
    for _ in range(300):
        rng.choice([*steps, game.compact, game.back])()
    for writer in list(game.open_now):
        game.commit(writer)
    for batch in game.held:
        game.ack(batch)
    game.delivered |= set(drain(one))
    assert game.delivered == game.published, game.seed
    advance_watermark(one)
    compact_all(one)
    assert latest(one) == game.newest
    assert outbox_ids(one) == sorted(game.newest.values()), game.seed


@pytest.mark.parametrize("seed", range(3))
def test_random_schedules(sessions: Sessions, seed: int) -> None:
    play(sessions, seed)


@pytest.mark.parametrize(
    ("function", "change"),
    [
        ("_compact", ("below := durable_notify._all_settled_watermark(topic, LEAST(below, durable_notify._watermark()));",
                     "below := durable_notify._watermark();")),
        ("_compact", ("b.id < GREATEST(b.latest, k.message_id)", "b.id <= GREATEST(b.latest, k.message_id)")),
    ],
    ids=["unsettled", "the latest"],
)  # fmt: skip
def test_a_planted_fault_is_caught(
    sessions: Sessions, function: str, change: tuple[str, str]
) -> None:
    plant(sessions.session(), function, change)
    with pytest.raises(AssertionError):
        play(sessions, 0)


def test_a_key_is_needed(sessions: Sessions) -> None:
    """Where there are messages without a key nothing is compacted; where it is, there are none."""
    one = sessions.session()
    one.publish()
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match='topic "t" has messages without a key'
    ):
        retain(one, compact=True)
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match='topic "t" has messages without a key'
    ):
        retain(one, ">", compact=True)
    assert one.run("SELECT FROM durable_notify.retention()") == []
    one.publish(topic="t")  # as before
    retain(one, "state.>", compact=True)
    retain(one, "state.log", max_age="1 day")
    one.publish(topic="state.log")
    one.publish(topic="t")
    one.publish(topic="state.x", key="k")
    with pytest.raises(psycopg.errors.CheckViolation, match="outbox_key_in_a_compacted_topic"):
        one.publish(topic="state.x")
    one.run("SELECT durable_notify.delete_retention('state.>')")
    one.publish(topic="state.x")


def test_it_costs_others_nothing(sessions: Sessions) -> None:
    """Where nothing is compacted, the question is gone from what is run for each message."""
    one = sessions.session()
    one.run("PREPARE q (text) AS SELECT $1 IS NOT NULL OR NOT durable_notify._key_required($1)")
    plan = "\n".join(one.column("EXPLAIN (VERBOSE) EXECUTE q ('t')"))
    assert "Output: true" in plan


def test_with_age_and_size(sessions: Sessions) -> None:
    """Even the latest of a key goes with its age, and nothing that comes later goes for it."""
    one = sessions.session()
    retain(one, compact=True, max_age="1 hour", alarm_bytes=10**9)
    for key in ("a", "b", "a"):
        one.publish(key=key)
    assert maintain(one) == {"measure": 3, "compact": 3}
    assert outbox_ids(one) == [2, 3]
    assert one.run("SELECT messages FROM durable_notify.topic_size") == [(2,)]
    age(one, 2)
    assert maintain(one) == {"remove": 1}
    one.publish(key="b")
    assert maintain(one) == {"measure": 1, "compact": 1, "orphans": 1} or outbox_ids(one) == [3, 4]
    assert outbox_ids(one) == [3, 4]


def test_compacted_again(sessions: Sessions) -> None:
    """What was noted before it was not compacted for a while does no harm."""
    one = sessions.session()
    retain(one, compact=True)
    one.publish(key="a")
    one.publish(key="b")
    maintain(one)
    one.run("SELECT durable_notify.delete_retention('t')")
    one.publish(key="a")
    retain(one, compact=True)
    maintain(one)
    assert outbox_ids(one) == [2, 3]
    one.run("SELECT durable_notify.delete_retention('t')")
    maintain(one)
    assert one.value("SELECT count(*) FROM durable_notify.compacted_key") == 0


def test_a_group_that_lags(sessions: Sessions) -> None:
    one = sessions.reader()
    retain(one, compact=True)
    for _ in range(3):
        one.publish(key="k")
    assert maintain(one) == {}
    claim_and_ack(one, 2)
    assert maintain(one) == {"compact": 2}
    assert outbox_ids(one) == [2, 3]


@pytest.mark.parametrize("planted", [False, True])
def test_a_late_commit(sessions: Sessions, planted: bool) -> None:
    """A lower id that commits later than the latest of its key goes, too. Passed over, it would stay."""
    one, slow = sessions.take(2)
    if planted:
        past = "COALESCE((SELECT w.last_id + 1 FROM durable_notify.watermark w WHERE w.group_id = 0), 1)"
        plant(one, "_watermark", (past, "9223372036854775807"))
    retain(one, compact=True)
    slow.begin()
    first = slow.publish(key="k")
    second = one.publish(key="k")
    maintain(one)
    slow.commit()
    assert outbox_ids(one) == [first, second]
    maintain(one)
    assert (outbox_ids(one) == [second]) is not planted
