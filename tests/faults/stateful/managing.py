"""Rules of administrators: groups and their options, going back, replays, dead letters, retention."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from tests.faults.stateful.consuming import Consuming
from tests.faults.stateful.ledger import Broken, Group, Job, Ledger
from tests.faults.stateful.workers import Then, Worker

UNKNOWN = {"DN005", "DN006"}


class Managing(Consuming):
    """What administrators do."""

    def _unknown(self, worker: Worker, name: str, topic: str | None = None) -> set[str]:
        """What a worker may be told that cannot see the group yet."""
        made = self.ledger.subscribed_at.get((name, topic or ""), 0)
        return UNKNOWN if self.stale(worker, name) or made > self.seen(worker) else set()

    def subscribe(self, who: int, group: str, topic: str, start: str, then: Then) -> None:
        worker = self.pool.workers[who]
        upto = self.seen(worker)
        query = "SELECT durable_notify.subscribe(%s, ARRAY[%s::text], %s)"
        outcome = self.play(
            worker, query, group, topic, start, then=then, allowed=self._unknown(worker, group)
        )
        if outcome is not None:
            # What commits while it waits for its turn is either seen or comes.
            upto = self.seen(worker)
            seen = self.ledger.committed(topic, upto) if start == "now" else set()
            self.does(worker, lambda ledger: ledger.subscribe(group, topic, seen))
        self.look()

    def configure(self, who: int, group: str, option: dict[str, Any], then: Then) -> None:
        worker, known = self.pool.workers[who], self.known(group)
        if known is None:
            return
        query = "SELECT durable_notify.configure(%s, %s)"
        outcome = self.play(
            worker,
            query,
            group,
            Jsonb(option),
            then=then,
            allowed=self._unknown(worker, group),
        )
        if outcome is not None:

            def configured(ledger: Ledger) -> None:
                for name, value in option.items():
                    setattr(known, name, value)
                known.always_strict = known.always_strict and known.order_by == "strict"
                known.changed_at = ledger.clock

            self.does(worker, configured)
        self.look()

    def stop_or_continue(self, who: int, group: str, what: str, then: Then) -> None:
        worker, known = self.pool.workers[who], self.known(group)
        if known is None:
            return
        if what == "resign_active":
            self._stand_down(who, known, then)
        else:
            query = f"SELECT durable_notify.{what}(%s)"
            if self.play(worker, query, group, then=then, allowed=self._unknown(worker, group)):
                self.does(worker, lambda _: setattr(known, "paused", what == "pause"))
        self.look()

    def _stand_down(self, who: int, known: Group, then: Then) -> None:
        worker = self.idle(who)
        if worker is not None and known.active is not None:
            query = "SELECT durable_notify.resign_active(%s, %s)"
            if self.play(worker, query, known.name, known.active, then=then):
                known.active = None

    # Going back.

    def seek(self, who: int, group: str, topic: str, pick: int, to_now: bool, then: Then) -> None:
        worker = self.pool.workers[who]
        if self.known(group, topic) is None:
            return
        ids = sorted(self.ledger.committed(topic, self.ledger.clock))
        target = None if to_now else ([0, *ids][-1 - pick % (1 + len(ids))])
        query = "SELECT * FROM durable_notify.seek(%s, %s, %s, to_now => %s)"
        allowed = self._unknown(worker, group, topic)
        # Rows may have been read at an older snapshot: then the new position is there already.
        outcome = self.play(
            worker,
            query,
            group,
            topic,
            target,
            to_now,
            then=then,
            allowed=allowed | {"23505"} & self._frozen(worker),
        )
        if outcome is not None:
            ((again, skipped),) = outcome.rows
            self._judge_seek(
                worker, (group, topic), target, again, skipped, sure=not outcome.waited
            )
        self.look()

    def _frozen(self, worker: Worker) -> set[str]:
        return {"23505"} if worker.transaction is not None and worker.transaction.frozen else set()

    def _judge_seek(
        self,
        worker: Worker,
        part: tuple[str, str],
        target: int | None,
        again: int,
        skipped: int,
        *,
        sure: bool,
    ) -> None:
        """Back: all after the target is unread. Forward: what it could see up to it is not any more."""
        if again and skipped:
            raise Broken(f"back by {again} and forward by {skipped} at once")
        seen = self.ledger.committed(part[1], self.seen(worker))
        upto = max(seen, default=0) if target is None else target
        entries = self.ledger.entries[part]
        if worker.transaction is None and sure:
            late = {i for i in seen if i > upto and not entries[i].unread}
            passed = {i for i in seen if i <= upto and entries[i].unread}
            if (again, skipped) not in {(len(late), 0), (0, len(passed))}:
                raise Broken(
                    f"seek to {upto}: {again} again and {skipped} skipped, not {late} or {passed}"
                )
        waited = {i: set(entry.waits) for i, entry in entries.items()}

        def effect(ledger: Ledger) -> None:
            for i in ledger.log & ledger.entries[part].keys():
                entry = ledger.entries[part][i]
                if again and i > upto:
                    gone = waited.get(i, set())
                    entry.maybe_waits |= entry.waits & gone
                    entry.waits -= gone
                    entry.unread = True
                    entry.attempts.add(1)
                elif skipped and i <= upto and i in seen:
                    entry.unread = False

        self.does(worker, effect)

    def start_replay(
        self, who: int, group: str, topic: str, pick: int, slow: bool, then: Then
    ) -> None:
        worker, part = self.pool.workers[who], (group, topic)
        if self.known(group, topic) is None:
            return
        ids = sorted(self.ledger.committed(topic, self.ledger.clock))
        after = [0, *ids][pick % (1 + len(ids))]
        running = any(
            job.part == part and job.state == "running" for job in self.ledger.jobs.values()
        )
        frozen = worker.transaction is not None
        query = "SELECT * FROM durable_notify.start_replay(%s, %s, %s, rate_limit => %s)"
        allowed = self._unknown(worker, group, topic) | (
            {"22023", "23505"} if running or frozen else set()
        )
        outcome = self.play(
            worker, query, group, topic, after, 2 if slow else None, then=then, allowed=allowed
        )
        if outcome is not None:
            ((number, total),) = outcome.rows
            seen = self.ledger.committed(topic, self.seen(worker))
            # After it has waited, what the claim before it has put aside is still to be looked at.
            sure = worker.transaction is None and not outcome.waited

            def started(ledger: Ledger) -> None:
                entries = ledger.entries[part]
                fit = {i for i in seen if i > after and not entries[i].unread}
                if sure and total != len(fit):
                    raise Broken(f"a replay after {after} of {total} messages, not of {fit}")
                ledger.jobs[number] = Job(number, part, fit if sure else set(entries), sure)

            self.does(worker, started)
        self.look()

    def continue_replay(self, who: int, pick: int, cancel: bool, then: Then) -> None:
        """A step of a replay, or its end."""
        if not self.ledger.jobs:
            return
        if cancel:
            self._cancel_replay(who, pick, then)
        else:
            self._advance_replays(who, pick, then)

    def _advance_replays(self, who: int, pick: int, then: Then) -> None:
        worker = self.pool.workers[who]
        job = list(self.ledger.jobs.values())[-1 - pick % len(self.ledger.jobs)]
        self._quickly(
            "UPDATE durable_notify.replay_job SET stepped_at = 'epoch' WHERE state = 'running'"
        )
        query = "SELECT durable_notify.advance_replays(%s, ARRAY[%s::text])"
        self.play(worker, query, *job.part, then=then)
        self.look()

    def _cancel_replay(self, who: int, pick: int, then: Then) -> None:
        worker = self.pool.workers[who]
        running = [job for job in self.ledger.jobs.values() if job.state == "running"]
        if not running:
            return
        job = running[-1 - pick % len(running)]
        outcome = self.play(worker, "SELECT durable_notify.cancel_replay(%s)", job.id, then=then)
        if outcome is not None and outcome.rows == [(True,)]:
            beside = any(
                w.transaction and job.part[0] in w.transaction.claims for w in self.pool.workers
            )

            def cancelled(ledger: Ledger) -> None:
                job.state, job.leaky = "cancelled", job.leaky or beside
                for entry in ledger.entries[job.part].values():
                    entry.waits.discard(job.id)

            self.does(worker, cancelled)
        self.look()

    # Dead letters.

    def dead_letters(self, who: int, group: str, some: bool, again: bool, then: Then) -> None:
        """Redrive dead letters, or discard them: all, or the first."""
        worker = self.pool.workers[who]
        dead = sorted(
            (part, i)
            for part, entries in self.ledger.entries.items()
            for i, entry in entries.items()
            if part[0] == group and entry.dead
        )[: 1 if some else None]
        if not dead:
            return
        query = f"SELECT durable_notify.{'redrive' if again else 'discard'}(%s, ids => %s)"
        removed = {"DN008"} if any(i not in self.ledger.log for _, i in dead) else set()
        outcome = self.play(
            worker,
            query,
            group,
            [i for _, i in dead],
            then=then,
            allowed=removed | self._unknown(worker, group),
        )
        if outcome is not None:
            ((count,),) = outcome.rows
            sure = count >= len(dead)
            if not sure and worker.transaction is None and not outcome.waited:
                raise Broken(f"{count} of {dead} were there")

            def taken(ledger: Ledger) -> None:
                for part, i in dead:
                    entry = ledger.entries[part][i]
                    entry.dead, entry.maybe_dead = False, not sure
                    if again and sure:
                        entry.wait("redriven", 1)
                    elif again:
                        entry.maybe_waits.add("redriven")
                        entry.attempts.add(1)

            self.does(worker, taken)
        self.look()

    # Retention.

    def maintain(self, topic: str, pick: int, on_lag: str | None) -> None:
        """A round of maintenance; before it, messages of a topic may be old, up to one of them."""
        if on_lag is not None:
            self._retain(topic, pick, on_lag)
        self._maintain()

    def _retain(self, topic: str, pick: int, on_lag: str) -> None:
        ids = sorted(self.ledger.committed(topic, self.ledger.clock))
        upto = ids[pick % len(ids)] if ids else 0
        self._quickly(
            "UPDATE durable_notify.outbox SET created_at = '2000-01-01' WHERE topic = %s AND id <= %s",
            topic,
            upto,
        )
        query = "SELECT durable_notify.set_retention(%s, '1 hour', on_lag => %s)"
        if self._quickly(query, topic, on_lag):
            self.ledger.losing.discard(topic)
            self.ledger.losing |= {topic} if on_lag == "lose" else set()

    def _maintain(self) -> None:
        outcome = self.play(self.pool.keeper, "CALL durable_notify.maintain()", then=Then.WAIT)
        if outcome is not None:
            ((report,),) = outcome.rows
            trouble = {
                name: text
                for name, text in report.items()
                if "failed" in name and "lock timeout" not in text
            }
            if trouble:
                raise Broken(f"maintenance: {trouble}")
        self.ledger.step.maintained = True
        self.look()
