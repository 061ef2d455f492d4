"""Publishers and consumers in the midst of work, while the database is moved.

Before the move and after it they take random steps (tests/faults/traffic.py); at the move,
publishers have transactions open, consumers hold leases, windows are half read, messages wait for
retries, keys and their time, and a replay runs.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from psycopg import errors

from tests.faults.history import History, Sent, Settled, check
from tests.faults.traffic import Consumer, Publisher, _cast, _meet
from tests.support.sessions import Message, Session, Sessions

NONE, STRICT, REPLAYING, IDLE = "n", "s", "r", "i"
CHECKED = ["g", "h", NONE, STRICT, IDLE]
OPTIONS = {NONE: '{"order_by": "none"}', STRICT: '{"order_by": "strict"}'}
DELAYED = "SELECT durable_notify.publish('t', '0', deliver_at => now() + '1 day')"
ITS_TIME = """
    UPDATE durable_notify.outbox SET deliver_at = 'epoch' WHERE deliver_at IS NOT NULL;
    UPDATE durable_notify.deferred SET due_at = 'epoch' WHERE reason = 'delivery'"""
REPLAY = "SELECT job_id FROM durable_notify.start_replay(%s, 't', rate_limit => 10)"
NO_LIMIT = "UPDATE durable_notify.replay_job SET rate_limit = NULL"
ADVANCE = "SELECT durable_notify.advance_replays(%s, '{t}')"


OPEN = """
    SELECT m.id FROM durable_notify.lease l, unnest(l.ids) WITH ORDINALITY AS m (id, place)
     WHERE l.token = %s AND NOT EXISTS (
           SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id)
     ORDER BY m.place"""
REFUSALS = {
    "DN001",
    "DN002",
    "DN007",
}  # superseded; sent back with another; not the next of its key


class Careless(Consumer):
    """Rejects messages as well, and settles those of a key in any order: some of it is refused."""

    sent_back: set[tuple[str, int]]
    """What came after a retried message of its key: its redelivery is no new attempt."""

    def step(self) -> None:
        if self.held and self.random.random() < 0.1:
            self._reject()
        else:
            super().step()

    def _settle_these(self, token: int, messages: list[Message], how: str = "acked") -> None:
        try:
            super()._settle_these(token, messages, how)
        except errors.DatabaseError as error:
            self._refused(token, error)
        if how == "retried":
            before = {m.id for m in self.held.get(token, [])}
            self._look(token)
            after = {m.id for m in self.held.get(token, [])}
            self.sent_back |= {(self.group, i) for i in before - after}

    def _reject(self) -> None:
        token, (first, *_) = self.random.choice(list(self.held.items()))
        try:
            self.session.settle(token, rejected=[first])
        except errors.DatabaseError as error:
            self._refused(token, error)
        else:
            self.history.settled.append(Settled(self.group, token, first.id))
            self._look(token)

    def _refused(self, token: int, error: errors.DatabaseError) -> None:
        if error.sqlstate not in REFUSALS:
            raise error
        self._look(token)

    def _look(self, token: int) -> None:
        """See what of a lease is still to be settled."""
        still = self.session.column(OPEN, token)
        self.held[token] = [m for m in self.held.get(token, []) if m.id in still]
        if not self.held[token]:
            del self.held[token]


class Company:
    """Who publishes and consumes, and what has come of it."""

    def __init__(self, sessions: Sessions, seed: object) -> None:
        self.publishers, self.consumers, self.history = _cast(sessions, seed, True, (), waits=False)
        self.choice = random.Random(f"{seed} order")
        director = sessions.session()
        for group in (NONE, STRICT, REPLAYING, IDLE):
            director.subscribe(group)
            if group in OPTIONS:
                director.run(
                    "SELECT durable_notify.configure(%s, %s::jsonb)", group, OPTIONS[group]
                )
        director.run("UPDATE durable_notify.consumer_group SET max_attempts = 1000")
        self.delayed: int = director.value(DELAYED)
        self.history.sent.append(Sent(self.delayed))
        self.consumers += [
            Careless(sessions.session(), f"{seed} {group}", self.history, group, lapses=True)
            for group in (NONE, STRICT, "g", "h")
        ]
        self.sent_back: set[tuple[str, int]] = set()
        for consumer in self.consumers:
            if isinstance(consumer, Careless):
                consumer.sent_back = self.sent_back
        # One reads nothing before the move; one is apart, since a replay redelivers everything.
        self.idle = Consumer(sessions.session(), f"{seed} idle", self.history, IDLE, lapses=True)
        self.replaying = Consumer(sessions.session(), f"{seed} replay", self.history, REPLAYING)
        self.before_replay: set[int] = set()

    def all(self) -> Sequence[Publisher | Consumer]:
        return [*self.publishers * 3, *self.consumers]

    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.choice.choice(self.all()).step()

    def publish(self, steps: int) -> None:
        for _ in range(steps):
            self.choice.choice(self.publishers).step()

    def start_replay(self) -> None:
        """Have a replay run that has not come far."""
        self.replaying.claim()
        self.replaying.finish()
        self.before_replay = {s.id for s in self.history.settled if s.group == REPLAYING}
        self.replaying.session.run(REPLAY, REPLAYING)
        self.replaying.session.run(ADVANCE, REPLAYING)

    def unfinished(self) -> None:
        """Leave work of every kind unfinished."""
        for publisher in self.publishers[:2]:
            if not publisher.is_open:
                publisher.step(publisher.begin)
            publisher.step(publisher.publish)
        for consumer in self.consumers:
            consumer.claim()

    def late_commit(self) -> None:
        """Have a message commit after a younger one was delivered, before the next claim."""
        older, younger = self.publishers[2:4]
        older.finish()
        younger.finish()
        older.step(older.begin)
        _meet(older, younger, self.choice.choice(self.consumers))
        younger.step(younger.end)

    def end_transactions(self) -> None:
        for publisher in self.publishers:
            publisher.finish()

    def end_prepared(self) -> None:
        for publisher in self.publishers:
            if publisher.prepared is not None:
                publisher.finish()

    def go_to(self, sessions: Sessions, *, prepared: bool) -> None:
        """Continue elsewhere: what was open is gone, and what was `prepared` may be."""
        for publisher in self.publishers:
            publisher.session = sessions.session()
            publisher._closed()
            if not prepared:
                publisher.prepared = None
        for consumer in (*self.consumers, self.idle, self.replaying):
            consumer.session = sessions.session()

    def as_it_is(self) -> Company:
        """A copy with all that it knows now, for a past to go back to; its sessions are this one's."""
        several = {id(one.session): one.session for one in self._all()}
        return copy.deepcopy(self, several)

    def _all(self) -> list[Publisher | Consumer]:
        return [*self.publishers, *self.consumers, self.idle, self.replaying]

    def finish(self) -> None:
        """End everything, and read until nothing is left."""
        self.end_transactions()
        self.replaying.session.run(NO_LIMIT)
        for consumer in (*self.consumers, self.idle, self.replaying):
            consumer.finish()
        for consumer in (*self.consumers, self.idle):
            consumer.drain()
            consumer.session.run(ITS_TIME)
            consumer.drain()
        while True:
            more = self.replaying.session.value(ADVANCE, REPLAYING)
            self.replaying.session.run(ITS_TIME)
            self.replaying.drain()
            if more is None:
                return


def judge(company: Company) -> list[str]:
    """Compare the outbox with what each group was delivered, before and after; empty: as promised.

    The outbox says what has committed, and has to agree with the publishers.
    """
    history, session = company.history, company.publishers[0].session
    found = []
    log = set(session.column("SELECT id FROM durable_notify.outbox"))
    sent = {message.id for message in history.sent}
    if log != sent:
        found.append(f"the outbox is not what has committed:  {sorted(log ^ sent)[:5]}")
    faults = check(history, CHECKED, once=False)
    faults.twice -= company.sent_back - _settled_twice(history)
    if faults:
        found.append(str(faults))
    firsts = dict.fromkeys(h.id for h in sorted(history.deliveries) if h.group == STRICT)
    firsts.pop(company.delayed, None)  # which comes at its time
    if list(firsts) != sorted(firsts):
        found.append("ids of the strict group went back")
    times = Counter(s.id for s in history.settled if s.group == REPLAYING)
    if missing := sent - times.keys():
        found.append(f"lost beside a replay: {sorted(missing)[:5]}")
    if missing := {i for i in company.before_replay if times[i] < 2}:
        found.append(f"not replayed: {sorted(missing)[:5]}")
    if odd := {i for i in times if times[i] > 1 + (i in company.before_replay)}:
        found.append(f"replayed and should not be: {sorted(odd)[:5]}")
    return found


def _settled_twice(history: History) -> set[tuple[str, int]]:
    times = Counter((s.group, s.id) for s in history.settled)
    return {one for one, number in times.items() if number > 1}


def in_the_midst(sessions: Sessions, seed: object, rng: random.Random) -> Company:
    """Publishers and consumers that have run for a while, and still do."""
    company = Company(sessions, seed)
    company.work(rng.randrange(60, 140))
    company.start_replay()
    company.work(rng.randrange(40))
    company.unfinished()
    company.work(rng.randrange(20))
    company.late_commit()
    return company


def carry_on(
    company: Company, sessions: Sessions, rng: random.Random, *, prepared: bool = False
) -> None:
    """Continue without any remedy, to the end, and check that nothing is wrong."""
    company.go_to(sessions, prepared=prepared)
    waiting = still_to_come(sessions.session())
    company.work(rng.randrange(40, 100))
    company.finish()
    faults = judge(company)
    print(f"{len(company.history.sent)} messages, {waiting} deliveries to come at the move")
    assert not faults, faults
    assert waiting > 0, "nothing was to come: this has shown nothing"


def reanchor(company: Company, sessions: Sessions, rng: random.Random) -> None:
    """Be refused, publish all the same, re-anchor, and work a little."""
    company.go_to(sessions, prepared=False)
    session = sessions.session()
    refused(session)
    company.publish(rng.randrange(30))
    company.end_transactions()  # reanchor() would wait for them
    refused(session)
    rows = session.run("SELECT * FROM durable_notify.reanchor('moved')")
    assert {group for group, _, _ in rows} == {*CHECKED, REPLAYING}
    assert session.run("SELECT * FROM durable_notify.reanchor()") == []
    unread = {group: count for group, _, count in rows}
    assert unread[IDLE] == len(company.history.sent)
    session.subscribe("another", "u")  # which draws ids of its own
    company.work(rng.randrange(40))
    company.end_transactions()


def still_to_come(session: Session) -> int:
    """How many deliveries are to come, according to the outbox itself."""
    query = "SELECT sum(unread + deferred + leased) FROM durable_notify.status()"
    return int(session.value(query) or 0)


def refused(session: Session) -> None:
    """Every reader is refused, with the command to run."""
    for group in (*CHECKED, REPLAYING):
        with pytest.raises(errors.DatabaseError, match="from, or replicated by, another") as seen:
            session.claim(10, group)
        assert seen.value.sqlstate == "DN010"
        assert "durable-notify reanchor" in str(seen.value.diag.message_hint)
