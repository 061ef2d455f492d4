"""What waits in deferred: each reason has a row of its own, and none takes another's away."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from tests.support.injection import plant
from tests.support.observe import Listener
from tests.support.schedules import drain
from tests.support.sessions import LONG_GONE, Session, Sessions, ids

ADVANCE = "SELECT durable_notify.advance_replays('g', '{t}')"
CANCEL = "SELECT durable_notify.cancel_replay(%s)"
WAITING = "SELECT message_id, reason FROM durable_notify.deferred ORDER BY message_id, seq"


def replay(session: Session) -> int:
    """Start a replay of everything, move all of it, and leave it running."""
    job: int = session.value("SELECT job_id FROM durable_notify.start_replay('g', 't')")
    session.run(ADVANCE)
    still = "UPDATE durable_notify.replay_job SET state = 'running', ended_at = NULL WHERE id = %s"
    session.run(still, job)
    return job


def lose(session: Session, below: int = 2**62) -> int:
    """Have the group lose what it has not settled below an id; returns how many messages."""
    query = "SELECT durable_notify.set_retention('t', max_age => '1 microsecond', on_lag => 'lose')"
    session.run(query)
    for _ in range(2):
        session.run("SELECT durable_notify._advance_watermark()")
    lost: int = session.value("SELECT durable_notify._record_losses('t', %s)", below)
    return lost


def sent_back(one: Session, two: Session) -> list[int]:
    """Two messages of a key, of which the first is retried while a replay has both."""
    published = [one.publish(key="k") for _ in range(2)]
    held = two.claim()
    job = replay(one)
    two.settle(held[0].token, retried=held[:1])
    assert one.value(CANCEL, job)
    return published


def redriven(one: Session, two: Session) -> list[int]:
    published = [one.publish()]
    held = two.claim()
    two.settle(held[0].token, rejected=held)
    job = replay(one)
    assert one.value("SELECT durable_notify.redrive('g', ids => %s)", published) == 1
    assert one.value(CANCEL, job)
    return published


def expired_lease(one: Session, two: Session) -> list[int]:
    published = [one.publish()]
    two.claim()
    job = replay(one)
    one.run(LONG_GONE)
    one.run("SELECT durable_notify.release(ARRAY(SELECT token FROM durable_notify.lease))")
    assert one.value(CANCEL, job)
    return published


def retried(one: Session, two: Session) -> list[int]:
    published = [one.publish()]
    held = two.claim()
    job = replay(one)
    two.settle(held[0].token, retried=held)
    assert one.value(CANCEL, job)
    return published


OWED = [sent_back, redriven, expired_lease, retried]


@pytest.mark.parametrize("owed", OWED)
def test_a_cancelled_replay_takes_nothing_that_is_owed(sessions: Sessions, owed: object) -> None:
    one, two = sessions.readers(2)
    assert callable(owed)
    published = owed(one, two)
    assert drain(one) == published


@pytest.mark.parametrize("owed", OWED)
def test_planted_a_cancel_takes_all_that_it_moved_or_not(sessions: Sessions, owed: object) -> None:
    one, two = sessions.readers(2)
    assert callable(owed)
    plant(one, "cancel_replay", (" AND d.replay_job = ended.id", ""))
    published = owed(one, two)
    assert drain(one) != published


def test_one_job_does_not_take_what_another_has_moved(sessions: Sessions) -> None:
    one = sessions.reader()
    published = [one.publish() for _ in range(3)]
    one.ack(one.claim())
    one.run("SELECT durable_notify.start_replay('g', 't', upto_id => %s)", published[1])
    while one.value(ADVANCE) is not None:
        pass
    later = replay(one)
    assert one.value(CANCEL, later)
    assert drain(one) == published[:2]


def test_what_two_replays_have_moved_is_owed_by_the_one_that_is_done(sessions: Sessions) -> None:
    """Parked, a message has one row instead of its two."""
    one, two = sessions.readers(2)
    first = one.publish(key="k")
    one.ack(one.claim())
    second = one.publish(key="k")
    held = two.claim()
    one.run("SELECT durable_notify.start_replay('g', 't')")
    while one.value(ADVANCE) is not None:
        pass
    later = replay(one)
    assert one.claim() == []
    assert one.run(WAITING) == [(first, "key"), (second, "key")]
    assert one.value(CANCEL, later)
    two.ack(held)
    assert drain(one) == [first, second]


def test_a_cancelled_replay_takes_what_it_has_parked(sessions: Sessions) -> None:
    """Its message was taken out, had to wait for its key, and is the replay's still."""
    one, two = sessions.readers(2)
    first = one.publish(key="k")
    one.ack(one.claim())
    second = one.publish(key="k")
    held = two.claim()
    assert ids(held) == [second]
    job = replay(one)
    assert one.claim() == []
    assert one.run(WAITING) == [(first, "key"), (second, "key")]
    assert one.value(CANCEL, job)
    two.ack(held)
    assert drain(one) == []


def test_a_cancelled_replay_makes_room_to_read(sessions: Sessions) -> None:
    """What it had parked was as much as may be; who waits for that is rung for."""
    one, two = sessions.readers(2)
    one.run("""SELECT durable_notify.configure('g', '{"park_limit": 1}')""")
    one.publish(key="k")
    one.ack(one.claim())
    one.publish(key="k")
    held = two.claim()
    one.run("SELECT durable_notify.start_replay('g', 't', upto_id => %s)", held[0].id - 1)
    one.run(ADVANCE)
    job = one.value("UPDATE durable_notify.replay_job SET state = 'running' RETURNING id")
    assert one.claim() == []
    other = one.publish(key="l")
    assert one.claim() == []
    listener = Listener(sessions, "t", arm=True)
    assert one.value(CANCEL, job)
    assert listener.heard() == [("durable_notify:t", "0")]
    assert ids(one.claim()) == [other]


def test_a_message_that_waits_for_one_more_reason_is_once_in_its_lease(sessions: Sessions) -> None:
    """A replay moves it just when the claim has looked at the deferred messages of its key."""
    one, two, replaying, gate = sessions.readers(4)
    message_id = one.publish(key="k")
    (held,) = two.claim()
    one.run("SELECT durable_notify.start_replay('g', 't')")
    replaying.begin()
    replaying.run(ADVANCE)
    two.settle(held.token, retried=[held])
    looked = "END IF;\n        -- And what holds back nothing"
    waits = "PERFORM pg_catalog.pg_advisory_xact_lock_shared(42);"
    plant(one, "_next_batch", (looked, f"{waits} {looked}"))
    gate.run("SELECT pg_advisory_lock(42)")
    claiming = one.start("SELECT id, attempt FROM durable_notify.claim('g', '{t}')")
    sessions.wait_until_blocked(one, claiming)
    replaying.commit()
    gate.run("SELECT pg_advisory_unlock(42)")
    assert claiming.result() == [(message_id, 2)]
    assert one.run(WAITING) == []


def test_a_message_comes_once_for_all_of_its_reasons(sessions: Sessions) -> None:
    """As the highest attempt, and whatever is left of it stays with it."""
    one, two = sessions.readers(2)
    (message_id,) = (one.publish(key="k"),)
    (held,) = two.claim()
    one.run("SELECT durable_notify.seek('g', 't', after_id => 0)")
    assert one.claim() == []  # parked: its key is held
    two.settle(held.token, retried=[held])
    assert one.run(WAITING) == [(message_id, "key"), (message_id, "retry")]
    ((again),) = one.claim()
    assert (again.id, again.attempt) == (message_id, 2)
    assert one.run(WAITING) == []
    one.ack([again])
    assert drain(one) == []


@pytest.mark.parametrize("outcome", ["retried", "rejected"])
@pytest.mark.parametrize("key", ["k", None])
def test_no_claim_waits_for_a_handlers_transaction(
    sessions: Sessions, outcome: str, key: str | None
) -> None:
    """A message under two leases: what one settles in a transaction, the claim has a row for, too."""
    one, handler = sessions.readers(2)
    one.run(
        """SELECT durable_notify.configure('g', '{"max_attempts": 1, "on_expiry": "dead_letter"}')"""
    )
    first = one.publish(key=key)
    (held,) = handler.claim()
    one.run("SELECT durable_notify.seek('g', 't', after_id => 0)")
    doubled = one.claim()
    other = one.publish(key="l")
    one.run(LONG_GONE)
    handler.begin()
    handler.settle(held.token, **{outcome: [held]})
    one.run("SET statement_timeout = '4s'")
    assert other in ids(one.claim())
    handler.commit()
    assert one.value("SELECT count(DISTINCT message_id) FROM durable_notify.dead_letter") == 1
    assert [m.id for m in doubled] == ([] if key else [first])


def test_a_redrive_does_not_wait_for_a_letter_that_is_written_again(sessions: Sessions) -> None:
    one, handler = sessions.readers(2)
    published = [one.publish(), one.publish()]
    held = handler.claim()
    handler.settle(held[0].token, rejected=held)
    one.run("SELECT durable_notify.seek('g', 't', after_id => 0)")
    again = handler.claim()
    handler.begin()
    handler.settle(again[0].token, rejected=again[:1])
    one.run("SET statement_timeout = '4s'")
    assert one.value("SELECT durable_notify.redrive('g', everything => true)") == 1
    handler.commit()
    letters = one.column("SELECT message_id FROM durable_notify.dead_letter")
    assert letters == published[:1]


def test_what_is_lost_is_recorded_although_a_replay_has_it(sessions: Sessions) -> None:
    one, two = sessions.readers(2)
    published = [one.publish(key="k") for _ in range(2)]
    held = two.claim()
    replay(one)
    two.settle(held[0].token, retried=held[:1])
    one.run(
        "SELECT durable_notify.set_retention('t', max_age => '1 microsecond', on_lag => 'lose')"
    )
    for _ in range(2):
        one.run("SELECT durable_notify._advance_watermark()")
    assert one.value("SELECT durable_notify._record_losses('t', %s)", 2**62) == 2
    assert one.run("SELECT first_id, last_id, messages FROM durable_notify.lost_message") == [
        (published[0], published[1], 2)
    ]


@pytest.mark.parametrize("on_expiry", ["drop", "dead_letter"])
def test_what_has_expired_is_not_lost_without_a_trace(sessions: Sessions, on_expiry: str) -> None:
    """Beside what is lost, it is dropped and counted, or a dead letter, as the group says."""
    one = sessions.reader()
    one.run("SELECT durable_notify.configure('g', %s)", Jsonb({"on_expiry": on_expiry}))
    query = "SELECT durable_notify.publish('t', '1', ttl => %s::interval)"
    late = one.value(query, "1 microsecond")
    lost = one.publish()
    assert lose(one) == 1
    assert one.run("SELECT first_id, last_id FROM durable_notify.lost_message") == [(lost, lost)]
    letters = one.run("SELECT message_id, reason FROM durable_notify.dead_letter")
    assert letters == ([(late, "expired")] if on_expiry == "dead_letter" else [])
    assert one.value("SELECT expired FROM durable_notify.position") == 1


def test_a_loss_amid_stragglers_is_recorded(sessions: Sessions) -> None:
    """If the position cannot express it, only what waits is lost; the stragglers are delivered."""
    one, late = sessions.readers(2)
    first = one.publish()
    (held,) = one.claim()
    one.run(
        "SELECT durable_notify.settle(%s, retried => %s, retry_delays => '{1 hour}')",
        held.token,
        [first],
    )
    late.begin()
    stragglers = [late.publish(), late.publish()]
    one.publish()
    one.ack(one.claim())
    late.commit()
    (held,) = one.claim(1)
    assert held.id == stragglers[0]
    one.ack([held])
    assert lose(one, stragglers[0]) == 1
    assert one.run("SELECT first_id, last_id FROM durable_notify.lost_message") == [(first, first)]
    assert drain(one) == stragglers[1:]


def goes_back(one: Session, two: Session) -> list[int]:
    """Rewind a group while a consumer holds the last two messages of three."""
    published = [one.publish(key="k")]
    one.ack(one.claim())
    published += [one.publish(key="k") for _ in range(2)]
    held = two.claim()
    assert ids(held) == published[1:]
    assert one.run("SELECT redelivered FROM durable_notify.seek('g', 't', 0)") == [(3,)]
    return published


@pytest.mark.parametrize("delay", ["0", "1 hour"])
@pytest.mark.parametrize("most", range(1, 6))
def test_a_redelivered_message_comes_after_those_before_it(
    sessions: Sessions, most: int, delay: str
) -> None:
    """Although it is sent back meanwhile, and is owed twice: of the last times, the order is theirs."""
    one, two = sessions.readers(2)
    published = goes_back(one, two)
    settle = """SELECT durable_notify.settle(token, retried => ids[2:2], retry_delays => ARRAY[%s::interval])
                  FROM durable_notify.lease"""
    two.run(settle, delay)
    one.run(LONG_GONE)
    came = drain(one, most)
    assert list(dict.fromkeys(reversed(came))) == published[::-1], came


def test_a_cancelled_replay_takes_nothing_that_comes_from_the_outbox(sessions: Sessions) -> None:
    """A group was rewound to before what the replay moves then."""
    one, two = sessions.readers(2)
    query = "SELECT job_id FROM durable_notify.start_replay('g', 't')"
    published = [one.publish(key="k")]
    one.ack(one.claim())
    published.append(one.publish(key="k"))
    held = two.claim()
    job = one.value(query)
    one.run("SELECT durable_notify.seek('g', 't', 0)")
    one.run(ADVANCE)
    one.run("UPDATE durable_notify.replay_job SET state = 'running', ended_at = NULL")
    assert one.claim() == []
    assert one.value(CANCEL, job)
    two.ack(held)
    assert drain(one) == published


def test_what_is_given_back_uncounted_is_not_given_up(sessions: Sessions) -> None:
    """Although its group allows fewer attempts by now than it has had."""
    one, two = sessions.readers(2)
    one.publish()
    (held,) = two.claim()
    two.settle(held.token, retried=[held])
    (held,) = two.claim()
    one.run("""SELECT durable_notify.configure('g', '{"max_attempts": 1}')""")
    assert two.run("SELECT durable_notify.release(%s, false)", [held.token]) == []
    assert one.run("SELECT FROM durable_notify.dead_letter") == []
    (again,) = one.claim()
    assert (again.id, again.attempt) == (held.id, 2)
