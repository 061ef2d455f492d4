"""The comparison has a row, a paragraph and a version for every system, and our own cells are true."""

from __future__ import annotations

import re

from durable_notify.options import ConsumerOptions
from tests.support.postgres import CHECKOUT

PAGE = (CHECKOUT / "docs" / "comparison.md").read_text(encoding="utf-8")
OURS = "durable_notify"
PEERS = [
    "RabbitMQ", "NATS JetStream", "Kafka", "PgQ", "PGMQ", "PgQueuer", "Procrastinate", "River", "Oban",
    "pg-boss", "faststream-outbox",
]  # fmt: skip


def tables() -> list[list[list[str]]]:
    """The tables of the page: their rows, and the cells of each."""
    found = re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for table in found
    ]


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_system_has_a_row_in_every_table() -> None:
    assert tables()
    for _, _, *rows in tables():
        assert [row[0] for row in rows] == [f"**{name}**" for name in (OURS, *PEERS)]


def test_no_cell_is_empty() -> None:
    for headings, _, *rows in tables():
        assert all(headings[1:])
        for row in rows:
            assert len(row) == len(headings)
            assert all(row), row


def test_every_peer_has_a_paragraph_that_says_when_to_choose_which() -> None:
    paragraphs = dict(re.findall(r"(?ms)^\*\*([^*]+)\.\*\* (.+?)\n\n", section("Which one")))
    assert list(paragraphs) == PEERS
    for name, text in paragraphs.items():
        assert "Choose it " in text, name
        assert f"Choose {OURS} " in " ".join(text.split()), name


def test_every_peer_has_the_version_that_was_looked_at() -> None:
    versions = re.findall(r"(?m)^- ([^:]+): .*\d", section("What was looked at"))
    assert versions == PEERS


def test_our_own_times() -> None:
    options = ConsumerOptions.of("g", ["t"], {})
    (row,) = [
        row
        for _, _, *rows in tables()
        for row in rows
        if row[0] == f"**{OURS}**" and "poll" in row[2]
    ]
    assert f"poll {options.poll_interval:g} s" in row[2]
    assert row[3] == f"after {options.lease:g} s"
