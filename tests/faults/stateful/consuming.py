"""Rules of consumers: claim, settle in every way, extend, give back, and time that passes."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import note
from psycopg import errors

from tests.faults.stateful.base import CONTENTION, TOPICS, Base
from tests.faults.stateful.judge import claimed, out_of_order
from tests.faults.stateful.ledger import Broken, Group, Lease, Ledger
from tests.faults.stateful.workers import Outcome, Then, Worker
from tests.support.sessions import Message

A_MOMENT = 0.005
"""Seconds: as long as consumers must be allowed to sleep, at least."""


class Consuming(Base):
    """What consumers do."""

    def claim_from(
        self, worker: Worker, known: Group, topics: list[str], most: int, then: Then
    ) -> list[Message]:
        """Claim, and have it judged; returns what came."""
        worker.session.run("SELECT setseed(0.5)")  # several topics are read in a random order
        query = "SELECT * FROM durable_notify.claim(%s, %s, %s, '1 hour', %s)"
        outcome = self.play(worker, query, known.name, topics, most, worker.name, then=then)
        if outcome is None:
            return []
        self._becomes_active(known, worker)
        rows = [Message(*row) for row in outcome.rows]
        self._waits_for_lower_ids(known, rows)
        tokens = [lease.token for lease in self.ledger.live(known.name)]
        left = "SELECT token FROM durable_notify.lease WHERE token = ANY (%s)"
        over = set(tokens) - set(worker.session.column(left, tokens))
        self.does(worker, claimed(self.ledger, known, worker.name, rows, over))
        if worker.transaction is None:
            self.may_park(known.name)
        else:
            worker.transaction.claims.add(known.name)
            worker.transaction.taking_over |= over
        return rows

    def _becomes_active(self, known: Group, worker: Worker) -> None:
        """By asking, a consumer becomes the active one of an exclusive group that has none."""
        if not known.exclusive or known.paused or known.active is not None:
            return
        for lease in self.ledger.live(known.name):
            lease.may_go = True

        def active(ledger: Ledger) -> None:
            known.active = worker.name

        self.does(worker, active)

    def _waits_for_lower_ids(self, known: Group, rows: list[Message]) -> None:
        """A strict group waits for all who may commit a lower id yet."""
        if not known.always_strict:
            return
        in_flight = {m for w in self.pool.workers if w.transaction for m in w.transaction.published}
        for row in rows:
            lower = [i for topic, i in in_flight if topic == row.topic and i < row.id]
            if lower:
                raise Broken(f"a strict group was handed {row} while {lower} may yet commit")

    def _claim(
        self, who: int, name: str, both: bool, topic: str, most: int, then: Then, *, hold: bool
    ) -> list[Message]:
        worker, known = self.idle(who), self.known(name)
        topics = [of for of in TOPICS if self.known(name, of) and (both or of == topic)]
        if worker is None or known is None or not topics:
            return []
        if hold:
            self.pool.begin(worker, "read committed", self.ledger.clock)
        rows = self.claim_from(worker, known, topics, most, then)
        self.look()
        if not rows and worker.transaction is None:
            self._may_sleep(worker, known, topics)
        return rows

    def _may_sleep(self, worker: Worker, known: Group, topics: list[str]) -> None:
        """A consumer that found nothing is not to look again at once, and find nothing, and so on."""
        query = "SELECT durable_notify.next_due(%s, %s, %s)"
        for _ in range(5):
            due = worker.session.value(query, known.name, topics, worker.name)
            if due is None or due > A_MOMENT:
                return
            if self.claim_from(worker, known, topics, 1, Then.CANCEL):
                self.look()
                return
            self.look()
        raise Broken(
            f"{known} has nothing to deliver, and its consumers are to look at once: {due}"
        )

    def claim(self, who: int, group: str, both: bool, topic: str, most: int, then: Then) -> None:
        self._claim(who, group, both, topic, most, then, hold=False)

    def claim_all(self, who: int, group: str, both: bool, topic: str, then: Then) -> None:
        self._claim(who, group, both, topic, 100, then, hold=False)

    def claim_and_wait(
        self, who: int, group: str, both: bool, topic: str, most: int, then: Then
    ) -> None:
        """A claim whose transaction stays open for a while."""
        self._claim(who, group, both, topic, most, then, hold=True)

    def work(self, who: int, group: str, topic: str, most: int, how: str) -> None:
        """Claim, and settle the first message of it, as most consumers do."""
        rows = self._claim(who, group, False, topic, most, Then.CANCEL, hold=False)
        if not rows:
            return
        ids = {
            name: [rows[0].id] if name == how else [] for name in ("acked", "retried", "rejected")
        }
        self.settle_some(
            self.pool.workers[who],
            self.ledger.leases[rows[0].token],
            acked=ids["acked"],
            retried=ids["retried"],
            rejected=ids["rejected"],
        )

    def has_tokens(self) -> bool:
        return bool(self.ledger.leases)

    def lease(self, number: int, *, over: bool = False) -> Lease | None:
        """One of the leases, the newest for 0; of those that are over only where that is asked for."""
        found = [lease for lease in self.ledger.leases.values() if over or lease.open]
        return found[-1 - number % len(found)] if found else None

    # Settling.

    def settle_some(
        self,
        worker: Worker,
        lease: Lease,
        then: Then = Then.CANCEL,
        *,
        acked: Collection[int] = (),
        retried: Collection[int] = (),
        rejected: Collection[int] = (),
        delay: str = "0",
    ) -> None:
        query = "SELECT durable_notify.settle(%s, %s::bigint[], %s::bigint[], %s::bigint[], %s::interval[])"
        parts = [list(acked), list(retried), list(rejected)]
        stale = self.stale(worker, lease.part[0])
        outcome = self.pool.perform(
            worker, query, lease.token, *parts, [delay] * len(retried), then=then
        )
        note(f"    {worker.name} settles {lease}: {parts} -> {outcome.error or outcome.rows}")
        if not self._settled(worker, lease, {*acked, *rejected}, set(retried), outcome):
            return
        ((sent_back,),) = outcome.rows
        done = {*acked, *retried, *rejected, *sent_back}
        sure = not (stale or self.stale(worker, lease.part[0]))

        def settled(ledger: Ledger) -> None:
            for i in retried:
                ledger.send_back(lease, i, "retried", 1, sure=sure)
            for i in sent_back:
                ledger.send_back(lease, i, "sent back", 0)
            for i in rejected:
                ledger.entries[lease.part][i].dead = True
            lease.settled |= done

        if worker.transaction is not None:
            worker.transaction.settled.append((lease.token, done))
        self.does(worker, settled)
        if worker.transaction is None:
            self.look()

    def _settled(
        self, worker: Worker, lease: Lease, done: set[int], retried: set[int], outcome: Outcome
    ) -> bool:
        """Whether a settle succeeded; raises where it should not have, or should have."""
        mine = worker.transaction
        left = set(lease.open)
        if mine is not None:
            left -= {i for token, ids in mine.settled if token == lease.token for i in ids}
            left = set() if lease.token in mine.taking_over else left
        unseen = mine is not None and mine.frozen and lease.committed_at > mine.snapshot
        good = done | retried <= left
        if outcome.error is None:
            if not good:
                raise Broken(f"{done | retried} were settled, and not of {lease}, which has {left}")
            return True
        may_fail = set(CONTENTION)
        if not good or unseen:
            may_fail |= {"DN001", "DN002", "DN007"}
        # A frozen snapshot does not show that the one before was settled meanwhile.
        frozen = mine is not None and mine.frozen
        if frozen or out_of_order(self.ledger, lease, left, done, retried):
            may_fail.add("DN007")
        if outcome.state not in may_fail:
            raise Broken(f"{done | retried} of {lease} were not settled: {outcome.error}")
        self.failed(worker)
        return False

    def acknowledge(self, who: int, pick: int, few: bool, then: Then) -> None:
        if lease := self.lease(pick):
            ids = sorted(lease.open, key=list(lease.attempts).index)
            self.settle_some(self.pool.workers[who], lease, then, acked=ids[:1] if few else ids)

    def retry(self, who: int, pick: int, which: int, rest: bool, delay: str, then: Then) -> None:
        """Send one out again; acknowledge what is before it, too, or only that one."""
        if lease := self.lease(pick):
            ids = sorted(lease.open, key=list(lease.attempts).index)
            index = which % len(ids)
            acked = ids[:index] if rest else []
            self.settle_some(
                self.pool.workers[who], lease, then, acked=acked, retried=[ids[index]], delay=delay
            )

    def reject(self, who: int, pick: int, which: int, then: Then) -> None:
        if lease := self.lease(pick):
            ids = sorted(lease.open, key=list(lease.attempts).index)
            self.settle_some(self.pool.workers[who], lease, then, rejected=[ids[which % len(ids)]])

    def settle_late(self, who: int, pick: int, then: Then) -> None:
        """Settle under any token, as a consumer does that does not know what became of its lease."""
        if lease := self.lease(pick, over=True):
            self.settle_some(self.pool.workers[who], lease, then, acked=list(lease.attempts)[:1])

    # Leases, and time.

    def extend(self, who: int, then: Then) -> None:
        worker = self.pool.workers[who]
        tokens = list(self.ledger.leases)
        being_taken = {
            t for w in self.pool.workers if w.transaction for t in w.transaction.taking_over
        }
        query = "SELECT durable_notify.extend(%s, '1 hour')"
        outcome = self.play(worker, query, tokens, then=then)
        if outcome is None or outcome.waited:
            self.look()
            return
        for (token,) in outcome.rows:
            lease = self.ledger.leases[token]
            seen = worker.transaction is None or not worker.transaction.frozen
            if token in being_taken or (lease.superseded and seen):
                raise Broken(f"said to be held, and is not: {lease}")

        def extended(ledger: Ledger) -> None:
            for (token,) in outcome.rows:
                ledger.leases[token].expired = False

        self.does(worker, extended)
        self.look()

    def release(self, who: int, pick: int, counted: bool, then: Then) -> None:
        worker, lease = self.pool.workers[who], self.lease(pick)
        if lease is None:
            return
        sure = not self.stale(worker, lease.part[0])
        query = "SELECT durable_notify.release(%s, %s)"
        outcome = self.play(worker, query, [lease.token], counted, then=then)
        unseen = worker.transaction is not None and lease.committed_at > self.seen(worker)
        if outcome is not None and not outcome.rows and lease.open and not unseen:
            if worker.transaction is not None:
                worker.transaction.settled.append((lease.token, set(lease.attempts)))
            self.does(worker, lambda ledger: ledger.supersede(lease, counted=counted, sure=sure))
        self.look()

    def lease_runs_out(self, pick: int) -> None:
        if lease := self.lease(pick):
            self._runs_out(lease)

    def _runs_out(self, lease: Lease) -> None:
        query = """INSERT INTO durable_notify.lease_deadline VALUES (%s, 'epoch')
                   ON CONFLICT (token) DO UPDATE SET deadline = 'epoch'"""
        if self._quickly(query, lease.token):
            lease.expired = True

    def _quickly(self, query: str, *params: object) -> bool:
        """Change what only the clock changes, unless a transaction has it locked."""
        watcher = self.pool.watcher
        try:
            watcher.run(query, *params)
        except errors.LockNotAvailable:
            return False
        return True

    def an_hour_passes(self, expires: bool, topic: str, pick: int) -> None:
        """What waits for its time is due, and a message may be past its own."""
        self._all_is_due()
        ids = sorted(self.ledger.committed(topic, self.ledger.clock))
        if expires and ids:
            message = self.ledger.sent[ids[-1 - pick % len(ids)]]
            query = (
                "UPDATE durable_notify.outbox SET expires_at = 'epoch' WHERE topic = %s AND id = %s"
            )
            if self._quickly(query, topic, message.id):
                message.expired = True

    def _all_is_due(self) -> None:
        self._quickly(
            """WITH due AS (SELECT ctid FROM durable_notify.deferred
                             WHERE due_at > now() FOR UPDATE SKIP LOCKED)
               UPDATE durable_notify.deferred SET due_at = 'epoch'
                WHERE ctid IN (SELECT ctid FROM due)"""
        )
        self._quickly(
            "UPDATE durable_notify.outbox SET deliver_at = 'epoch' WHERE deliver_at > now()"
        )
