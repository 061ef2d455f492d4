"""Every pattern that sees text from outside: its time grows with the text, not with its square."""

from __future__ import annotations

import ast
import functools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import durable_notify
from durable_notify._core.sanitize import describe, redact, text_of
from durable_notify.cli.errors import _unquoted
from durable_notify.topics import matches

PACKAGE = Path(durable_notify.__file__).parent
CALLS = ("match", "search", "fullmatch", "sub", "split", "findall", "finditer")
SMALL, LARGE = 500, 2_000
#: Four times as much text may take so many times as long; by the square it is sixteen.
MOST = 9.0
SHORT = 5e-4
#: What is repeated, and what may stand before and after it.
PIECES = (
    "a", "0", " ", "a ", "a.", "a+", "+", "://", "a://", "a://b:", "a:", ":", "@", "a@", "://a:b@",
    "'", "\\'", "password=", "password=\\'", "password ='", "password", "=", "\n", "\\", "/", ".",
    "{a", "}", "-", "_", ",", "1:", "1,", "*", "\u2028", "\x00", "é",
)  # fmt: skip
BEFORE = ("", "a://b:", "password='", "postgresql+", "0:0:")


def patterns() -> Iterator[tuple[str, str, str]]:
    """Every pattern that stands in the source: where, what, and how it is used."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "_sync" in path.parts:
            continue
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                name, call = ast.unparse(node.targets[0]), node.value
                used = re.findall(rf"\b{re.escape(name)}\.([a-z]+)\(", source)
            elif isinstance(node, ast.Call):
                call, used = node, [ast.unparse(node.func).removeprefix("re.")]
            else:
                continue
            if ast.unparse(call.func).startswith("re.") and isinstance(call.args[0], ast.Constant):
                for method in sorted(set(used) & set(CALLS)):
                    where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                    value = call.args[0].value
                    yield where, value.decode() if isinstance(value, bytes) else value, method


def spent(function: Callable[[str], object], text: str, calls: int) -> float:
    """The least processor time of a few calls, in seconds."""
    times = []
    for _ in range(calls):
        before = time.thread_time()
        function(text)
        times.append(time.thread_time() - before)
    return min(times)


def grows(function: Callable[[str], object], pieces: tuple[str, ...] = PIECES) -> list[str]:
    """The texts, if any, over which its time grows by the square."""
    found = []
    for piece in pieces:
        for before in BEFORE:
            small, large = (f"{before}{piece * (size // len(piece))}!" for size in (SMALL, LARGE))
            # What is over at once says nothing.
            if spent(function, large, 1) < SHORT or spent(function, large, 3) < SHORT:
                continue
            if spent(function, large, 5) > MOST * spent(function, small, 5):
                found.append(f"{before}{piece}...!")
    return found


def test_there_are_patterns() -> None:
    assert len(list(patterns())) > 20


@pytest.mark.parametrize(("where", "pattern", "method"), list(patterns()))
def test_patterns(where: str, pattern: str, method: str) -> None:
    called = getattr(re.compile(pattern), method)
    if method == "sub":
        called = functools.partial(called, "x")
    assert grows(called) == [], where


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "redact": redact,
    "an exception's text": lambda text: text_of(ValueError(text)),
    "an exception": lambda text: describe(ValueError(text)),
    "what click says": _unquoted,
    "a topic by its pattern": functools.partial(matches, "a.*.b.>"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    assert grows(FUNCTIONS[name]) == []


@pytest.mark.parametrize(
    "pattern", [r"[a-zA-Z][\w+.-]*://", r"([a-z]+://[^\s:/@]*:)[^\s]*(?=@)", r"[\w+]+://"]
)
def test_planted(pattern: str) -> None:
    """As it was."""
    assert grows(functools.partial(re.compile(pattern).sub, "x"), ("a", "a://b:"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://me:s3cret@host/db now", "at postgresql://me:***@host/db now"),
        ("'postgresql://me:s3:c@ret@host'", "'postgresql://me:***@host'"),
        ("a://b:p@c,postgresql://d:q@e", "a://b:***@e"),
        ("http://x/?u=postgresql://d:q@e", "http://x/?u=postgresql://d:***@e"),
        ("http://host:80/path", "http://host:80/path"),
        ("password=s3cret host=h", "password=*** host=h"),
        ("sslpassword = 's3 cr\\'et' host=h", "sslpassword = *** host=h"),
        ("password='s3cret that is cut", "password=***"),
        ("me@host and 10:30", "me@host and 10:30"),
    ],
)
def test_passwords_go(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("length", range(1_900, 2_100, 7))
def test_no_password_is_cut_into(length: int) -> None:
    """A text is cut after what is secret in it has gone."""
    said = text_of(ValueError("x" * length + " postgresql://me:s3cret-s3cret@host/db"))
    assert "s3c" not in said
    assert len(said) <= 2_000


@pytest.mark.parametrize("length", range(7_900, 12_100, 97))
def test_no_password_is_cut_into_in_a_traceback(length: int) -> None:
    kept = describe(ValueError("postgresql://me:s3cret-s3cret@host/db " + "x" * length))
    assert "s3c" not in kept["traceback"]
    assert "cret@" not in kept["traceback"]
