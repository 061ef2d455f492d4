"""Two operations that meet: what plays them, and what becomes of the second."""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from psycopg import errors

from tests.faults.operations import Op, Rows, Scene, build
from tests.support.sessions import Session, Sessions

How = Literal["beside", "after"]
"""Begun while the first one's transaction is open; or when it has ended, in a snapshot from before."""
End = Literal["commit", "rollback", "stay"]
PATIENCE = 20.0
"""Seconds that an operation may take at most, however slow the machine."""


class Outcome(NamedTuple):
    """What became of the second operation of a pair."""

    waited: bool = False
    """For the first one's transaction."""
    endless: bool = False
    """It would wait still."""
    error: errors.Error | None = None
    rows: Rows = ()  # type: ignore[assignment]

    @property
    def state(self) -> str:
        if self.endless:
            return "endless"
        return (self.error.sqlstate or type(self.error).__name__) if self.error else "ok"


@dataclass(frozen=True)
class Pair:
    """Two operations on a scene, and how they meet."""

    one: Op
    other: Op
    how: How = "beside"
    end: End = "commit"
    levels: tuple[str, str] = ("read committed", "read committed")
    then: Op | None = None
    """What the first session does as well, in the same transaction, when the second has begun."""

    def __str__(self) -> str:
        return f"{self.how}, {self.levels[0]} and {self.levels[1]}, {self.end}"

    @property
    def parts(self) -> set[str]:
        ops = (self.one, self.other, self.then)
        return {op.parts for op in ops if op and op.parts}


class Actors:
    """Two sessions that act, and one that looks on."""

    def __init__(self, sessions: Sessions) -> None:
        self.first, self.second, self.owner = sessions.take(3)

    def play(self, pair: Pair, scene: Scene) -> Outcome | None:
        """What becomes of the second operation; None: the first was refused by itself."""
        if pair.how == "after":
            self.second.begin(pair.levels[1])
        self.first.begin(pair.levels[0])
        try:
            rows = act(self.first, pair.one, scene)
        except errors.Error:
            self.first.rollback()
            self.second.rollback()
            return None
        if pair.how == "after":
            self._end(pair, scene, rows)
            outcome = self._act_and_commit(pair.other, scene)
        else:
            outcome = self._beside(pair, scene, rows)
        if outcome.state == "ok" and pair.other.effect:
            pair.other.effect(scene, outcome.rows)
        return outcome

    def alone(self, pair: Pair, number: int) -> str:
        """What becomes of the second operation where there is no first one."""
        scene = build(self.owner, -number, pair.parts)
        self.second.begin(pair.levels[1])
        return self._act_and_commit(pair.other, scene).state

    def _beside(self, pair: Pair, scene: Scene, rows: Rows) -> Outcome:
        def whole() -> Outcome:
            self.second.begin(pair.levels[1])
            return self._act_and_commit(pair.other, scene)

        work = self.second.do(whole)
        waited = self._waits(work)
        endless = False
        if pair.end == "stay":
            endless = not wait([work], timeout=PATIENCE / 2).done
        deadlock = self._end(pair, scene, rows)
        outcome = work.result(timeout=PATIENCE)._replace(waited=waited, endless=endless)
        return outcome._replace(error=deadlock) if deadlock else outcome

    def _end(self, pair: Pair, scene: Scene, rows: Rows) -> errors.Error | None:
        """End the first one's transaction; returns a deadlock that it was the victim of."""
        try:
            more = act(self.first, pair.then, scene) if pair.then else []
            if pair.end == "commit":
                self.first.commit()
            else:
                self.first.rollback()
        except errors.Error as error:
            self.first.rollback()
            return error if isinstance(error, errors.DeadlockDetected) else None
        if pair.end == "commit":
            for op, returned in ((pair.one, rows), (pair.then, more)):
                if op and op.effect:
                    op.effect(scene, returned)
        return None

    def _act_and_commit(self, op: Op, scene: Scene) -> Outcome:
        try:
            rows = act(self.second, op, scene)
            self.second.commit()
        except errors.Error as error:
            self.second.rollback()
            return Outcome(error=error)
        return Outcome(rows=rows)

    def _waits(self, work: Future[Any]) -> bool:
        """Whether the second session waits for the first; returns when it does, or has ended."""
        # Some look for a lock again and again, and sleep in between.
        query = """
            SELECT %s = ANY (pg_blocking_pids(pid)) OR wait_event = 'PgSleep'
              FROM pg_stat_activity WHERE pid = %s"""
        for _ in range(int(PATIENCE / 0.002)):
            if wait([work], timeout=0.002).done:
                return False
            if self.owner.value(query, self.first.pid, self.second.pid):
                return True
        raise AssertionError("neither ended nor waited for the other")


def act(session: Session, op: Op, scene: Scene) -> Rows:
    """Have a session do an operation."""
    cursor = session.connection.execute(op.sql.encode(), scene.names)
    return cursor.fetchall()
