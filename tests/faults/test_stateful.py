"""Any order of everything, against a model: a stateful property test.

DURABLE_NOTIFY_STATEFUL_EXAMPLES and DURABLE_NOTIFY_STATEFUL_STEPS make a run longer,
DURABLE_NOTIFY_STATEFUL_SEED another one; by default each run of CI plays the same examples. A failure
prints the shortest list of moves that shows it, with every statement and what it returned.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.stateful.ledger import Broken
from tests.faults.stateful.machine import Machine
from tests.faults.stateful.planted import PLANTED, Planted
from tests.faults.stateful.workers import WorkerPool
from tests.support.sessions import Session

EXAMPLES = int(os.environ.get("DURABLE_NOTIFY_STATEFUL_EXAMPLES", "150"))
STEPS = int(os.environ.get("DURABLE_NOTIFY_STATEFUL_STEPS", "40"))
SEED = int(os.environ.get("DURABLE_NOTIFY_STATEFUL_SEED", "1"))


def play(
    dsn: str, examples: int, number: int, kind: type[Machine] = Machine, *, shrink: bool = True
) -> None:
    """Play so many examples; raises what the first one found that is broken."""
    kept: list[WorkerPool] = []
    machine = seed(number)(type(kind.__name__, (kind,), {"dsn": dsn, "kept": kept}))
    options = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=True,
    )
    try:
        run_state_machine_as_test(machine, settings=options)
    finally:
        for workload in kept:
            workload.close()


@pytest.mark.timeout(120 + 5 * EXAMPLES)
@pytest.mark.parametrize("examples", [10, pytest.param(EXAMPLES, marks=pytest.mark.slow)])
def test_anything_in_any_order(dsn: str, examples: int) -> None:
    print(f"DURABLE_NOTIFY_STATEFUL_SEED={SEED}")
    play(dsn, examples, SEED)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.plant.__name__)
def test_a_planted_fault_is_found(dsn: str, planted: Planted) -> None:
    """Each with a seed that is known to find it soon."""
    session = Session(dsn)
    planted.plant(session)
    session.close()
    with pytest.raises((Broken, FlakyFailure)) as found:
        play(dsn, 200, planted.seed, planted.machine, shrink=False)
    # In the end Hypothesis plays it once more. The random order of something may be another then.
    failures = getattr(found.value, "exceptions", [found.value])
    assert any(isinstance(failure, Broken) for failure in failures)
