"""A group goes back: what is delivered again, in every state of its window."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

import pytest
from psycopg import errors

from tests.sql.claim.test_windows import REPLAY, UNREAD
from tests.support.missing import slow_but
from tests.support.schedules import claim_and_ack, drain
from tests.support.sessions import Session, Sessions, ids


def closed(reader: Session, *_: Session) -> None:
    drain(reader)
    assert reader.position().s1 is None


def open_before_the_end_of_stragglers(reader: Session, publisher: Session, slow: Session) -> None:
    slow.begin()
    for _ in range(3):
        slow.publish()
    publisher.publish()
    drain(reader)
    slow.commit()
    publisher.publish()
    claim_and_ack(reader, 1)
    position = reader.position()
    assert position.s1 is not None
    assert position.p < position.h0


def open_after_them(reader: Session, publisher: Session, _: Session) -> None:
    drain(reader)
    for _ in range(4):
        publisher.publish()
    claim_and_ack(reader, 2)
    position = reader.position()
    assert position.s1 is not None
    assert position.p > position.h0


@pytest.mark.parametrize(
    "state", [closed, open_before_the_end_of_stragglers, open_after_them], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("back", range(12))
def test_replay_in_every_state(
    sessions: Sessions, state: Callable[[Session, Session, Session], None], back: int
) -> None:
    reader, publisher, slow = sessions.readers(3)
    for _ in range(4):
        publisher.publish()
    state(reader, publisher, slow)
    position = reader.position()
    left = set(reader.column(UNREAD, position.subscription_id))
    everything = set(reader.column("SELECT id FROM durable_notify.outbox"))
    again = {i for i in everything - left if i > back}
    assert reader.value(
        "SELECT redelivered FROM durable_notify.seek('g', 't', %s, dry_run => true, backward_only => true)",
        back,
    ) == len(again)
    assert reader.position() == position
    assert reader.value(REPLAY, back) == len(again)
    assert set(reader.column(UNREAD, position.subscription_id)) == left | again
    delivered = drain(reader, 2)
    assert sorted(delivered) == sorted(left | again)


@pytest.mark.parametrize("trial", slow_but(range(40), *range(10)))
def test_replay_at_random(sessions: Sessions, trial: int) -> None:
    """What is unread is always exactly what was committed and not delivered."""
    seed = secrets.randbits(32)
    print(f"trial {trial}: seed {seed}")
    chance = random.Random(seed)
    reader, *publishers = sessions.take(5)
    reader.subscribe()
    pending: dict[Session, list[int]] = {publisher: [] for publisher in publishers}
    is_open = dict.fromkeys(publishers, False)
    committed: set[int] = set()
    delivered: set[int] = set()

    def publish() -> None:
        publisher = chance.choice(publishers)
        if not is_open[publisher]:
            publisher.begin()
            is_open[publisher] = True
        elif chance.random() < 0.6:
            pending[publisher].append(publisher.publish())
        else:
            if chance.random() < 0.8:
                publisher.commit()
                committed.update(pending[publisher])
            else:
                publisher.rollback()
            is_open[publisher] = False
            pending[publisher].clear()

    def claim() -> None:
        batch = claim_and_ack(reader, chance.choice([1, 1, 2, 3, 50]))
        assert not delivered & set(batch), f"came twice, seed {seed}"
        delivered.update(batch)

    def replay() -> None:
        back = chance.randint(0, max(committed, default=0) + 2)
        again = {i for i in delivered if i > back}
        assert reader.value(REPLAY, back) == len(again), f"seed {seed}"
        delivered.difference_update(again)

    subscription_id = reader.position().subscription_id
    for _ in range(120):
        chance.choices([publish, claim, replay], [12, 4, 1])[0]()
        left = reader.column(UNREAD, subscription_id)
        assert sorted(left) == sorted(committed - delivered), f"seed {seed}"
    while batch := claim_and_ack(reader, 3):
        assert not delivered & set(batch), f"came twice, seed {seed}"
        delivered.update(batch)
    assert delivered == committed, f"seed {seed}"


def test_replay_by_time(sessions: Sessions) -> None:
    reader, slow, publisher = sessions.readers(3)
    publisher.publish()
    since = reader.value("SELECT clock_timestamp()")
    slow.begin()
    late = slow.publish()
    published = [publisher.publish(), publisher.publish()]
    drain(reader)
    query = (
        "SELECT redelivered FROM durable_notify.seek('g', 't', since => %s, backward_only => true)"
    )
    assert reader.value(query, since) == 2
    slow.commit()
    assert drain(reader) == [late, *published]
    assert reader.value(query, reader.value("SELECT clock_timestamp()")) == 0
    assert drain(reader) == []


def test_replay_never_goes_forward(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(3)]
    assert claim_and_ack(reader, 1) == published[:1]
    assert reader.value(REPLAY, published[-1]) == 0
    assert drain(reader) == published[1:]


def test_replay_ends_the_waiting_of_retries(sessions: Sessions) -> None:
    reader, publisher = sessions.readers(2)
    published = [publisher.publish() for _ in range(3)]
    batch = reader.claim()
    query = "SELECT durable_notify.settle(%s, retried => %s, retry_delays => %s::interval[])"
    reader.run(query, batch[0].token, ids(batch), ["1 hour"] * 3)
    assert drain(reader) == []
    assert reader.value(REPLAY, published[0]) == 2
    assert drain(reader) == published[1:]
    assert reader.column("SELECT message_id FROM durable_notify.deferred") == published[:1]


@pytest.mark.parametrize("call", ["'g', 't'", "'g', 't', -1", "'g', 't', 1, now()"])
def test_replays_that_make_no_sense(sessions: Sessions, call: str) -> None:
    reader = sessions.reader()
    with pytest.raises(errors.InvalidParameterValue):
        reader.run(f"SELECT redelivered FROM durable_notify.seek({call}, backward_only => true)")
