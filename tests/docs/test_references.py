"""Each document, file and test that a file of the repository names is in the repository."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import CHECKOUT

SUFFIXES = (".md", ".py", ".sql", ".mako", ".toml", ".yaml", ".yml", ".mjs", ".pml")
#: The history, which names what is gone, and this file, which names what never was.
LEFT_OUT = {"CHANGELOG.md", "tests/docs/test_references.py"}
#: Files that a reader of a page writes, or that are there only at times.
AT_TIMES = {"tests/test_orders.py", "migrations/pending.sql", "migrations/pending.down.sql"}
#: Pages that only the site has; tools/docs makes them.
ON_THE_SITE = {"tour.md", "pages.md", "repository.md"}

_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)\s]*)?\)")
#: A path from the top of the repository, and what it defines: `tests/docs/pages.py::blocks`.
_PATH = re.compile(
    r"(?<![\w/.*-])"
    r"((?:benchmarks|ci|deploy|docs|durable_notify|examples|migrations|model|tests|tools)"
    r"/[\w./-]+\.(?:md|sql|py|pml|mjs))\b(?:::(\w+))?"
)
#: A document or a test without its folder, and a section of a document.
_NAME = re.compile(r"(?<![\w/.*{}-])([\w-]+\.md|test_\w+\.py)\b|(?<![\w/])([A-Z]{4,}) section \d")
#: A file that the reader of a page writes.
_WRITTEN = re.compile(r"<!-- file: (\S+) -->")
_PLACEHOLDER = re.compile(r"NNNN|NAME")


def tracked() -> list[str]:
    """The files of the repository, and those that are about to be added."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (CHECKOUT / name).is_file()]


FILES = tracked()
NAMES = {name.rpartition("/")[2] for name in FILES}


def defines(path: str, name: str) -> bool:
    """Whether a Python file defines a function or a class."""
    text = (CHECKOUT / path).read_text(encoding="utf-8")
    return re.search(rf"^ *(?:async )?(?:def|class) {name}\b", text, re.MULTILINE) is not None


def missing(text: str, folder: Path | None) -> Iterator[str]:
    """Yield what a text names and is not there; links count in a document, which has a folder."""
    for target in _LINK.findall(text) if folder else ():
        if not (folder / target).exists():
            yield target
    for path, name in _PATH.findall(text):
        if path in AT_TIMES or _PLACEHOLDER.search(path):
            continue
        if not (CHECKOUT / path).is_file():
            yield path
        elif name and not defines(path, name):
            yield f"{path}::{name}"
    there = {*NAMES, *ON_THE_SITE, *_WRITTEN.findall(text)}
    for name, document in _NAME.findall(text):
        if (name or f"{document}.md") not in there:
            yield name or f"{document}.md"


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.endswith(SUFFIXES) and name not in LEFT_OUT]
)
def test_what_it_names_is_there(name: str) -> None:
    path = CHECKOUT / name
    text = path.read_text(encoding="utf-8")
    assert list(missing(text, path.parent if name.endswith(".md") else None)) == []


def test_what_is_missing_is_found() -> None:
    text = "[a](gone.py) `docs/gone.md` `tests/conftest.py::gone` GONE.md, test_gone.py, GONE section 3"
    assert list(missing(text, CHECKOUT)) == [
        "gone.py", "docs/gone.md", "tests/conftest.py::gone", "GONE.md", "test_gone.py", "GONE.md",
    ]  # fmt: skip
    text = "[a](docs/sql.md#x) `docs/index.md` CONTRIBUTING.md test_references.py `tests/docs/pages.py::blocks`"
    assert list(missing(text, CHECKOUT)) == []
