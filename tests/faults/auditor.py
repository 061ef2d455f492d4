"""Where every message is, for every group: in exactly one place, with a way out of it.

A test that broke something ends with ``audit(session, ...)``. It may be told what the test knows
(``Facts`` of a group), since consuming a message writes nothing: that one is settled is only to be
seen from its being nowhere else. The audit

- looks: each message of the outbox is unread, leased, deferred, dead, or the test knows why it is in
  none of these; what is deferred or leased has a reason that ends (``look``),
- drains: claims and acknowledges until nothing comes, first by itself, then with every lease, due
  time and limit ended; a consumer that found nothing may sleep (``drain``),
- and looks again: whatever was not acknowledged before has come by now.

It is the last thing that a test does: it ends leases, resumes groups and lifts their limits. No
other session may have a transaction open.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.support.sessions import Session

ROUNDS = 20
"""So often a consumer may be told to look at once, and find nothing, before that is spinning."""

AT_ONCE = 0.011
"""Seconds: what a consumer that found nothing is told at least, for what is due and locked."""

OWNER = "the auditor"


@dataclass
class Facts:
    """What a test knows of one group's messages."""

    acked: set[int] = field(default_factory=set)
    """Acknowledged by a transaction that committed."""
    excused: set[int] = field(default_factory=set)
    """Need not come: skipped by a seek, discarded, from before a group that began at "now"."""
    unsure: set[int] = field(default_factory=set)
    """Acknowledged by a commit whose outcome is not known: come or not."""
    again: bool = False
    """Was sent back, by a seek, a replay, a redrive: may be in two places, may come once more."""
    repeated: set[int] = field(default_factory=set)
    """Of which alone the same is true."""
    committed: set[int] = field(default_factory=set)
    """What it must be possible to account for, whether or not the outbox has it still."""


class Place(NamedTuple):
    """Where a message is for a group; how many leases, and so on, have it."""

    group: str
    topic: str
    id: int
    unread: bool
    leased: int
    deferred: int
    dead: int
    expired: bool
    """Past its time: the claim that meets it may drop it, which it counts."""
    early: bool
    """To be delivered in the future."""
    orders: str

    @property
    def places(self) -> int:
        return self.unread + self.leased + self.deferred + self.dead


PLACES = """
    WITH leased AS (
        SELECT l.subscription_id, m.id, count(*) AS times
          FROM durable_notify.lease l CROSS JOIN LATERAL unnest(l.ids) AS m (id)
         WHERE NOT EXISTS (SELECT FROM durable_notify.settlement t
                            WHERE t.token = l.token AND t.message_id = m.id)
         GROUP BY 1, 2),
    waiting AS (
        SELECT d.subscription_id, d.message_id AS id, count(*) AS times
          FROM durable_notify.deferred d GROUP BY 1, 2),
    dead AS (
        SELECT d.subscription_id, d.message_id AS id, count(*) AS times
          FROM durable_notify.dead_letter d GROUP BY 1, 2),
    newest AS (
        SELECT DISTINCT ON (p.subscription_id) p.* FROM durable_notify.position p
         ORDER BY p.subscription_id, p.seq DESC)
    SELECT g.name, s.topic, o.id,
           NOT (o.id <= p.h0 AND pg_visible_in_snapshot(o.xid, p.s0)
                OR o.id <= p.p AND COALESCE(pg_visible_in_snapshot(o.xid, p.s1), false)),
           COALESCE(l.times, 0), COALESCE(w.times, 0), COALESCE(d.times, 0),
           COALESCE(o.expires_at <= clock_timestamp(), false),
           COALESCE(o.deliver_at > clock_timestamp(), false), g.order_by
      FROM durable_notify.consumer_group g
      JOIN durable_notify.subscription s ON s.group_id = g.id
      JOIN newest p ON p.subscription_id = s.id
      JOIN durable_notify.outbox o ON o.topic = s.topic
      LEFT JOIN leased l ON l.subscription_id = s.id AND l.id = o.id
      LEFT JOIN waiting w ON w.subscription_id = s.id AND w.id = o.id
      LEFT JOIN dead d ON d.subscription_id = s.id AND d.id = o.id
     ORDER BY 1, 2, 3"""

# Each finds rows that must not be, as (group, what). They need no knowledge of the test's.
RULES = {
    "has not one position but": """
        SELECT g.name, format('%s: %s', s.topic, count(p.*))
          FROM durable_notify.consumer_group g JOIN durable_notify.subscription s ON s.group_id = g.id
          LEFT JOIN durable_notify.position p ON p.subscription_id = s.id
         GROUP BY g.name, s.topic HAVING count(p.*) <> 1""",
    # Nothing but a claim ends what a dead consumer left, and it looks at these alone.
    "has a lease that no position knows of, so that none will take it over": """
        SELECT g.name, format('%s of %s', l.ids, l.owner)
          FROM durable_notify.lease l
          LEFT JOIN durable_notify.subscription s ON s.id = l.subscription_id
          LEFT JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE NOT EXISTS (SELECT FROM durable_notify.position p
                            WHERE p.subscription_id = l.subscription_id AND l.token = ANY (p.lease_tokens))""",
    "has a lease that never ends": """
        SELECT g.name, l.ids::text
          FROM durable_notify.lease l
          JOIN durable_notify.subscription s ON s.id = l.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
          LEFT JOIN durable_notify.lease_deadline h ON h.token = l.token
         WHERE COALESCE(h.deadline, l.deadline) = 'infinity'""",
    "waits for a message that is not in the outbox": """
        SELECT g.name, format('%s: %s', w.what, w.id)
          FROM (SELECT 'deferred' AS what, d.subscription_id, d.message_id AS id
                  FROM durable_notify.deferred d
                UNION ALL
                SELECT 'leased', l.subscription_id, m.id
                  FROM durable_notify.lease l CROSS JOIN LATERAL unnest(l.ids) AS m (id)
                 WHERE NOT EXISTS (SELECT FROM durable_notify.settlement t
                                    WHERE t.token = l.token AND t.message_id = m.id)) AS w
          JOIN durable_notify.subscription s ON s.id = w.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE NOT EXISTS (SELECT FROM durable_notify.outbox o WHERE o.topic = s.topic AND o.id = w.id)
           -- A consumer may hold a message that was erased.
           AND NOT (w.what = 'leased' AND EXISTS (
               SELECT FROM durable_notify.audit a WHERE a.action = 'erase' AND a.topic = s.topic))""",
    # A group of order none lets nothing go by its key; another key is let go by the wrong message.
    "keeps a message under a key that is not its own": """
        SELECT g.name, format('%s (%s): %L', d.message_id, g.order_by, d.key)
          FROM durable_notify.deferred d
          JOIN durable_notify.subscription s ON s.id = d.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
          JOIN durable_notify.outbox o ON o.topic = s.topic AND o.id = d.message_id
         WHERE d.key <> COALESCE(CASE g.order_by WHEN 'key' THEN o.key WHEN 'strict' THEN '' END, d.key || 'x')""",
    "waits for a key without having one": """
        SELECT g.name, d.message_id::text
          FROM durable_notify.deferred d
          JOIN durable_notify.subscription s ON s.id = d.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE d.reason = 'key' AND d.key IS NULL AND d.due_at > clock_timestamp()""",
    "has deferred a message for ever": """
        SELECT g.name, d.message_id::text
          FROM durable_notify.deferred d
          JOIN durable_notify.subscription s ON s.id = d.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE d.reason <> 'delivery' AND d.due_at > clock_timestamp() + interval '10 years'""",
    "waits for a replay that does not exist, or was cancelled": """
        SELECT g.name, d.message_id::text
          FROM durable_notify.deferred d
          JOIN durable_notify.subscription s ON s.id = d.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE d.replay_job IS NOT NULL
           AND NOT EXISTS (SELECT FROM durable_notify.replay_job j
                            WHERE j.id = d.replay_job AND j.subscription_id = d.subscription_id
                              AND j.state <> 'cancelled')""",
    "has no order to hold": """
        SELECT g.name, g.order_by FROM durable_notify.consumer_group g
         WHERE NOT EXISTS (SELECT FROM durable_notify.ordering o WHERE o.group_id = g.id)""",
}


# What was lost before a group was given its name stays under the old one.
LOST = """
    WITH RECURSIVE named AS (
        SELECT g.name, g.name AS before FROM durable_notify.consumer_group g
        UNION
        SELECT n.name, a.group_name FROM named n
          JOIN durable_notify.audit a ON a.action = 'rename' AND a.details ->> 'new_name' = n.before)
    SELECT n.name, l.first_id, l.last_id, l.messages
      FROM named n JOIN durable_notify.lost_message l ON l.group_name = n.before"""


def audit(
    session: Session,
    facts: Mapping[str, Facts] | None = None,
    committed: Collection[int] | None = None,
) -> dict[str, list[int]]:
    """Raise AssertionError with all that is wrong; returns what came to each group meanwhile.

    Groups without facts are not asked what became of what is in no place. `committed`: what must
    be accounted for, whether or not it is still in the outbox; else all that the outbox has.
    """
    facts = dict(facts or {})
    faults = look(session, facts, committed)
    came, spinning = drain(session)
    faults += spinning
    for group, known in facts.items():
        counted = Counter(came.get(group, ()))
        settled = counted.keys() & known.acked - known.unsure - known.repeated
        twice = {i for i, times in counted.items() if times > 1} - known.repeated
        if settled and not known.again:
            faults.append(f"{group}: acknowledged, and redelivered: {_some(settled)}")
        if twice and not known.again:
            faults.append(f"{group}: came twice, though acknowledged at once: {_some(twice)}")
        facts[group] = replace(known, acked=known.acked | set(came.get(group, ())))
    faults += [fault for fault in look(session, facts, committed) if fault not in faults]
    faults += list(_left_over(session))
    assert not faults, "\n".join(["the auditor found:", *faults])
    return came


def audit_handled(dsn: str, handled: Mapping[str, Collection[int]]) -> None:
    """Audit a database of which it is known what each group has handled: once all else has ended."""
    session = Session(dsn)
    try:
        audit(session, {group: Facts(set(ids)) for group, ids in handled.items()})
    finally:
        session.close()


def whereabouts(session: Session) -> list[Place]:
    """Return where each message of the outbox is, for each group that reads its topic."""
    return [Place(*row) for row in session.run(PLACES)]


def look(
    session: Session,
    facts: Mapping[str, Facts] | None = None,
    committed: Collection[int] | None = None,
) -> list[str]:
    """What is wrong by now; changes nothing."""
    facts = facts or {}
    with session.transaction("repeatable read"):
        found = whereabouts(session)
        faults = [
            f"{group}: {rule} {what}"
            for rule, query in RULES.items()
            for group, what in session.run(query)
        ]
        lost = session.run(LOST)
        dead = session.run("""
            SELECT g.name, d.message_id FROM durable_notify.dead_letter d
              JOIN durable_notify.subscription s ON s.id = d.subscription_id
              JOIN durable_notify.consumer_group g ON g.id = s.group_id""")
        dropped = session.run("""
            SELECT g.name, sum(p.expired)::bigint FROM durable_notify.position p
              JOIN durable_notify.subscription s ON s.id = p.subscription_id
              JOIN durable_notify.consumer_group g ON g.id = s.group_id GROUP BY 1""")
    for group, known in facts.items():
        here = [place for place in found if place.group == group]
        faults += [f"{group}: {fault}" for fault in _misplaced(here, known)]
        nowhere = {place.id: place for place in here if not place.places}
        removed = known.committed.union(committed or ()) - {place.id for place in found}
        removed -= {i for of_group, i in dead if of_group == group}
        missing = (nowhere.keys() | removed) - known.acked - known.excused - known.unsure
        missing -= _within(
            {i for i in missing if i in nowhere and nowhere[i].expired}, dict(dropped).get(group, 0)
        )
        for of_group, first, last, messages in lost:
            if of_group == group:
                missing -= _within({i for i in missing if first <= i <= last}, messages)
        if missing:
            faults.append(f"{group}: neither acknowledged nor anywhere: {_some(missing)}")
    return faults


def _misplaced(here: list[Place], known: Facts) -> Iterator[str]:
    """Yield the messages that are in more than one place."""
    if known.again:
        return
    for place in here:
        if place.id in known.repeated:
            continue
        where = {k: v for k, v in place._asdict().items() if k in Place._fields[3:7] and v}
        if place.places > 1:
            yield f"{place.id} is in more than one place: {where}"
        if place.places and place.id in known.acked - known.unsure:
            yield f"{place.id} is acknowledged, and yet {where}"


def _within(ids: set[int], at_most: int) -> set[int]:
    """All of them, where no more were counted; else none of them is excused."""
    return ids if len(ids) <= at_most else set()


def _some(ids: Collection[int]) -> str:
    return f"{len(ids)}: {sorted(ids)[:10]}"


def drain(session: Session) -> tuple[dict[str, list[int]], list[str]]:
    """Take all there is, in every group; returns what came to each, and who spins."""
    faults: list[str] = []
    came: dict[str, list[int]] = defaultdict(list)
    session.run(DISCOVER)
    for group in _groups(session):
        faults += _take_all(session, group, came[group.name])
    session.run(EVERYTHING_ENDS)
    for group in _groups(session):
        faults += _take_all(session, group, came[group.name])
    return dict(came), faults


class _Group(NamedTuple):
    name: str
    topics: list[str]
    replaying: bool


def _groups(session: Session) -> list[_Group]:
    query = """
        SELECT g.name, array_agg(s.topic ORDER BY s.topic),
               bool_or(EXISTS (SELECT FROM durable_notify.replay_job j
                                WHERE j.subscription_id = s.id AND j.state = 'running'))
          FROM durable_notify.consumer_group g
          JOIN durable_notify.subscription s ON s.group_id = g.id GROUP BY 1 ORDER BY 1"""
    return [_Group(*row) for row in session.run(query)]


# As if every consumer had died long ago, and every time had come.
EVERYTHING_ENDS = """
    DELETE FROM durable_notify.lease_deadline;
    UPDATE durable_notify.lease SET deadline = 'epoch';
    DELETE FROM durable_notify.active_consumer;
    UPDATE durable_notify.deferred SET due_at = clock_timestamp()
     WHERE reason <> 'delivery' AND due_at > clock_timestamp();
    UPDATE durable_notify.consumer_group
       SET paused_at = NULL, rate_limit = NULL, max_in_flight = NULL, max_attempts = 1000000"""

DISCOVER = """
    SELECT durable_notify.discover(g.name, '{}') FROM durable_notify.consumer_group g
     WHERE EXISTS (SELECT FROM durable_notify.group_pattern p WHERE p.group_id = g.id)"""

CLAIM = """
    SELECT token, array_agg(id) FROM durable_notify.claim(%s, %s, 1000, '1 hour', %s)
     GROUP BY token ORDER BY token"""


def _take_all(session: Session, group: _Group, came: list[int]) -> Iterator[str]:
    """Claim what there is, acknowledge it, and so on until nothing comes."""
    while True:
        if group.replaying:
            session.run("SELECT durable_notify.advance_replays(%s, %s)", group.name, group.topics)
        held = session.run(CLAIM, group.name, group.topics, OWNER)
        # A consumer that has work asks as well: its handlers may be slow.
        if spin := _spins(session, group, held):
            yield spin
        if not held:
            return
        for token, ids in held:
            came += ids
            session.run("SELECT durable_notify.settle(%s, %s)", token, ids)


def _spins(session: Session, group: _Group, held: list[Any]) -> str | None:
    """Whether a consumer that found nothing is told, again and again, not to sleep."""
    for _ in range(ROUNDS):
        query = "SELECT durable_notify.next_due(%s, %s, %s)"
        due = session.value(query, group.name, group.topics, OWNER)
        if due is None or due > AT_ONCE:
            return None
        before = session.run(PROGRESS, group.name)
        if batch := session.run(CLAIM, group.name, group.topics, OWNER):
            held += batch
            return None
        if session.run(PROGRESS, group.name) != before:
            return None
    return f"{group.name}: spins, next_due is {due} and nothing comes"


PROGRESS = """
    SELECT p.subscription_id, p.seq FROM durable_notify.position p
      JOIN durable_notify.subscription s ON s.id = p.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id WHERE g.name = %s ORDER BY 1"""


def _left_over(session: Session) -> Iterator[str]:
    """Yield what is still on its way when all of it should have come."""
    for place in whereabouts(session):
        if place.unread or place.leased or (place.deferred and not place.early):
            yield f"{place.group}: {place.id} does not come: {place}"
