"""Every two public functions that write, at the same time: one in an open transaction, one beside it.

The second ends, or says within a bound why not; it waits for the first only where it is declared
to, in ``tests/faults/operations.py``; and in the end the auditor finds each message in one place.

At READ COMMITTED all pairs meet, and the first one commits or, where both concern a group, rolls
back. Of the other isolation levels, and of a second operation that acts after the first in an older
snapshot, a sample is drawn: DURABLE_NOTIFY_SEED repeats it, DURABLE_NOTIFY_PAIRS=all takes all.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable, Iterable
from typing import get_args

import pytest

from tests.faults.actors import Actors, End, How, Outcome, Pair
from tests.faults.auditor import audit
from tests.faults.chance import SEED
from tests.faults.operations import ASIDE, OPS, PREPARATIONS, Scene, build, may_wait, refusals
from tests.security.decisions import BY_HAND, MAY
from tests.support import injection
from tests.support.missing import slow_but
from tests.support.sessions import Session, Sessions

ALL = os.environ.get("DURABLE_NOTIFY_PAIRS") == "all"
CHUNK = 70
"""So many pairs a database: more make its small tables slow."""
LEVELS = ("read committed", "repeatable read", "serializable")
# These say nothing of groups, and nothing of each other that depends on how the first one ends.
ROLLED_BACK = [name for name in OPS if name not in ASIDE]

UNBOUND = {"publish", "publish_many", "publish once", "insert", "notify"}
"""Waits as long as its caller likes: for who publishes the same dedup key, or for reanchor()."""
# None of these waits itself, but for publishing: that does as its caller likes.
NO_PATIENCE = {
    "publish", "publish_many", "notify", "prune_dedup", "arm", "disarm", "_arm_topics", "_disarm_topics",
}  # fmt: skip
# They look, or are called by others; the procedures maintain() and erase() are transactions of their own. empty_all() leaves
# nothing to look at: see tests/admin/test_emptied.py.
NO_WRITERS = {
    "empty_all", "still_archiving", "erase",
    "armed", "_apply_grants", "maintain", "next_due", "_no_waiter", "_no_pattern_waiter", "_try_doorbell", "_release_doorbell", "_notify_payload", "read", "read_from",
    "_validate_message", "_has_waiter", "unacknowledged", "still_running", "unnotified_transactions", "_notify_waiters", "_open_writers",
}  # fmt: skip

Names = tuple[str, str]


@pytest.fixture
def actors(sessions: Sessions) -> Actors:
    actors = Actors(sessions)
    actors.owner.run("""
        DO $$ BEGIN CREATE ROLE pairs; EXCEPTION WHEN duplicate_object THEN END $$""")
    actors.owner.run(PREPARATIONS)
    return actors


def faults(actors: Actors, pairs: Iterable[tuple[Names, Pair]], first: int = 1) -> list[str]:
    """What is wrong with some pairs, played one after the other, and where the messages are then."""
    found = []
    played: dict[int, tuple[str, Scene]] = {}
    for number, (names, pair) in enumerate(pairs, first):
        scene = build(actors.owner, number, pair.parts)
        outcome = actors.play(pair, scene)
        told = f"{names[0]}, and beside it {names[1]} ({pair})"
        played[number] = (told, scene)
        if outcome and (fault := _fault(actors, pair, scene, outcome)):
            found.append(f"{told}: {fault}")
    facts = {scene.group: scene.facts for _, scene in played.values() if scene.is_there}
    try:
        audit(actors.owner, facts)
    except AssertionError as error:
        for line in str(error).splitlines()[1:]:
            number = re.match(r"\w+\.(\d+)", line)
            found.append(f"{played[int(number[1])][0] if number else '?'}: {line}")
    return found


def report(found: list[str]) -> None:
    assert not found, "\n".join([f"DURABLE_NOTIFY_SEED={SEED}", *found])


def _fault(actors: Actors, pair: Pair, scene: Scene, outcome: Outcome) -> str | None:
    if outcome.endless:
        return "waits without a bound"
    if outcome.waited and not may_wait(pair.one, pair.other):
        return f"waits for it ({outcome.state})"
    expected = {"ok", *refusals(pair.one, pair.other)}
    if pair.then:
        expected |= refusals(pair.then, pair.other)
    if pair.levels[1] != "read committed":
        expected.add("40001")
    if outcome.waited and pair.end == "stay":
        expected.add("55P03")
    # Or the first has nothing to do with it.
    if outcome.state in expected or outcome.state == actors.alone(pair, scene.number):
        return None
    return f"{outcome.state} {outcome.error}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("one", slow_but(OPS, "claim", "ack late", "publish", "configure order"))
def test_every_pair(actors: Actors, one: str) -> None:
    """All that may be done beside each operation."""
    pairs = [
        ((one, other), Pair(OPS[one], OPS[other], end=end))
        for other in OPS
        for end in ("commit", "rollback")
        if end == "commit" or (one in ROLLED_BACK and other in ROLLED_BACK)
    ]
    report(faults(actors, pairs))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_wait_ends(actors: Actors) -> None:
    """The first one's transaction stays open. Each function sets its patience itself, here less."""
    be_impatient(actors.owner)
    rng = random.Random(SEED)
    pairs: list[tuple[Names, Pair]] = []
    for other in OPS:
        ones = [one for one in OPS if may_wait(OPS[one], OPS[other]) and other not in UNBOUND]
        chosen = ones if ALL else rng.sample(ones, min(3, len(ones)))
        pairs += [((one, other), Pair(OPS[one], OPS[other], end="stay")) for one in chosen]
    report(faults(actors, pairs))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("claim", "pause", 'has the lock of group "g.1"'),
        ("grant_access", "set_notify_policy", "changes settings"),
    ],
)
def test_a_wait_that_ends_says_what_it_was_for(
    actors: Actors, one: str, other: str, said: str
) -> None:
    be_impatient(actors.owner)
    scene = build(actors.owner, 1, set())
    outcome = actors.play(Pair(OPS[one], OPS[other], end="stay"), scene)
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.state == "55P03"
    assert said in str(outcome.error)
    assert "Try again" in (outcome.error.diag.message_hint or "")


def be_impatient(session: Session) -> None:
    for (name,) in session.run("""
            SELECT p.oid::regprocedure::text FROM pg_proc p
             WHERE p.pronamespace = 'durable_notify'::regnamespace
               AND p.proconfig::text LIKE '%lock_timeout=%s%'"""):
        session.run(f"ALTER ROUTINE {name} SET lock_timeout = '50ms'")
    injection.plant(session, "_lock_group_and", ("interval '5 seconds'", "interval '0.1 seconds'"))


def test_every_writer_sets_its_patience(actors: Actors) -> None:
    """But for publishing, whose callers wait for locks of their own as they like."""
    query = """
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'durable_notify'::regnamespace
           AND p.proconfig::text LIKE '%lock_timeout=%'"""
    assert called() - set(actors.owner.column(query)) == NO_PATIENCE


def test_every_writer_is_here(actors: Actors) -> None:
    public = {name for name, may in MAY.items() if may} | set(BY_HAND.split())
    query = """
        SELECT p.proname FROM pg_proc p
         WHERE p.pronamespace = 'durable_notify'::regnamespace AND p.provolatile = 'v'"""
    assert (public & set(actors.owner.column(query))) - called() == NO_WRITERS


def called() -> set[str]:
    names = (re.findall(r"durable_notify\.(\w+)\(", op.sql) for op in OPS.values())
    return set(itertools.chain.from_iterable(names))


IN_ONE_TRANSACTION = [
    "ack first", "ack last", "ack late", "retry first", "reject first", "once", "publish", "extend",
    "release late",
]  # fmt: skip


def settled(name: str) -> set[str]:
    """The messages of a lease that an operation settles."""
    return set(OPS[name].ends.split()) if "settle(" in OPS[name].sql else set()


@pytest.mark.timeout(300)
def test_a_handler_that_does_more_in_its_transaction(actors: Actors) -> None:
    """Another begins in between; no two lock each other up.

    But for two that settle the same message of a lease at the same time, which one of them must not:
    where the first does more, one may be told of a deadlock, and nothing of its is kept.
    """
    every = [
        ((f"{one} ... {then}", other), Pair(OPS[one], OPS[other], then=OPS[then]))
        for one, then in itertools.permutations(IN_ONE_TRANSACTION, 2)
        for other in ROLLED_BACK
        if not settled(other) & (settled(one) | settled(then))
    ]
    report(faults(actors, every if ALL else random.Random(SEED).sample(every, 3 * CHUNK)))


# A frozen snapshot that once lost a message, redelivered one, or failed without saying why.
FOUND: list[tuple[str, str, How]] = [
    ("ack first", "release", "after"),
    ("reject first", "release", "after"),
    ("_delete_expired", "redrive", "beside"),
    ("configure order", "redrive", "after"),
    ("claim", "seek back", "after"),
    ("claim", "seek back", "beside"),
    ("seek back", "seek to now", "beside"),
    ("start_replay", "start_replay", "after"),
    ("delete_group", "once", "beside"),
    ("drop_compat", "drop_compat", "after"),
]


@pytest.mark.parametrize("level", LEVELS[1:])
def test_frozen_snapshots(actors: Actors, level: str) -> None:
    levels = (LEVELS[0], level)
    pairs = [
        ((one, other), Pair(OPS[one], OPS[other], how, levels=levels)) for one, other, how in FOUND
    ]
    report(faults(actors, pairs))


def sampled() -> list[tuple[Names, Pair]]:
    """Pairs at other levels: the second one beside the first, or after it in an older snapshot."""
    every = [
        ((one, other), Pair(OPS[one], OPS[other], how, end, levels))
        for one, other in itertools.product(OPS, OPS)
        for levels in itertools.product(LEVELS, LEVELS)
        for how, end in itertools.product(get_args(How), get_args(End))
        if end != "stay"
        and not (how == "after" and (end == "rollback" or levels[1] == LEVELS[0]))
        and levels != (LEVELS[0], LEVELS[0])
    ]
    return every if ALL else random.Random(SEED).sample(every, 8 * CHUNK)


SAMPLE = sampled()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(0, len(SAMPLE), CHUNK))
def test_pairs_at_other_levels(actors: Actors, chunk: int) -> None:
    report(faults(actors, SAMPLE[chunk : chunk + CHUNK]))


# What the tests above would miss, were they not to look for it.


def a_claim_that_waits_for_a_handler(session: Session) -> None:
    injection.takeover_that_waits(session)


def a_retry_that_is_lost(session: Session) -> None:
    injection.plant(
        session, "settle", ("PERFORM durable_notify._schedule_retry(", "PERFORM pg_catalog.concat(")
    )


def a_lease_that_leaves_the_position(session: Session) -> None:
    """A seek that forgets who holds what."""
    injection.plant(session, "seek", ("target, pos.lease_tokens)", "target, '{}')"))


def a_key_that_stays(session: Session) -> None:
    """The order may change while a settle writes what it keeps in order by."""
    injection.plant(session, "_lock_ordering", (" FOR SHARE OF o", ""))


def a_cancel_that_takes_what_is_owed(session: Session) -> None:
    injection.plant(session, "cancel_replay", ("d.replay_job = ended.id", "true"))


@pytest.mark.parametrize(
    ("change", "one", "other", "said"),
    [
        (a_claim_that_waits_for_a_handler, "ack late", "claim", "waits for it"),
        (a_retry_that_is_lost, "retry first", "claim", "nor anywhere"),
        (a_lease_that_leaves_the_position, "seek back", "extend", "no position knows of"),
        (a_key_that_stays, "retry first", "configure order", "under a key that is not its own"),
        (a_cancel_that_takes_what_is_owed, "advance_replays", "cancel_replay", "nor anywhere"),
    ],
)
def test_finds_what_is_planted(
    actors: Actors, change: Callable[[Session], None], one: str, other: str, said: str
) -> None:
    pair = [((one, other), Pair(OPS[one], OPS[other]))]
    report(faults(actors, pair))
    change(actors.owner)
    assert said in "\n".join(faults(actors, pair, 2))
