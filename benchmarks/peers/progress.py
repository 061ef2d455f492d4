"""What a run has measured so far, saved after each measurement, so that it can be resumed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers import install

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from benchmarks.peers.report import Round

FOLDER = install.VENV


def begin(
    options: Namespace, about: dict[str, Any], measures: Mapping[str, Collection[str]]
) -> Progress:
    """Return an empty progress, or the saved one; only a run that is kept saves it.

    `measures`: by peer, what it can do.
    """
    path = FOLDER / ("progress.json" if options.flush is None else "progress-flush.json")
    saved = json.loads(path.read_text()) if options.resume and path.exists() else {}
    return Progress(path if options.kept else None, saved, about, measures)


class Progress:
    """The measurements of a run, those of its earlier parts included."""

    def __init__(
        self,
        path: Path | None,
        saved: Mapping[str, Any],
        about: dict[str, Any],
        measures: Mapping[str, Collection[str]],
    ) -> None:
        self._path, self._measures = path, measures
        self._begun = time.monotonic()
        self._before: float = saved.get("seconds", 0)
        # What failed is measured again.
        self.rounds: list[Round] = [one for one in saved.get("rounds", ()) if "error" not in one]
        commits = [*saved.get("commits", ()), about["commit"]]
        self._commits = list(dict.fromkeys(commits))
        self._about = about
        self._there = {(one["measure"], one["round"], one["peer"]) for one in self.rounds}

    @property
    def seconds(self) -> int:
        """How long the parts took together."""
        return round(self._before + time.monotonic() - self._begun)

    @property
    def about(self) -> dict[str, Any]:
        """The settings and hardware, by the last part."""
        return self._about | {"seconds": self.seconds, "commits": self._commits}

    def lacks(self, measure: str, number: int, peer: str) -> bool:
        """Whether a peer has this measure, and this round of it was not measured yet."""
        return measure in self._measures[peer] and (measure, number, peer) not in self._there

    def left(self, rounds: int) -> int:
        """Return how many measurements are missing for the results."""
        return sum(
            self.lacks(measure, number, peer)
            for peer, measures in self._measures.items()
            for measure in measures
            for number in range(1, rounds + 1)
        )

    def add(self, taken: Round) -> None:
        """Add a measurement, and save."""
        self.rounds.append(taken)
        self._there.add((taken["measure"], taken["round"], taken["peer"]))
        if self._path is not None:
            saved = {"seconds": self.seconds, "commits": self._commits, "rounds": self.rounds}
            self._path.with_suffix(".new").write_text(json.dumps(saved))
            self._path.with_suffix(".new").replace(self._path)

    def forget(self) -> None:
        """Remove what was saved: it is in the results now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
