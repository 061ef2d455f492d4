"""Order by key and strict order: what a group is never delivered, however its consumers race."""

from __future__ import annotations

import random

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.sessions import LONG_GONE, Message, Session, Sessions, ids


def configure(session: Session, **options: object) -> None:
    from psycopg.types.json import Jsonb

    session.run("SELECT durable_notify.configure('g', %s)", Jsonb(options))


def settle(session: Session, message: Message, outcome: str = "acked", **more: object) -> list[int]:
    named = "".join(f", {name} => %s" for name in more)
    query = f"SELECT durable_notify.settle(%s, {outcome} => %s{named})"
    found = session.value(query, message.token, [message.id], *more.values())
    assert isinstance(found, list)
    return found


def test_one_message_of_a_key_at_a_time(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    first, second = (one.publish(key="k") for _ in range(2))
    other, plain = one.publish(key="l"), one.publish()
    (held,) = one.claim(1)
    assert (held.id, held.order_key) == (first, "k")
    taken = two.claim()
    assert ids(taken) == [other, plain]
    assert [m.order_key for m in taken] == ["l", None]
    settle(one, held)
    assert ids(two.claim()) == [second]


def test_several_of_a_key_in_one_lease_come_in_order(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    published = [one.publish(key="k") for _ in range(3)]
    batch = one.claim()
    assert ids(batch) == published
    assert two.claim() == []
    settle(one, batch[0])
    later = one.publish(key="k")
    assert two.claim() == []
    for message in batch[1:]:
        settle(one, message)
    assert ids(two.claim()) == [later]


def test_a_retry_holds_back_its_key_and_nothing_else(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    first, second, third = (one.publish(key="k") for _ in range(3))
    other = one.publish(key="l")
    batch = one.claim()
    sent_back = settle(one, batch[0], "retried", retry_delays=["1 hour"])
    assert sent_back == [second, third]
    settle(one, batch[3])
    assert ids(batch)[3] == other
    later, free = one.publish(key="k"), one.publish(key="l")
    assert ids(two.claim()) == [free]
    two.run("UPDATE durable_notify.deferred SET due_at = 'epoch' WHERE reason = 'retry'")
    again = two.claim()
    assert [(m.id, m.attempt) for m in again] == [(first, 2), (second, 1), (third, 1), (later, 1)]


def test_out_of_order_is_refused_and_changes_nothing(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    published = [one.publish(key="k") for _ in range(2)]
    batch = one.claim()
    for outcome in ("acked", "rejected"):
        with pytest.raises(psycopg.DatabaseError, match="not the next of its key") as caught:
            settle(one, batch[1], outcome)
        assert caught.value.sqlstate == "DN007"
    query = "SELECT durable_notify.settle(%s, retried => %s, rejected => %s)"
    with pytest.raises(psycopg.DatabaseError, match="not the next of its key"):
        one.run(query, batch[0].token, published[:1], published[1:])
    one.run(LONG_GONE)
    assert ids(two.claim()) == published


def test_a_later_one_may_be_retried(sessions: Sessions) -> None:
    one, _ = sessions.readers(2)
    for _ in range(2):
        one.publish(key="k")
    batch = one.claim()
    settle(one, batch[1], "retried", retry_delays=["0"])
    settle(one, batch[0])
    assert [(m.id, m.attempt) for m in one.claim()] == [(batch[1].id, 2)]


def test_a_crash_keeps_the_order(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    published = [one.publish(key="k") for _ in range(3)]
    assert ids(one.claim(2)) == published[:2]
    one.run(LONG_GONE)
    again = two.claim()
    assert [(m.id, m.attempt) for m in again] == [
        *((i, 2) for i in published[:2]),
        (published[2], 1),
    ]


def test_an_open_transaction_that_settles_keeps_its_key(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    first, second = (one.publish(key="k") for _ in range(2))
    (held,) = one.claim(1)
    one.begin()
    settle(one, held)
    assert two.claim() == []
    one.rollback()
    assert two.claim() == []
    settle(one, held)
    assert ids(two.claim()) == [second]
    assert first < second


def test_parking_is_bounded_and_continues(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    configure(one, park_limit=5)
    published = [one.publish(key="k") for _ in range(12)]
    free = one.publish(key="free")
    (held,) = one.claim(1)
    assert two.claim() == []
    assert one.value("SELECT count(*) FROM durable_notify.deferred") == 5
    settle(one, held)
    rest: list[int] = []
    while batch := two.claim():
        rest += ids(batch)
        two.ack(batch)
    assert rest == [*published[1:], free]


def test_messages_put_off_do_not_hide_those_behind(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    (held,) = [one.publish(key="k")] and one.claim(1)
    for _ in range(20):
        one.publish(key="k")
    free = one.publish()
    assert ids(two.claim(3)) == [free]
    assert held.order_key == "k"


def test_no_order(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    configure(one, order_by="none")
    published = [one.publish(key="k") for _ in range(4)]
    first = one.claim(2)
    assert [m.order_key for m in first] == [None, None]
    assert ids(first) + ids(two.claim()) == published
    settle(one, first[1])
    settle(one, first[0], "retried", retry_delays=["0"])
    assert ids(two.claim()) == published[:1]


def test_changed_order_holds_for_what_is_under_way(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    configure(one, order_by="none")
    published = [one.publish(key="k") for _ in range(3)]
    (held,) = one.claim(1)
    configure(one, order_by="key")
    assert two.claim() == []
    configure(one, order_by="none")
    assert ids(two.claim()) == published[1:]
    settle(one, held)


LOOK = "held_back := durable_notify._keys_in_flight(lease_tokens, their_keys, options.order_by);"
GATE = "PERFORM pg_catalog.pg_advisory_xact_lock(4711);"
LATER_LOOK = "held_back := held_back || ARRAY("
DEFERRED_FIRST = f"""held_back := ARRAY(
    SELECT k.key FROM pg_catalog.unnest(their_keys) AS k (key)
     WHERE EXISTS (SELECT FROM durable_notify.deferred d
                    WHERE d.subscription_id = subscription.id AND d.key = k.key));
    {GATE} held_back := held_back || durable_notify._keys_in_flight(lease_tokens, their_keys, options.order_by);"""


@pytest.mark.parametrize("planted", [False, True])
def test_a_settle_between_two_looks_of_a_claim(sessions: Sessions, planted: bool) -> None:
    """Leases and outcomes first, deferred after: else a retry in between is overtaken."""
    one, two, gate = sessions.readers(3)
    first, second = (one.publish(key="k") for _ in range(2))
    (held,) = one.claim(1)
    if planted:
        plant(gate, "_triage", (LATER_LOOK, "PERFORM ARRAY("), (LOOK, DEFERRED_FIRST))
    else:
        plant(gate, "_triage", (LOOK, f"{LOOK} {GATE}"))
    gate.begin()
    gate.run("SELECT pg_catalog.pg_advisory_xact_lock(4711)")
    waiting = two.start("SELECT id FROM durable_notify.claim('g', '{t}')")
    sessions.wait_until_blocked(two, waiting)
    settle(one, held, "retried", retry_delays=["1 hour"])
    gate.rollback()
    assert [row[0] for row in waiting.result()] == ([second] if planted else [])
    assert first < second


@pytest.mark.parametrize("planted", [False, True])
def test_a_settle_between_the_look_and_the_batch_of_a_claim(
    sessions: Sessions, planted: bool
) -> None:
    """What a lease held at the look may wait in deferred when the batch is read: both are looked at again."""
    one, two, gate = sessions.readers(3)
    first, second = (one.publish(key="k") for _ in range(2))
    (held,) = one.claim(1)
    looked = "IF seen.pos IS NULL THEN"
    changes = [(looked, f"{GATE} {looked}")]
    if planted:
        again = (
            "IF EXISTS (SELECT FROM durable_notify.deferred d"
            " WHERE d.subscription_id = pos.subscription_id AND d.key IS NOT NULL)"
        )
        changes.append((again, "IF false"))
    plant(gate, "claim", *changes)
    gate.begin()
    gate.run("SELECT pg_catalog.pg_advisory_xact_lock(4711)")
    waiting = two.start("SELECT id FROM durable_notify.claim('g', '{t}', 1)")
    sessions.wait_until_blocked(two, waiting)
    settle(one, held, "retried", retry_delays=["1 hour"])
    gate.rollback()
    assert [row[0] for row in waiting.result()] == ([second] if planted else [])
    assert first < second


# Strict order.


def strict(sessions: Sessions) -> tuple[Session, ...]:
    several = sessions.readers(3)
    configure(several[0], order_by="strict")
    return several


def test_strict_waits_for_publishers_in_flight(sessions: Sessions) -> None:
    one, slow, other = strict(sessions)
    slow.begin()
    first = slow.publish()
    second = other.publish()
    assert one.claim() == []
    ((pid, state),) = one.run("SELECT pid, state FROM durable_notify.blocking_publishers('g')")
    assert (pid, state) == (slow.connection.info.backend_pid, "idle in transaction")
    third = other.publish()
    assert one.claim() == []
    slow.commit()
    assert ids(one.claim()) == [first, second, third]
    assert one.run("SELECT * FROM durable_notify.blocking_publishers('g')") == []


def test_strict_continues_beside_publishers_that_came_later(sessions: Sessions) -> None:
    one, slow, other = strict(sessions)
    slow.begin()
    rolled_back = slow.publish()
    second = other.publish()
    assert one.claim() == []  # records the open publishers
    later = sessions.session()
    later.begin()
    later.publish()
    slow.rollback()
    assert ids(one.claim()) == [second]
    assert rolled_back < second


def test_strict_waits_for_a_prepared_transaction(sessions: Sessions) -> None:
    one, slow, other = strict(sessions)
    one.run("SELECT durable_notify.set_notify_policy('t', 'never')")  # NOTIFY cannot be prepared
    slow.begin()
    slow.run("SAVEPOINT s")
    first = slow.publish()
    second = other.publish()
    assert one.claim() == []
    slow.run("PREPARE TRANSACTION 'held'")
    assert one.claim() == []
    assert one.column("SELECT prepared FROM durable_notify.blocking_publishers('g')") == ["held"]
    other.run("COMMIT PREPARED 'held'")
    assert ids(one.claim()) == [first, second]


def test_strict_reads_an_open_window_no_further_than_when_it_was_opened(sessions: Sessions) -> None:
    """Its end saw what came after a publisher in flight, whose message is older."""
    one, slow, other = strict(sessions)
    slow.begin()
    slow.publish(topic="another")
    first, second = other.publish(), other.publish()
    assert one.claim() == []  # waits for it
    slow.commit()
    slow.begin()
    late = slow.publish()
    last = other.publish()
    batch = one.claim(1)
    assert ids(batch) == [first]
    one.ack(batch)
    slow.commit()
    got = []
    while batch := one.claim(1):
        got += ids(batch)
        one.ack(batch)
    assert got == [second, late, last]


def test_strict_without_the_list_is_caught(sessions: Sessions) -> None:
    one, slow, other = strict(sessions)
    plant(
        one,
        "_advance_watermark",
        ("writers := durable_notify._open_publishers();", "writers := '{}';"),
    )
    slow.begin()
    slow.publish()
    second = other.publish()
    assert ids(one.claim()) == [second], "the planted bug is gone"


def test_strict_waits_for_ids_that_are_drawn_again(sessions: Sessions) -> None:
    one, slow, other = strict(sessions)
    slow.begin()
    slow.publish()
    last = [other.publish() for _ in range(5)][-1]
    assert one.claim() == []
    slow.rollback()
    slow.begin()
    slow.publish(topic="another")
    batch = one.claim()
    assert ids(batch)[-1] == last
    one.ack(batch)
    slow.rollback()
    other.run("TRUNCATE durable_notify.outbox RESTART IDENTITY")
    slow.begin()
    first, second = slow.publish(), other.publish()
    assert one.claim() == []
    slow.commit()
    assert ids(one.claim()) == [first, second] == [1, 2]


def test_a_strict_claim_and_a_truncate_at_once(sessions: Sessions) -> None:
    """They do not wait for each other, and nothing is left of what the claim recorded."""
    one, slow, other = strict(sessions)
    gate = sessions.session()
    plant(
        other,
        "_advance_watermark",
        ("    RETURN recorded.last_id;\nEND", f"{GATE} RETURN recorded.last_id;\nEND"),
    )
    slow.publish()
    slow.begin()
    slow.publish(topic="another")
    gate.begin()
    gate.run("SELECT pg_catalog.pg_advisory_xact_lock(4711)")
    claim = one.start("SELECT id FROM durable_notify.claim('g', '{t}')")
    sessions.wait_until_blocked(one, claim)
    slow.rollback()
    emptied = other.start("TRUNCATE durable_notify.outbox RESTART IDENTITY")
    sessions.wait_until_blocked(other, emptied)
    gate.rollback()
    claim.result()
    emptied.result()
    assert other.run("SELECT FROM durable_notify.watermark") == []


def test_strict_has_one_batch_in_progress(sessions: Sessions) -> None:
    one, two, _ = strict(sessions)
    published = [one.publish(key=str(n)) for n in range(4)]
    batch = one.claim(2)
    assert two.claim() == []
    assert settle(one, batch[0], "retried", retry_delays=["1 hour"]) == [published[1]]
    assert two.claim() == []
    two.run("UPDATE durable_notify.deferred SET due_at = 'epoch'")
    assert [(m.id, m.attempt) for m in two.claim()] == [
        (published[0], 2), (published[1], 1), (published[2], 1), (published[3], 1)
    ]  # fmt: skip


# At random.


class Handled:
    """What consumers did, and whether it kept to the order."""

    def __init__(self) -> None:
        self.in_progress: dict[str, dict[int, set[int]]] = {}  # by key and lease: messages
        self.done: dict[str, list[int]] = {}
        self.acked: list[int] = []
        self.faults: list[str] = []

    def begin(self, message: Message) -> None:
        if message.key is None:
            return
        leases = self.in_progress.setdefault(message.key, {})
        leases.setdefault(message.token, set()).add(message.id)
        if len(leases) > 1:
            self.faults.append(f"{message.key} is in progress under {leases}")

    def end(self, message: Message, *, acked: bool) -> None:
        if acked:
            self.acked.append(message.id)
        if message.key is None:
            return
        leases = self.in_progress[message.key]
        leases[message.token].discard(message.id)
        if not leases[message.token]:
            del leases[message.token]
        if acked:
            done = self.done.setdefault(message.key, [])
            if done and done[-1] > message.id:
                self.faults.append(f"{message.key}: {message.id} after {done[-1]}")
            done.append(message.id)


def race(sessions: Sessions, seed: int) -> tuple[Handled, set[int]]:
    """Let consumers race for keyed messages, each acting in turn by the dice."""
    dice = random.Random(seed)
    publisher, *consumers = sessions.readers(4)
    handled, published = Handled(), set()
    held: dict[Session, list[Message]] = {session: [] for session in consumers}

    def act(session: Session) -> None:
        batch = held[session]
        if not batch:
            held[session] = session.claim(dice.randint(1, 6))
            for message in held[session]:
                handled.begin(message)
            return
        message, roll = batch[0], dice.random()
        if roll < 0.7:
            settle(session, message)
            handled.end(message, acked=True)
            del batch[0]
        elif roll < 0.85:
            gone = {message.id, *settle(session, message, "retried", retry_delays=["0"])}
            for other in [m for m in batch if m.id in gone]:
                handled.end(other, acked=False)
                batch.remove(other)
        elif roll < 0.95:
            session.run("SELECT durable_notify.release(%s)", [message.token])
            while batch:
                handled.end(batch.pop(), acked=False)
        else:
            session.begin()
            settle(session, message)
            session.rollback()

    for _ in range(150):
        if dice.random() < 0.4:
            published.add(publisher.publish(key=dice.choice(["a", "b", "c", None])))
        act(dice.choice(consumers))
    while True:
        for session in consumers:
            while held[session]:
                message = held[session].pop(0)
                settle(session, message)
                handled.end(message, acked=True)
        for message in (batch := consumers[0].claim()):
            handled.begin(message)
        if not batch:
            return handled, published
        held[consumers[0]] = batch


@pytest.mark.parametrize("seed", range(8))
def test_races_keep_the_order(sessions: Sessions, seed: int) -> None:
    sessions.take(1)[0].run("SELECT durable_notify.subscribe('g', '{t}')")
    sessions.take(1)[0].run("""SELECT durable_notify.configure('g', '{"max_attempts": 1000}')""")
    handled, published = race(sessions, seed)
    assert handled.faults == [], f"seed {seed}"
    assert sorted(handled.acked) == sorted(published), f"seed {seed}"


def test_races_see_a_key_released_too_early(sessions: Sessions) -> None:
    director = sessions.take(1)[0]
    director.run("SELECT durable_notify.subscribe('g', '{t}')")
    plant(
        director,
        "_keys_in_flight",
        ("l.token = ANY (lease_tokens)", "l.token = ANY (lease_tokens) AND false"),
    )
    faults = 0
    for seed in range(3):
        try:
            handled, _ = race(sessions, seed)
            faults += len(handled.faults)
        except psycopg.DatabaseError:
            faults += 1
    assert faults > 0
