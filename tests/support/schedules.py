"""Schedules on which a naive reader loses messages, or gets them twice.

Each plays on a fresh database where group "g" reads topic "t", and returns what was committed and
what was delivered. The tests run them on the real functions and on ones with planted faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from psycopg import errors

from tests.support.sessions import LONG_GONE, Session, Sessions, ids


@dataclass
class Outcome:
    """Ids in the order in which they were committed, and in which they were delivered."""

    committed: list[int]
    delivered: list[int]

    @property
    def lost(self) -> list[int]:
        return sorted(set(self.committed) - set(self.delivered))

    @property
    def twice(self) -> list[int]:
        return sorted(i for i, times in Counter(self.delivered).items() if times > 1)

    @property
    def unexpected(self) -> list[int]:
        return sorted(set(self.delivered) - set(self.committed))

    @property
    def exact(self) -> bool:
        return not (self.lost or self.twice or self.unexpected)


Trap = Callable[[Sessions], Outcome]


def claim_and_ack(session: Session, most: int = 100, group: str = "g") -> list[int]:
    """Claim once, settle all of it; returns the ids."""
    batch = session.claim(most, group)
    session.ack(batch)
    return ids(batch)


def drain(session: Session, most: int = 100, group: str = "g") -> list[int]:
    """Claim and settle until nothing comes."""
    delivered: list[int] = []
    while batch := claim_and_ack(session, most, group):
        delivered += batch
    return delivered


def late_commit_of_a_lower_id(sessions: Sessions) -> Outcome:
    """The oldest of them: 1 is drawn, 2 is drawn and commits, 1 commits."""
    reader, slow, fast = sessions.readers(3)
    slow.begin()
    first = slow.publish()
    second = fast.publish()
    delivered = claim_and_ack(reader)
    assert delivered == [second]
    slow.commit()
    return Outcome([second, first], delivered + drain(reader))


def straggler_in_the_list(sessions: Sessions) -> Outcome:
    """The late one stands in the snapshot's list of running transactions."""
    reader, slow, fast = sessions.readers(3)
    slow.begin()
    first = slow.publish()
    xid = slow.draw_xid()
    with fast.transaction():
        second = fast.publish()
        assert fast.draw_xid() > xid
    delivered = claim_and_ack(reader)
    assert xid in reader.position().running
    slow.commit()
    return Outcome([second, first], delivered + drain(reader))


def straggler_past_the_list(sessions: Sessions) -> Outcome:
    """The late one is younger than the latest completed transaction: past xmax, in no list."""
    reader, slow, fast = sessions.readers(3)
    committed: list[int] = []
    delivered: list[int] = []
    # Once is enough, unless another session's transaction happens to end in between.
    for _ in range(20):
        fast.begin()
        fast.draw_xid()
        slow.begin()
        first = slow.publish()
        xid = slow.draw_xid()
        second = fast.publish()
        fast.commit()
        delivered += claim_and_ack(reader)
        position = reader.position()
        slow.commit()
        committed += [second, first]
        if xid >= position.xmax:
            assert position.h0 == second > first
            return Outcome(committed, delivered + drain(reader))
    raise AssertionError("other sessions' transactions were always in the way")


def window_ends_while_both_kinds_wait(sessions: Sessions) -> Outcome:
    """Stragglers of both kinds and new ones, claimed one by one, with more arriving in between."""
    reader, listed, past, fast, late = sessions.readers(5)
    listed.begin()
    committed = [listed.publish(), listed.publish()]
    fast.begin()
    fast.draw_xid()
    past.begin()
    committed += [past.publish(), past.publish()]
    committed += [fast.publish()]
    fast.commit()
    delivered = claim_and_ack(reader, 1)
    delivered += claim_and_ack(reader, 1)
    late.begin()
    committed += [late.publish()]
    listed.commit()
    past.commit()
    committed += [fast.publish(), fast.publish()]
    delivered += claim_and_ack(reader, 1)
    committed += [fast.publish()]
    late.commit()
    return Outcome(committed, delivered + drain(reader, 1))


def position_read_too_early(sessions: Sessions) -> Outcome:
    """A claim waits for its group's lock while two others claim before it."""
    reader, other, publisher = sessions.take(3)
    group_id = reader.subscribe()
    committed = [publisher.publish() for _ in range(6)]
    delivered = claim_and_ack(reader, 1)
    other.run("SELECT pg_advisory_lock(1685024361, %s)", group_id)
    waiting = reader.start("SELECT id FROM durable_notify.claim('g', '{t}', 1)")
    sessions.wait_until_blocked(reader, waiting)
    delivered += claim_and_ack(other, 1) + claim_and_ack(other, 1)
    other.run("SELECT pg_advisory_unlock_all()")
    delivered += [message_id for (message_id,) in waiting.result()]
    return Outcome(committed, delivered + drain(reader, 1))


def snapshot_taken_too_early(sessions: Sessions) -> Outcome:
    """A claim waits for its group's lock while others commit, and one of them is claimed."""
    reader, other, publisher = sessions.take(3)
    group_id = reader.subscribe()
    committed = [publisher.publish()]
    delivered = claim_and_ack(reader)
    other.run("SELECT pg_advisory_lock(1685024361, %s)", group_id)
    waiting = reader.start("SELECT id FROM durable_notify.claim('g', '{t}')")
    sessions.wait_until_blocked(reader, waiting)
    committed += [publisher.publish() for _ in range(3)]
    delivered += claim_and_ack(other, 1)
    other.run("SELECT pg_advisory_unlock_all()")
    delivered += [message_id for (message_id,) in waiting.result()]
    return Outcome(committed, delivered + drain(reader))


TRAPS: list[Trap] = [
    late_commit_of_a_lower_id,
    straggler_in_the_list,
    straggler_past_the_list,
    window_ends_while_both_kinds_wait,
    position_read_too_early,
    snapshot_taken_too_early,
]


def settled_in_part_by_a_frozen_transaction_after_a_takeover(
    sessions: Sessions, isolation: str = "repeatable read"
) -> str | None:
    """A takeover the transaction's snapshot does not show; the SQLSTATE that refuses the settle."""
    reader, other, publisher = sessions.readers(3)
    for _ in range(2):
        publisher.publish()
    batch = reader.claim()
    reader.begin(isolation)
    other.run(LONG_GONE)
    assert ids(other.claim()) == ids(batch)
    try:
        reader.settle(batch[0].token, batch[:1])
        reader.commit()
    except errors.DatabaseError as error:
        reader.rollback()
        return error.sqlstate
    return None


def takeover_beside_an_open_settle(
    sessions: Sessions, messages: int = 2, settled: int = 1
) -> Outcome:
    """A handler has settled, late, and not yet committed; a claim skips it, and must not wait."""
    reader, other, publisher = sessions.readers(3)
    committed = [publisher.publish() for _ in range(messages)]
    batch = reader.claim()
    other.run(LONG_GONE)
    other.run("SET statement_timeout = '3s'")
    with reader.transaction():
        reader.settle(batch[0].token, batch[:settled])
        committed += [publisher.publish()]
        delivered = ids(batch[:settled]) + claim_and_ack(other)
    return Outcome(committed, delivered + drain(other))
