"""docs/doctor.md has every finding, with its level, why it matters and what to do."""

from __future__ import annotations

import re

from durable_notify.diagnostics.findings import KINDS
from tests.docs.test_complete import page, section

LEVELS = {"Errors": "error", "Warnings": "warning", "Notes": "note"}


def plain(text: str) -> str:
    """One line, with a word in capitals for each value."""
    return re.sub(r"\{(\w+)\}", lambda value: value[1].upper(), " ".join(text.split()))


def test_findings() -> None:
    documented = {}
    for title, level in LEVELS.items():
        for part in section("docs/doctor.md", title).split("\n### ")[1:]:
            name, _, text = part.partition("\n")
            why, _, remedy = text.strip().partition("\n\n> ")
            documented[name] = (level, plain(why), plain(remedy.replace("\n> ", " ")))
    assert documented == {
        name: (kind.level, plain(kind.why), plain(kind.remedy)) for name, kind in KINDS.items()
    }
    assert page("docs/doctor.md")
