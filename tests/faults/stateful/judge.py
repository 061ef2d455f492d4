"""Whether a claim may deliver what it did, by the ledger: nothing that is not owed, and in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tests.faults.stateful.ledger import Broken, Effect, Entry, Group, Lease, Ledger, Reason
from tests.faults.stateful.sight import Part
from tests.support.sessions import Message


def claimed(
    ledger: Ledger, group: Group, owner: str, rows: Sequence[Message], over: Collection[int]
) -> Effect:
    """Judge what a claim returned; `over` are the leases that it took over.

    Returns what it will have done when it commits.
    """
    _may_claim(ledger, group, owner, rows)
    for token in over:
        lease = ledger.leases[token]
        if not (lease.expired or lease.may_go):
            raise Broken(f"{lease} was taken over, and had not run out")
    given_back = _given_back(ledger, over)
    _in_flight(ledger, group, rows, over)
    had: dict[tuple[Part, int], tuple[bool, set[Reason]]] = {}
    for row in rows:
        part = (group.name, row.topic)
        entry = ledger.entries[part].get(row.id)
        if entry is None:
            raise Broken(f"{row} was never committed")
        back = given_back.get((part, row.id), set())
        unread = entry.unread or entry.maybe_unread
        waits = entry.waits | entry.maybe_waits
        if not (unread or waits or back):
            raise Broken(f"{row} is not owed to {group.name}: {entry}")
        if row.attempt not in entry.attempts | back:
            raise Broken(f"{row} as attempt {row.attempt}, not one of {entry.attempts | back}")
        if (part, row.id) in had:
            raise Broken(f"{row} twice in one batch")
        had[part, row.id] = (unread, set(waits))
    again: set[tuple[Part, int]] = set()
    for topic in {row.topic for row in rows}:
        part = (group.name, topic)
        batch = [row for row in rows if row.topic == topic]
        early = _in_order(ledger, group, part, batch, over, given_back)
        again |= {(part, i) for i in early}
    return _effect(group, owner, rows, over, had, again)


def _may_claim(ledger: Ledger, group: Group, owner: str, rows: Sequence[Message]) -> None:
    if not rows:
        return
    if group.paused:
        raise Broken(f"{group} is paused, and delivered {rows}")
    if group.exclusive and group.active not in {None, owner}:
        raise Broken(f"{group} is exclusive, and {owner} got {rows}")
    if any(row.key != ledger.sent[row.id].key for row in rows if row.id in ledger.sent):
        raise Broken(f"keys are not what was published: {rows}")


def _given_back(ledger: Ledger, over: Collection[int]) -> dict[tuple[Part, int], set[int]]:
    """What leases left that are taken over, and as which attempts it may come."""
    found: dict[tuple[Part, int], set[int]] = {}
    for token in over:
        lease = ledger.leases[token]
        for i in lease.open:
            attempt = lease.attempts[i] + 1
            if attempt <= ledger.groups[lease.part[0]].max_attempts:
                found.setdefault((lease.part, i), set()).add(attempt)
    return found


def _in_flight(
    ledger: Ledger, group: Group, rows: Sequence[Message], over: Collection[int]
) -> None:
    if group.max_in_flight is None or not rows:
        return
    held = sum(
        len(lease.open)
        for lease in ledger.live(group.name)
        if lease.token not in over and not lease.expired
    )
    if held + len(rows) > group.max_in_flight:
        raise Broken(f"{group} has {held} in flight, and was handed {len(rows)}: {rows}")


def _in_order(
    ledger: Ledger,
    group: Group,
    part: Part,
    rows: Sequence[Message],
    over: Collection[int],
    given_back: dict[tuple[Part, int], set[int]],
) -> set[int]:
    """Of each key one batch at a time, and nothing before what is before it.

    Returns what came too early, and has to be redelivered from the outbox, after what is before it.
    """
    entries = ledger.entries[part]
    handed: set[int] = set()
    early: set[int] = set()
    busy = {
        group.key_of(ledger.sent[i]): lease
        for lease in ledger.live(*part)
        if lease.token not in over
        for i in lease.open
    }

    def of(i: int) -> set[Reason]:
        return entries[i].waits | ({"given back"} if (part, i) in given_back else set())

    for row in rows:
        key = group.key_of(ledger.sent[row.id])
        if key is None:
            continue
        if key in busy:
            raise Broken(f"{row} was delivered while {busy[key]} holds its key")
        for i, entry in entries.items():
            if i >= row.id or i in handed or group.key_of(ledger.sent[i]) != key:
                continue
            if _before(ledger, group, i, row.id, of(i), of(row.id)):
                raise Broken(f"{row} was delivered before {ledger.sent[i]}: {entry}")
            if entries[row.id].unread and _comes_before(ledger, group, i, row.id, entry):
                early.add(row.id)
        handed.add(row.id)
    return early


def _comes_before(ledger: Ledger, group: Group, i: int, later: int, entry: Entry) -> bool:
    """Whether one message comes from the outbox before a later one of its key.

    What had not committed when a later one was read comes when it commits, unless all wait for it.
    """
    first, second = ledger.sent[i], ledger.sent[later]
    if first.delayed or first.expired or second.delayed:
        return False
    return entry.unread and (first.committed_at <= second.committed_at or group.always_strict)


def _before(
    ledger: Ledger, group: Group, i: int, later: int, waits: set[Reason], its: set[Reason]
) -> bool:
    """Whether one message holds back a later one of its key, by what they wait for.

    Not if either was redelivered out of order, by a replay, or has a time of its own. Nor
    if a group was rewound while a consumer held the later one, and released it then: that
    ends first, and it is redelivered from the outbox in its order.
    """
    first, second = ledger.sent[i], ledger.sent[later]
    if first.delayed or first.expired or second.delayed or its & ledger.jobs.keys():
        return False
    entry, later_entry = (ledger.entries[group.name, first.topic][n] for n in (i, later))
    holding = bool(waits - ledger.jobs.keys())
    if not later_entry.unread:
        return holding
    return not its and (holding or _comes_before(ledger, group, i, later, entry))


def _effect(
    group: Group,
    owner: str,
    rows: Sequence[Message],
    over: Collection[int],
    had: dict[tuple[Part, int], tuple[bool, set[Reason]]],
    again: set[tuple[Part, int]],
) -> Effect:
    def delivered(ledger: Ledger) -> None:
        for token in over:
            ledger.supersede(ledger.leases[token], counted=True)
        for (part, i), (unread, waits) in had.items():
            entry = ledger.entries[part][i]
            entry.maybe_unread = entry.maybe_unread or (unread and entry.unread)
            entry.unread = entry.unread and (not unread or (part, i) in again)
            gone = waits | {"given back"}
            entry.maybe_waits |= entry.waits & gone
            entry.waits -= gone
        for token in dict.fromkeys(row.token for row in rows):
            batch = [row for row in rows if row.token == token]
            if token in ledger.leases or len({row.topic for row in batch}) > 1:
                raise Broken(f"a token twice: {batch}")
            ledger.leases[token] = Lease(
                token,
                (group.name, batch[0].topic),
                owner,
                ledger.clock,
                {row.id: row.attempt for row in batch},
                {row.id: row.order_key for row in batch},
            )

    return delivered


def out_of_order(
    ledger: Ledger, lease: Lease, left: set[int], done: Collection[int], retried: Collection[int]
) -> bool:
    """Whether a settle may be refused: an earlier message of a key in the lease is not done."""
    ids = list(lease.attempts)
    keys = {i: lease.keys[i] for i in ids}
    if ledger.groups[lease.part[0]].changed_at:
        keys = dict.fromkeys(ids, "")  # by the order at its delivery, or by the order in force now
    for index, i in enumerate(ids):
        for earlier in ids[:index] if i in done else ():
            same = keys[earlier] is not None and keys[earlier] == keys[i]
            if same and ((earlier in left and earlier not in done) or earlier in retried):
                return True
    return False
