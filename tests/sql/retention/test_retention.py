"""What may be removed, and when: never what a group has not settled, unless its policy says so."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.retention import (
    FAR,
    advance_watermark,
    age,
    maintain,
    outbox_ids,
    reported_unsettled,
    retain,
    unsettled,
)
from tests.support.schedules import claim_and_ack, drain
from tests.support.sessions import LONG_GONE, Message, Session, Sessions, ids

GROUPS = ("a", "b")


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


class Schedule:
    """Publishers with open transactions, groups that claim, settle, retry, go back; and removals."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        self.rng = random.Random(seed)
        self.one = sessions.session()
        self.writers = {session: [] for session in sessions.take(3)}  # type: dict[Session, list[int]]
        self.held: list[tuple[str, list[Message]]] = []
        self.committed: list[int] = []
        self.settled: dict[str, set[int]] = {group: set() for group in GROUPS}
        for group in GROUPS:
            self.one.subscribe(group)
        self.set_up()

    def set_up(self) -> None:
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
        known = outbox_ids(self.one)
        if known:
            group, to = self.rng.choice(GROUPS), self.rng.choice(known)
            self.one.run(
                "SELECT redelivered FROM durable_notify.seek(%s, 't', %s, backward_only => true)",
                group,
                to,
            )

    def remove(self) -> None:
        self.one.run("SELECT durable_notify._advance_watermark()")
        self.one.run("SELECT durable_notify._delete_expired('t')")

    def compare(self) -> None:
        there, bad = outbox_ids(self.one), unsettled(self.one)
        for group, below in reported_unsettled(self.one).items():
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


def play(sessions: Sessions, seeds: range, kind: type[Schedule] = Schedule) -> None:
    """What is said to be settled is; nothing goes that a group has not; in the end all that is goes."""
    for seed in seeds:
        schedule = kind(sessions, seed)
        for _ in range(200):
            schedule.step()
        schedule.finish()
        for group in GROUPS:
            lost = set(schedule.committed) - schedule.settled[group]
            assert not lost, f"group {group} lost {lost}, seed {seed}"
        advance_watermark(schedule.one)
        while schedule.one.value("SELECT durable_notify._delete_expired('t')"):
            pass
        assert outbox_ids(schedule.one) == [], seed


@pytest.mark.parametrize("first", [0, 4])
def test_random_schedules(sessions: Sessions, first: int) -> None:
    play(sessions, range(first, first + 4))


@pytest.mark.parametrize(
    "changes",
    [
        [
            (
                "max_id,\n        GREATEST(pos.h0",
                "max_id,\n        9223372036854775807, GREATEST(pos.h0 + 1000",
            )
        ],
        [
            (
                "SELECT d.message_id FROM durable_notify.deferred d",
                "SELECT NULL::bigint FROM durable_notify.deferred d",
            )
        ],
        [("SELECT pg_catalog.min(m.id) FROM", "SELECT pg_catalog.min(m.id) + 1000 FROM")],
        [("LEAST(pos.h0, last), 1)));", "-1, 1)));")],
    ],
    ids=["unread", "deferred", "leased", "late"],
)
def test_a_planted_fault_is_caught(sessions: Sessions, changes: list[tuple[str, str]]) -> None:
    plant(sessions.session(), "_settled_watermark", *changes)
    with pytest.raises(AssertionError):
        play(sessions, range(8))


def losses(session: Session) -> list[tuple[Any, ...]]:
    return session.run(
        "SELECT group_name, first_id, last_id, messages FROM durable_notify.lost_messages() ORDER BY id"
    )


def test_what_is_lost_is_recorded(sessions: Sessions) -> None:
    """A group that lags loses by age what is not in a live lease; one that does not, nothing."""
    one = sessions.session()
    one.subscribe("slow")
    one.subscribe("fast")
    for number in range(10):
        one.publish(number)
    drain(one, group="fast")
    held = one.claim(2, "slow")
    retried = one.claim(2, "slow")
    one.settle(retried[0].token, retried[:1], retried[1:])
    age(one, 8)
    assert retain(one, max_age="1 hour", on_lag="lose") == [
        'group "slow" lags in topic "t": it loses what it has not settled from id 1 on'
    ]
    # 4 waits for a retry, 5 to 8 were never delivered, 1 and 2 are leased.
    assert maintain(one) == {"lose": 5}
    assert losses(one) == [("slow", 4, 8, 5)]
    assert outbox_ids(one) == list(range(1, 11))
    assert one.run(
        "SELECT action, messages FROM durable_notify.audit WHERE group_name = 'slow'"
    ) == [("lose", 5)]
    one.ack(held)
    assert maintain(one) == {"remove": 8}
    assert drain(one, group="slow") == [9, 10]
    assert maintain(one) == {}


def test_a_lease_that_ran_out_is_lost(sessions: Sessions) -> None:
    one = sessions.reader()
    one.publish()
    one.claim()
    one.run(LONG_GONE)
    age(one, 1)
    retain(one, max_age="1 hour", on_lag="lose")
    assert maintain(one) == {"leases": 1, "lose": 1, "remove": 1}
    assert losses(one) == [("g", 1, 1, 1)]
    assert drain(one) == []


@pytest.mark.parametrize("seed", range(3))
def test_losing_is_exact(sessions: Sessions, seed: int) -> None:
    """Every message was delivered or recorded as lost, never both, at any position of the group."""
    rng = random.Random(f"lose {seed}")
    one = sessions.session()
    writers = sessions.take(2)
    retain(one, max_age="1 hour", on_lag="lose")
    one.subscribe()
    open_now: dict[Session, list[int]] = {}
    committed: set[int] = set()
    delivered: list[int] = []
    for _ in range(250):
        what = rng.choice(["publish", "publish", "publish", "end", "end", "claim", "lose"])
        writer = rng.choice(writers)
        if what == "publish":
            if writer not in open_now:
                writer.begin()
            open_now.setdefault(writer, []).append(writer.publish())
        elif what == "end" and writer in open_now:
            writer.commit()
            committed |= set(open_now.pop(writer))
        elif what == "claim":
            delivered += claim_and_ack(one, rng.randint(1, 3))
        elif what == "lose" and committed:
            age(one, rng.choice(sorted(committed)))
            one.run("SELECT durable_notify._advance_watermark()")
            before = unsettled(one).get("g", [])
            lost = one.value("SELECT durable_notify._record_losses('t', %s)", FAR)
            after = unsettled(one).get("g", [])
            assert len(before) - len(after) == lost, f"seed {seed}"
            assert set(after) <= set(before)
            there = outbox_ids(one)
            for group, below in reported_unsettled(one).items():
                expected = min(unsettled(one).get(group, [FAR]))
                assert next((i for i in there if i >= below), FAR) == expected
    for writer in list(open_now):
        writer.commit()
        committed |= set(open_now.pop(writer))
    delivered += drain(one)
    recorded = sum(messages for _, _, _, messages in losses(one))
    assert len(delivered) == len(set(delivered))
    assert len(delivered) + recorded == len(committed), f"seed {seed}"


def test_losing_more_than_is_visible_is_caught(sessions: Sessions) -> None:
    """The window's own snapshot taken for the position: what is in flight would be lost unrecorded."""
    plant(
        sessions.session(),
        "_position_after_loss",
        ("pos.s0 := seen;", "pos.s0 := '4000000000:4000000000:';"),
    )
    with pytest.raises(AssertionError):
        for seed in range(3):
            test_losing_is_exact(sessions, seed)


def test_in_small_pieces(sessions: Sessions) -> None:
    """However much a group loses, it is held for a moment at a time."""
    one = sessions.session()
    plant(one, "_record_loss", ("OFFSET 4999", "OFFSET 1"))
    one.subscribe()
    for _ in range(5):
        one.publish()
    age(one, 5)
    retain(one, max_age="1 hour", on_lag="lose")
    assert maintain(one) == {"lose": 5, "remove": 5}
    assert losses(one) == [("g", 5, 5, 1), ("g", 3, 4, 2), ("g", 1, 2, 2)][::-1]


def test_blocked_with_an_alarm(sessions: Sessions) -> None:
    one = sessions.reader()
    for number in range(3):
        one.publish("x" * 100 + str(number))
    age(one, 2)
    (warning,) = retain(one, max_age="1 hour", alarm_bytes=100)
    assert (
        warning == 'group "g" lags in topic "t": what is from id 1 on stays until it has settled it'
    )
    assert maintain(one) == {"measure": 3}
    lags = one.run(
        "SELECT topic, group_name, from_id, upto_id, bytes, alarm FROM durable_notify.retention_blockers()"
    )
    assert [lag[:4] for lag in lags] == [("t", "g", 1, 2)]
    drain(one)
    assert maintain(one) == {"remove": 2}
    assert one.run("SELECT FROM durable_notify.retention_blockers()") == []


def test_by_size(sessions: Sessions) -> None:
    one = sessions.session()
    plant(one, "_measure_topic", ("ORDER BY x.id LIMIT 2000", "ORDER BY x.id LIMIT 10"))
    for number in range(50):
        one.publish(number)
    retain(one, max_bytes=20 * 205)
    assert maintain(one) == {"measure": 50, "remove": 30}
    assert maintain(one) == {"orphans": 3}
    for number in range(10):
        one.publish(number)
    assert maintain(one) == {"measure": 10, "remove": 10}
    assert len(outbox_ids(one)) == 20
    one.run("SELECT durable_notify.delete_retention('t')")
    retain(one, max_age="1 day")
    maintain(one)
    assert one.value("SELECT count(*) FROM durable_notify.topic_size") == 0
    retain(one, max_bytes=1)
    assert maintain(one) == {"measure": 20, "remove": 10}


def test_by_age_between_times(sessions: Sessions) -> None:
    """The first id since a time, as a scan of all would have it."""
    one = sessions.session()
    for number in range(60):
        one.publish(number, topic="t" if number % 3 else "other")
    one.run("UPDATE durable_notify.outbox SET created_at = now() - (61 - id) * interval '1 minute'")
    for minutes in (0, 1, 5, 17, 30, 59, 62):
        found = one.value(
            "SELECT durable_notify._first_id_since('t', now() - %s * interval '1 minute' - interval '1 second')",
            minutes,
        )
        plain = one.value(
            "SELECT COALESCE(min(id) FILTER (WHERE created_at >= now() - %s * interval '1 minute' - interval '1 second'), max(id) + 1)"
            " FROM durable_notify.outbox WHERE topic = 't'",
            minutes,
        )
        assert found == plain, minutes
    assert one.value("SELECT durable_notify._first_id_since('none', now())") is None


def test_which_of_several_counts(sessions: Sessions) -> None:
    one = sessions.session()
    for pattern in (">", "a.>", "*.b", "a.*", "a.b", "a.b.>"):
        retain(one, pattern, max_age="1 day")
    of = {topic: one.value("SELECT (durable_notify._retention_for(%s)).pattern", topic)
          for topic in ("a.b", "a.c", "x.b", "a.b.c", "x", "a.c.d")}  # fmt: skip
    assert of == {
        "a.b": "a.b",
        "a.c": "a.*",
        "x.b": "*.b",
        "a.b.c": "a.b.>",
        "x": ">",
        "a.c.d": "a.>",
    }


def test_nothing_is_settled_without_a_group(sessions: Sessions) -> None:
    one = sessions.session()
    retain(one, when_settled=True)
    one.publish()
    assert maintain(one) == {}
    one.subscribe()
    assert maintain(one) == {}
    drain(one)
    assert maintain(one) == {"remove": 1}


def test_a_redriven_message_is_not_removed_meanwhile(sessions: Sessions) -> None:
    """A dead letter that is redriven, in a transaction that is open while it would go."""
    one, two = sessions.readers(2)
    retain(one, when_settled=True)
    first = one.publish()
    (message,) = one.claim()
    one.settle(message.token, rejected=[message])
    two.begin()
    assert two.value("SELECT durable_notify.redrive('g', ids => ARRAY[%s]::bigint[])", first) == 1
    assert maintain(one) == {}
    two.commit()
    assert maintain(one) == {}
    assert drain(one) == [first]
    assert maintain(one) == {"remove": 1}
    # Planted: without the lock, it is gone when it is to be redelivered.
    plant(one, "_delete_dead_letters", ("PERFORM durable_notify._block_removal();", ""))
    second = one.publish()
    (message,) = one.claim()
    one.settle(message.token, rejected=[message])
    two.begin()
    two.value("SELECT durable_notify.redrive('g', ids => ARRAY[%s]::bigint[])", second)
    assert maintain(one) == {"remove": 1}
    two.commit()
    assert drain(one) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing says what to remove"),
        ({"archive": True}, "nothing says what to remove"),
        ({"max_age": "0"}, "more than 0"),
        ({"max_age": "-1 day"}, "more than 0"),
        ({"max_age": "1001 years"}, "1000 years at most"),
        ({"max_bytes": 0}, "more than 0"),
        ({"max_age": "1 day", "alarm_bytes": -1}, "more than 0"),
        ({"when_settled": True, "compact": True}, "choose one"),
        ({"when_settled": True, "on_lag": "lose"}, "max_age or max_bytes"),
        (
            {"max_age": "1 day", "on_lag": "lose", "alarm_bytes": 1},
            "with on_lag 'lose' nothing does",
        ),
        ({"max_age": "1 day", "on_lag": "drop"}, "'block' or 'lose'"),
    ],
)
def test_what_contradicts_itself(
    sessions: Sessions, options: dict[str, object], words: str
) -> None:
    one = sessions.session()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
        retain(one, **options)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid topic or pattern"):
        retain(one, "a b", max_age="1 day")
    assert one.run("SELECT FROM durable_notify.retention()") == []


def test_a_running_replay_is_waited_for(sessions: Sessions) -> None:
    one = sessions.reader()
    retain(one, when_settled=True)
    for _ in range(3):
        one.publish()
    drain(one)
    one.run("SELECT durable_notify.start_replay('g', 't', after_id => 1)")
    assert maintain(one) == {"remove": 1}
    one.run("SELECT durable_notify.advance_replays('g', '{t}')")
    assert maintain(one) == {}
    assert drain(one) == [2, 3]
    assert maintain(one) == {"remove": 2}


def test_replay_answers_from_what_is_left(sessions: Sessions) -> None:
    one = sessions.reader()
    for _ in range(4):
        one.publish()
    drain(one)
    age(one, 2)
    retain(one, max_age="1 hour")
    assert maintain(one) == {"remove": 2}
    assert one.value("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == 2
    assert drain(one) == [3, 4]
    one.run("SELECT durable_notify.seek('g', 't', after_id => 0)")
    assert drain(one) == [3, 4]
    one.subscribe("new")
    assert drain(one, group="new") == [3, 4]


def test_after_a_move_to_another_cluster(sessions: Sessions) -> None:
    """Ids that were drawn there and not copied are reused: nothing is recorded about those."""
    one = sessions.session()
    retain(one, compact=True, archive=True)
    for _ in range(3):
        one.publish(key="k")
    one.run("SELECT durable_notify._advance_watermark()")
    one.run("INSERT INTO durable_notify.maintenance_progress VALUES ('t', 900, 950, 900, 900)")
    one.run("INSERT INTO durable_notify.compacted_key VALUES ('t', 'k', 899)")
    one.run("UPDATE durable_notify.watermark SET last_id = 899")
    one.run("UPDATE durable_notify.cluster_identity SET xid = '0'")
    with pytest.raises(psycopg.Error, match="another cluster"):
        one.value("SELECT durable_notify.maintain_begin('a', '0')")
    one.run("SELECT durable_notify.reanchor()")
    assert one.run(
        "SELECT archived_below, archiving_below, compacted_below FROM durable_notify.maintenance_progress"
    ) == [(4, None, 4)]
    assert one.value("SELECT durable_notify._watermark()") == 1
    assert one.value("SELECT count(*) FROM durable_notify.compacted_key") == 0
