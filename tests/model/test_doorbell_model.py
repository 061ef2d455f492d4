"""The doorbell's protocol, checked exhaustively with Spin: ``model/doorbell.pml``.

Planted errors show that the checker finds some. DURABLE_NOTIFY_MODEL=long tries
larger crowds as well.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.missing import need_program, slow_but
from tests.support.postgres import CHECKOUT

pytestmark = pytest.mark.server

MODEL = CHECKOUT / "model" / "doorbell.pml"
LONG = os.environ.get("DURABLE_NOTIFY_MODEL") == "long"

RIGHT = [
    "",  # 2 publishers, 2 consumers, a death of each, all isolation levels
    "VARIANT_STRICT_WATCHES",
    "MESSAGES=2 CONSUMERS=1",  # several in one transaction, or one transaction after the other
    "PUBLISHERS=3 CONSUMERS=1",
]
RIGHT_LONG = [
    "VARIANT_SIMPLE_LOOK",
    "VARIANT_STRANGER_WAITS",
    "VARIANT_STRANGER_TRIES",
    "MESSAGES=2 OTHERS_MESSAGES=1 CONSUMER_DEATHS=0 PUBLISHER_DEATHS=0",
    "VARIANT_FLAG_FRESH ISOLATION=1",
    "VARIANT_STRICT_WATCHES MESSAGES=2 CONSUMERS=1",
]
WRONG = [
    "VARIANT_FLAG_IN_TABLE",
    "VARIANT_FLAG_IN_TABLE ISOLATION=1",
    "VARIANT_FLAG_IN_TABLE ISOLATION=2",
    "VARIANT_FLAG_IN_TABLE ISOLATION=3",
    "VARIANT_NO_LIST",
    "VARIANT_READ_BEFORE_ARM",
    "VARIANT_LISTEN_AFTER_READ",
    "VARIANT_PLAIN_LIST_AFTER_READ",
    "VARIANT_X_ONCE",
    "VARIANT_STRANGER_WAITS VARIANT_SHORTCUT CONSUMERS=1",
    "VARIANT_LOOK_BEFORE_XID",
    "VARIANT_LOCKS_GO_FIRST",
    "VARIANT_NOTIFY_TOO_EARLY",
    "VARIANT_CANCEL_BETWEEN",
    "VARIANT_FORGETS_TO_REARM",
    "VARIANT_FORGET_LATE",
    "VARIANT_STRIKE_AFTER_READ",
    "VARIANT_STRICT",
]


@dataclass
class Verdict:
    errors: int
    states: int
    text: str


def check(folder: Path, options: str, optimise: str = "-O2") -> Verdict:
    """Have Spin look at every state that there is, or at as many as it takes to find an error."""
    for program in ("spin", "gcc"):
        need_program(program, fail_in_ci=True)
    macros = [f"-D{word}" for word in options.split()]
    compiler = ["gcc", optimise, "-DSAFETY", "-DMEMLIM=4000", "-w", "-o", "pan", "pan.c"]
    for command in (["spin", *macros, "-a", str(MODEL)], compiler):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        ["./pan", "-m10000"], cwd=folder, check=False, capture_output=True, text=True
    )
    found = re.search(r"errors: (\d+)", done.stdout)
    states = re.search(r"(\d+) states, stored", done.stdout)
    assert found, done.stdout + done.stderr
    assert states, done.stdout + done.stderr
    assert "max search depth too small" not in done.stdout
    if found[1] == "0":
        # Trap: at its limit of memory pan says so, and then "errors: 0".
        assert "not completed" not in done.stdout, done.stdout
        assert "-DMEMLIM" not in done.stdout + done.stderr, done.stdout
    return Verdict(int(found[1]), int(states[1]), done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("options", RIGHT + (RIGHT_LONG if LONG else []))
def test_no_wake_up_is_lost(tmp_path: Path, options: str) -> None:
    verdict = check(tmp_path, options)
    assert verdict.errors == 0, verdict.text
    assert verdict.states > 100_000, "so few states are not the whole of it"
    if not options:
        assert "unreached in proctype" in verdict.text
        unreached = re.findall(r"pml:\d+, state \d+, (.*)", verdict.text)
        assert set(unreached) <= {'"-end-"'}, "steps that are never taken prove nothing"


@pytest.mark.parametrize("options", slow_but(WRONG, *WRONG[:3]))
def test_what_is_wrong_is_found_wrong(tmp_path: Path, options: str) -> None:
    verdict = check(tmp_path, options, "-O0")  # compiling takes longer than finding it
    assert verdict.errors
    lost = "assertion violated (got[group]==committed)"
    left_behind = "assertion violated (((X|S)&(1<<_pid))==0)"
    assert (left_behind if options == "VARIANT_CANCEL_BETWEEN" else lost) in verdict.text


#: The same state, found sooner.
NEEDS_ONE_CONSUMER = {"REACH_SHORTCUT"}


def reached() -> list[str]:
    return sorted(set(re.findall(r"REACH_[A-Z_]*[A-Z]", MODEL.read_text())))


@pytest.mark.parametrize("place", slow_but(reached(), *reached()[:3]))
def test_everything_is_reached(tmp_path: Path, place: str) -> None:
    """A planted assertion fails there, so the model does get there: it is not right by emptiness."""
    options = f"{place} CONSUMERS=1" if place in NEEDS_ONE_CONSUMER else place
    verdict = check(tmp_path, options, "-O0")
    assert verdict.errors
    assert "assertion violated" in verdict.text
