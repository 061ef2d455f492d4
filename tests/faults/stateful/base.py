"""How the machine plays a rule, and the rules of publishers and transactions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from psycopg.types.json import Jsonb

from tests.faults.stateful.ledger import Broken, Effect, Group, Ledger, Sent
from tests.faults.stateful.sight import begin_again, look
from tests.faults.stateful.workers import Outcome, Then, Transaction, Worker, WorkerPool

TOPICS = ("t0", "t1")
GROUPS = ("g0", "g1", "g2")
KEYS = (None, "a", "b")
LEVELS = ("read committed", "repeatable read", "serializable")
WORKERS = 3

# What may happen to any statement beside others, and changes nothing: serialization, deadlock, a lock
# not had in time, and our own cancelling.
CONTENTION = frozenset({"40001", "40P01", "55P03", "57014"})


class Base(RuleBasedStateMachine):
    """A machine of one database; the tests give `dsn`."""

    dsn: str
    kept: list[WorkerPool]
    """The pool of the example before: to connect, and to compile all functions again, takes long."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.kept.pop() if self.kept else WorkerPool(self.dsn, WORKERS)
        self.pool.on_commit = self._committed
        begin_again(self.pool.watcher)
        self.ledger = Ledger()
        self.good = False

    def teardown(self) -> None:
        if self.good:
            self.kept.append(self.pool)
        else:
            self.pool.close()

    # How a rule is played.

    def _committed(self, transaction: Transaction) -> None:
        note(f"    a transaction commits, with {len(transaction.effects)} effects")
        self.ledger.commit(transaction.effects)
        for name in transaction.claims:
            self.may_park(name)

    def may_park(self, group: str) -> None:
        self.ledger.step.claimed |= {part for part in self.ledger.entries if part[0] == group}

    def look(self) -> None:
        """Hold the ledger against the database."""
        self.ledger.compare(look(self.pool.watcher))

    def play(
        self,
        worker: Worker,
        query: str,
        *params: Any,
        then: Then = Then.CANCEL,
        allowed: Collection[str] = (),
    ) -> Outcome | None:
        """Run a statement; None: it failed as it may, and its transaction with it."""
        outcome = self.pool.perform(worker, query, *params, then=then)
        note(f"    {worker.name}: {query} {params} -> {outcome.error or outcome.rows}")
        if outcome.error is None:
            return outcome
        frozen = worker.transaction is not None and worker.transaction.frozen
        too_high = frozen and "READ COMMITTED" in str(outcome.error)  # it says which level it needs
        if outcome.state not in CONTENTION | set(allowed) and not too_high:
            raise Broken(f"{query} {params} failed: {outcome.state} {outcome.error}")
        self.failed(worker)
        return None

    def failed(self, worker: Worker) -> None:
        """After a statement that failed: back to a savepoint, or out of the transaction."""
        mine = worker.transaction
        if mine is not None and mine.savepoints:
            worker.session.run("ROLLBACK TO SAVEPOINT s")
            mine.back()
        elif mine is not None:
            self.pool.end(worker, commit=False)

    def does(self, worker: Worker, effect: Effect) -> None:
        """Note what a statement will have done: at once, or when its transaction commits."""
        if worker.transaction is None:
            self.ledger.commit([effect])
        else:
            worker.transaction.effects.append(effect)

    def seen(self, worker: Worker) -> int:
        """Up to which commit a statement of a worker sees."""
        mine = worker.transaction
        return mine.snapshot if mine is not None and mine.frozen else self.ledger.clock

    def stale(self, worker: Worker, name: str) -> bool:
        """Whether a group was made, or its options changed, after what a worker can see."""
        known = self.ledger.groups.get(name)
        return known is None or max(known.created_at, known.changed_at) > self.seen(worker)

    def turns(self, number: int) -> list[Worker]:
        return [*self.pool.workers[number:], *self.pool.workers[:number]]

    def idle(self, number: int) -> Worker | None:
        """A worker without a transaction: that one, if it has none."""
        return next((w for w in self.turns(number) if w.transaction is None), None)

    def opened(self, number: int) -> Worker | None:
        """A worker with a transaction: that one, if it has one."""
        return next((w for w in self.turns(number) if w.transaction is not None), None)

    def known(self, name: str, topic: str | None = None) -> Group | None:
        """A group, if it is there and reads the topic."""
        if topic is not None and (name, topic) not in self.ledger.entries:
            return None
        return self.ledger.groups.get(name)

    # Publishers, and transactions.

    @initialize(
        orders=st.tuples(*[st.sampled_from(["key", "key", "none", "strict"])] * 2),
        attempts=st.sampled_from([1, 2, 20]),
        limit=st.sampled_from([None, None, 2]),
        on_expiry=st.sampled_from(["drop", "dead_letter"]),
        keys=st.lists(st.sampled_from(["a", "a", *KEYS]), min_size=2, max_size=6),
    )
    def two_groups(
        self,
        orders: tuple[str, str],
        attempts: int,
        limit: int | None,
        on_expiry: str,
        keys: list[str | None],
    ) -> None:
        session = self.pool.workers[0].session
        for name, order in zip(GROUPS, orders, strict=False):
            topics = TOPICS if name == "g0" else TOPICS[:1]
            session.subscribe(name, " ".join(topics))
            for of in topics:
                self.ledger.subscribe(name, of, set())
            known = self.ledger.groups[name]
            known.order_by, known.always_strict = order, order == "strict"
            known.max_attempts = 20 if name == "g0" else attempts
            known.max_in_flight = limit if name == "g0" else None
            known.on_expiry = on_expiry
            options = {
                option: getattr(known, option)
                for option in ("order_by", "max_attempts", "max_in_flight", "on_expiry")
            }
            session.run("SELECT durable_notify.configure(%s, %s)", name, Jsonb(options))
        self._publish(self.pool.workers[0], TOPICS[0], keys, None)

    def _publish(
        self, worker: Worker, topic: str, keys: list[str | None], delay: str | None
    ) -> None:
        query = "SELECT * FROM durable_notify.publish_many(%s, %s::jsonb[], %s::text[], delays => %s::interval[])"
        delays = None if delay is None else [delay] * len(keys)
        outcome = self.play(worker, query, topic, ["0"] * len(keys), keys, delays)
        if outcome is None:
            return
        ids = [i for (i,) in outcome.rows]
        batch = [
            Sent(i, topic, key, 0, delay is not None) for i, key in zip(ids, keys, strict=True)
        ]
        self.does(worker, lambda ledger: ledger.publish(batch))
        if worker.transaction is None:
            self.look()
        else:
            worker.transaction.published |= {(topic, i) for i in ids}

    def publish(self, who: int, topic: str, keys: list[str | None], later: str | None) -> None:
        self._publish(self.pool.workers[who], topic, keys, later)

    def publish_and_wait(self, who: int, level: str, topic: str, key: str | None) -> None:
        """What will commit after others that draw their ids later."""
        if worker := self.idle(who):
            self.pool.begin(worker, level, self.ledger.clock)
            self._publish(worker, topic, [key], None)

    def begin(self, who: int, level: str) -> None:
        if worker := self.idle(who):
            self.pool.begin(worker, level, self.ledger.clock)

    def end(self, who: int, commit: bool) -> None:
        if worker := self.opened(who):
            self.pool.end(worker, commit=commit)
            self.look()

    def crash(self, who: int, terminated: bool) -> None:
        """A session ends in the midst of its transaction."""
        if worker := self.opened(who):
            self.pool.crash(worker, terminated=terminated)
            self.look()

    def savepoint(self, who: int, back: bool) -> None:
        worker = self.opened(who)
        if worker is None or worker.transaction is None or worker.transaction.claims:
            return
        if back and worker.transaction.savepoints:
            worker.session.run("ROLLBACK TO SAVEPOINT s")
            worker.transaction.back()
        else:
            worker.session.run("SAVEPOINT s")
            worker.transaction.mark()
