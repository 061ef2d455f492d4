"""The end of an example: everything that is owed comes, nothing else does, and then consumers sleep."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis.errors import StopTest
from hypothesis.stateful import precondition, rule

from tests.faults.auditor import Facts, audit
from tests.faults.stateful.base import TOPICS
from tests.faults.stateful.ledger import Broken, Group
from tests.faults.stateful.managing import Managing
from tests.faults.stateful.moves import (
    CLAIMING,
    GOING_BACK,
    MANAGING,
    PUBLISHING,
    RETAINING,
    SETTLING,
    TIME,
    TRANSACTIONS,
    Move,
)
from tests.faults.stateful.sight import look
from tests.faults.stateful.workers import Then

ROUNDS = 60


class Machine(Managing):
    """All rules, and the end."""

    def __init__(self) -> None:
        self._before = sys.exception()
        super().__init__()

    def make(self, move: Move) -> None:
        name, drawn = move
        getattr(self, name)(**drawn)

    @rule(move=PUBLISHING)
    def publishers(self, move: Move) -> None:
        self.make(move)

    @rule(move=TRANSACTIONS)
    def transactions(self, move: Move) -> None:
        self.make(move)

    @rule(move=CLAIMING)
    def claims(self, move: Move) -> None:
        self.make(move)

    @rule(move=CLAIMING)
    def more_claims(self, move: Move) -> None:
        self.make(move)

    @precondition(Managing.has_tokens)
    @rule(move=SETTLING)
    def settles(self, move: Move) -> None:
        self.make(move)

    @precondition(Managing.has_tokens)
    @rule(move=SETTLING)
    def more_settles(self, move: Move) -> None:
        self.make(move)

    @rule(move=TIME)
    def time(self, move: Move) -> None:
        self.make(move)

    @rule(move=MANAGING)
    def managers(self, move: Move) -> None:
        self.make(move)

    @rule(move=GOING_BACK)
    def going_back(self, move: Move) -> None:
        self.make(move)

    def teardown(self) -> None:
        failure = sys.exception()
        try:
            if isinstance(failure, StopTest):  # Hypothesis has seen enough
                self.pool.reset()
                self.good = True
            elif failure is self._before:  # else a rule has failed
                self._everything_ends()
                self._take_all()
                self._nothing_is_left()
                self.good = True
        finally:
            super().teardown()

    def _everything_ends(self) -> None:
        """Transactions end, some by a commit; nothing keeps a group from its messages any more."""
        for number, worker in enumerate(self.pool.workers):
            if worker.transaction is not None:
                self.pool.end(worker, commit=number % 2 == 0)
        self.look()
        for known in list(self.ledger.groups.values()):
            self.pool.watcher.run("SELECT durable_notify.resume(%s)", known.name)
            options = '{"exclusive": false, "max_in_flight": null}'
            self.pool.watcher.run("SELECT durable_notify.configure(%s, %s)", known.name, options)
            known.paused, known.exclusive, known.max_in_flight = False, False, None

    def _topics(self, known: Group) -> list[str]:
        return [of for of in TOPICS if (known.name, of) in self.ledger.entries]

    def _take_all(self) -> None:
        """Claim and acknowledge until nothing comes, however late it would have come."""
        for turn in range(ROUNDS):
            self._time_goes_by()
            came = 0
            for known in list(self.ledger.groups.values()):
                worker, topics = self.pool.workers[turn % 2], self._topics(known)
                if self.ledger.jobs:
                    query = "SELECT durable_notify.advance_replays(%s, %s)"
                    self.play(worker, query, known.name, topics)
                    self.look()
                rows = self.claim_from(worker, known, topics, 2 if turn < 2 else 100, Then.CANCEL)
                self.look()
                for token in dict.fromkeys(row.token for row in rows):
                    lease = self.ledger.leases[token]
                    self.settle_some(worker, lease, acked=list(lease.attempts))
                came += len(rows)
            running = any(job.state == "running" for job in self.ledger.jobs.values())
            if not came and not running and turn > 1:
                return
        raise Broken(f"after {ROUNDS} rounds there is still something")

    def _time_goes_by(self) -> None:
        self._all_is_due()
        if self.ledger.jobs:
            self._quickly("UPDATE durable_notify.replay_job SET stepped_at = 'epoch'")
        query = """INSERT INTO durable_notify.lease_deadline SELECT token, 'epoch' FROM durable_notify.lease
                   ON CONFLICT (token) DO UPDATE SET deadline = 'epoch'"""
        if not self._quickly(query):
            raise Broken("a lease is locked, and no transaction is open")
        for lease in self.ledger.leases.values():
            lease.expired = True

    def _nothing_is_left(self) -> None:
        owed = {
            (part, i): entry
            for part, entries in self.ledger.entries.items()
            for i, entry in entries.items()
            if entry.owed
        }
        held = [lease for lease in self.ledger.leases.values() if lease.open]
        if owed or held:
            raise Broken(f"these never came: {owed} {held}")
        sight = look(self.pool.watcher)
        if sight.unread or sight.rows or any(sight.leases.values()):
            raise Broken(f"this was left: {sight}")
        for known in self.ledger.groups.values():
            query = "SELECT durable_notify.next_due(%s, %s)"
            due = self.pool.watcher.value(query, known.name, self._topics(known))
            if due is not None:
                raise Broken(f"all came to {known}, and its consumers are to look in {due} seconds")
        if len(self.ledger.sent) % 4:
            return  # the auditor takes as long as a dozen rules
        # The ledger knows better than the auditor what may be nowhere by now.
        facts = {
            name: Facts(excused=set(self.ledger.sent), again=True) for name in self.ledger.groups
        }
        came = {name: ids for name, ids in audit(self.pool.watcher, facts).items() if ids}
        if came:
            raise Broken(f"to the auditor came what was not owed: {came}")


class GoingBack(Machine):
    """Seeks, replays and dead letters above all."""

    managers: Any = None
    time: Any = None

    @rule(move=GOING_BACK)
    def more_going_back(self, move: Move) -> None:
        self.make(move)

    @rule(move=GOING_BACK)
    def most_going_back(self, move: Move) -> None:
        self.make(move)


class Retaining(Machine):
    """Maintenance above all."""

    managers: Any = None
    transactions: Any = None
    going_back: Any = None

    @rule(move=RETAINING)
    def retains(self, move: Move) -> None:
        self.make(move)
