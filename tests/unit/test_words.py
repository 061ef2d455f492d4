"""tools/words.py finds the words to avoid, and CONTRIBUTING.md lists them."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from tests.support.postgres import CHECKOUT


@pytest.fixture(scope="module")
def words() -> ModuleType:
    spec = importlib.util.spec_from_file_location("words", CHECKOUT / "tools" / "words.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A consumer waits.", []),
        ("one\nNobody waits, and it went on.", [(2, "Nobody"), (2, "went on")]),
        ("# the message comes\n# again after it", [(1, "comes # again")]),
        ("-- it goes\n   -- on", [(1, "goes -- on")]),
        ("def test_nobody_goes_on", [(1, "nobody"), (1, "goes_on")]),
        ("the agony of an ago on a newer flag", []),
        ("obeyed and mending", [(1, "obeyed"), (1, "mending")]),
        ("a\n<!-- words: off -->\nanew\n<!-- words: on -->\nanew", [(5, "anew")]),
    ],
)
def test_found(words: ModuleType, text: str, expected: list[tuple[int, str]]) -> None:
    assert [(line, word) for line, word, _ in words.found(text)] == expected


def test_the_list_is_in_contributing(words: ModuleType) -> None:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page[page.index("words: off") : page.index("words: on")]
    avoided = table[: table.index("| instead of |")]
    for pattern in words.AVOID:
        assert re.search(pattern, avoided), pattern


def test_the_checked_files_have_none(words: ModuleType) -> None:
    assert words.files()
    assert words.main() == 0
