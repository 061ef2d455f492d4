"""A bookkeeper's view of every message: to whom it is owed, who holds it, its outcome.

The model of the stateful test. It knows nothing of positions and windows. A message is owed to a
group from the commit of its publisher on, until a claim delivers it; and again, from the commit of
whatever sends it back, until the next claim that delivers it after that. What is not owed must not come.

Effects are what a transaction will have done if it commits; they are applied then, in order. Where
the library may choose, as a claim may that finds a message in two places, the ledger accepts what
`compare` sees of it, and only that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.stateful.sight import Part, Sight

Effect = Callable[["Ledger"], None]
Reason = str | int
"""Why something waits; of a replay, its job's number."""


class Broken(AssertionError):
    """A promise is broken."""


@dataclass
class Sent:
    """A message that was committed."""

    id: int
    topic: str
    key: str | None
    committed_at: int
    delayed: bool = False
    expired: bool = False


@dataclass
class Entry:
    """A message, as one group has it."""

    unread: bool = False
    waits: set[Reason] = field(default_factory=set)
    attempts: set[int] = field(default_factory=set)
    """As which attempt it may come next."""
    dead: bool = False
    # What may be so as well: the next look tells.
    maybe_unread: bool = False
    maybe_waits: set[Reason] = field(default_factory=set)
    maybe_dead: bool = False

    @property
    def owed(self) -> bool:
        return self.unread or bool(self.waits)

    def wait(self, reason: Reason, attempt: int) -> None:
        self.waits.add(reason)
        self.attempts.add(attempt)


@dataclass
class Lease:
    """A batch that was delivered."""

    token: int
    part: Part
    owner: str
    committed_at: int
    attempts: dict[int, int]
    keys: dict[int, str | None]
    settled: set[int] = field(default_factory=set)
    expired: bool = False
    may_go: bool = False
    """Another consumer of its exclusive group is active by now."""
    superseded: bool = False

    @property
    def open(self) -> set[int]:
        return set() if self.superseded else self.attempts.keys() - self.settled


@dataclass
class Group:
    """A group and the options that the model minds."""

    name: str
    order_by: str = "key"
    always_strict: bool = False
    max_attempts: int = 20
    max_in_flight: int | None = None
    on_expiry: str = "drop"
    exclusive: bool = False
    paused: bool = False
    active: str | None = None
    created_at: int = 0
    changed_at: int = 0

    def key_of(self, message: Sent) -> str | None:
        return {"none": None, "key": message.key, "strict": ""}[self.order_by]


@dataclass
class Job:
    """A replay."""

    id: int
    part: Part
    ids: set[int]
    sure: bool
    """All of these must come; else only those that are seen to be moved."""
    last: int = 0
    state: str = "running"
    leaky: bool = False
    """Cancelled while a claim was open that may put back what it had moved."""


@dataclass
class Step:
    """What the transactions since the last look may have changed by themselves."""

    claimed: set[Part] = field(default_factory=set)
    maintained: bool = False


@dataclass
class Ledger:
    """All that was committed."""

    clock: int = 0
    sent: dict[int, Sent] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    entries: dict[Part, dict[int, Entry]] = field(default_factory=dict)
    subscribed_at: dict[Part, int] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    log: set[int] = field(default_factory=set)
    """Ids that were not removed."""
    losing: set[str] = field(default_factory=set)
    """Topics of which retention says lose."""
    acked: set[tuple[str, int]] = field(default_factory=set)
    dropped: dict[Part, int] = field(default_factory=dict)
    lost: dict[Part, int] = field(default_factory=dict)
    step: Step = field(default_factory=Step)

    def commit(self, effects: Iterable[Effect]) -> None:
        self.clock += 1
        for effect in effects:
            effect(self)

    def parts(self, topic: str) -> Iterator[dict[int, Entry]]:
        return (entries for (_, of), entries in self.entries.items() if of == topic)

    def committed(self, topic: str, upto: int) -> set[int]:
        """What the outbox has of a topic and was committed by then."""
        return {
            i for i in self.log if self.sent[i].topic == topic and self.sent[i].committed_at <= upto
        }

    def live(self, group: str, topic: str | None = None) -> list[Lease]:
        return [
            lease
            for lease in self.leases.values()
            if lease.open and lease.part[0] == group and topic in {None, lease.part[1]}
        ]

    # What commits do.

    def publish(self, messages: list[Sent]) -> None:
        for message in messages:
            message.committed_at = self.clock
            self.sent[message.id] = message
            self.log.add(message.id)
            for entries in self.parts(message.topic):
                entries[message.id] = Entry(unread=True, attempts={1})

    def subscribe(self, name: str, topic: str, seen: set[int]) -> None:
        """Seen: what the group counts as delivered."""
        group = self.groups.setdefault(name, Group(name, created_at=self.clock))
        part = (group.name, topic)
        if part in self.entries:
            return
        self.subscribed_at[part] = self.clock
        self.entries[part] = {}
        for i, message in self.sent.items():
            if message.topic == topic:
                unread = i in self.log and i not in seen
                self.entries[part][i] = Entry(unread=unread, attempts={1} if unread else set())

    def supersede(self, lease: Lease, *, counted: bool, sure: bool = True) -> None:
        """End a lease; what it left goes out again. Not sure: perhaps it is too often tried."""
        for i in sorted(lease.open):
            self.send_back(lease, i, "given back", int(counted), sure=sure)
        lease.superseded = True

    def send_back(self, lease: Lease, i: int, why: str, more: int, *, sure: bool = True) -> None:
        group, entry = self.groups[lease.part[0]], self.entries[lease.part][i]
        attempt = lease.attempts[i] + more
        too_often = more and attempt > group.max_attempts
        if not sure and more:
            entry.maybe_dead = True
            entry.maybe_waits.add(why)
            entry.attempts.add(attempt)
        elif too_often:
            entry.dead = True
        else:
            entry.wait(why, attempt)

    def settle(self, lease: Lease, ids: Iterable[int]) -> None:
        lease.settled |= set(ids)

    # What a look shows.

    def compare(self, sight: Sight) -> None:
        """Find what was lost, what came from nowhere, and accept what the library was free to choose."""
        step, self.step = self.step, Step()
        unknown = {i for _, i in sight.log} - self.sent.keys()
        if unknown:
            raise Broken(f"in the outbox and never committed:  {sorted(unknown)}")
        self._leases(sight, step)
        self._jobs(sight, step)
        self.log = {i for _, i in sight.log}
        for part, entries in self.entries.items():
            gone: dict[str, set[int]] = {"expired": set(), "lost": set(), "removed": set()}
            for i, entry in entries.items():
                self._entry(sight, step, part, i, entry, gone)
            self._counted(sight, part, gone)
        held = {(lease.part[1], i) for lease in self.leases.values() for i in lease.open}
        if held - sight.log:
            raise Broken(f"removed while a consumer holds them: {sorted(held - sight.log)}")

    def _leases(self, sight: Sight, step: Step) -> None:
        unknown = sight.leases.keys() - self.leases.keys()
        if unknown:
            raise Broken(f"leases that no claim returned: {unknown}")
        for lease in self.leases.values():
            left = sight.leases.get(lease.token)
            if not lease.open:
                if left:
                    raise Broken(f"{lease} is over, and yet holds {left}")
            elif left is None:
                # A claim says what it takes over: this is what maintenance does.
                if not (step.maintained and lease.expired):
                    raise Broken(f"{lease} is gone, and {lease.open} of it were not settled")
                self.supersede(lease, counted=True)
            elif left != lease.open:
                raise Broken(f"{lease} holds {left}, not {lease.open}")

    def _jobs(self, sight: Sight, step: Step) -> None:
        for job in self.jobs.values():
            state, last = sight.jobs[job.id]
            for i in job.ids:
                if job.last < i <= last and not step.maintained:
                    entry = self.entries[job.part][i]
                    (entry.waits if job.sure else entry.maybe_waits).add(job.id)
                    entry.attempts.add(1)
            if job.state == "running" and state == "done" and job.sure:
                left = {i for i in job.ids & self.log if i > last}
                if left:
                    raise Broken(f"{job} is done, without {left}")
            if state != job.state and (job.state != "running" or state != "done"):
                raise Broken(f"{job} is {state}")
            job.last, job.state = max(job.last, last), state

    def _entry(
        self, sight: Sight, step: Step, part: Part, i: int, entry: Entry, gone: dict[str, set[int]]
    ) -> None:
        name = f"message {i} of {part}"
        place = (*part, i)
        unread, rows, owed = place in sight.unread, sight.rows.get(place, set()), entry.owed
        if unread and not (entry.unread or entry.maybe_unread):
            raise Broken(
                f"{name} was delivered, and the group's position says that it was not: {entry}"
            )
        parked = entry.unread and part in step.claimed and not unread
        waits = entry.waits | entry.maybe_waits | ({"parked"} if parked else set())
        jobs = {job for job in waits if isinstance(job, int)}
        for row in rows:
            if row is not None and (row in jobs or (row in self.jobs and self.jobs[row].leaky)):
                continue
            if row is None and (waits - jobs or (jobs and part in step.claimed)):
                continue
            raise Broken(f"{name} waits for {row or 'its turn'}, and nothing sent it back: {entry}")
        dead = place in sight.dead
        if entry.dead > dead:
            raise Broken(f"{name} was given up, and is no dead letter: {entry}")
        expired = (
            self.sent[i].expired and owed and (part in step.claimed or self._loses(step, part))
        )
        if dead and not (entry.dead or entry.maybe_dead or expired):
            raise Broken(f"{name} is a dead letter, and nothing gave it up: {entry}")
        keys = sight.keys.get(place, set()) - {self.groups[part[0]].key_of(self.sent[i])}
        if keys:
            raise Broken(f"{name} holds back the wrong key, {keys}: {self.groups[part[0]]}")
        if owed and not (unread or (rows and i in self.log)):
            gone[self._why(step, part, i, entry, dead)].add(i)
        self._accept(entry, unread, rows, waits - jobs, dead)

    def _accept(
        self, entry: Entry, unread: bool, rows: set[int | None], others: set[Reason], dead: bool
    ) -> None:
        entry.unread, entry.dead = unread, dead
        entry.waits = {row for row in rows if row is not None}
        if None in rows:
            entry.waits |= others or {"parked"}
        if not entry.owed:
            entry.attempts = set()
        entry.maybe_unread, entry.maybe_waits, entry.maybe_dead = False, set(), False

    def _loses(self, step: Step, part: Part) -> bool:
        return step.maintained and part[1] in self.losing

    def _why(self, step: Step, part: Part, i: int, entry: Entry, dead: bool) -> str:
        """Why something owed may be gone, or it is lost."""
        loses = self._loses(step, part)
        # What a group loses and is past its time goes as a claim would let it go, unless it waits.
        if self.sent[i].expired and (not entry.waits if loses else part in step.claimed):
            if self.groups[part[0]].on_expiry == "dead_letter" and not dead:
                raise Broken(f"message {i} of {part} expired, and is no dead letter")
            return "expired"
        if loses:
            # What a replay has moved, or is past its time, is no loss.
            no_loss = self.sent[i].expired or (entry.waits and entry.waits <= self.jobs.keys())
            return "removed" if no_loss else "lost"
        raise Broken(f"message {i} is lost to {part}: {entry}, {self.sent[i]}")

    def _counted(self, sight: Sight, part: Part, gone: dict[str, set[int]]) -> None:
        """What went has to be counted, or recorded."""
        losses = sight.losses.get(part, [])
        recorded = sum(messages for _, _, messages in losses) - self.lost.get(part, 0)
        self.lost[part] = self.lost.get(part, 0) + recorded
        if len(gone["lost"]) > recorded:
            raise Broken(f"{part} lost {gone['lost']}, and {recorded} of them are recorded")
        for i in gone["lost"]:
            if not any(first <= i <= last for first, last, _ in losses):
                raise Broken(f"{part} lost {i}, which no record has: {losses}")
        counted = sight.expired.get(part, 0) - self.dropped.get(part, 0)
        self.dropped[part] = sight.expired.get(part, 0)
        if counted < len(gone["expired"]):
            raise Broken(f"{part} dropped {gone['expired']} and counted {counted}")
