"""Everything at once, at random: nothing lost, nothing twice, and each key in its order.

Every trial prints its seed. To run one again: DURABLE_NOTIFY_SEED=<seed>; to run for longer:
DURABLE_NOTIFY_TRIALS=<times as many>. The order in which single-threaded trials take their steps
depends on the seed alone; threads take the same decisions, at whatever moment comes.
"""

from __future__ import annotations

import os
import random

import pytest
from psycopg import errors

from tests.faults.auditor import audit_handled
from tests.faults.history import Delivery, Faults, History, Sent, Settled, check, numbered
from tests.faults.traffic import GROUPS, concurrent, interleaved
from tests.support import injection
from tests.support.postgres import Postgres
from tests.support.schedules import (
    Trap,
    position_read_too_early,
    settled_in_part_by_a_frozen_transaction_after_a_takeover,
    snapshot_taken_too_early,
    straggler_in_the_list,
    straggler_past_the_list,
    takeover_beside_an_open_settle,
)
from tests.support.sessions import Sessions

TIMES = int(os.environ.get("DURABLE_NOTIFY_TRIALS", "1"))
FIRST_SEED = int(os.environ.get("DURABLE_NOTIFY_SEED", random.randrange(10**9)))


# Numbered, not named by their seeds: the workers of pytest-xdist must agree on the names.
@pytest.mark.parametrize("trial", range(4 * TIMES))
@pytest.mark.parametrize("lapses", [False, True], ids=["kept", "lapsing"])
def test_random_schedules(sessions: Sessions, trial: int, lapses: bool) -> None:
    seed = FIRST_SEED + trial
    print(f"DURABLE_NOTIFY_SEED={seed}")
    judge(sessions, seed, interleaved(sessions, seed, 500, lapses=lapses), lapses)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(TIMES))
@pytest.mark.parametrize("lapses", [False, True], ids=["kept", "lapsing"])
def test_all_at_once(sessions: Sessions, trial: int, lapses: bool) -> None:
    seed = FIRST_SEED + trial
    print(f"DURABLE_NOTIFY_SEED={seed}")
    judge(sessions, seed, concurrent(sessions, seed, 150, lapses=lapses), lapses)


def judge(sessions: Sessions, seed: int, history: History, lapses: bool) -> None:
    faults = check(history, GROUPS, once=not lapses)
    assert not faults, f"seed {seed}: {faults}"
    acked = {group: {s.id for s in history.settled if s.group == group} for group in GROUPS}
    audit_handled(sessions.dsn, acked)


def test_a_seed_says_it_all(server: Postgres, template: str) -> None:
    histories = []
    for _ in range(2):
        with server.database(template) as name, Sessions(server.dsn(name)) as sessions:
            histories.append(interleaved(sessions, FIRST_SEED, 200, lapses=True))
    assert numbered(histories[0]) == numbered(histories[1])


# What the tests above are worth: each planted fault must be caught.

EXPECTED: list[tuple[injection.Plant, Trap, str]] = [
    (injection.cursor_by_id, straggler_in_the_list, "lost"),
    (injection.cursor_by_id, straggler_past_the_list, "lost"),
    (injection.stragglers_by_list_alone, straggler_past_the_list, "lost"),
    (injection.stragglers_of_an_ordinary_claim, straggler_in_the_list, "lost"),
    (injection.stragglers_of_an_ordinary_claim, straggler_past_the_list, "lost"),
    (injection.position_before_the_lock, position_read_too_early, "twice"),
    (injection.snapshot_before_the_lock, snapshot_taken_too_early, "twice"),
]


@pytest.mark.parametrize(("plant", "trap", "fault"), EXPECTED)
def test_planted_fault_is_caught_by_a_schedule(
    sessions: Sessions, plant: injection.Plant, trap: Trap, fault: str
) -> None:
    plant(sessions.session())
    outcome = trap(sessions)
    assert getattr(outcome, fault), outcome


@pytest.mark.parametrize("plant", [injection.cursor_by_id, injection.stragglers_by_list_alone])
def test_planted_fault_is_caught_at_random(
    server: Postgres, template: str, plant: injection.Plant
) -> None:
    """One schedule in four does not see the second: together they miss it once in a million."""
    for trial in range(10):
        with server.database(template) as name, Sessions(server.dsn(name)) as sessions:
            faults = check(interleaved(sessions, FIRST_SEED + trial, 300, plants=[plant]), GROUPS)
        if faults:
            assert faults.lost
            return
    pytest.fail(f"not caught by 10 schedules from seed {FIRST_SEED}")


def test_planted_fence_by_plain_read_is_caught(sessions: Sessions) -> None:
    injection.fence_by_plain_read(sessions.session())
    outcome = settled_in_part_by_a_frozen_transaction_after_a_takeover(sessions)
    assert outcome is None


def test_planted_takeover_that_waits_is_caught(sessions: Sessions) -> None:
    injection.takeover_that_waits(sessions.session())
    with pytest.raises(errors.QueryCanceled):
        takeover_beside_an_open_settle(sessions)


# The checker itself.

SENT = [Sent(1, "a", 1), Sent(2, "a", 2), Sent(3)]
GOOD = [Delivery("g", 1, 0, 1), Delivery("g", 1, 1, 2), Delivery("g", 2, 0, 3)]


def settled(deliveries: list[Delivery]) -> list[Settled]:
    """Everything settled under the lease it came with."""
    return [Settled(h.group, h.token, h.id) for h in deliveries]


def test_checker_finds_nothing_in_a_good_history() -> None:
    assert not check(History(SENT, GOOD, settled(GOOD)), ["g"])


def test_checker_finds_what_was_lost() -> None:
    faults = check(History(SENT, GOOD[:2], settled(GOOD[:2])), ["g"])
    assert faults == Faults(lost={("g", 3)})
    assert str(faults) == "1 lost: [('g', 3)]"
    only_handed = check(History(SENT, GOOD, settled(GOOD[:2])), ["g"])
    assert only_handed == Faults(lost={("g", 3)})
    other_group = check(History(SENT, GOOD, settled(GOOD)), ["g", "h"])
    assert other_group == Faults(lost={("h", 1), ("h", 2), ("h", 3)})


def test_checker_finds_what_was_never_sent() -> None:
    deliveries = [*GOOD, Delivery("g", 3, 0, 4)]
    assert check(History(SENT, deliveries, settled(deliveries)), ["g"]).unexpected == {("g", 4)}


def test_checker_finds_what_came_twice() -> None:
    again = [*GOOD, Delivery("g", 3, 0, 3, 2)]
    counted = History(SENT, again, settled([*GOOD[:2], again[-1]]))
    assert check(counted, ["g"]) == Faults(twice={("g", 3)})
    assert not check(counted, ["g"], once=False)
    again = [*GOOD, Delivery("g", 3, 0, 3)]
    uncounted = History(SENT, again, settled([*GOOD[:2], again[-1]]))
    assert check(uncounted, ["g"], once=False) == Faults(twice={("g", 3)})
    both = check(History(SENT, again, settled(again)), ["g"], once=False)
    assert both == Faults(twice={("g", 3)})


def test_checker_finds_what_came_after_it_was_settled() -> None:
    again = [*GOOD, Delivery("g", 3, 0, 3, 2)]
    assert check(History(SENT, again, settled(GOOD)), ["g"], once=False).revived == {("g", 3)}


def test_checker_finds_keys_out_of_order() -> None:
    deliveries = [Delivery("g", 2, 0, 1), Delivery("g", 1, 0, 2), Delivery("g", 1, 1, 3)]
    assert check(History(SENT, deliveries, settled(deliveries)), ["g"]) == Faults(
        disordered={("g", "a")}
    )
    retried = [*GOOD[:2], Delivery("g", 2, 0, 1, 2), GOOD[2]]
    history = History(SENT, retried, settled(retried[1:]))
    assert not check(history, ["g"], once=False)
