"""What docs/performance.md says of the peers is what was measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.peers import install, report
from benchmarks.peers.base import MEASURES
from benchmarks.peers.clients import PEERS, load


def rate(peer: str, measure: str, *rates: float) -> list[report.Round]:
    return [
        {"measure": measure, "round": number, "peer": peer, "rate": each}
        for number, each in enumerate(rates, 1)
    ]


def wake(peer: str, *middles: int) -> list[report.Round]:
    return [
        {
            "measure": "wake",
            "round": number,
            "peer": peer,
            "lost": 0,
            "since_sent": [each - 1, each, each + 1],
            "since_confirmed": [each - 500] * 3,
        }
        for number, each in enumerate(middles, 1)
    ]


def test_the_page_shows_the_results() -> None:
    results = json.loads((report.RESULTS / "peers.json").read_text())
    _, _, rest = report.PAGE.read_text().partition(report.MARKS[0])
    section, mark, _ = rest.partition(report.MARKS[1])
    assert mark
    assert section.strip() == report.section(results).strip(), "run benchmarks/peers/run.py --table"


def test_every_peer_and_measure_has_a_name() -> None:
    assert set(report.NAMES) == set(PEERS)
    assert set(report.TITLES) == set(MEASURES)


def test_the_best_comes_first() -> None:
    rounds = rate("pgmq", "consume", 50, 300, 60) + rate("durable_notify", "consume", 100, 90, 120)
    _, _, *rows = report.table("consume", rounds).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["**durable_notify**", "PGMQ"]
    assert [cell.strip() for cell in rows[1].split("|")[2:5]] == ["60", "50 to 300", "2.00"]

    rounds = wake("pgmq", 2000, 2000) + wake("durable_notify", 3000, 4000)
    _, _, *rows = report.table("wake", rounds).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["PGMQ", "**durable_notify**"]
    assert [cell.strip() for cell in rows[0].split("|")[2:8]] == [
        "2.00", "2.00 to 2.00", "2.00", "1.50", "0", "1.75",
    ]  # fmt: skip


def test_what_failed_is_said() -> None:
    rounds = rate("durable_notify", "consume", 100)
    rounds += [{"measure": "consume", "round": 1, "peer": "pgmq", "error": "no table"}]
    assert "PGMQ failed: no table" in report.table("consume", rounds)
    assert "PGMQ" not in report.table("wake", rounds + wake("durable_notify", 3000))


def test_what_is_better_is_said() -> None:
    rounds = rate("durable_notify", "consume", 100, 100) + rate("redis", "consume", 150, 160)
    rounds += rate("nats", "consume", 120, 130) + rate("river", "consume", 102, 101)
    rounds += rate("durable_notify", "consume4", 100) + rate("pgmq", "consume4", 110)
    rounds += rate("river", "consume4", 120) + rate("procrastinate", "consume4", 10)
    rounds += wake("durable_notify", 3000, 3000) + wake("bare-notify", 1000, 1000)
    assert report.conclusion(rounds) == (
        "On PostgreSQL, others are faster at consuming in four processes (River and PGMQ);"
        " waking (a hand-written NOTIFY and SELECT); at nothing else."
        " Of the separate servers, others are faster at consuming (all of them); at nothing else."
    )
    assert report.conclusion(rate("durable_notify", "consume", 100)).startswith(
        "On PostgreSQL, nothing is faster at any of these."
    )


def test_no_address_of_a_registry_is_pinned() -> None:
    assert '"resolved"' not in (install.CLIENTS / "node" / "package-lock.json").read_text()


@pytest.mark.parametrize("name", ["package.json", "package-lock.json"])
def test_versions_are_exact(name: str) -> None:
    package = json.loads((install.CLIENTS / "node" / name).read_text())
    wanted = package.get("packages", {}).get("", package)["dependencies"]
    assert all(version[0].isdigit() for version in wanted.values())


def test_a_missing_toolchain_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install.shutil, "which", lambda _name: None)
    install.install_river()
    install.install_scripts()
    assert capsys.readouterr().out.splitlines() == [
        "not installed: go, which River needs",
        "not installed: npm, which pg-boss and Graphile Worker need",
    ]


def test_a_peer_without_its_program_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    river = load("river")
    monkeypatch.setattr(river, "command", (install.BIN / "gone",))
    assert river.missing() == f"{install.BIN / 'gone'} was not installed"
    assert load("durable_notify").missing() is None
