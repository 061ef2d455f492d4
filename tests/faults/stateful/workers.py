"""Sessions with a transaction each, driven by one thread: what has to wait is seen to, not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg

from tests.faults.stateful.ledger import Broken, Effect
from tests.support.sessions import Session
from tests.support.wait import eventually

PATIENCE = 30.0
"""Seconds after which a statement that neither ends nor waits for one of ours is stuck."""
QUICK = 0.01
SERIAL = {"repeatable read", "serializable"}


class Then(Enum):
    """What becomes of a statement that has to wait."""

    CANCEL = "it is cancelled"
    COMMIT = "what it waits for commits"
    ROLL_BACK = "what it waits for rolls back"
    WAIT = "it gives up by itself"


@dataclass
class Transaction:
    """An open transaction, and what it will have done."""

    isolation: str
    snapshot: int
    """The ledger's clock when it began: what it sees, above READ COMMITTED."""
    effects: list[Effect] = field(default_factory=list)
    settled: list[tuple[int, set[int]]] = field(default_factory=list)
    """Tokens, and what of them it has settled or given back."""
    savepoints: list[tuple[int, int]] = field(default_factory=list)
    """How many effects there were at each, and how much was settled."""
    claims: set[str] = field(default_factory=set)
    """The groups it has claimed for."""
    taking_over: set[int] = field(default_factory=set)
    published: set[tuple[str, int]] = field(default_factory=set)
    """What it may commit yet: topics and ids."""

    @property
    def frozen(self) -> bool:
        return self.isolation in SERIAL

    def mark(self) -> None:
        self.savepoints.append((len(self.effects), len(self.settled)))

    def back(self) -> None:
        """Back to the last savepoint, which stays."""
        effects, settled = self.savepoints[-1]
        del self.effects[effects:], self.settled[settled:]


@dataclass
class Worker:
    """A session, which has a transaction or runs each statement by itself."""

    name: str
    session: Session
    transaction: Transaction | None = None


@dataclass
class Outcome:
    """What became of a statement: rows, or an SQLSTATE."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    error: psycopg.Error | None = None
    waited: bool = False

    @property
    def state(self) -> str | None:
        return None if self.error is None else self.error.sqlstate or "08006"


class WorkerPool:
    """The workers of one example."""

    def __init__(self, dsn: str, number: int) -> None:
        self.dsn = dsn
        self.watcher = Session(dsn)
        self.watcher.run("SET lock_timeout = '30ms'")
        self.keeper = Worker("the keeper", Session(dsn))
        self.workers = [Worker(f"worker {n}", self._session()) for n in range(number)]
        self.on_commit: Callable[[Transaction], None] = lambda _: None

    def _session(self) -> Session:
        session = Session(self.dsn)
        session.run("SET durable_notify.test = 'stateful'")
        return session

    def close(self) -> None:
        for worker in [*self.workers, self.keeper]:
            worker.session.close()
        self.watcher.close()

    def reset(self) -> None:
        """Roll back whatever is open."""
        for worker in self.workers:
            if worker.transaction is not None:
                self._end(worker, commit=False)
                worker.transaction = None

    def perform(
        self, worker: Worker, query: str, *params: Any, then: Then = Then.CANCEL
    ) -> Outcome:
        """Run a statement. Where it waits for another worker's transaction, something is done."""
        work = worker.session.start(query, *params)
        outcome, ended = Outcome(), []
        deadline = time.monotonic() + PATIENCE
        while wait([work], timeout=QUICK).not_done:
            if time.monotonic() > deadline:
                raise Broken(f"neither ended nor waited for one of ours: {query} {params}")
            blocker = None if then is Then.WAIT else self._blocker(worker)
            if blocker is None:
                continue
            outcome.waited = True
            if then is Then.CANCEL:
                self.watcher.run("SELECT pg_cancel_backend(%s)", worker.session.pid)
                continue
            if self._end(blocker, commit=then is Then.COMMIT) is not None:
                ended.append(blocker.transaction)
            blocker.transaction = None
        for transaction in ended:
            assert transaction is not None
            self.on_commit(transaction)
        _result(work, outcome)
        return outcome

    def _blocker(self, worker: Worker) -> Worker | None:
        query = "SELECT unnest(pg_blocking_pids(%s))"
        pids = set(self.watcher.column(query, worker.session.pid))
        for other in self.workers:
            if other.session.pid in pids and other is not worker and other.transaction:
                return other
        return None

    def _end(self, worker: Worker, *, commit: bool) -> Transaction | None:
        """End a transaction; returns it if it was committed."""
        transaction = worker.transaction
        assert transaction is not None
        work = worker.session.start("COMMIT" if commit else "ROLLBACK")
        outcome = Outcome()
        _result(work, outcome)
        if outcome.state not in {None, "40001"}:
            raise Broken(f"COMMIT failed: {outcome.error}")
        return transaction if commit and outcome.error is None else None

    def begin(self, worker: Worker, isolation: str, clock: int) -> None:
        worker.session.begin(isolation)
        worker.transaction = Transaction(isolation, clock)

    def end(self, worker: Worker, *, commit: bool) -> None:
        """Commit or roll back; what is committed is told to `on_commit`."""
        done = self._end(worker, commit=commit)
        worker.transaction = None
        if done is not None:
            self.on_commit(done)

    def crash(self, worker: Worker, *, terminated: bool) -> None:
        """Have a session end in the midst of what it does; another takes its place."""
        old = worker.session
        if terminated:
            self.watcher.run("SELECT pg_terminate_backend(%s)", old.pid)
        old.close()
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
        eventually(lambda: bool(self.watcher.value(gone, old.pid)), PATIENCE)
        worker.session, worker.transaction = self._session(), None


def _result(work: Future[list[tuple[Any, ...]]], outcome: Outcome) -> None:
    try:
        outcome.rows = work.result(timeout=PATIENCE)
    except psycopg.Error as error:
        outcome.error = error
