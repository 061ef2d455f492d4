"""A run of all peers that is ended before can be resumed."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import progress, report

MEASURES = {"pgmq": ("consume", "wake"), "river": ("consume",)}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(progress, "FOLDER", tmp_path)


def begun(
    *, resume: bool = False, kept: bool = True, flush: float | None = None, commit: str = "one"
) -> progress.Progress:
    options = Namespace(resume=resume, kept=kept, flush=flush)
    about = {"commit": commit}
    return progress.begin(options, about, MEASURES)


def taken(peer: str = "pgmq", number: int = 1, **result: Any) -> report.Round:
    return {"measure": "consume", "round": number, "peer": peer} | (result or {"rate": 1.0})


def test_what_was_measured_is_not_measured_again() -> None:
    first = begun()
    first.add(taken())
    first.add(taken("river", error="it broke"))
    again = begun(resume=True, commit="two")
    assert again.rounds == [taken()]
    assert not again.lacks("consume", 1, "pgmq")
    assert again.lacks("consume", 2, "pgmq")
    assert again.lacks("wake", 1, "pgmq")
    assert again.lacks("consume", 1, "river")  # it failed
    assert again.about["commits"] == ["one", "two"]
    assert again.left(2) == first.left(2) + 1


def test_a_new_run_begins_with_nothing() -> None:
    begun().add(taken())
    assert not begun().rounds
    assert not begun(resume=True, flush=1.5).rounds


def test_a_run_of_some_leaves_the_progress_alone() -> None:
    begun().add(taken())
    some = begun(kept=False)
    some.add(taken(number=2))
    some.forget()
    assert begun(resume=True).rounds == [taken()]


def test_it_is_complete_with_all_that_the_peers_can_do() -> None:
    whole = begun()
    whole.add(taken())
    whole.add(taken("river"))
    assert whole.left(1) == 1
    whole.add(taken() | {"measure": "wake"})
    assert whole.left(1) == 0
    assert not whole.lacks("wake", 1, "river")  # which cannot do that
    whole.forget()
    assert not begun(resume=True).rounds
