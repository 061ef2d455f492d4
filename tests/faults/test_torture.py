"""`durable-notify torture`: everything broken at random under load, judged by its history.

Run 1: SIGKILL and SIGSTOP of publishers, consumers, the listener's backend and PostgreSQL itself.
Run 2: visibility out of order: held and prepared transactions, savepoints, writers elsewhere.
Asserted: nothing committed is lost, nothing comes that never committed, nothing takes effect twice,
keys and strict groups keep their order, nothing settled is redelivered, all of it is drained in the
end, and every consumer ends when told to. Each run is shown to catch a fault that is planted.

DURABLE_NOTIFY_SEED repeats a run's decisions, DURABLE_NOTIFY_SECONDS makes it longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from durable_notify.torture.nemesis import FAULTS
from durable_notify.torture.run import Plan, Report, torture
from tests.faults.chance import SEED, seconds
from tests.support import injection
from tests.support.cli import fails, good, run
from tests.support.postgres import needed_binaries
from tests.support.sessions import Session

pytestmark = pytest.mark.server

SECONDS = seconds(6)
CRASHES = ("kill", "stop", "terminate", "listener", "cancel", "oom", "immediate", "power")
VISIBILITY = ("hold", "prepare", "elsewhere", "kill")


def tortured(
    faults: tuple[str, ...], seconds: float = SECONDS, seed: str = SEED, **options: object
) -> Report:
    found = needed_binaries()
    bindir = found if os.environ.get("DURABLE_NOTIFY_TEST_PG") else None
    return torture(Plan(seed, seconds, faults, bindir=bindir, **options))  # type: ignore[arg-type]


def show(report: Report) -> str:
    lines = [f"DURABLE_NOTIFY_SEED={SEED}", str(report.verdict.figures)]
    for finding in report.verdict.findings[:5]:
        lines += [f"{finding.checker}: {finding.text}", *map(str, finding.events)]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
@pytest.mark.parametrize(
    "faults", [CRASHES, VISIBILITY, tuple(FAULTS)], ids=["crashes", "visibility", "everything"]
)
def test_every_promise_is_kept(faults: tuple[str, ...]) -> None:
    report = tortured(faults)
    print(show(report))
    assert report.verdict.good, show(report)
    figures = report.verdict.figures
    assert figures["committed"] > 20
    assert figures["faults"] > 2


def planted(change: Callable[[Session], None]) -> Callable[[str], None]:
    def plant(dsn: str) -> None:
        session = Session(dsn)
        change(session)
        session.close()

    return plant


def forgotten_leases(session: Session) -> None:
    """What a dead consumer held is not sent out again."""
    injection.plant(
        session, "_reclaim_leases", ("PERFORM durable_notify._defer(", "PERFORM pg_catalog.concat(")
    )


def no_fence(session: Session) -> None:
    """A settle under a superseded lease is as good as any."""
    look = "FOR KEY SHARE;"
    injection.plant(
        session, "settle", (look, f"{look} IF NOT FOUND THEN RETURN sent_back; END IF;")
    )


def keys_let_go(session: Session) -> None:
    """A key in progress does not hold back what comes after it."""
    injection.plant(
        session, "_triage", ("WHEN h.key IS NOT NULL THEN 'key'", "WHEN false THEN 'key'")
    )


def no_watermark(session: Session) -> None:
    """A strict group does not wait for publishers in flight."""
    injection.plant(
        session,
        "claim",
        ("max_id := durable_notify._advance_watermark(options.id);", "max_id := NULL;"),
    )


@pytest.mark.slow
@pytest.mark.skipif(
    "DURABLE_NOTIFY_TEST_PG" in os.environ,
    reason="What the checkers see is the same on each version.",
)
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("faults", "change", "checkers", "options"),
    [
        (("kill",), forgotten_leases, {"lost"}, {}),
        # Handlers that run while they are stopped for longer than their lease.
        (("stop",), no_fence, {"twice", "stale settle"}, {"work": 0.5, "rate": 10.0}),
        (("kill", "hold"), injection.cursor_by_id, {"lost"}, {}),
        ((), keys_let_go, {"disorder"}, {}),
        # A strict group that keeps up, or it would wait for the held transaction by chance.
        (("hold",), no_watermark, {"disorder"}, {"rate": 5.0, "work": 0.0}),
    ],
    ids=["forgotten leases", "no fence", "cursor by id", "keys released", "no watermark"],
)
def test_a_planted_fault_is_caught(
    faults: tuple[str, ...],
    change: Callable[[Session], None],
    checkers: set[str],
    options: dict[str, object],
) -> None:
    """Tried again, with other decisions, where a run by chance does not come to it."""
    for attempt in range(4):
        seed = f"{SEED}/{attempt}"
        report = tortured(faults, 4, seed=seed, prepare=planted(change), lease=1.0, **options)
        found = {finding.checker for finding in report.verdict.findings}
        if found & checkers:
            shown = next(f for f in report.verdict.findings if f.checker in checkers)
            assert shown.events
            return
    pytest.fail(f"none of {checkers} was found: {show(report)}")


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    command = [
        "torture",
        "--seconds",
        "1",
        "--seed",
        "5",
        "--faults",
        "kill,cut",
        "--keep",
        str(folder),
    ]
    told = json.loads(good(*command, "--json"))
    assert told["good"] is True
    assert told["seed"] == "5"
    assert told["figures"]["committed"] > 0
    assert list(folder.glob("publisher 1.*.jsonl"))
    fails(run(*command), 2, "records of another run")
    assert "SIGKILL the postmaster" in good("torture", "--faults", "list")
    fails(run("torture", "--faults", "meteor"), 2, "no such fault: meteor; there are kill")
    fails(run("torture", "--seconds", "0"), 2, "positive number of seconds")
    fails(run("torture", "--bindir", str(tmp_path)), 1, "no")
