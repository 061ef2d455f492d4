"""Every two public functions that write, at the same time: one in an open transaction, one beside it.

The second ends, or says within a bound why not; it waits for the first only where it is declared
to, in ``tests/support/pairs.py``; and in the end the auditor finds each message in one place.

At READ COMMITTED all pairs meet, and the first one commits or, where both concern a group, rolls
back. Of the other isolation levels, and of a second operation that acts after the first in an older
snapshot, a sample is drawn: DURABLE_NOTIFY_SEED repeats it, DURABLE_NOTIFY_PAIRS=all takes all.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Iterable
from typing import get_args

import pytest

from tests.support.auditor import audit
from tests.support.pairs import (
    ASIDE,
    OPS,
    PREPARATIONS,
    Actors,
    End,
    How,
    Outcome,
    Pair,
    Scene,
    build,
    may_wait,
    refusals,
)
from tests.support.schedule import Stage

SEED = os.environ.get("DURABLE_NOTIFY_SEED") or str(random.SystemRandom().randrange(10**9))
ALL = os.environ.get("DURABLE_NOTIFY_PAIRS") == "all"
CHUNK = 70
"""So many pairs a database: more make its small tables slow."""
LEVELS = ("read committed", "repeatable read", "serializable")
# These say nothing of groups, and nothing of each other that depends on how the first one ends.
ROLLED_BACK = [name for name in OPS if name not in ASIDE]

Names = tuple[str, str]


@pytest.fixture
def actors(stage: Stage) -> Actors:
    actors = Actors(stage)
    actors.owner.run("""
        DO $$ BEGIN CREATE ROLE pairs; EXCEPTION WHEN duplicate_object THEN END $$""")
    actors.owner.run(PREPARATIONS)
    return actors


def faults(actors: Actors, pairs: Iterable[tuple[Names, Pair]]) -> list[str]:
    """What is wrong with some pairs, played one after the other, and where the messages are then."""
    found = []
    played: dict[int, tuple[str, Scene]] = {}
    for number, (names, pair) in enumerate(pairs, 1):
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


def _fault(actors: Actors, pair: Pair, scene: Scene, outcome: Outcome) -> str | None:
    if outcome.endless:
        return "waits without a bound"
    if outcome.waited and not may_wait(pair.one, pair.other):
        return f"waits for it ({outcome.state})"
    expected = {"ok", *refusals(pair.one, pair.other)}
    if pair.levels[1] != "read committed":
        expected.add("40001")
    if outcome.waited and pair.end == "stay":
        expected.add("55P03")
    # Or the first has nothing to do with it.
    if outcome.state in expected or outcome.state == actors.alone(pair, scene.number):
        return None
    return f"{outcome.state} {outcome.error}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("one", OPS)
def test_every_pair(actors: Actors, one: str) -> None:
    """All that may be done beside each operation."""
    pairs = [
        ((one, other), Pair(OPS[one], OPS[other], end=end))
        for other in OPS
        for end in ("commit", "rollback")
        if end == "commit" or (one in ROLLED_BACK and other in ROLLED_BACK)
    ]
    found = faults(actors, pairs)
    assert not found, "\n".join(found)


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(0, len(SAMPLE), CHUNK))
def test_pairs_at_other_levels(actors: Actors, chunk: int) -> None:
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    found = faults(actors, SAMPLE[chunk : chunk + CHUNK])
    assert not found, "\n".join(found)
